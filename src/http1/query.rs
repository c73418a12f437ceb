//! Percent-decoding (RFC 3986 section 2.1) of query strings and path segments. PURE.
//!
//! Owns no state. Tolerant, like the servers that our clients were written against: what is not an escape stays as it
//! was sent, and a pair without `=` has an empty value. Does not know which parameters exist.
//!
//! No limits: the head of a request bounds the text (`limits::HTTP_HEAD_BYTES_MAX`). Cost: linear in the text; one
//! allocation for each text that has an escape, and none for one that is borrowed as it is.

use std::borrow::Cow;

use crate::text::find_near;

/// Name and value pairs in their order; `+` is a space, as in HTML forms. PHP-style lists (`info[]=a&info[]=b`) stay
/// pairs that share the name `info[]`. Bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn parse_query(query: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    raw_pairs(query).map(|(name, value)| (decode_form(name), decode_form(value))).collect()
}

/// The pairs as they were sent, for `decode_form`. Empty ones are left out.
///
/// A query may be thousands of pairs of one byte, so pairs are found without a search that has to be set up for each.
pub fn raw_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = query;
    let pairs = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (pair, after) = split_at_byte(rest, b'&').unwrap_or((rest, ""));
        rest = after;
        Some(pair)
    });
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| split_at_byte(pair, b'=').unwrap_or((pair, "")))
}

/// The text before and after the first of these ASCII bytes. For texts of some dozen bytes, for which a vector search
/// takes longer to start.
#[must_use]
pub fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = find_near(text.as_bytes(), byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Decodes `%XX`; a `+` stays a plus. Borrows when there is nothing to decode.
#[must_use]
pub fn percent_decode(text: &str) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match split_escape(byte, tail) {
            Some((decoded, after)) => {
                out.push(decoded);
                rest = after;
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(out)
}

/// The byte an escape stands for and what follows it; `None` if `byte` starts no escape.
fn split_escape(byte: u8, tail: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], after) = tail.split_first_chunk::<2>()?;
    if byte != b'%' {
        return None;
    }
    Some((hex_digit(high)? << 4 | hex_digit(low)?, after))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Decodes a name or a value of a query: `%XX`, and `+` as a space. Borrows when there is nothing to decode.
#[must_use]
pub fn decode_form(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(String::from_utf8_lossy(&percent_decode(&spaced)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into(), value.into());
        parse_query(query).into_iter().map(owned).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_query_is_split_into_decoded_names_and_values() {
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("a=1&b=2"), [pair("a", "1"), pair("b", "2")]);
        assert_eq!(pairs("a&=x&&b=c=d"), [pair("a", ""), pair("", "x"), pair("b", "c=d")]);
        assert_eq!(pairs("a+b=c%20d%2B+"), [pair("a b", "c d+ ")]);
    }

    #[test]
    fn php_lists_keep_their_name_however_it_is_written() {
        let expected = [pair("info[]", "user_count"), pair("info[]", "cache")];
        assert_eq!(pairs("info[]=user_count&info[]=cache"), expected);
        assert_eq!(pairs("info%5B%5D=user_count&info%5b%5d=cache"), expected);
    }

    #[test]
    fn text_that_is_no_escape_is_unchanged() {
        assert_eq!(
            pairs("a=100%&b=%zz&c=%4"),
            [pair("a", "100%"), pair("b", "%zz"), pair("c", "%4")]
        );
        assert_eq!(pairs("a=%ff"), [pair("a", "\u{fffd}")]);
    }

    #[test]
    fn paths_keep_their_plus() {
        assert_eq!(*percent_decode("presence-a%3Db+c"), *b"presence-a=b+c");
        assert!(matches!(percent_decode("/apps/1"), Cow::Borrowed(_)));
        assert_eq!(*percent_decode("%2525"), *b"%25");
    }

    proptest! {
        #[test]
        fn encoded_text_is_decoded_to_the_original(text in proptest::collection::vec(any::<char>(), 0..40)) {
            let text: String = text.into_iter().collect();
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(&*percent_decode(&encoded), text.as_bytes());
            prop_assert_eq!(pairs(&format!("k={encoded}")), [pair("k", &text)]);
        }
    }
}
