//! What is masked and what only looks like it.

fn masked(text: &str) -> String {
    mask::mask_str(text).unwrap_or_else(|| text.to_owned())
}

/// P11 in small: each is masked whatever stands before, after or across it.
#[test]
fn both_kinds_in_one_text() {
    for (text, expected) in [
        ("card 4111 1111 1111 1111 of jane@example.com", "card [card] of [email]"),
        (
            "jane@example.com paid with 4111-1111-1111-1111",
            "[email] paid with [card]",
        ),
        (
            "a@example.com 4111111111111111 b@example.com 5500005555555559 c@example.com",
            "[email] [card] [email] [card] [email]",
        ),
        ("4111 1111 1111 1111@example.com", "[card]"),
        ("4111111111111111@example.com", "[email]"),
    ] {
        assert_eq!(masked(text), expected, "{text}");
    }
}

#[test]
fn emails() {
    for (text, expected) in [
        ("jane@example.com", "[email]"),
        ("mail jane.doe+tag@mail.example.co.uk now", "mail [email] now"),
        ("<jane@example.com>", "<[email]>"),
        ("to=jane@example.com;cc=joe_b@example.org", "to=[email];cc=[email]"),
        ("jane@example.com.", "[email]."),
        ("jane@example.com, joe@example.com", "[email], [email]"),
        ("JANE@EXAMPLE.COM", "[email]"),
        ("'jane@example.com'", "'[email]'"),
        ("from O'Brien@example.ie", "from [email]"),
        ("mailto:jane@example.com?subject=x", "mailto:[email]?subject=x"),
        ("/users/jane@example.com/orders", "/users/[email]/orders"),
        ("GET /u?mail=jane%40example.com&x=1", "GET /u?mail=[email]&x=1"),
        ("jürgen@müller.de", "[email]"),
        ("a@xn--mller-kva.de", "[email]"),
        ("имя@пример.рф", "[email]"),
        ("jane@example.com:8080", "[email]:8080"),
        ("jane@example.com.1234", "[email].1234"),
        ("...jane@example.com...", "...[email]..."),
        ("https://jane:pw@example.com/", "https://jane:[email]/"),
        ("a@b@example.com", "a@[email]"),
        ("„jane@example.com“", "„[email]“"),
        ("(jane@example.com)", "([email])"),
        ("jane@sub-domain.example.museum", "[email]"),
        ("1234567890@example.com", "[email]"),
        ("line\\njane@example.com", "line\\n[email]"),
        ("4111111111111111@example.com", "[email]"),
        ("100% jane@example.com", "100% [email]"),
    ] {
        assert_eq!(masked(text), expected, "{text}");
    }
}

#[test]
fn what_looks_like_an_email() {
    for text in [
        "user@localhost",
        "@mention hello",
        "a @ b.com",
        "react@18.2.0",
        "getty@tty1.service failed",
        "user@1000.service: Succeeded",
        "icon@2x.png",
        "image@sha256:0123456789abcdef",
        "x@y.c",
        "jane@.com",
        "jane@example",
        "@example.com",
        "100%40",
        "50%",
        "",
        "no sign at all",
        "@@@@",
    ] {
        assert_eq!(mask::mask_str(text), None, "{text}");
    }
}

#[test]
fn cards() {
    for (text, expected) in [
        ("4111111111111111", "[card]"),
        ("card 4111 1111 1111 1111 ok", "card [card] ok"),
        ("4111-1111-1111-1111", "[card]"),
        ("5555555555554444.", "[card]."),
        ("3782 822463 10005", "[card]"),
        ("378282246310005", "[card]"),
        ("30569309025904", "[card]"),
        ("3056 930902 5904", "[card]"),
        ("6011111111111117", "[card]"),
        ("3530111333300000", "[card]"),
        ("2223003122003222", "[card]"),
        ("4222222222222", "[card]"),
        ("6304000000000000000", "[card]"),
        ("6200000000000005", "[card]"),
        ("pan=4111111111111111&cvv=123", "pan=[card]&cvv=123"),
        ("order-4111111111111111", "order-[card]"),
        ("12 4111 1111 1111 1111", "12 [card]"),
        ("4111 1111 1111 1111 12/29", "[card] 12/29"),
        ("4111111111111111, 5555555555554444", "[card], [card]"),
        ("4111111111111111 5555555555554444", "[card] [card]"),
        ("line\\n4111111111111111", "line\\n[card]"),
        ("\\u00204111111111111111", "\\u0020[card]"),
        ("é4111111111111111é", "é[card]é"),
        (r#"{"n":4111111111111111}"#, r#"{"n":"[card]"}"#),
        (r#"{"n":-4111111111111111}"#, r#"{"n":"[card]"}"#),
        (r#"[4111111111111111, "4111111111111111"]"#, r#"["[card]", "[card]"]"#),
        (r#"{"a\"":"4111 1111 1111 1111"}"#, r#"{"a\"":"[card]"}"#),
        ("[INFO] 4111111111111111", "[INFO] [card]"),
        ("[4111 1111 1111 1111]", "[[card]]"),
    ] {
        assert_eq!(masked(text), expected, "{text}");
    }
}

#[test]
fn what_looks_like_a_card() {
    for text in [
        "4111111111111112",
        "1700000000000000000",
        "1732147200123",
        "1234567812345670",
        "41111111111111111111",
        "411111111111",
        "0.4111111111111111",
        "4111111111111111.25",
        "x4111111111111111",
        "4111111111111111a",
        "_4111111111111111",
        "+4111111111111111",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "a1b2c3d4-4111-1111-1111-1111abcdef01",
        "550e8400-4111-1111-1111-111111111111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "4111  1111  1111  1111",
        "4111-1111 1111-1111",
        "9999999999999995",
        "2024-01-02 03:04:05.123456789",
        "192.168.100.200 10.20.30.40",
        "                                   ",
        "-------------------",
    ] {
        assert_eq!(mask::mask_str(text), None, "{text}");
    }
}

/// Masking keeps JSON what it was, wherever the finds stand.
#[test]
fn json_stays_json() {
    let finds = [
        "jane@example.com",
        "4111 1111 1111 1111",
        "4111111111111111",
        "é@example.com",
    ];
    let edges = [
        "", " ", "\n", "\t", "\"", "\\", "\u{e9}", "\u{1}", "/", "n", "{", "]", ":", ",",
    ];
    for find in finds {
        for before in edges {
            for after in edges {
                let text = format!("{before}{find}{after}");
                let nested = serde_json::json!({"k": [text], "n": 4111111111111111u64, "in": serde_json::json!([text]).to_string()});
                let masked = masked(&nested.to_string());
                let parsed: serde_json::Value =
                    serde_json::from_str(&masked).unwrap_or_else(|e| panic!("{e}: {masked}"));
                assert_eq!(parsed["n"], "[card]");
                assert!(!masked.contains("@example"), "{masked}");
            }
        }
    }
}

/// Any text around a find leaves it found, and masking twice is masking once.
#[test]
fn masking_is_stable() {
    let words = [
        "",
        "a b",
        "4111",
        "-",
        "..",
        "(",
        "user=",
        "é",
        "[",
        "{\"a\":\"",
        "2024-01-01 ",
        "%",
    ];
    for before in words {
        for after in words {
            let text = format!("{before} jane@example.com {after} 5555-5555-5555-4444 {before}");
            let once = masked(&text);
            assert!(once.contains("[email]") && once.contains("[card]"), "{text} -> {once}");
            assert_eq!(mask::mask_str(&once), None, "{once}");
        }
    }
}
