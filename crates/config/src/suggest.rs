//! Which known word somebody probably meant.

/// Words longer than this are never compared: the cost grows with the product of the lengths.
const WORD_CHARS_MAX: usize = 40;

/// The candidate that is nearest to a word, if any is near enough: equal but for case, `-` and `_`, or
/// within two typing mistakes (one for short words).
pub(crate) fn nearest(
    word: &str,
    candidates: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    if word.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    let folded = fold(word);
    let allowed = if folded.len() <= 4 { 1 } else { 2 };
    candidates
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_understood() {
        let known = ["name", "host", "port", "scheme", "stripPath", "noHostRewrite"];
        for (word, meant) in [
            ("strip_path", Some("stripPath")),
            ("stripPth", Some("stripPath")),
            ("StripPath", Some("stripPath")),
            ("prot", Some("port")),
            ("nohostrewrit", Some("noHostRewrite")),
            ("server", None),
            ("", None),
            ("weight", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1_000_000), known.into_iter()), None);
    }
}
