//! The fixtures, and what the configuration is told.
#![allow(clippy::unwrap_used)]

use mask::Mask;
use sluice_plugin::testing::{Tester, check_fixtures, json};

#[test]
fn fixtures() {
    check_fixtures::<Mask>("fixtures");
}

#[test]
fn a_wrong_configuration_is_told_by_its_key() {
    for (config, expected) in [
        (json!({"emial": "off"}), "did you mean `email`"),
        (json!({"email": "hide"}), "email: unknown variant `hide`"),
        (json!({"card": "hash"}), "card: this action needs `secret_key`"),
        (
            json!({"card": "hash", "secret_key": "short"}),
            "secret_key: 5 bytes are too few",
        ),
        (
            json!({"custom": [{"name": "email", "pattern": "x"}]}),
            "custom[0].name: `email` is taken",
        ),
        (
            json!({"custom": [{"name": "A-1", "pattern": "x"}]}),
            "small letters and underscores",
        ),
        (json!({"custom": [{"name": "a", "pattern": "("}]}), "custom: pattern 0"),
        (json!({"national_ids": ["us_snn"]}), "did you mean `us_ssn`"),
    ] {
        let error = Tester::<Mask>::new(config.clone())
            .err()
            .unwrap_or_else(|| panic!("{config} was taken"));
        assert!(error.contains(expected), "{config}: {error}");
    }
}

/// The hash that README.md tells how to compute, and one hash for all ways to write a value.
#[test]
fn a_hash_is_of_the_value_and_the_key() {
    let config = |key: &str| json!({"email": "hash", "card": "hash", "phone": "tokenise", "secret_key": key});
    let body = |config, body: &str| {
        let after = Tester::<Mask>::new(config).unwrap().run(json!([{"body": body}]));
        after.rows[0]["body"].as_str().unwrap().to_owned()
    };
    let key = "0123456789abcdef";
    let hash = body(config(key), "jane@example.com");
    // 32 digits that anybody with the key can compute, and eight by which the mask knows its own.
    assert_eq!(hash, "[email:45ba0cb412ad645d8b704b948497d06d982dd462]");
    assert_eq!(body(config(key), "JANE%40example.com"), hash);
    assert_ne!(body(config("0123456789abcdeg"), "jane@example.com"), hash);
    assert_eq!(
        body(config(key), "4111 1111 1111 1111"),
        body(config(key), "4111-1111-1111-1111")
    );
    let token = body(config(key), "+1 415 555 0132");
    assert_eq!(token, body(config(key), "+14155550132"));
    assert!(token.starts_with("tok_phone_") && token.len() == 30, "{token}");
}
