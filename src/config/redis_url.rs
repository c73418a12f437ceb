//! The address of Redis in `REDIS_URL` or `REDIS_HOST`: what is accepted, and how it is shown. PURE.
//!
//! Owns the syntax. A URL contains a password, and a bad one may contain it anywhere: it is shown without credentials,
//! or not at all. Each refusal says which option to set instead. Does not resolve or connect.
//!
//! Limit: `HOST_BYTES_MAX` for a host; `load.rs` bounds the file. Cost: once at the start and at each reload, linear in
//! the text.

use std::net::Ipv6Addr;

use crate::app::Secret;

/// Longest name in the DNS, in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
const MASK: &str = "********";

const NO_TLS: &str = "this version connects to Redis without TLS: use redis:// for a Redis on this host or in a \
    private network, or for a stunnel on this host that does the TLS";
const NO_SOCKET_FILES: &str = "this version connects to Redis over TCP only: set REDIS_HOST and REDIS_PORT (in \
    redis.conf: bind 127.0.0.1, port 6379)";
const UNESCAPED: &str =
    "a /, ? or # in the name or password of a URL is written as %2F, %3F or %23";
const TEXT_AFTER_PORT: &str = "a URL ends with the port or the number of a database: set the user in REDIS_USERNAME \
    and the password in REDIS_PASSWORD";
const BAD_HOST: &str = "a host is a name such as redis.internal or an IP address";

/// The parts of one text. Options of their own supply the parts that it leaves out, as in Laravel
/// (`ConfigurationUrlParser`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RedisUrl {
    /// A name, or an address without brackets. Empty only in `Default`, for a text that was refused.
    pub host: String,
    pub port: Option<u16>,
    /// `redis://:password@host` has an empty user, which wins over `REDIS_USERNAME`.
    pub username: Option<String>,
    pub password: Option<Secret>,
}

impl RedisUrl {
    /// `redis://[user[:password]@]host[:port][/database]`; the database is checked and forgotten.
    ///
    /// # Errors
    /// What is wrong and what to do, to be read after "but".
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let rest = after_scheme(url)?.ok_or("a URL of Redis starts with redis://")?;
        let (authority, path) =
            rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        if path.contains('@') {
            return Err(UNESCAPED);
        }
        let is_database = |path: &str| path.bytes().all(|byte| byte.is_ascii_digit());
        if !path.is_empty() && !path.strip_prefix('/').is_some_and(is_database) {
            return Err(TEXT_AFTER_PORT);
        }
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, authority),
        };
        if place.matches(':').count() > 1 && !place.starts_with('[') {
            return Err("an IPv6 address in a URL needs brackets");
        }
        let (host, port) = match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, Some(port_of(port)?)),
            None => (place, None),
        };
        let host = host_of(host)?;
        let (username, password) = match credentials.map(|text| text.split_once(':')) {
            None => (None, None),
            Some(None) => (Some(decode_credential(credentials.unwrap_or_default())?), None),
            Some(Some((user, password))) => {
                (Some(decode_credential(user)?), Some(Secret::new(decode_credential(password)?)))
            }
        };
        Ok(Self { host, port, username, password })
    }

    /// A host alone; `tcp://` may stand before it.
    ///
    /// # Errors
    /// As `parse`.
    pub fn of_host(text: &str) -> Result<Self, &'static str> {
        let host = after_scheme(text)?.map_or(text, |rest| rest.trim_end_matches('/'));
        if host.contains('@') {
            return Err(
                "user and password do not belong there: set REDIS_USERNAME and REDIS_PASSWORD",
            );
        }
        let host = match host_of(host) {
            Err(_) if host.rsplit_once(':').is_some_and(|(_, port)| port_of(port).is_ok()) => {
                return Err("the port does not belong there: set REDIS_PORT");
            }
            host => host?,
        };
        Ok(Self { host, ..Self::default() })
    }
}

/// A URL for messages. Of one that cannot be read, only the scheme is shown.
#[must_use]
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
    let rest = match RedisUrl::parse(url) {
        Ok(_) => rest.rsplit_once('@').map_or(rest, |(_, place)| place),
        Err(_) => MASK,
    };
    if scheme.is_empty() || !is_scheme { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// A host for messages. One that could contain credentials is masked.
#[must_use]
pub fn shown_host(text: &str) -> &str {
    if text.contains(['@', '?']) { MASK } else { text }
}

/// The text after the scheme; `None` if the text has no scheme.
///
/// # Errors
/// The scheme means TLS, a socket file, or another protocol.
fn after_scheme(text: &str) -> Result<Option<&str>, &'static str> {
    if text.starts_with('/') {
        return Err(NO_SOCKET_FILES);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" | "tcp" => Ok(Some(rest)),
        "rediss" | "valkeys" | "tls" | "ssl" => Err(NO_TLS),
        "unix" | "redis+unix" | "rediss+unix" => Err(NO_SOCKET_FILES),
        _ => Err("the scheme of Redis is redis:// or tcp://"),
    }
}

fn host_of(text: &str) -> Result<String, &'static str> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some() || text.parse::<Ipv6Addr>().is_ok() {
        let address = bare.unwrap_or(text);
        let is_address = address.parse::<Ipv6Addr>().is_ok();
        return is_address
            .then(|| address.to_owned())
            .ok_or("only an IPv6 address can be in brackets");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = (1..=HOST_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
    is_host.then(|| text.to_owned()).ok_or(BAD_HOST)
}

