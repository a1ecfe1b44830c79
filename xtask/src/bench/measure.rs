//! What a program used, read from /proc: processor time of all its processes and threads, and resident
//! memory. It must not know what the program is.

use std::{fs, ops::Sub, process::Command};

use anyhow::{Context, Result};

use crate::sh;

/// Processor time in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) user: u64,
    pub(crate) system: u64,
}

impl Sub for Ticks {
    type Output = Ticks;

    fn sub(self, earlier: Ticks) -> Ticks {
        Ticks {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// How many ticks the kernel counts in a second.
pub(crate) fn ticks_a_second() -> Result<f64> {
    let text = sh::capture(Command::new("getconf").arg("CLK_TCK"))?;
    text.trim().parse().context("read the length of a clock tick")
}

/// The process and all that descend from it.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parse_stat(&stat(pid)?)?.parent)))
        .collect();
    let mut tree = vec![pid];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// Processor time of the process and its descendants so far. A process's line counts all of its threads.
pub(crate) fn cpu(pid: u32) -> Ticks {
    tree(pid).into_iter().filter_map(|pid| parse_stat(&stat(pid)?)).fold(
        Ticks::default(),
        |sum, one| Ticks { user: sum.user + one.ticks.user, system: sum.system + one.ticks.system },
    )
}

/// Resident memory of the process and its descendants, in bytes. Pages that they share count for each.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    memory(pid).resident
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The part of it that no file backs: heap and stacks.
    pub(crate) anonymous: u64,
}

/// What the process and its descendants hold. Pages that they share count for each.
pub(crate) fn memory(pid: u32) -> Memory {
    let status = |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let all = tree(pid).into_iter().filter_map(status);
    all.fold(Memory::default(), |sum, status| Memory {
        resident: sum.resident + bytes_of(&status, "VmRSS:").unwrap_or_default(),
        anonymous: sum.anonymous + bytes_of(&status, "RssAnon:").unwrap_or_default(),
    })
}

/// Processor time of the whole machine so far, in clock ticks of all cores.
pub(crate) fn machine() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    busy(&text).context("/proc/stat: no line of all cores")
}

/// User, nice, system, interrupts and what the host took; neither idle nor waiting for a disk.
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft, stolen, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + interrupts + soft + stolen)
}

fn stat(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

struct Stat {
    parent: u32,
    ticks: Ticks,
}

/// A line of /proc/PID/stat. The name in brackets may hold anything, so it is read from the last bracket on.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
    // proc(5) counts from 1 and the state, the third field, is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = Ticks { user: field(14)?, system: field(15)? };
    Some(Stat { parent: u32::try_from(field(4)?).ok()?, ticks })
}

/// A line of /proc/PID/status.
fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name_holds() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 123 456 9 9 20 0 1 0 5 6 7";
        let stat = parse_stat(line).expect("a valid line");
        assert_eq!((stat.parent, stat.ticks), (7, Ticks { user: 123, system: 456 }));
        assert!(parse_stat("nonsense").is_none());
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(bytes_of("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2 * 1024 * 1024));
        assert_eq!(bytes_of("Name:\tkthread\n", "VmRSS:"), None);
    }

    #[test]
    fn idle_time_of_the_machine_does_not_count() {
        let stat = "cpu  1 2 4 1000 1000 8 16 32 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy(stat), Some(63));
        assert_eq!(busy("cpu  1 2 4\n"), None);
    }

    #[test]
    fn this_process_is_its_own_tree() {
        let pid = std::process::id();
        assert_eq!(tree(pid).first(), Some(&pid));
        let memory = memory(pid);
        assert!(0 < memory.anonymous && memory.anonymous < memory.resident, "{memory:?}");
    }
}
