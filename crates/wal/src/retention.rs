//! Decides which segments may be deleted.

/// How many of the oldest segments hold nothing at or above `below`. `firsts` are the first indices of all segments in
/// order; the newest is never among the deleted, because its header carries the note.
pub(crate) fn deletable(firsts: &[u64], below: u64) -> usize {
    firsts.iter().skip(1).take_while(|next| **next <= below).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_wholly_below_and_never_the_newest() {
        let check =
            |firsts: &[u64], below, expect| assert_eq!(deletable(firsts, below), expect, "{firsts:?} below {below}");
        check(&[], 5, 0);
        check(&[0], u64::MAX, 0);
        check(&[0, 10, 20], 0, 0);
        check(&[0, 10, 20], 9, 0);
        check(&[0, 10, 20], 10, 1);
        check(&[0, 10, 20], 19, 1);
        check(&[0, 10, 20], u64::MAX, 2);
    }
}
