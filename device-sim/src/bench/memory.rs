//! The memory of another process on this machine.

use std::fs;

/// The resident memory of a process in KiB (`VmRSS`), or `None` if it can't be read.
pub fn resident_kib(pid: u32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(parse("Name:\tx\nVmRSS:\t    4321 kB\nThreads:\t1\n"), Some(4321));
        assert_eq!(parse("Name:\tkthreadd\n"), None);
        assert!(resident_kib(std::process::id()).unwrap() > 1000);
    }
}
