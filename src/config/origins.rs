//! The entries of `allowed_origins`: what can match an Origin header, and why the rest cannot. PURE.
//!
//! Owns the rules. A browser sends `scheme://host` and a port unless it is the default one, all in lower case, in ASCII
//! and without a path (RFC 6454 section 7). An entry that differs in form matches nothing, and the page it was meant
//! for is refused. Does not compare: `pusher/origin.rs` does; this module only accepts, normalizes or refuses entries.
//!
//! No limits: the entries are those of one option, whose file `load.rs` bounds. Cost: once at the start and at each
//! reload, linear in the entry.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in the DNS, in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The entry as it is compared: without a slash at its end.
///
/// # Errors
/// Why no Origin header can match it and what to write instead, to be read after "but".
pub fn normalize(entry: &str) -> Result<String, String> {
    if entry.is_empty() {
        return Err("an entry of the list is empty: remove the comma before or after it".to_owned());
    }
    if entry.ends_with("://") || entry.ends_with(":///") {
        return Err("no host follows ://: write https://example.com".to_owned());
    }
    let entry = entry.trim_end_matches('/');
    if entry == "*" {
        return Ok(entry.to_owned());
    }
    let (scheme, authority) = match entry.split_once("://") {
        Some((scheme, authority)) => (Some(scheme), authority),
        None => (None, entry),
    };
    if let Some(scheme) = scheme {
        check_scheme(scheme, authority)?;
    }
    if authority.is_empty() {
        return Err("it has no host: write example.com or https://example.com".to_owned());
    }
    check_characters(authority, scheme)?;
    let (host, port) = split_port(authority)?;
    check_host(host)?;
    if let Some(port) = port {
        check_port(port, scheme, host)?;
    }
    Ok(entry.to_owned())
}

fn check_scheme(scheme: &str, authority: &str) -> Result<(), String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.*".contains(&byte);
    if scheme.is_empty() || !scheme.bytes().all(is_part) {
        return Err("what precedes :// is not a scheme: write https://example.com".to_owned());
    }
    let page = match scheme.to_ascii_lowercase().as_str() {
        "ws" => "http",
        "wss" => "https",
        _ => return Ok(()),
    };
    Err(format!("an Origin header names the page, never the WebSocket: write {page}://{authority}"))
}

fn check_characters(authority: &str, scheme: Option<&str>) -> Result<(), String> {
    if let Some((before, _)) = authority.split_once(['/', '?', '#']) {
        let scheme = scheme.map(|scheme| format!("{scheme}://")).unwrap_or_default();
        let instead =
            if before.is_empty() { String::new() } else { format!(": write {scheme}{before}") };
        return Err(format!("an Origin header has no path and no query{instead}"));
    }
    if authority.contains('@') {
        return Err("an Origin header has no user and no password".to_owned());
    }
    if authority.contains(char::is_whitespace) {
        return Err("it contains a space: separate entries by commas".to_owned());
    }
    if !authority.is_ascii() {
        return Err(match ascii_host(authority) {
            Some(ascii) => {
                format!("browsers send international names in their ASCII form: write {ascii}")
            }
            None => "browsers send international names in their ASCII form (xn--...)".to_owned(),
        });
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*:[]".contains(&byte);
    match authority.bytes().find(|byte| !is_plain(*byte)) {
        None => Ok(()),
        Some(byte) => Err(format!(
            "no host contains the character {:?}: entries are plain names separated by commas, and * is the only \
             wildcard",
            char::from(byte)
        )),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest
            .split_once(']')
            .ok_or_else(|| "the bracket of an IPv6 address is not closed".to_owned())?;
        let host = &authority[..address.len() + 2];
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("only a port can follow an IPv6 address".to_owned()),
        };
    }
    if authority.contains(['[', ']']) {
        return Err(
            "lists are separated by commas and have no brackets; only an IPv6 address has them"
                .to_owned(),
        );
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address has brackets: write [{authority}]"));
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        if address.contains('*') && address.contains(':') {
            return Ok(());
        }
        if !address.contains(':') {
            return Err(
                "lists are separated by commas and have no brackets; only an IPv6 address has them"
                    .to_owned(),
            );
        }
        let parsed = address.parse::<Ipv6Addr>();
        let parsed = parsed.map_err(|_| format!("{address} is not an IPv6 address"))?;
        let canonical = canonical_origin(parsed);
        if canonical.eq_ignore_ascii_case(address) {
            return Ok(());
        }
        return Err(format!("browsers send this address as [{canonical}]: write that"));
    }
    if host.is_empty() {
        return Err("it has no host: write example.com or https://example.com".to_owned());
    }
    if let Some(rest) = host.strip_prefix('.') {
        let rest = rest.trim_start_matches(['*', '.']);
        return Err(format!("no host starts with a dot: for all subdomains write *.{rest}"));
    }
    if host.contains("..") {
        return Err("no host has two dots in a row".to_owned());
    }
    let labels = || host.trim_end_matches('.').split('.');
    if host.len() > HOST_BYTES_MAX || labels().any(|label| label.len() > LABEL_BYTES_MAX) {
        return Err("a host name has at most 253 bytes, and 63 between two dots".to_owned());
    }
    // Browsers take a host whose last part is a number for an IPv4 address, and send it with four parts.
    let ends_in_number =
        labels().next_back().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if ends_in_number && !host.contains('*') && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{host} is not an IPv4 address: write all four numbers"));
    }
    Ok(())
}

