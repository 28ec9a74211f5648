//! Events that look like a matter of security: by the name of the event, by attributes, by words in the body.

use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use arrow_array::{Array, StringArray};
use arrow_buffer::BooleanBuffer;
use sluice_plugin::matching::{Pattern, PatternSet};
use sluice_plugin::{Batch, bits};

use crate::config::{Scalar, Search, Security, When};
use crate::field::Rule;
use crate::rows;

/// Names of events, in lower case: what OpenTelemetry, cloud audit logs and common libraries call them.
const NAMES: [&str; 14] = [
    "security*",
    "audit*",
    "auth.*",
    "authn*",
    "authz*",
    "authentication*",
    "authorization*",
    "iam.*",
    "login*",
    "user.login*",
    "user.password*",
    "intrusion*",
    "threat*",
    "malware*",
];

/// Where an event has its name.
const NAMED_IN: [&str; 2] = ["name", "attrs:s:event.name"];

/// Words of daemons, frameworks and firewalls.
const KEYWORDS: [&str; 24] = [
    "authentication fail",
    "authentication error",
    "authorization fail",
    "login fail",
    "failed login",
    "failed password",
    "invalid password",
    "invalid user",
    "invalid credential",
    "bad credential",
    "account locked",
    "access denied",
    "permission denied",
    "privilege escalation",
    "possible break-in",
    "brute force",
    "sql injection",
    "cross-site scripting",
    "path traversal",
    "csrf",
    "signature verification failed",
    "intrusion",
    "malware",
    "ransomware",
];

/// OpenTelemetry's security rules, and the categories of the Elastic Common Schema that are about security.
fn rules() -> Vec<When> {
    let field = |field: &str| When {
        field: field.to_owned(),
        ..When::default()
    };
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| Scalar::Text((*text).to_owned())).collect());
    let categories = [
        "authentication",
        "iam",
        "intrusion_detection",
        "malware",
        "threat",
        "vulnerability",
    ];
    vec![
        field("attrs.security_rule.name"),
        field("attrs.security_rule.uuid"),
        When {
            any_of: texts(&categories),
            ..field("attrs.event.category")
        },
        When {
            any_of: texts(&["alert"]),
            ..field("attrs.event.kind")
        },
    ]
}

#[derive(Debug)]
pub(super) struct SecurityRules {
    names: Vec<String>,
    rules: Vec<Rule>,
    keywords: Option<Keywords>,
}

impl SecurityRules {
    pub(super) fn new(config: &Security) -> Result<SecurityRules, String> {
        let own = |given: &Option<Vec<String>>, default: &[&str]| match given {
            Some(given) => given.iter().map(|text| text.to_ascii_lowercase()).collect(),
            None => default.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
        };
        let when = config.when.clone().unwrap_or_else(rules);
        let rules = when.iter().enumerate();
        let rules = rules.map(|(place, when)| Rule::new(when).map_err(|e| format!("keep_security.when[{place}]: {e}")));
        let keywords = own(&config.keywords, &KEYWORDS);
        if keywords.iter().any(String::is_empty) {
            return Err("keep_security.keywords: an empty text is in every body".to_owned());
        }
        let keywords = (!keywords.is_empty())
            .then(|| Keywords::new(&keywords, config.search))
            .transpose();
        Ok(SecurityRules {
            names: own(&config.names, &NAMES),
            rules: rules.collect::<Result<_, _>>()?,
            keywords: keywords.map_err(|e| format!("keep_security.keywords: {e}"))?,
        })
    }

    pub(super) fn reads(&self) -> Vec<String> {
        let mut reads: Vec<String> = self.rules.iter().flat_map(Rule::reads).collect();
        if !self.names.is_empty() {
            reads.extend(NAMED_IN.map(str::to_owned));
        }
        reads.extend(self.keywords.as_ref().map(|_| "body".to_owned()));
        reads
    }

    pub(super) fn rows(&self, batch: &Batch) -> Result<BooleanBuffer, String> {
        let count = batch.rows();
        let mut found = BooleanBuffer::new_unset(count);
        for column in NAMED_IN {
            let named = |name: &str| {
                let name = rows::lower(name);
                self.names.iter().any(|pattern| rows::glob(pattern, &name))
            };
            found = rows::or(found, &bits::where_text(&batch.text(column)?, count, named));
        }
        for rule in &self.rules {
            found = rows::or(found, &rule.rows(batch));
        }
        match &self.keywords {
            Some(keywords) => Ok(rows::or(found, &keywords.rows(batch)?)),
            None => Ok(found),
        }
    }
}

enum Keywords {
    Host(PatternSet),
    Own(AhoCorasick),
}

impl fmt::Debug for Keywords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Keywords::Host(_) => "Host",
            Keywords::Own(_) => "Own",
        })
    }
}

impl Keywords {
    fn new(keywords: &[String], search: Search) -> Result<Keywords, String> {
        match search {
            Search::Match => {
                let patterns: Vec<Pattern> = keywords.iter().cloned().map(Pattern::LiteralAnyCase).collect();
                PatternSet::of(&patterns).map(Keywords::Host)
            }
            Search::Own => AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                // One table look-up a byte; some 200 KiB with the keywords that come with the plugin.
                .kind(Some(AhoCorasickKind::DFA))
                .build(keywords)
                .map(Keywords::Own)
                .map_err(|e| e.to_string()),
        }
    }

    fn rows(&self, batch: &Batch) -> Result<BooleanBuffer, String> {
        match self {
            Keywords::Host(patterns) => patterns.rows_with(batch, "body"),
            Keywords::Own(patterns) => {
                let text = batch.text("body")?;
                let found = text
                    .values()
                    .map_or_else(Vec::new, |values| texts_with(patterns, values));
                Ok(bits::of_texts(&text, batch.rows(), &found))
            }
        }
    }
}

/// Which texts have one of the patterns, searched as one stretch of bytes: a find across two texts is none, and the search
/// goes on behind its first byte.
fn texts_with(patterns: &AhoCorasick, texts: &StringArray) -> Vec<bool> {
    let offsets = texts.value_offsets();
    let bytes = texts.value_data();
    let mut found = vec![false; texts.len()];
    let mut at = offsets.first().map_or(0, |first| *first as usize);
    let end = offsets.last().map_or(0, |last| *last as usize);
    let mut text = 0;
    while let Some(hit) = patterns.find(Input::new(bytes).span(at..end)) {
        while offsets[text + 1] as usize <= hit.start() {
            text += 1;
        }
        let text_end = offsets[text + 1] as usize;
        if hit.end() <= text_end {
            found[text] = true;
            at = text_end;
        } else {
            at = hit.start() + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keywords_are_found_within_a_text_only() {
        let texts = [
            "",
            "Access ",
            "denied",
            "xACCESS DENIEDx",
            "intrusion",
            "intr",
            "usion",
            "fine",
            "access denie",
            "d",
        ];
        let Keywords::Own(own) =
            Keywords::new(&["access denied".to_owned(), "intrusion".to_owned()], Search::Own).unwrap()
        else {
            panic!("another search")
        };
        let all = StringArray::from(texts.to_vec());
        let expected: Vec<bool> = texts
            .iter()
            .map(|text| {
                ["access denied", "intrusion"]
                    .iter()
                    .any(|word| text.to_lowercase().contains(word))
            })
            .collect();
        assert_eq!(texts_with(&own, &all), expected);
        assert_eq!(texts_with(&own, &all.slice(2, 3)), expected[2..5]);
        assert_eq!(texts_with(&own, &all.slice(0, 0)), Vec::<bool>::new());
    }
}
