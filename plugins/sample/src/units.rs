//! Times and amounts as operators write them.

/// `250ms`, `1.5s`, `24h` in nanoseconds.
pub(crate) fn nanoseconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 6] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    Ok(amount(text, &UNITS, "a time with its unit such as 250ms, 2s or 24h")? as u64)
}

/// `20 GiB`, `500MB`, `1000` in bytes.
pub(crate) fn bytes(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 12] = [
        ("", 1.0),
        ("B", 1.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
        ("PB", 1e15),
    ];
    amount(text, &UNITS, "an amount of bytes such as 20 GiB or 500MB")
}

fn amount(text: &str, units: &[(&str, f64)], expected: &str) -> Result<f64, String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    match (number.parse::<f64>(), factor) {
        (Ok(number), Some(factor)) if number.is_finite() => Ok(number * factor),
        _ => Err(format!("`{text}` is not {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        assert_eq!(nanoseconds("250ms"), Ok(250_000_000));
        assert_eq!(nanoseconds(" 1.5 s"), Ok(1_500_000_000));
        assert_eq!(nanoseconds("24h"), Ok(86_400_000_000_000));
        assert_eq!(bytes("20 GiB"), Ok(20.0 * 1073741824.0));
        assert_eq!(bytes("1000"), Ok(1000.0));
        for wrong in ["", "5", "ms", "-1s", "1 day", "1e3s"] {
            assert!(nanoseconds(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            bytes("5 GHz"),
            Err("`5 GHz` is not an amount of bytes such as 20 GiB or 500MB".to_owned())
        );
    }
}