fn port_of(text: &str) -> Result<u16, &'static str> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok());
    number.flatten().filter(|port| *port > 0).ok_or("a port is a number from 1 to 65535")
}

/// Decodes as PHP's `rawurldecode`: a % that is not followed by two hex digits stays.
fn decode_credential(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "the user and password of a URL must be UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_valid_urls_are_read() {
        for (url, host, port, username, password) in [
            ("redis://a.test", "a.test", None, None, None),
            ("REDIS://10.0.0.1:6380/3", "10.0.0.1", Some(6380), None, None),
            ("tcp://cache_1:1/", "cache_1", Some(1), None, None),
            ("valkey://[::1]:6379", "::1", Some(6379), None, None),
            ("redis://[2001:db8::1]/0", "2001:db8::1", None, None, None),
            ("redis://:secret@a", "a", None, Some(""), Some("secret")),
            ("redis://default:secret@a:2", "a", Some(2), Some("default"), Some("secret")),
            ("redis://only@a", "a", None, Some("only"), None),
            ("redis://u:@a", "a", None, Some("u"), Some("")),
            ("redis://u%3a%40:p%2F%C3%A4:%25@a", "a", None, Some("u:@"), Some("p/ä:%")),
            ("redis://u:p%zz%4@a", "a", None, Some("u"), Some("p%zz%4")),
            ("redis://u:p@ss@a", "a", None, Some("u"), Some("p@ss")),
        ] {
            let parsed = RedisUrl::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
            let expected = RedisUrl {
                host: host.to_owned(),
                port,
                username: username.map(str::to_owned),
                password: password.map(Secret::new),
            };
            assert!(parsed == expected, "{url}: {parsed:?}");
        }
    }

    #[test]
    fn bad_urls_are_refused_with_a_correction() {
        for (url, part) in [
            ("rediss://a.test", "without TLS"),
            ("TLS://a.test", "without TLS"),
            ("unix:///run/redis.sock", "over TCP only"),
            ("/run/redis.sock", "over TCP only"),
            ("http://a.test", "scheme"),
            ("a.test:6379", "starts with redis://"),
            ("redis:a.test", "starts with redis://"),
            ("redis://", "a host is"),
            ("redis://:6379", "a host is"),
            ("redis://a b", "a host is"),
            ("redis://ä", "a host is"),
            ("redis://a:0", "a port is"),
            ("redis://a:+1", "a port is"),
            ("redis://a:", "a port is"),
            ("redis://a:65536", "a port is"),
            ("redis://[::1", "a host is"),
            ("redis://[::1]x:1", "a host is"),
            ("redis://[a]:1", "IPv6"),
            ("redis://::1", "brackets"),
            ("redis://a/x", "number of a database"),
            ("redis://a/0?password=x", "number of a database"),
            ("redis://:a/b@c", "%2F"),
            ("redis://:a#b@c", "%23"),
            ("redis://:%ff@c", "UTF-8"),
        ] {
            let parsed = RedisUrl::parse(url);
            assert!(parsed.as_ref().is_err_and(|why| why.contains(part)), "{url}: {parsed:?}");
        }
        assert!(RedisUrl::parse(&format!("redis://{}", "a".repeat(254))).is_err());
    }

    #[test]
    fn a_host_may_stand_without_a_url() {
        for (text, host) in [
            ("127.0.0.1", "127.0.0.1"),
            ("redis", "redis"),
            ("tcp://redis.test/", "redis.test"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("tcp://[::1]", "::1"),
        ] {
            let parsed = RedisUrl::of_host(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(parsed, RedisUrl { host: host.to_owned(), ..RedisUrl::default() }, "{text}");
        }
        for (text, part) in [
            ("tls://a", "without TLS"),
            ("rediss://a", "without TLS"),
            ("unix:///run/redis.sock", "over TCP only"),
            ("/run/redis.sock", "over TCP only"),
            ("a:6379", "REDIS_PORT"),
            ("tcp://a:6379", "REDIS_PORT"),
            ("tcp://u:p@a", "REDIS_PASSWORD"),
            ("a/b", "a host is"),
        ] {
            let parsed = RedisUrl::of_host(text);
            assert!(parsed.as_ref().is_err_and(|why| why.contains(part)), "{text}: {parsed:?}");
        }
    }

    #[test]
    fn credentials_do_not_show() {
        for (url, expected) in [
            ("redis://user:hunter2@a.test:1/0", "redis://a.test:1/0"),
            ("redis://:hunter2@[::1]", "redis://[::1]"),
            ("redis://a.test", "redis://a.test"),
            // Where the password is in a bad one is unknown.
            ("rediss://:hunter2@a.test", "rediss://********"),
            ("redis://:hunter2", "redis://********"),
            ("redis://:a/hunter2@b", "redis://********"),
            ("redis://a?password=hunter2", "redis://********"),
            ("hunter2@a", "********"),
            ("hunter2://a", "hunter2://********"),
            ("u:hunter2@b://a", "********"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
        assert_eq!(shown_host("tcp://u:hunter2@a"), MASK);
        assert_eq!(shown_host("tls://a"), "tls://a");
        let parsed = RedisUrl::parse("redis://u:hunter2@a").unwrap();
        assert!(!format!("{parsed:?}").contains("hunter2"));
    }
}
