//! What a registry asks for when it wants to know who we are: the header `WWW-Authenticate`.

/// Parameters of one challenge that are looked at.
const PARAMETERS: usize = 16;

#[derive(Debug, PartialEq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        /// `service` and `scope`, to be handed on.
        parameters: Vec<(String, String)>,
    },
}

impl Challenge {
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut realm = None;
        let mut parameters = Vec::new();
        let mut rest = rest.trim_start();
        for _ in 0..PARAMETERS {
            let Some((key, tail)) = rest.split_once('=') else { break };
            let (value, tail) = match tail.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => tail.split_at(tail.find(',').unwrap_or(tail.len())),
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                key @ ("service" | "scope") => parameters.push((key.to_owned(), value.to_owned())),
                _ => {}
            }
            rest = tail.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer {
            realm: realm?,
            parameters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let bearer = |realm: &str, parameters: &[(&str, &str)]| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                parameters: parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            })
        };
        for (header, meant) in [
            ("Basic realm=\"basic-realm\"", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:acme/demo:pull,push\"",
                bearer(
                    "https://auth.example/token",
                    &[("service", "r.example"), ("scope", "repository:acme/demo:pull,push")],
                ),
            ),
            (
                "bearer scope=a, error=\"invalid_token\", realm=https://a.example",
                bearer("https://a.example", &[("scope", "a")]),
            ),
            ("Bearer service=\"x\"", None),
            ("Bearer realm=\"https://a", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), meant, "{header}");
        }
    }
}
