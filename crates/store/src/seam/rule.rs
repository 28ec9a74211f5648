//! Which of the two stores serves which offsets of a partition.
//!
//! Hot serves `L < offset <= H`; cold serves `offset <= L` and `offset > H`. The two never overlap and together hold everything up
//! to `V = max(H, C)`, whatever the event times are. Pure, so that the model test runs this very code.

/// What is known of one partition. `None` stands for "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// L: hot may have deleted everything at and below.
    pub low: Option<u64>,
    /// H: hot holds everything above L up to here.
    pub high: Option<u64>,
    /// C: cold holds everything up to here.
    pub cold: Option<u64>,
}

/// Who serves what of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// First and last offset that hot serves; cold serves all others that it holds.
    pub hot: Option<(u64, u64)>,
    /// V: the answer is complete up to here; `None`: nothing is visible.
    pub visible: Option<u64>,
}

/// Hot may have deleted what this version of cold does not hold yet: read cold again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hot begins above offset {low}, but cold ends at {cold:?}")]
pub struct ColdBehind {
    pub low: u64,
    pub cold: Option<u64>,
}

impl Ends {
    /// Applies the rule.
    pub fn share(self) -> Result<Share, ColdBehind> {
        if let Some(low) = self.low
            && self.cold < Some(low)
        {
            return Err(ColdBehind { low, cold: self.cold });
        }
        let first = self.low.map_or(0, |low| low + 1);
        // The mutation gate: one offset too many for hot, which may have deleted it.
        #[cfg(feature = "break-seam")]
        let first = first.saturating_sub(1);
        let hot = self.high.filter(|high| *high >= first).map(|high| (first, high));
        Ok(Share {
            hot,
            visible: self.high.filter(|_| hot.is_some()).max(self.cold),
        })
    }
}

impl Share {
    pub fn hot_serves(&self, offset: u64) -> bool {
        self.hot.is_some_and(|(first, last)| first <= offset && offset <= last)
    }

    pub fn cold_serves(&self, offset: u64) -> bool {
        !self.hot_serves(offset)
    }
}
