//! What the plugin makes of its fixtures, and what it says to wrong expressions.
#![allow(clippy::unwrap_used)]

use filter::{Filter, MAX_DEPTH, MAX_LIST, MAX_TEXT_BYTES, Regexes, parse};
use proptest::prelude::*;
use sluice_plugin::testing::{Tester, check_fixtures, json};

#[test]
fn fixtures() {
    check_fixtures::<Filter>("fixtures");
}

fn mistake(expression: &str) -> String {
    Tester::<Filter>::new(json!({"keep": expression})).err().unwrap()
}

#[test]
fn mistakes_are_told_with_their_place_and_what_was_meant() {
    for (expression, expected) in [
        ("", "keep, line 1, column 1: the expression is empty\n  \n  ^"),
        (
            "severity >= warning and\n  severty < error",
            "keep, line 2, column 3: `severty` is no column; did you mean `severity`?\n    severty < error\n    ^^^^^^^",
        ),
        (
            "service = \"a\"",
            "column 9: `=` is no comparison; did you mean `==`?\n  service = \"a\"\n          ^",
        ),
        (
            "service == checkout",
            "column 12: write a text in quotes: \"checkout\"\n  service == checkout\n             ^^^^^^^^",
        ),
        (
            "service == host",
            "`host` is a column; columns are compared with texts and numbers. For a text write \"host\"",
        ),
        ("severity >= eror", "`eror` is no severity; did you mean `error`?"),
        (
            "severity >= \"loud\"",
            "`loud` is no severity; there are trace, debug, info, warn, error and fatal",
        ),
        (
            "severity contains \"a\"",
            "column 10: this is for texts; `severity` is none",
        ),
        ("body == 3", "`body` is compared with a text, such as \"checkout\""),
        ("body", "`body` alone is neither true nor false; compare it by =="),
        (
            "body contians \"a\"",
            "`contians` is no operator; did you mean `contains`?",
        ),
        ("body \"a\"", "column 6: expected one of =="),
        (
            "duration > 250",
            "`duration` is compared with a duration, such as 250ms or 1.5s",
        ),
        (
            "attrs.took > 250ms",
            "a duration is compared with `duration` only; the nanoseconds as a number are 250000000",
        ),
        ("duration > 250 ms", "`duration` is compared with a duration"),
        (
            "duration > 25x",
            "`25x` is no number; units of durations are ns, us, ms, s, m, h and d",
        ),
        ("duration > 9999999d", "`9999999d` is no duration that fits"),
        ("value > 99999999999999999999", "beyond the whole numbers of 64 bits"),
        ("monotonic > true", "true and false are compared by == and != only"),
        ("trace_id == \"12\"", "`trace_id` has 32 hexadecimal digits"),
        (
            "http.route == \"/\"",
            "`http.route` is no column; an attribute is written `attrs[\"http.route\"]`",
        ),
        ("attr.x == 1", "`attr.x` is no column; did you mean `attrs.x`?"),
        ("attrs == 1", "say which of the attributes: `attrs[\"key\"]`"),
        ("attrs[x] == 1", "column 7: expected the key in quotes: attrs[\"key\"]"),
        (
            "body[\"x\"] == 1",
            "only attrs, resource and scope have keys; `body` has none",
        ),
        (
            "(severity > 3",
            "column 1: this parenthesis is never closed\n  (severity > 3\n  ^",
        ),
        ("severity > 3)", "column 13: this parenthesis was never opened"),
        ("severity > 3 severity", "column 14: expected `and`, `or` or the end"),
        (
            "severity > 3 and",
            "column 17: the expression ends where a condition should stand",
        ),
        ("severity >", "the expression ends where a value should stand"),
        (
            "3 < severity",
            "a column stands to the left, what it is compared with to the right",
        ),
        ("body == \"a", "column 9: the text that begins here has no closing \""),
        ("body ~ /a/", "`/` means nothing here; texts stand in quotes"),
        ("body =~ \"a\"", "regular expressions are compared by `~`"),
        (
            "body ~ \"a)(b\"",
            "column 8: a `)` of the regular expression was never opened",
        ),
        ("body ~ \"a{2,1}\"", "the regular expressions of `body`:"),
        (
            "lower(body) == \"A\"",
            "column 13: lower(…) has no capitals, so this never holds; write \"a\"",
        ),
        ("lower(severity) == 3", "lower(…) is for texts; `severity` is none"),
        (
            "body not == \"a\"",
            "after `not` behind a column stands in, contains, starts_with or ends_with",
        ),
        ("severity in ()", "expected a value"),
        ("severity in (3 4)", "column 16: expected `,` or `)` after a value"),
        ("and", "expected a column before `and`"),
        ("exists severity", "expected `(` after exists"),
    ] {
        let error = mistake(expression);
        assert!(error.contains(expected), "{expression}\n{error}\nwanted: {expected}");
    }
    let far = format!("{}body = 3", "severity > 3 and ".repeat(20));
    let told = mistake(&far);
    let (line, mark) = told.split_once("\n  …").unwrap().1.split_once('\n').unwrap();
    assert_eq!(line.chars().nth(mark.chars().count() - 4), Some('='), "{told}");
}

