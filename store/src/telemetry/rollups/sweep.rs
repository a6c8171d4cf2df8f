//! The sweep: moves the watermark, and makes the roll-ups of all that it passed.
//!
//! It is made of small steps, so that whoever drives it can rest between them: samples are read slice by slice of time and
//! put together here, then minutes are written some thousand at a time, then hours series by series. All of it is one
//! transaction that holds the marks, so nobody else rolls up meanwhile, and a part never looks like the whole.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use sqlx::{Postgres, Transaction};

use super::{
    claim,
    minutes::{Minute, Series, add, write_minutes},
};
use crate::{Error, Result, Store, telemetry::end};

/// Minutes of series that are put together at once. Where one minute has more, it is read in parts of the devices.
const MOST_MINUTES: usize = 100_000;

/// With as many a sweep ends at the next whole minute.
const ENOUGH_MINUTES: usize = 2_000;

/// Minutes written, and series whose hours are, in one step.
const WRITTEN_AT_ONCE: usize = 1_000;
const HOURS_AT_ONCE: usize = 500;

/// A sweep under way: to be driven by [`Sweep::step`] and ended by [`Sweep::commit`] or [`Sweep::abandon`].
#[derive(Debug)]
pub struct Sweep {
    transaction: Transaction<'static, Postgres>,
    from: DateTime<Utc>,
    announced: DateTime<Utc>,
    /// Where reading goes on.
    next: DateTime<Utc>,
    /// Where reading ends, once that is settled.
    until: Option<DateTime<Utc>>,
    /// Devices behind the first and up to the second are read.
    devices: (i64, i64),
    minutes: BTreeMap<Series, Minute>,
    work: Work,
    most: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Write,
    /// Of the series behind this one.
    Hours(i64, i32),
    Done,
}

/// What a step was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Samples were read: how many of them, and how wide in time.
    Read(i64, TimeDelta),
    /// Minutes or hours were written.
    Written,
    /// Nothing was left to do: the sweep is to be committed.
    Complete,
}

impl Store {
    /// Moves the watermark on to `until`, a whole minute; it never goes back. Writers wait for an instant. Returns whether
    /// it is there: `false` while another server is at work on the roll-ups.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] when a writer took too long to wait for.
    pub async fn announce_rollups(&self, until: DateTime<Utc>) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        sqlx::raw_sql("SET LOCAL lock_timeout = '2s'")
            .execute(&mut *transaction)
            .await?;
        let moved = sqlx::query_scalar!(r#"SELECT telemetry_announce($1) AS "moved!""#, until)
            .fetch_one(&mut *transaction)
            .await;
        end(transaction, moved.map_err(Error::from)).await
    }

    /// Begins to make the roll-ups of the oldest that is announced and not made yet: of an hour at most, of a minute where
    /// there is much. `None` when there is nothing to do, or another server does it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_sweep(&self) -> Result<Option<Sweep>> {
        self.begin_sweep_of(MOST_MINUTES).await
    }

    pub(in super::super) async fn begin_sweep_of(&self, most: usize) -> Result<Option<Sweep>> {
        let mut transaction = self.pool.begin().await?;
        let marks = match claim(&mut transaction).await {
            Ok(Some(marks)) if marks.rolled < marks.announced => marks,
            other => {
                let _ = transaction.rollback().await;
                return other.map(|_| None);
            }
        };
        let mut sweep = Sweep {
            transaction,
            from: marks.rolled,
            announced: marks.announced,
            next: marks.rolled,
            until: None,
            devices: (i64::MIN, i64::MAX),
            minutes: BTreeMap::new(),
            work: Work::Read,
            most,
        };
        match sweep.turn(Work::Read).await {
            Ok(()) => Ok(Some(sweep)),
            Err(error) => {
                sweep.abandon().await;
                Err(error)
            }
        }
    }

    /// Lets the index by time tell of the newest pages: before a sweep, which then reads no more than it needs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn summarize_telemetry(&self, now: DateTime<Utc>) -> Result<()> {
        sqlx::query!("SELECT telemetry_summarize($1)", now.date_naive())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

impl Sweep {
    /// From when on it makes roll-ups.
    #[must_use]
    pub fn from(&self) -> DateTime<Utc> {
        self.from
    }

