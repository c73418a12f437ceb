//! Validation and spans of JSON, compared with serde_json.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn spans(text: &str) -> Vec<(String, String)> {
    let mut validator = Validator::default();
    validator
        .check_object(text.as_bytes())
        .expect("an object")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn members_are_read_as_raw_spans() {
    let text = " { \"a\" : 1.0 ,\"b\":{\"x\":[1,\"}\"]}, \"c\":\"q\\\"u\\u00e9\\/\",\
        \"d\":[ ],\"e\":12345678901234567890 } ";
    let expected = [
        ("\"a\"", "1.0"),
        ("\"b\"", "{\"x\":[1,\"}\"]}"),
        ("\"c\"", "\"q\\\"u\\u00e9\\/\""),
        ("\"d\"", "[ ]"),
        ("\"e\"", "12345678901234567890"),
    ];
    let found = spans(text);
    assert_eq!(found.len(), expected.len());
    for ((name, value), (name_expected, value_expected)) in found.iter().zip(expected) {
        assert_eq!((name.as_str(), value.as_str()), (name_expected, value_expected));
    }
}

#[test]
fn malformed_json_is_refused_everywhere() {
    let mut validator = Validator::default();
    for text in [
        "",
        " ",
        "not json",
        "{",
        "{}}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{\"a\":01}",
        "\u{feff}{}",
        "{} x",
        "{\"a\":\"\u{1}\"}",
        "[1 2]",
        "nul",
        "\"abc",
        "{\"a\":\"\\x\"}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
    ] {
        assert!(validator.check(text.as_bytes()).is_none(), "{text:?}");
    }
    assert!(validator.check(b"\"\xff\"").is_none());
    for text in ["null", "1", "\"s\"", "[]"] {
        assert!(validator.check(text.as_bytes()).is_some(), "{text}");
        assert!(validator.check_object(text.as_bytes()).is_none(), "{text}");
    }
}

#[test]
fn long_integers_and_deep_nesting_are_well_formed() {
    let mut validator = Validator::default();
    assert!(validator.check(b"{\"n\":123456789012345678901234567890}").is_some());
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(validator.check(deep(500).as_bytes()).is_some());
    // simd-json stops at 1,024 levels: nesting is bounded, and deeper text is malformed.
    assert!(validator.check(deep(5000).as_bytes()).is_none());
}

#[test]
fn a_name_with_escapes_is_compared_at_the_cost_of_one_without() {
    let cost = |span: &str| {
        crate::clock::fastest(9, || {
            let is = (0..1_000).filter(|_| is_name(std::hint::black_box(span), "event")).count();
            assert_eq!(is, 0);
        })
    };
    let plain = cost("\"data\"");
    let long = format!("\"\\n{}\"", "a".repeat(9_000));
    for escaped in ["\"\\n\"", "\"\\/\\/\\/\\/\\/\\/\"", &long] {
        let cost = cost(escaped);
        assert!(cost < plain * 8, "{cost:?} against {plain:?}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn members_agree_with_serde_json(map in prop::collection::btree_map(".{0,6}", any_json(), 0..6)) {
        let value = Value::Object(map.clone().into_iter().collect());
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let mut count = 0;
            for (name, span) in spans(&text) {
                let name = string(&name).unwrap().into_owned();
                prop_assert_eq!(&serde_json::from_str::<Value>(&span).unwrap(), &map[&name]);
                count += 1;
            }
            prop_assert_eq!(count, map.len());
        }
    }

    #[test]
    fn verdicts_agree_with_serde_json(text in "[\\[\\]{},:\" a1\\\\truefalsn.e+-]{0,24}") {
        let mut validator = Validator::default();
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        prop_assert_eq!(validator.check(text.as_bytes()).is_some(), theirs, "{}", text);
    }

    /// Every distance from the start, with bytes around the two that are searched in their place.
    #[test]
    fn the_next_quote_or_escape_is_found_at_any_distance(
        bytes in prop::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\\'), 0x20..0x25_u8, 0x5a..0x5e_u8, any::<u8>()],
            0..60,
        ),
        plain in 0..60_usize,
    ) {
        let bytes = [vec![0xa2; plain], bytes].concat();
        let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        prop_assert_eq!(quote_or_escape(&bytes), expected);
    }

    /// Every character in one of its spellings: the text and the comparison with a name agree with serde_json.
    #[test]
    fn escaped_text_is_decoded_as_serde_json_does(
        pieces in prop::collection::vec((any::<char>(), 0..3_u8), 0..12),
        other in "[a-c]{0,3}",
    ) {
        let mut span = String::from('"');
        for (character, spelling) in &pieces {
            match (character, spelling) {
                ('/', 1) => span.push_str("\\/"),
                ('"' | '\\' | '\0'..='\x1f', _) | (_, 2) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        span.push_str(&format!("\\u{unit:04X}"));
                    }
                }
                _ => span.push(*character),
            }
        }
        span.push('"');
        let expected: String = serde_json::from_str(&span).unwrap();
        prop_assert_eq!(string(&span).unwrap(), expected.as_str());
        prop_assert!(is_name(&span, &expected));
        prop_assert_eq!(is_name(&span, &other), other == expected);
        prop_assert_eq!(starts_with(&span, &other), expected.starts_with(&other));
        for (at, _) in expected.char_indices() {
            prop_assert!(starts_with(&span, &expected[..at]));
        }
        let longer = format!("{expected}x");
        prop_assert!(!is_name(&span, &longer));
        prop_assert_eq!(is_name(&format!("{}x\"", &span[..span.len() - 1]), &longer), true);
    }

    #[test]
    fn a_text_that_is_no_json_string_never_panics(span in "[\"\\\\u0-9a-fA-Fnbé]{0,20}") {
        let theirs = serde_json::from_str::<String>(&span).ok();
        if let Some(theirs) = theirs {
            prop_assert_eq!(string(&span).unwrap(), theirs);
        }
        let _ = is_name(&span, "event");
    }

    #[test]
    fn written_strings_are_read_back_unchanged(text in ".*") {
        let mut out = Vec::new();
        write_string(&text, &mut out);
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(&string(&out).unwrap(), &text);
        prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut validator = Validator::default();
        if let Some(members) = validator.check_object(&bytes) {
            let _ = members.count();
        }
    }
}