#[test]
fn configurations_have_one_thing_to_do() {
    for (config, expected) in [
        (
            json!({}),
            "nothing to do: give `keep` or `drop` with an expression, or `rules`",
        ),
        (
            json!({"keep": "true", "drop": "true"}),
            "keep and drop: give only one of them",
        ),
        (
            json!({"keep": "true", "rules": [{"reason": "a", "keep": "true"}]}),
            "`rules` stand alone",
        ),
        (
            json!({"rules": [{"reason": "a"}]}),
            "rules[0].keep or rules[0].drop is missing",
        ),
        (
            json!({"rules": [{"reason": "a", "keep": "x"}]}),
            "rules[0].keep, line 1, column 1: `x` is no column",
        ),
        (
            json!({"keep": "true", "reason": "health: noise"}),
            "reason: \"health: noise\" has to be 1 to 64 letters",
        ),
        (
            json!({"rules": [{"reason": "", "keep": "true"}]}),
            "rules[0].reason: \"\" has to be 1 to 64 letters",
        ),
        (json!({"keap": "true"}), "did you mean `keep`?"),
    ] {
        let error = Tester::<Filter>::new(config).err().unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn expressions_are_bounded() {
    let fits = |text: &str| parse(text, &mut Regexes::default()).is_ok();
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(fits(&nested(MAX_DEPTH)) && !fits(&nested(MAX_DEPTH + 1)));
    assert!(
        fits(&format!("{}true", "not ".repeat(MAX_DEPTH))) && !fits(&format!("{}true", "!".repeat(MAX_TEXT_BYTES - 4)))
    );
    let list = |count: usize| format!("severity in ({})", vec!["1"; count].join(","));
    assert!(fits(&list(MAX_LIST)) && !fits(&list(MAX_LIST + 1)));
    let many = vec!["monotonic"; 600].join(" or ");
    assert!(mistake(&many).contains("more than 512 conditions; use `in` or a regular expression"));
    assert!(mistake(&"a".repeat(MAX_TEXT_BYTES + 1)).contains("at most 16384"));
    let columns: Vec<String> = (0..17).map(|n| format!("attrs.a{n} ~ \"x\"")).collect();
    assert!(fits(&columns[..16].join(" or ")));
    assert!(mistake(&columns.join(" or ")).contains("regular expressions on more than 16 columns"));
}

/// Pieces of the language in any order, and anything else.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "severity", "body", "attrs", "attrs.a", "[\"k\"]", "(", ")", "and", "or", "not", "in", "==", "!=", "<", "~", "!~*", "lower(", "exists(",
            "\"a\"", "'b", "\"", "\\", "3", "-", "1e", "1e+", "250ms", "1.5.2s", "warn", "true", ",", "[", "]", "é", "\n", "=", "&&", "..", "attrs.",
            "\"(\"", "\"[\"", "\"(?x\"", "9223372036854775808", "-9223372036854775808", "µs", "3µs", "…",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec((piece, prop_oneof![Just(" "), Just("")]), 0..24)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, space)| piece + space).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]
    #[test]
    fn no_text_makes_the_parser_panic(text in soup()) {
        if let Err(mistake) = parse(&text, &mut Regexes::default()) {
            let told = mistake.tell("keep", &text);
            prop_assert!(told.lines().last().is_some_and(|line| line.ends_with('^')), "{}", told);
        }
    }
}
