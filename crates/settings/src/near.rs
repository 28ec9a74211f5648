//! The name that somebody probably meant.

/// The candidate that is closest to what was written, if any is close.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .min_by_key(|(distance, _)| *distance)?;
    // One slip, and one more for every three letters: more than that is another word.
    (distance <= 1 + written.len() / 3).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_does_not() {
        let names = ["max_rows", "max_bytes", "freshness"];
        assert_eq!(nearest("max_row", names), Some("max_rows"));
        assert_eq!(nearest("frehsness", names), Some("freshness"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("anything", []), None);
    }
}