    /// Does the next piece of work: reads samples of at most `width`, or writes some roll-ups.
    ///
    /// # Errors
    /// When the database fails: the sweep is to be abandoned.
    pub async fn step(&mut self, width: TimeDelta) -> Result<Step> {
        match self.work {
            Work::Read => self.read(width).await,
            Work::Write => self.write().await,
            Work::Hours(device_id, metric_id) => self.hours(device_id, metric_id).await,
            Work::Done => Ok(Step::Complete),
        }
    }

    /// Makes a complete sweep hold. Returns up to when everything is made now, and whether more is to be made. One that is not
    /// complete is abandoned.
    ///
    /// # Errors
    /// When the database fails; nothing is done then.
    pub async fn commit(mut self) -> Result<(DateTime<Utc>, bool)> {
        let (Work::Done, Some(rolled)) = (self.work, self.until) else {
            let from = self.from;
            self.abandon().await;
            return Ok((from, true));
        };
        sqlx::query!("UPDATE telemetry_rollup SET rolled = $1", rolled)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await?;
        Ok((rolled, rolled < self.announced))
    }

    /// Ends it as if it had never begun.
    pub async fn abandon(self) {
        // Without a connection it is taken back by the server.
        let _ = self.transaction.rollback().await;
    }

    /// Goes over to another kind of work, and has it planned well. What is read at once is a small part of its partition
    /// whatever old statistics say of it, and so are its groups: the index by time finds it, and nothing is worth
    /// sorting. What is written is looked up row by row.
    async fn turn(&mut self, work: Work) -> Result<()> {
        let planned = match work {
            Work::Read => {
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; SET LOCAL enable_sort = off;
                 SET LOCAL work_mem = '16MB'"
            }
            Work::Write | Work::Hours(..) => {
                "SET LOCAL enable_indexscan = on; SET LOCAL enable_sort = on"
            }
            Work::Done => "",
        };
        if !planned.is_empty() {
            sqlx::raw_sql(planned).execute(&mut *self.transaction).await?;
        }
        self.work = work;
        Ok(())
    }

    async fn read(&mut self, width: TimeDelta) -> Result<Step> {
        let from = self.next;
        let to = slice(from, width, self.until.unwrap_or(self.announced));
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        let read = sqlx::query_as!(
            Minute,
            r#"SELECT device_id, metric_id, date_bin('1 minute', at, '2001-01-01T00:00:00Z') AS "minute!", max(at) AS "last_at!",
                      count(*) AS "samples!", count(number) + count(flag) AS "numbers!",
                      min(coalesce(number, flag::int)) AS min, max(coalesce(number, flag::int)) AS max,
                      sum(least(greatest(coalesce(number, flag::int), -1e290), 1e290))
                          FILTER (WHERE text IS NULL) AS sum
               FROM telemetry WHERE at >= $1 AND at < $2 AND device_id > $3 AND device_id <= $4
               GROUP BY device_id, metric_id, 3 LIMIT $5"#,
            from,
            to,
            self.devices.0,
            self.devices.1,
            most.saturating_add(1),
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        if self.minutes.len() + read.len() > self.most {
            self.narrow(from, to, &read).await?;
            return Ok(Step::Read(0, to - from));
        }
        let samples = read.iter().map(|minute| minute.samples).sum();
        for minute in read {
            add(&mut self.minutes, minute);
        }
        self.next = to;
        let settled = self.until.unwrap_or(self.announced);
        let enough = to == minute(to) && (self.minutes.len() >= ENOUGH_MINUTES || to == hour(to));
        if to >= settled || (self.until.is_none() && enough) {
            self.until = Some(to);
            self.turn(Work::Write).await?;
        }
        Ok(Step::Read(samples, to - from))
    }

    /// Makes less of what is too much, to be read again: a shorter time, or else fewer devices.
    async fn narrow(&mut self, from: DateTime<Utc>, to: DateTime<Utc>, read: &[Minute]) -> Result<()> {
        let whole = minute(from) + TimeDelta::minutes(1);
        if self.until.is_none() && self.minutes.is_empty() && to > whole {
            self.until = Some(whole);
            return Ok(());
        }
        if self.until.is_none() && minute(from) == from && !self.minutes.is_empty() {
            // What there is so far is enough, and ends with a whole minute.
            self.until = Some(from);
            return self.turn(Work::Write).await;
        }
        let known = self.minutes.keys().map(|(device_id, ..)| *device_id);
        let mut ids: Vec<i64> = known.chain(read.iter().map(|minute| minute.device_id)).collect();
        ids.sort_unstable();
        let middle = ids.get(ids.len() / 2).copied().unwrap_or(self.devices.1);
        // The half below: the one in the middle may have all there is.
        let below = ids.iter().rev().copied().find(|id| *id < middle);
        let upto = below.unwrap_or(middle);
        if upto >= self.devices.1 {
            // A device alone: it has what it has.
            self.most = self.most.saturating_mul(2);
        } else {
            self.devices.1 = upto;
            self.minutes.retain(|(device_id, ..), _| *device_id <= upto);
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<Step> {
        let some: Vec<Minute> = std::iter::from_fn(|| self.minutes.pop_first().map(|(_, minute)| minute))
            .take(WRITTEN_AT_ONCE)
            .collect();
        let until = self.until.unwrap_or(self.next);
        if !some.is_empty() {
            write_minutes(&mut self.transaction, &some, self.from, until).await?;
        }
        if self.minutes.is_empty() {
            let next = if self.devices.1 < i64::MAX {
                self.devices = (self.devices.1, i64::MAX);
                self.next = self.from;
                Work::Read
            } else if hour(self.from) < hour(until) && self.hour_has_minutes().await? {
                Work::Hours(i64::MIN, i32::MIN)
            } else {
                Work::Done
            };
            self.turn(next).await?;
        }
        Ok(Step::Written)
    }

    async fn hour_has_minutes(&mut self) -> Result<bool> {
        let from = hour(self.from);
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM telemetry_minutes WHERE at >= $1 AND at < $2) AS "some!""#,
            from,
            from + TimeDelta::hours(1),
        )
        .fetch_one(&mut *self.transaction)
        .await?)
    }

