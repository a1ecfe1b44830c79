//! What a request has to fulfil before it goes to an upstream, and while it does: the API key of its rule,
//! and a bound on its body.
//!
//! Must not know how a refusal is answered. Nothing of a key may get into a log or an error.

use model::ApiKey;
use subtle::ConstantTimeEq;

use crate::head::{Fields, Framing};
use crate::stream::{BodyError, Piece, Source};

/// Whether a request brings the key: its field once, with this value. Takes no longer for a value that is
/// nearly right.
pub(super) fn has_key(fields: &Fields, key: &ApiKey) -> bool {
    let name = key.header.as_bytes();
    let mut sent = fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
    match (sent.next(), sent.next()) {
        (Some(only), None) => only.value.ct_eq(&key.value).into(),
        _ => false,
    }
}

/// Whether a body is said to be longer than is allowed.
pub(super) fn says_too_much(framing: Framing, max: u64) -> bool {
    matches!(framing, Framing::Length(length) if length > max)
}

/// A request's body that may not pass a bound.
#[derive(Debug)]
pub(super) struct Bounded<'b, B> {
    body: &'b mut B,
    left: u64,
}

impl<'b, B> Bounded<'b, B> {
    pub(super) fn new(body: &'b mut B, max: u64) -> Self {
        Self { body, left: max }
    }
}

impl<B: Source> Source for Bounded<'_, B> {
    fn try_next(&mut self) -> Result<Option<Piece<'_>>, BodyError> {
        let piece = self.body.try_next()?;
        if let Some(Piece::Data(data)) = &piece {
            self.left = self.left.checked_sub(data.len() as u64).ok_or(BodyError::TooLarge)?;
        }
        Ok(piece)
    }

    async fn wait(&mut self) -> Result<(), BodyError> {
        self.body.wait().await
    }

    /// What another protocol sends is no body.
    fn switch_to_raw(&mut self) {
        self.left = u64::MAX;
        self.body.switch_to_raw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once_and_whole() {
        let key = ApiKey { header: "x-key".into(), value: b"secret"[..].into() };
        let cases: [(&[(&str, &str)], bool); 9] = [
            (&[("X-Key", "secret")], true),
            (&[("a", "b"), ("x-key", "secret"), ("c", "d")], true),
            (&[], false),
            (&[("x-key", "")], false),
            (&[("x-key", "secre")], false),
            (&[("x-key", "secrets")], false),
            (&[("x-key", "Secret")], false),
            (&[("x-key", "secret"), ("X-KEY", "secret")], false),
            (&[("x-keys", "secret")], false),
        ];
        for (sent, wanted) in cases {
            let mut fields = Fields::default();
            sent.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
            assert_eq!(has_key(&fields, &key), wanted, "{sent:?}");
        }
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn only_a_length_says_how_much() {
        for (framing, max, wanted) in [
            (Framing::Length(10), 10, false),
            (Framing::Length(11), 10, true),
            (Framing::Length(u64::MAX), u64::MAX, false),
            (Framing::Chunked, 0, false),
            (Framing::None, 0, false),
        ] {
            assert_eq!(says_too_much(framing, max), wanted, "{framing:?} {max}");
        }
    }
}
