//! The URL of a webhook: what is accepted, and how it is shown. PURE.
//!
//! Owns no state. A URL may contain credentials in its userinfo and tokens in its query, so neither is ever shown.
//! Accepted is what `ureq` sends unchanged; a URL that a client would have to encode first is refused with the reason.
//! Does not resolve or connect.
//!
//! Limit: `URL_BYTES_MAX` for a URL. Cost: linear in the URL, one allocation for a shown one.

/// What is shown of a bad URL whose credentials may be anywhere in it.
const MASK: &str = "********";
/// Longest URL in bytes. Servers take about 8,000.
const URL_BYTES_MAX: usize = 2_000;

/// Checks the form of a URL.
///
/// # Errors
/// What is wrong, to be read after "but" or a colon.
pub fn check(url: &str) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err("a URL starts with http:// or https://");
    }
    if url.len() > URL_BYTES_MAX {
        return Err("a URL has at most 2000 bytes");
    }
    // What a URI may hold (RFC 3986), and nothing that a client would have to encode first.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !url.bytes().all(is_plain) {
        return Err("a URL has no spaces and only ASCII letters; encode others as %XX");
    }
    if rest.contains('#') {
        return Err("a URL that is posted to has no #fragment");
    }
    let (authority, _) = split_authority(rest);
    if authority.matches('@').count() > 1 {
        return Err("an @ in the name or password of a URL is written as %40");
    }
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    check_host(host_and_port)
}

fn check_host(host_and_port: &str) -> Result<(), &'static str> {
    let (host, port) = match host_and_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => {
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("a URL has an IPv6 address in its brackets");
            }
            (host, port)
        }
        None => {
            host_and_port.find(':').map_or((host_and_port, ""), |at| host_and_port.split_at(at))
        }
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || byte == b':';
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err("a URL has a host after ://");
    }
    match port.strip_prefix(':').map(str::parse::<u16>) {
        None if port.is_empty() => Ok(()),
        Some(Ok(1..)) => Ok(()),
        _ => Err("a URL's port is a number from 1 to 65535"),
    }
}

/// The URL without userinfo and query, for messages. Also of text that is no good URL.
#[must_use]
pub fn shown(url: &str) -> String {
    let whole = url.split_once("://").map_or(url, |(_, rest)| rest);
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) =
        url.split_once("://").map_or(("", url), |(scheme, rest)| (&url[..scheme.len() + 3], rest));
    let (authority, path) = split_authority(rest);
    // A password with an unescaped /, ? or # ends the authority before its @.
    if !authority.contains('@') && whole.contains('@') && check_host(authority).is_err() {
        return format!("{scheme}{MASK}");
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{host}{path}")
}

fn split_authority(rest: &str) -> (&str, &str) {
    rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_urls_are_accepted_and_others_refused() {
        for url in [
            "http://a.test",
            "HTTPS://a.test:8443/b/c?d=e&f=%20",
            "http://127.0.0.1:9000/",
            "http://[::1]:9000/x",
            "https://name:pass%40word@a.test/",
            "http://backend_1/hooks",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for (url, part) in [
            ("a.test/x", "starts with http"),
            ("ftp://a.test", "starts with http"),
            ("http:/a.test", "starts with http"),
            ("http://", "has a host"),
            ("http:///x", "has a host"),
            ("http://?x", "has a host"),
            ("http://a b/", "no spaces"),
            ("http://ä.test/", "ASCII"),
            ("http://a.test/{id}", "encode"),
            ("http://a.test/\u{1}", "no spaces"),
            ("http://a.test/#x", "fragment"),
            ("http://a.test:0/", "port"),
            ("http://a.test:70000/", "port"),
            ("http://a.test:", "port"),
            ("http://a.test:8x/", "port"),
            ("http://[::1/", "has a host"),
            ("http://[::1]9/", "port"),
            ("http://[nonsense]/", "IPv6"),
            ("http://a@b@c/", "%40"),
        ] {
            assert!(check(url).is_err_and(|why| why.contains(part)), "{url}: {:?}", check(url));
        }
        assert!(check(&format!("http://a/{}", "x".repeat(2_000))).is_err());
    }

    #[test]
    fn credentials_do_not_show() {
        for (url, expected) in [
            ("https://user:hunter2@a.test:1/b?token=hunter2", "https://a.test:1/b"),
            ("http://a.test/b@c", "http://a.test/b@c"),
            ("http://a.test?x=hunter2", "http://a.test"),
            ("http://a:hunter2@b:hunter2@c/", "http://c/"),
            ("user:hunter2@a.test/x", "a.test/x"),
            ("user:hunter2/hunter2@a.test", "********"),
            ("http://user:hunter2/hunter2@a.test/x", "http://********"),
            ("http://user:hunter2?hunter2@a.test/x", "http://********"),
            ("http://user:hunter2#@a.test/x", "http://********"),
            ("http://user hunter2/@a.test/x", "http://********"),
            ("http://a.test/#hunter2", "http://a.test/"),
            ("", ""),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
