//! Windows (RFC 9113 sections 5.2 and 6.9): how much may be sent in each direction, of a stream and of a connection.
//!
//! Must not know frames.

/// The largest window there is.
pub(crate) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
/// What nobody has to agree to.
pub(crate) const WINDOW_BYTES_DEFAULT: u32 = 65_535;

/// What the other side takes. A change of settings can make it negative.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendWindow(i64);

/// A window would be larger than the largest there is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl SendWindow {
    pub(crate) fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    /// What may be sent now.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes more, or less where a setting says so.
    pub(crate) fn grow(&mut self, by: i64) -> Result<(), Overflow> {
        let grown = self.0 + by;
        if grown > i64::from(WINDOW_BYTES_MAX) {
            return Err(Overflow);
        }
        self.0 = grown;
        Ok(())
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }
}

/// What we take. Nothing is lost of it: at each time `left + held + credit` is the whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveWindow {
    /// What the other side may still send.
    left: u32,
    /// What was taken out and is to be told.
    credit: u32,
}

/// Whether it is time to give back what was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    No,
    /// It may go with something else.
    Soon,
    /// The other side might have to wait.
    Now,
}

impl ReceiveWindow {
    pub(crate) fn new(bytes: u32) -> Self {
        Self { left: bytes, credit: 0 }
    }

    /// So much has come; whether there was place for it.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: u32) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// So much was taken out. `whole` is the size of the window.
    pub(crate) fn release(&mut self, bytes: u32, whole: u32) -> Due {
        self.credit = self.credit.saturating_add(bytes);
        if self.credit >= whole / 2 {
            Due::Now
        } else if self.credit >= whole / 4 {
            Due::Soon
        } else {
            Due::No
        }
    }

    /// What is given back now.
    pub(crate) fn update(&mut self) -> u32 {
        let credit = std::mem::take(&mut self.credit);
        self.left = self.left.saturating_add(credit);
        credit
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn counted(self) -> u32 {
        self.left + self.credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_be_negative_but_not_too_large() {
        let mut window = SendWindow::new(WINDOW_BYTES_DEFAULT);
        window.take(65_000);
        assert_eq!(window.grow(-60_000), Ok(()));
        assert_eq!(window.bytes(), 0);
        assert_eq!(window.grow(59_466), Ok(()));
        assert_eq!(window.bytes(), 1);
        assert_eq!(window.grow(i64::from(WINDOW_BYTES_MAX)), Err(Overflow));
        assert_eq!(window.grow(i64::from(WINDOW_BYTES_MAX) - 1), Ok(()));
    }

    #[test]
    fn what_was_taken_out_is_given_back_in_large_pieces() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.take(60) && !window.take(41));
        assert_eq!(window.release(20, 100), Due::No);
        assert_eq!(window.release(10, 100), Due::Soon);
        assert_eq!(window.release(20, 100), Due::Now);
        assert_eq!((window.update(), window.update()), (50, 0));
        assert!(window.take(90) && !window.take(1));
        assert_eq!(window.counted(), 0);
    }
}