    /// Makes the hour that ended, of the next some series. A series is one that its device is known to send.
    async fn hours(&mut self, device_id: i64, metric_id: i32) -> Result<Step> {
        let (from, to) = (hour(self.from), hour(self.from) + TimeDelta::hours(1));
        let limit = i64::try_from(HOURS_AT_ONCE).unwrap_or(i64::MAX);
        let series = sqlx::query!(
            "SELECT device_id, metric_id FROM device_metrics WHERE (device_id, metric_id) > ($1, $2)
             ORDER BY device_id, metric_id LIMIT $3",
            device_id,
            metric_id,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let (devices, metrics): (Vec<i64>, Vec<i32>) =
            series.iter().map(|row| (row.device_id, row.metric_id)).unzip();
        upsert!(
            "telemetry_hours",
            [
                "SELECT s.device_id, s.metric_id, $3, l.last_at, b.samples, b.numbers, b.min, b.max, b.sum,
                    l.last_number, l.last_flag, l.last_text
             FROM unnest($1::bigint[], $2::integer[]) AS s (device_id, metric_id)
             CROSS JOIN LATERAL (
                 SELECT m.last_at, m.last_number, m.last_flag, m.last_text FROM telemetry_minutes m
                 WHERE m.device_id = s.device_id AND m.metric_id = s.metric_id AND m.at >= $3 AND m.at < $4
                 ORDER BY m.at DESC LIMIT 1) l
             CROSS JOIN LATERAL (
                 SELECT sum(samples) AS samples, sum(numbers) AS numbers, min(min) AS min, max(max) AS max,
                        sum(sum) AS sum
                 FROM telemetry_minutes m
                 WHERE m.device_id = s.device_id AND m.metric_id = s.metric_id AND m.at >= $3 AND m.at < $4
                 OFFSET 0) b"
            ],
            &devices,
            &metrics,
            from,
            to,
        )
        .execute(&mut *self.transaction)
        .await?;
        self.work = match series.last() {
            Some(last) if series.len() == HOURS_AT_ONCE => Work::Hours(last.device_id, last.metric_id),
            _ => Work::Done,
        };
        Ok(Step::Written)
    }
}

/// The end of a slice: within a minute, or a whole one; never beyond the hour.
fn slice(from: DateTime<Utc>, width: TimeDelta, until: DateTime<Utc>) -> DateTime<Utc> {
    let whole = minute(from) + TimeDelta::minutes(1);
    let to = from + width.max(TimeDelta::milliseconds(1));
    let to = if to > whole { minute(to) } else { to };
    to.min(until).min(hour(from) + TimeDelta::hours(1))
}

/// The beginning of the hour.
fn hour(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

/// The beginning of the minute.
fn minute(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::minutes(1)).unwrap_or(at)
}
