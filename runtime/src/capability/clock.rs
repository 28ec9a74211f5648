//! The time that a guest may know: coarse, and the same during a whole call.

/// The clock of one call. A guest that asks again gets the same answer, so it cannot measure anything with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallClock {
    now_ms: u64,
}

impl CallClock {
    /// As of the beginning of a call, in nanoseconds since 1970.
    pub fn at(now_ns: u64) -> CallClock {
        CallClock {
            now_ms: now_ns / 1_000_000,
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(self) -> u64 {
        self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_more_than_milliseconds() {
        assert_eq!(CallClock::at(1_999_999).now_ms(), 1);
        assert_eq!(CallClock::at(u64::MAX).now_ms(), u64::MAX / 1_000_000);
    }
}
