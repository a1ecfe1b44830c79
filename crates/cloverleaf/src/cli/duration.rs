//! Durations as Go writes them: `1h2m3.5s`, `250ms`, `0`.

use std::time::Duration;

/// No flag makes sense beyond it.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const EXPECTED: &str = "expected a duration such as 1h2m3s or 250ms, at most ten years";

/// Reads one. Negative ones are refused: no flag here has a use for them.
///
/// # Errors
/// What was expected.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let wrong = || EXPECTED.to_owned();
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        nanos = nanos.checked_add(scaled(number, *unit).ok_or_else(wrong)?).ok_or_else(wrong)?;
        rest = after;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| wrong())?;
    let duration = Duration::new(seconds, (nanos % 1_000_000_000) as u32);
    if duration > LONGEST { Err(wrong()) } else { Ok(duration) }
}

/// A decimal number of units, in nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    // More digits than nanoseconds of an hour have say nothing.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = u128::from(digits(whole)?).checked_mul(unit)?;
    whole.checked_add(u128::from(digits(fraction)?) * unit / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1h2m3s", 3_723_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            (".5s", 500),
            ("1.s", 1_000),
            ("+2m", 120_000),
            ("1m0.25s", 60_250),
            ("1000us", 1),
            ("1000\u{b5}s", 1),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1x",
            "1s2",
            ".s",
            "1..5s",
            "1 s",
            "1d",
            "99999999999h",
            "1h-2m",
            "1e3s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
