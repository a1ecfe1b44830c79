//! The standard `process_*` metrics, read from `/proc` at each scrape.
//!
//! Parsing is apart from reading. What the kernel does not tell is left out, as on systems without `/proc`.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::metrics::{Family, Kind, Value};

/// Clock ticks a second where the kernel does not say: what Linux uses on all common machines.
const TICKS_PER_SECOND_DEFAULT: u64 = 100;

/// The families of this process, as named by the Prometheus conventions. Reads a few small files of
/// `/proc`: some tens of microseconds, more with very many open files on kernels before 6.2.
#[must_use]
pub fn families() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|t| Stat::parse(&t));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let ticks = ticks_per_second();
    let mut all = Vec::new();
    let mut add = |name, help, kind, value: Option<Value>| {
        all.extend(value.map(|value| Family::single(name, help, kind, value)));
    };
    add(
        "process_cpu_seconds_total",
        "User and system CPU time used.",
        Kind::Counter,
        stat.map(|s| Value::Float(seconds(s.cpu_ticks, ticks))),
    );
    add(
        "process_resident_memory_bytes",
        "Resident memory.",
        Kind::Gauge,
        resident_bytes(&status).map(Value::Int),
    );
    add(
        "process_open_fds",
        "Open file descriptors.",
        Kind::Gauge,
        open_files(Path::new("/proc/self/fd")).map(Value::Int),
    );
    add(
        "process_max_fds",
        "Most file descriptors that may be open.",
        Kind::Gauge,
        max_files(&limits).map(Value::Int),
    );
    add(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970.",
        Kind::Gauge,
        start_time_unix_seconds().map(Value::Float),
    );
    all
}

/// When this process began, in seconds since 1970; `None` where the kernel does not tell.
#[must_use]
pub fn start_time_unix_seconds() -> Option<f64> {
    let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let boot = boot_unix_seconds(&fs::read_to_string("/proc/stat").ok()?)?;
    Some(boot + seconds(stat.start_ticks, ticks_per_second()))
}

#[allow(clippy::cast_precision_loss, reason = "2^53 ticks are millions of years")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second as f64
}

/// What is needed of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// Fields 14 and 15, utime and stime.
    cpu_ticks: u64,
    /// Field 22, starttime, since boot.
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The command's name in field 2 may hold spaces and parentheses: count from the last one.
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn max_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn boot_unix_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_files(directory: &Path) -> Option<u64> {
    // Since Linux 6.2 the size of the directory is the number of its entries.
    match fs::metadata(directory).ok()?.len() {
        // The directory being read is itself open.
        0 => Some((fs::read_dir(directory).ok()?.count() as u64).saturating_sub(1)),
        number => Some(number),
    }
}

fn ticks_per_second() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let vector = fs::read("/proc/self/auxv").unwrap_or_default();
        auxiliary_ticks(&vector).unwrap_or(TICKS_PER_SECOND_DEFAULT)
    })
}

/// `AT_CLKTCK` of the auxiliary vector: pairs of words, key and value (getauxval(3)).
fn auxiliary_ticks(vector: &[u8]) -> Option<u64> {
    const AT_CLKTCK: usize = 17;
    const WORD_BYTES: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    vector
        .chunks_exact(2 * WORD_BYTES)
        .find(|pair| word(&pair[..WORD_BYTES]) == Some(AT_CLKTCK))
        .and_then(|pair| word(&pair[WORD_BYTES..]))
        .filter(|ticks| *ticks > 0)
        .map(|ticks| ticks as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_a_name_with_parentheses() {
        let line = "42 (a b) (c)) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 777 1000 9 0";
        assert_eq!(Stat::parse(line), Some(Stat { cpu_ticks: 200, start_ticks: 777 }));
        for bad in ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 a b 13 14"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn other_files_are_read() {
        let status = "Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident_bytes(status), Some(2 << 20));
        assert_eq!(resident_bytes("Name: x"), None);
        let limits = "Max processes   7   7   processes\nMax open files   1024   524288   files\n";
        assert_eq!(max_files(limits), Some(1024));
        assert_eq!(max_files("Max open files  unlimited unlimited files"), None);
        assert_eq!(boot_unix_seconds("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000.0));
        let mut vector = Vec::new();
        for word in [6_usize, 4096, 17, 250, 0, 0] {
            vector.extend(word.to_ne_bytes());
        }
        assert_eq!(auxiliary_ticks(&vector), Some(250));
        assert_eq!(auxiliary_ticks(&vector[..20]), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_of_them() {
        let names: Vec<&str> = families().iter().map(|f| f.name).collect();
        let expected = [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ];
        // An unlimited number of files is told by leaving the family out.
        let seen: Vec<&str> =
            expected.into_iter().filter(|n| *n != "process_max_fds" || names.contains(n)).collect();
        assert_eq!(names, seen);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let began = start_time_unix_seconds().unwrap();
        assert!((now - 3600.0..now + 2.0).contains(&began), "{began} beside {now}");
    }
}
