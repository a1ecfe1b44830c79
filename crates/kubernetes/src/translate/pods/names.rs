//! Which texts Kubernetes and HTTP take for names of labels, annotations, Secrets, their fields, and headers.
//!
//! Pure. Must not know what the names are used for.

/// The longest name behind a prefix, and the longest value of a label.
const NAME_BYTES_MAX: usize = 63;
/// The longest DNS subdomain.
const SUBDOMAIN_BYTES_MAX: usize = 253;

/// The name of a label: `name` or `prefix/name`, where the prefix is a DNS subdomain.
pub(super) fn is_label_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

/// The name of an annotation: as a label's, without regard to case.
pub(super) fn is_annotation_name(text: &str) -> bool {
    is_label_name(&text.to_ascii_lowercase())
}

/// The value of a label; may be empty.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

/// A DNS subdomain in lower case: the name of a Secret.
pub(super) fn is_subdomain(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label =
        |label: &str| label.bytes().all(fine) && ends_are(label, |b| b.is_ascii_alphanumeric());
    text.len() <= SUBDOMAIN_BYTES_MAX && text.split('.').all(label)
}

/// A field of a Secret.
pub(super) fn is_secret_field(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty()
        && text.len() <= SUBDOMAIN_BYTES_MAX
        && text.bytes().all(fine)
        && !matches!(text, "." | "..")
}

/// A header's name (RFC 9110 section 5.6.2).
pub(super) fn is_header_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= SUBDOMAIN_BYTES_MAX && text.bytes().all(fine)
}

fn is_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= NAME_BYTES_MAX
        && text.bytes().all(fine)
        && ends_are(text, |b| b.is_ascii_alphanumeric())
}

/// Whether the first and the last byte are so; never of an empty text.
pub(super) fn ends_are(text: &str, wanted: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&b| wanted(b)) && bytes.last().is_some_and(|&b| wanted(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_takes() {
        let long = "a".repeat(64);
        for (text, label, annotation) in [
            ("app", true, true),
            ("github.com/30x.dispatcher.hosts", true, true),
            ("GitHub.com/Hosts", false, true),
            ("a_b-c.d", true, true),
            ("...", false, false),
            ("", false, false),
            ("/a", false, false),
            ("a/", false, false),
            ("a/b/c", false, false),
            ("-a", false, false),
            ("a b", false, false),
            (&long, false, false),
        ] {
            assert_eq!(is_label_name(text), label, "{text:?}");
            assert_eq!(is_annotation_name(text), annotation, "{text:?}");
        }
    }

    #[test]
    fn secrets_fields_and_headers() {
        for (text, subdomain, field, header) in [
            ("routing", true, true, true),
            ("api-key", true, true, true),
            ("ssl.crt", true, true, true),
            ("Routing", false, true, true),
            ("X_KEY", false, true, true),
            ("..", false, false, true),
            ("a b", false, false, false),
            ("a:b", false, false, false),
            ("a\n", false, false, false),
            ("", false, false, false),
        ] {
            assert_eq!(is_subdomain(text), subdomain, "{text:?}");
            assert_eq!(is_secret_field(text), field, "{text:?}");
            assert_eq!(is_header_name(text), header, "{text:?}");
        }
    }
}