/// The address as browsers write it in an Origin header. Rust writes an IPv4-mapped one with dots, browsers do not.
fn canonical_origin(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(_) => {
            let [.., high, low] = address.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        None => address.to_string(),
    }
}

fn check_port(port: &str, scheme: Option<&str>, host: &str) -> Result<(), String> {
    if port.contains('*') {
        return Ok(());
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse::<u16>().ok().filter(|number| digits && *number > 0);
    let Some(number) = number else {
        return Err("a port is a number from 1 to 65535, or *".to_owned());
    };
    if number.to_string() != port {
        return Err(format!("browsers send this port as {number}: write {host}:{number}"));
    }
    let scheme = scheme.map(str::to_ascii_lowercase).unwrap_or_default();
    if matches!((scheme.as_str(), number), ("http", 80) | ("https", 443)) {
        return Err(format!(
            "browsers leave the default port out of an Origin header: write {scheme}://{host}"
        ));
    }
    Ok(())
}

/// The authority with each label that is not ASCII in its form for the DNS (RFC 3492).
fn ascii_host(authority: &str) -> Option<String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.is_ascii() => (host, Some(port)),
        _ => (authority, None),
    };
    let labels: Option<Vec<String>> = host
        .split('.')
        .map(|label| match label.is_ascii() {
            true => Some(label.to_owned()),
            false => punycode(&label.to_lowercase()).map(|encoded| format!("xn--{encoded}")),
        })
        .collect();
    let host = labels?.join(".");
    Some(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
}

/// Punycode (RFC 3492 section 6.3), for the hint which form to write. `None` for a label that is too long for the DNS.
fn punycode(label: &str) -> Option<String> {
    const BASE: u32 = 36;
    const T_MIN: u32 = 1;
    const T_MAX: u32 = 26;
    let points: Vec<u32> = label.chars().map(u32::from).collect();
    if points.len() > LABEL_BYTES_MAX {
        return None;
    }
    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(out.len()).ok()?;
    if basic > 0 {
        out.push('-');
    }
    let total = u32::try_from(points.len()).ok()?;
    let (mut next, mut delta, mut bias, mut done) = (128_u32, 0_u32, 72_u32, basic);
    while done < total {
        let smallest = points.iter().copied().filter(|point| *point >= next).min()?;
        delta = delta.checked_add((smallest - next).checked_mul(done + 1)?)?;
        next = smallest;
        for point in &points {
            if *point < next {
                delta = delta.checked_add(1)?;
            }
            if *point != next {
                continue;
            }
            let mut rest = delta;
            let mut step = BASE;
            loop {
                let threshold = step.saturating_sub(bias).clamp(T_MIN, T_MAX);
                if rest < threshold {
                    break;
                }
                let digit = threshold + (rest - threshold) % (BASE - threshold);
                out.push(punycode_digit(digit)?);
                rest = (rest - threshold) / (BASE - threshold);
                step += BASE;
            }
            out.push(punycode_digit(rest)?);
            bias = adapt_bias(delta, done + 1, done == basic);
            delta = 0;
            done += 1;
        }
        delta += 1;
        next += 1;
    }
    (out.len() + "xn--".len() <= LABEL_BYTES_MAX).then_some(out)
}

fn punycode_digit(digit: u32) -> Option<char> {
    char::from_digit(if digit < 26 { digit + 10 } else { digit - 26 }, 36)
}

