//! Names of columns with `*` for any text, as plugins declare them.

/// A set of declared names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns(Vec<String>);

/// Declarations of one plugin; the largest known one has 20.
const MAX_PATTERNS: usize = 256;
/// Bytes of one declaration, as long as a key of an attribute may be.
const MAX_BYTES: usize = 512;

impl Patterns {
    pub(crate) fn new(patterns: Vec<String>) -> Result<Patterns, String> {
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("declares more than {MAX_PATTERNS} columns"));
        }
        for pattern in &patterns {
            if pattern.is_empty() || pattern.len() > MAX_BYTES {
                return Err(format!(
                    "declares a column whose name has {} bytes; 1 to {MAX_BYTES} are allowed",
                    pattern.len()
                ));
            }
        }
        Ok(Patterns(patterns))
    }

    pub(crate) fn matches(&self, column: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, column))
    }
}

fn matches(pattern: &str, column: &str) -> bool {
    // The rest columns are called `<group>:*`; asking for them must not ask for the whole group.
    if !pattern.contains('*') || matches!(pattern, "attrs:*" | "resource:*" | "scope:*") {
        return pattern == column;
    }
    glob(pattern.as_bytes(), column.as_bytes())
}

/// Greedy with one point of return: linear in practice, never exponential.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            p = after;
            t = from + 1;
            star = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        for (pattern, column, expected) in [
            ("body", "body", true),
            ("body", "body_type", false),
            ("attrs:s:*", "attrs:s:http.route", true),
            ("attrs:s:*", "attrs:s:", true),
            ("attrs:s:*", "attrs:i:n", false),
            ("attrs:*", "attrs:*", true),
            ("attrs:*", "attrs:s:a", false),
            ("attrs:*:gpu.*", "attrs:d:gpu.utilization", true),
            ("*", "attrs:*", true),
            ("*:s:*.id", "resource:s:k8s.pod.id", true),
            ("*:s:*.id", "resource:s:k8s.pod.ids", false),
            ("a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, column), expected, "{pattern} on {column}");
        }
    }
}
