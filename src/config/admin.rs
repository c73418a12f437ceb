//! Where the admin listener is: an address, a socket file, or nowhere. PURE.
//!
//! Owns the rule that a listener which other hosts can reach must have a token, because metrics name apps and channels
//! of customers. Reads `RINGVERB_ADMIN` and checks `RINGVERB_ADMIN_TOKEN`. Does not listen or look at the file system:
//! `server/admin` does.
//!
//! Limits: a token has 16 to 256 characters, a path 107 bytes; `validate.rs` bounds the text of an option. Cost: once
//! at the start, one allocation for the path or the address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::app::Secret;

/// Shortest and longest token in bytes. 16 random characters cannot be guessed over a network.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
/// What `sockaddr_un` has room for, without the byte that ends it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

#[derive(Clone, Debug)]
pub struct Admin {
    pub place: AdminPlace,
    /// The place was configured, so the server does not start without it. The default may be in use by another server.
    pub is_explicit: bool,
    /// The token that requests must carry, except for probes. `None` only if no other host can reach the listener.
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminPlace {
    Off,
    Tcp(SocketAddr),
    /// A socket file. Only the user of the server, and root, can connect.
    Unix(PathBuf),
}

impl AdminPlace {
    /// Reads `RINGVERB_ADMIN`.
    ///
    /// # Errors
    /// Why the text names no place, to be read after "but".
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            return match path.len() {
                _ if !path.starts_with('/') => {
                    Err("the path of a socket file begins with /: unix:/run/ringverb/admin.sock"
                        .to_owned())
                }
                length if length > SOCKET_PATH_BYTES_MAX => Err(format!(
                    "the path of a socket file has at most {SOCKET_PATH_BYTES_MAX} bytes, and this one has {length}"
                )),
                _ => Ok(Self::Unix(path.into())),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let port = text.strip_prefix("localhost:").unwrap_or(text).parse();
        port.map(|port| Self::Tcp((IpAddr::from(Ipv4Addr::LOCALHOST), port).into())).map_err(|_| {
            "it takes an IP address and a port such as 127.0.0.1:9601, unix:/path, or off"
                .to_owned()
        })
    }

    /// Whether other hosts may reach it, so that it needs a token.
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for AdminPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Why a text is not accepted as a token; `None` if it is.
pub(super) fn token_problem(token: &str) -> Option<String> {
    if !TOKEN_BYTES.contains(&token.len()) {
        return Some(format!(
            "it has {} bytes, but a token has {} to {}: generate one with `openssl rand -hex 32`",
            token.len(),
            TOKEN_BYTES.start(),
            TOKEN_BYTES.end()
        ));
    }
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_plain)
        .then(|| "it has a blank or another character that a header field cannot carry".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        for (text, shown) in [
            ("off", "off"),
            ("127.0.0.1:9601", "127.0.0.1:9601"),
            ("localhost:7", "127.0.0.1:7"),
            ("9000", "127.0.0.1:9000"),
            ("[::1]:9601", "[::1]:9601"),
            ("unix:/run/a b", "unix:/run/a b"),
            ("/run/admin", "unix:/run/admin"),
        ] {
            assert_eq!(AdminPlace::parse(text).unwrap().to_string(), shown);
        }
        let long = format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        for text in ["on", "127.0.0.1", "0.0.0.0:65536", "unix:admin.sock", &long, "localhost"] {
            AdminPlace::parse(text).unwrap_err();
        }
    }

    #[test]
    fn an_address_that_other_hosts_reach_is_public() {
        for (text, is_public) in [
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
            ("127.0.0.9:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("/run/admin", false),
            ("off", false),
        ] {
            assert_eq!(AdminPlace::parse(text).unwrap().is_public(), is_public, "{text}");
        }
    }

    #[test]
    fn a_token_is_long_and_plain() {
        assert_eq!(token_problem(&"a".repeat(16)), None);
        for token in ["short", "sixteen or more, with blanks", &"é".repeat(16), &"a".repeat(257)] {
            assert!(token_problem(token).is_some(), "{token}");
        }
    }
}
