//! Named places between two durable steps at which a test can end the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Aborts the process at the N-th passage when `SLUICE_CRASH_AT` is `name:N`; otherwise costs one load.
pub fn crash_point(name: &str) {
    static TARGET: OnceLock<Option<Target>> = OnceLock::new();
    let target = TARGET.get_or_init(|| Target::parse(&std::env::var("SLUICE_CRASH_AT").ok()?));
    if let Some(target) = target
        && target.is_hit(name)
    {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}

#[derive(Debug)]
struct Target {
    name: String,
    left: AtomicU64,
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        let (name, count) = text.rsplit_once(':').unwrap_or((text, "1"));
        let count: u64 = count.parse().ok().filter(|n| *n > 0)?;
        Some(Self {
            name: name.to_owned(),
            left: AtomicU64::new(count),
        })
    }

    fn is_hit(&self, name: &str) -> bool {
        // Later passages wrap far below zero and never come back to one.
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_passage_is_hit_once() {
        let target = Target::parse("wal.after_sync:3").expect("a target");
        let hits: Vec<bool> = (0..6).map(|_| target.is_hit("wal.after_sync")).collect();
        assert_eq!(hits, [false, false, true, false, false, false]);
        assert!(!Target::parse("a").expect("a target").is_hit("b"));
        assert!(Target::parse("a:0").is_none() && Target::parse("a:x").is_none());
    }
}
