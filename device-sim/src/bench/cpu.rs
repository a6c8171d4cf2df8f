//! The processor time of another process on this machine.

use std::{fs, time::Duration};

/// What the kernel counts processor time in, for all programs (`USER_HZ`): a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process and those it started have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTime {
    /// Of the process itself.
    pub own: Duration,
    /// Of the processes under it: an embedded database.
    pub under: Duration,
}

impl CpuTime {
    /// What a process has used so far, or `None` if that can't be read.
    pub fn of(pid: u32) -> Option<Self> {
        let own = read(pid)?;
        let all: Vec<Stat> = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?))
            .collect();
        let mut family = vec![pid];
        let mut under = 0;
        // Each generation is found by the one before.
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            next += 1;
            for child in all.iter().filter(|stat| stat.parent == parent) {
                under += child.used + child.waited_for;
                family.push(child.pid);
            }
        }
        Some(Self {
            own: ticks(own.used),
            under: ticks(under),
        })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            under: self.under.saturating_sub(earlier.under),
        }
    }
}

/// A line of `/proc/PID/stat`, times in ticks.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    used: u64,
    /// Of its children that have ended.
    waited_for: u64,
}

fn read(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    let pid = line.split_whitespace().next()?.parse().ok()?;
    // The program's name stands in parentheses and may hold anything.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let times: Vec<u64> = fields
        .skip(9)
        .take(4)
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, system, waited_user, waited_system] = times.try_into().ok()?;
    Some(Stat {
        pid,
        parent,
        used: user + system,
        waited_for: waited_user + waited_system,
    })
}

fn ticks(count: u64) -> Duration {
    TICK.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let line = "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 30 5 20 0 1 0 99 1 1";
        let expected = Stat {
            pid: 42,
            parent: 7,
            used: 120,
            waited_for: 35,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("42 (short) S 7"), None);
        assert!(CpuTime::of(std::process::id()).is_some());
    }
}
