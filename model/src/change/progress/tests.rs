use proptest::prelude::*;

use super::*;

const AFTER: u32 = 5;

/// What a simulated device does with the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Applies it this many ticks later.
    Applies(u32),
    /// Refuses it this many ticks later.
    Refuses(u32),
    /// Never answers.
    Silent,
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        6 => (0..4_u32).prop_map(Manner::Applies),
        1 => (0..4_u32).prop_map(Manner::Refuses),
        1 => Just(Manner::Silent),
    ]
}

/// A change over simulated devices, a tick at a time.
struct Run {
    devices: Vec<Manner>,
    canary: usize,
    batch: usize,
    abort: Abort,
    given_at: Vec<Option<u32>>,
    now: u32,
    stage: Stage,
}

impl Run {
    fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        let within = if self.stage == Stage::Canary {
            self.canary
        } else {
            self.devices.len()
        };
        for (place, (manner, given_at)) in self.devices.iter().zip(&self.given_at).enumerate() {
            let Some(at) = given_at else {
                progress.waiting += u32::from(place < within);
                continue;
            };
            progress.given += 1;
            match manner {
                Manner::Applies(ticks) if at + ticks <= self.now => {}
                Manner::Refuses(ticks) if at + ticks <= self.now => progress.refused += 1,
                _ => {
                    progress.pending += 1;
                    progress.silent += u32::from(at + AFTER <= self.now);
                }
            }
        }
        progress
    }

    fn given(&self) -> usize {
        self.given_at.iter().flatten().count()
    }

    fn give(&mut self) {
        let now = self.now;
        let untouched = self.given_at.iter_mut().filter(|at| at.is_none());
        for at in untouched.take(self.batch) {
            *at = Some(now);
        }
    }

    /// Runs to the end; what it ended with.
    fn run(&mut self) -> Result<Next, TestCaseError> {
        for _ in 0..10_000 {
            let progress = self.progress();
            let next = progress.next(self.stage, &self.abort);
            match next {
                Next::Give => {
                    prop_assert!(progress.waiting > 0);
                    let room = if self.stage == Stage::Canary {
                        self.canary - self.given()
                    } else {
                        usize::MAX
                    };
                    let batch = self.batch;
                    self.batch = batch.min(room);
                    self.give();
                    self.batch = batch;
                }
                Next::Wait => {}
                Next::Advance(stage) => {
                    if stage == Stage::Waves {
                        prop_assert_eq!(self.given(), self.canary, "no other device is touched before");
                        prop_assert_eq!(progress.pending, progress.silent, "each had its time");
                    } else {
                        prop_assert_eq!(self.given(), self.devices.len());
                    }
                    self.stage = stage;
                }
                Next::Abort(_) | Next::Complete => return Ok(next),
            }
            self.now += 1;
        }
        Err(TestCaseError::fail("it never ends"))
    }
}

proptest! {
    #[test]
    fn a_change_ends_and_stops_exactly_when_a_threshold_is_passed(
        devices in prop::collection::vec(manner(), 1..60),
        canary in 1..60_usize,
        batch in 1..20_usize,
        refused_percent in 0..=100_u32,
        pending_percent in 0..=100_u32,
    ) {
        let abort = Abort {
            refused_percent: f64::from(refused_percent),
            pending_percent: f64::from(pending_percent),
            after: Duration::from_secs(u64::from(AFTER)),
        };
        let canary = canary.min(devices.len());
        let given_at = vec![None; devices.len()];
        let mut run = Run { devices, canary, batch, abort, given_at, now: 0, stage: Stage::Canary };
        let end = run.run()?;
        let last = run.progress();
        let over = last.refused * 100 > last.given * refused_percent || last.silent * 100 > last.given * pending_percent;
        prop_assert_eq!(matches!(end, Next::Abort(_)), over, "{:?}", last);
        if end == Next::Complete {
            prop_assert_eq!(run.given(), run.devices.len());
            prop_assert_eq!(last.pending, last.silent);
        }
    }

    #[test]
    fn thresholds_of_a_hundred_never_stop_it(given in 0..1_000_u32, refused in 0..1_000_u32, silent in 0..1_000_u32) {
        let progress = Progress { given, refused: refused.min(given), silent: silent.min(given), ..Progress::default() };
        let abort = Abort { refused_percent: 100.0, pending_percent: 100.0, after: Duration::ZERO };
        for stage in Stage::ALL {
            prop_assert!(!matches!(progress.next(stage, &abort), Next::Abort(_)));
        }
    }
}

#[test]
fn a_reason_is_a_sentence() {
    let refused = Reason::Refused {
        devices: 7,
        given: 20,
        limit: 10.0,
    };
    assert_eq!(
        refused.to_string(),
        "7 of the 20 devices that have it refused it: more than 10 %"
    );
    let silent = Reason::Silent {
        devices: 3,
        given: 4,
        limit: 50.0,
        after: Duration::from_secs(60),
    };
    let expected = "3 of the 4 devices that have it did not answer within 60 s: more than 50 %";
    assert_eq!(silent.to_string(), expected);
}