fn adapt_bias(delta: u32, points: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut step = 0;
    while delta > 455 {
        delta /= 35;
        step += 36;
    }
    step + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_that_can_match_are_accepted_without_a_slash_at_their_end() {
        for (entry, expected) in [
            ("*", "*"),
            ("example.com", "example.com"),
            ("Example.COM/", "Example.COM"),
            ("https://example.com/", "https://example.com"),
            ("https://example.com//", "https://example.com"),
            ("*.example.com", "*.example.com"),
            ("https://*.example.com:8443", "https://*.example.com:8443"),
            ("*://example.com", "*://example.com"),
            ("localhost:3000", "localhost:3000"),
            ("localhost:*", "localhost:*"),
            ("example.com:443", "example.com:443"),
            ("http://example.com:443", "http://example.com:443"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("null", "null"),
            ("127.0.0.1", "127.0.0.1"),
            ("192.168.*", "192.168.*"),
            ("[::1]", "[::1]"),
            ("[2001:db8:*]", "[2001:db8:*]"),
            ("http://[2001:db8::1]:3000", "http://[2001:db8::1]:3000"),
            ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
            ("my_app.test", "my_app.test"),
        ] {
            assert_eq!(normalize(entry).as_deref(), Ok(expected), "{entry}");
        }
    }

    #[test]
    fn entries_that_match_nothing_are_refused_with_a_correction() {
        for (entry, part) in [
            ("", "empty"),
            ("/", "no host"),
            ("https://", "://"),
            ("https:///", "://"),
            ("https://example.com/app", "no path and no query: write https://example.com"),
            ("example.com/app/", "no path and no query: write example.com"),
            ("https://example.com?x", "write https://example.com"),
            ("https://example.com#x", "write https://example.com"),
            ("//example.com", "no path"),
            ("https://user:pass@example.com", "no user"),
            ("wss://example.com", "write https://example.com"),
            ("WS://example.com:80", "write http://example.com:80"),
            ("://example.com", "scheme"),
            ("ht tp://example.com", "scheme"),
            ("a.test b.test", "commas"),
            ("\"a.test\"", "'\"'"),
            ("['a.test'", "commas"),
            ("a.test]", "brackets"),
            (r"^.*\.example\.com$", "'^'"),
            ("münchen.de", "write xn--mnchen-3ya.de"),
            ("https://Bücher.example:8080", "write xn--bcher-kva.example:8080"),
            ("例え.テスト", "write xn--r8jz45g.xn--zckzah"),
            ("https://example.com:443", "write https://example.com"),
            ("http://example.com:80/", "write http://example.com"),
            ("example.com:", "port"),
            ("example.com:0", "port"),
            ("example.com:65536", "port"),
            ("example.com:http", "port"),
            ("localhost:08080", "write localhost:8080"),
            ("https:example.com", "port"),
            (":8080", "no host"),
            (".example.com", "write *.example.com"),
            (".*.example.com", "write *.example.com"),
            ("a..test", "two dots"),
            ("::1", "write [::1]"),
            ("[::1", "not closed"),
            ("[::1]x", "port"),
            ("[nonsense]", "no brackets"),
            ("[*]", "no brackets"),
            ("[a.test]", "no brackets"),
            ("[x:y]", "not an IPv6"),
            ("[0:0:0:0:0:0:0:1]", "write that"),
            ("[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
            ("127.1", "four numbers"),
            ("10.0.0.256", "four numbers"),
            ("8080", "four numbers"),
        ] {
            let refused = normalize(entry);
            assert!(refused.as_ref().is_err_and(|why| why.contains(part)), "{entry}: {refused:?}");
        }
        assert!(normalize(&"a".repeat(64)).is_err());
        assert!(normalize(&"a.".repeat(200)).is_err());
    }

    /// The samples of RFC 3492 section 7.1 that fit a label in lower case.
    #[test]
    fn punycode_agrees_with_the_rfc() {
        for (label, expected) in [
            ("ليهمابتكلموشعربي؟", "egbpdaj6bu4bxfgehfvwxn"),
            ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
            ("почемужеонинеговорятпорусски", "b1abfaaepdrnnbgefbadotcwatmq2g4l"),
            (
                "porquénopuedensimplementehablarenespañol",
                "porqunopuedensimplementehablarenespaol-fmd56a",
            ),
            ("ü", "tda"),
        ] {
            assert_eq!(punycode(label).as_deref(), Some(expected), "{label}");
        }
        assert_eq!(punycode(&"ü".repeat(64)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(entry in "[*a-z0-9éü:/.\\[\\]@# -]{0,24}") {
            if let Ok(normal) = normalize(&entry) {
                let again = normalize(&normal);
                prop_assert_eq!(again.as_ref(), Ok(&normal));
            }
        }

        #[test]
        fn any_label_has_an_answer(label in "\\PC{0,70}") {
            let _ = punycode(&label);
        }
    }
}
