//! Which pages may connect: the Origin header against `allowed_origins` (docs/PROTOCOL.md C18). PURE. Owns no state.
//!
//! Letters match in either case. Does not warn about patterns that match nothing: `config/origins.rs` does. Limit: the
//! header is bounded by the request's head. Cost: linear in the header for each star of a pattern; one allocation for a
//! pattern with a star.

/// Whether a handshake with this Origin header is allowed. An entry with `://` is compared with the whole origin, one
/// without with the host, and with host and port if it names a port; `*` matches any text.
#[must_use]
pub fn is_allowed(patterns: &[String], origin: Option<&str>, allow_missing: bool) -> bool {
    if patterns.iter().any(|pattern| pattern == "*") {
        return true;
    }
    let Some(origin) = origin else { return allow_missing };
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = host_without_port(authority);
    patterns.iter().any(|pattern| {
        if pattern.contains("://") {
            matches_glob(pattern, origin)
        } else if pattern == host_without_port(pattern) {
            matches_glob(pattern, host)
        } else {
            matches_glob(pattern, authority)
        }
    })
}

/// The host without a port; the colons of an IPv6 address in brackets are not a port's.
fn host_without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// A backtracking matcher would be exponential in the stars. This one takes the first match of each part, which
/// suffices because only `*` is special.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = strip_prefix_no_case(text, first) else { return false };
    let after_stars: Vec<&str> = parts.collect();
    let Some((last, middle)) = after_stars.split_last() else { return rest.is_empty() };
    for part in middle {
        match find_no_case(rest, part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len()
        && rest.is_char_boundary(rest.len() - last.len())
        && rest[rest.len() - last.len()..].eq_ignore_ascii_case(last)
}

fn strip_prefix_no_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn find_no_case(text: &str, part: &str) -> Option<usize> {
    (0..=text.len().checked_sub(part.len())?).find(|at| {
        text.get(*at..*at + part.len()).is_some_and(|found| found.eq_ignore_ascii_case(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_of_the_recording() {
        let patterns =
            ["example.com", "*.foo.test", "https://full.test", "port.test:8080"].map(str::to_owned);
        let cases = [
            (Some("https://example.com"), true),
            (Some("http://example.com:8080"), true),
            (Some("https://EXAMPLE.com"), true),
            (Some("https://a.foo.test"), true),
            (Some("https://foo.test"), false),
            (Some("https://evil.com"), false),
            (Some("https://example.com.evil.com"), false),
            (Some("https://full.test"), true),
            (Some("http://full.test"), false),
            (Some("http://port.test:8080"), true),
            (Some("http://port.test"), false),
            (Some("null"), false),
            (Some(""), false),
            (None, false),
        ];
        for (origin, expected) in cases {
            assert_eq!(is_allowed(&patterns, origin, false), expected, "{origin:?}");
        }
        assert!(is_allowed(&patterns, None, true));
        assert!(is_allowed(&["*".to_owned()], None, false));
        assert!(is_allowed(&["a*b*c".to_owned()], Some("axxbyyc"), false));
        assert!(!is_allowed(&["a*b*c".to_owned()], Some("ac"), false));
        assert!(is_allowed(&["[::1]".to_owned()], Some("http://[::1]:3000"), false));
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_origin_cause_a_panic(pattern in "[*a-cé:/.]{0,8}", origin in ".{0,12}") {
            let _ = is_allowed(&[pattern], Some(&origin), false);
        }
    }
}
