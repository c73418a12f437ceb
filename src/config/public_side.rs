//! How browsers reach the server (`REVERB_HOST`, `REVERB_PORT`, `REVERB_SCHEME`), and ports that Kubernetes sets. PURE.
//!
//! Owns what is made of a malformed value. The public side is shown in the start message and used for nothing else, so
//! a wrong value is a warning and never a reason not to start. Kubernetes sets `REVERB_PORT=tcp://...` in every pod of
//! a namespace with a service `reverb`. Does not look at the network.
//!
//! No limits: one warning for each option that it looks at. Cost: once at the start and at each reload, a few look-ups.

use super::names::service_port;
use super::options::OptionId as Id;
use super::values::{Sourced, Values};
use super::webhook_url;

/// Makes the values that the start message shows well-formed, with a warning for each that was not.
pub(super) fn normalize(server: &mut Values, warnings: &mut Vec<String>) {
    let mut change = |id: Id, good: fn(&str) -> Option<String>| {
        let Some(given) = server.get(id).cloned() else { return };
        let value = good(&given.value);
        if value.as_deref() != Some(given.value.as_str()) {
            // HTTPS means https: no warning.
            if !value.as_ref().is_some_and(|value| value.eq_ignore_ascii_case(&given.value)) {
                warnings.push(warning_sentence(id, &given, value.as_deref()));
            }
            server.replace(id, value);
        }
    };
    change(Id::PublicPort, |text| {
        let plain = text.parse::<u16>().ok().filter(|port| *port > 0);
        plain
            .or_else(|| service_port(text))
            .or_else(|| port_of_url(text))
            .map(|port| port.to_string())
    });
    change(Id::Scheme, |text| {
        let scheme = text.split("://").next().unwrap_or_default().to_ascii_lowercase();
        match scheme.as_str() {
            "http" | "ws" => Some("http".to_owned()),
            "https" | "wss" => Some("https".to_owned()),
            _ => None,
        }
    });
    change(Id::Hostname, |text| {
        let host = without_port(host_of(text));
        let is_host = !host.is_empty()
            && host.chars().all(|char| !char.is_control() && !char.is_whitespace());
        is_host.then(|| host.to_owned())
    });
}

/// The authority of a URL without credentials, or of a text that should be a host.
fn host_of(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// A host with a port, as in `ws.test:8080` or `[::1]:8080`, without it. An IPv6 address without brackets has none.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') || name.ends_with(']') => name,
        _ => host,
    }
}

/// A warning if browsers are sent to this server's own port with https, and it is plain HTTP there.
pub(super) fn tls_on_plain_port_warning(server: &Values) -> Option<String> {
    let value = |id: Id| server.get(id).map(|given| given.value.as_str());
    let port = value(Id::PublicPort).filter(|port| value(Id::Port) == Some(port))?;
    let is_secure = value(Id::TlsCert).is_some() && value(Id::TlsPort).is_none();
    (value(Id::Scheme) == Some("https") && !is_secure).then(|| {
        format!(
            "REVERB_SCHEME is https and REVERB_PORT is {port}, the port of this server, which is plain HTTP: name a \
             certificate in RINGVERB_TLS_CERT and RINGVERB_TLS_KEY, or let a proxy serve https on another port \
             (REVERB_PORT=443), or set REVERB_SCHEME=http"
        )
    })
}

fn port_of_url(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once(':')?.1.parse().ok().filter(|port| *port > 0)
}

fn warning_sentence(id: Id, given: &Sourced, value: Option<&str>) -> String {
    let option = id.spec();
    let name = given.name();
    let effect = match (value, option.default) {
        (Some(value), _) => format!("{value} is used"),
        (None, "") => "it is ignored".to_owned(),
        (None, default) => format!("{default} is used"),
    };
    let why = if service_port(&given.value).is_some() {
        "Kubernetes sets it for a service of that name (enableServiceLinks)".to_owned()
    } else if id == Id::Hostname && value.is_some_and(|host| host_of(&given.value) != host) {
        "a host name has no port (REVERB_PORT sets it)".to_owned()
    } else {
        format!("it takes {}", option.accepts.sentence())
    };
    // A URL may carry credentials.
    let shown = webhook_url::shown(&given.value);
    format!(
        "{name} is \"{shown}\"{}, but {why}; {effect}, and only the start message shows it",
        given.source_in_brackets()
    )
}

/// Replaces a URL in `REDIS_PORT`, as Kubernetes and Docker links set it, by its port. The URL is the address of the
/// service, so its port is right.
pub(super) fn replace_redis_port_url(server: &mut Values, warnings: &mut Vec<String>) {
    const PORT: Id = Id::RedisPort;
    let Some(given) = server.get(PORT).cloned() else { return };
    if let Some(port) = service_port(&given.value) {
        warnings.push(format!(
            "{} is \"{}\"{}, which Kubernetes sets for a service named redis (enableServiceLinks); port {port} \
             is used",
            given.name(),
            given.value,
            given.source_in_brackets()
        ));
        server.replace(PORT, Some(port.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::Id;
    use crate::config::{Sources, merge};

    /// The value as it is shown, and the warnings.
    fn shown(id: Id, name: &str, value: &str) -> (Option<String>, Vec<String>) {
        let environment = [(name.to_owned(), value.to_owned())].into();
        let merged = merge(&Sources { environment, ..Sources::default() });
        (merged.server.get(id).map(|given| given.value.clone()), merged.warnings)
    }

    #[test]
    fn https_on_the_servers_own_port_is_warned_of() {
        let warnings = |port: &str, scheme: &str| {
            let environment = [("REVERB_PORT", port), ("REVERB_SCHEME", scheme)];
            let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
            merge(&Sources { environment: environment.into(), ..Sources::default() }).warnings
        };
        let found = warnings("8080", "HTTPS");
        assert!(found.len() == 1 && found[0].contains("which is plain HTTP"), "{found:?}");
        assert!(warnings("443", "https").is_empty() && warnings("8080", "http").is_empty());
        let names = ["REVERB_PORT", "REVERB_SCHEME", "RINGVERB_TLS_CERT", "RINGVERB_TLS_KEY"];
        let values = ["8080", "https", "cert.pem", "key.pem"].map(str::to_owned);
        let environment = names.map(str::to_owned).into_iter().zip(values).collect();
        assert!(merge(&Sources { environment, ..Sources::default() }).warnings.is_empty());
    }

    #[test]
    fn shown_values_are_made_well_formed_with_a_warning() {
        for (id, name, value, expected, part) in [
            (Id::PublicPort, "REVERB_PORT", "tcp://10.96.0.13:8080", Some("8080"), "Kubernetes"),
            (Id::PublicPort, "REVERB_PORT", "https://ws.test:6001/x", Some("6001"), "6001 is used"),
            (Id::PublicPort, "REVERB_PORT", "0", None, "it is ignored"),
            (Id::PublicPort, "REVERB_PORT", "abc", None, "a number from 1 to 65535"),
            (Id::Scheme, "REVERB_SCHEME", "ftp", Some("http"), "http or https"),
            (Id::Scheme, "REVERB_SCHEME", "https://", Some("https"), "https is used"),
            (Id::Scheme, "REVERB_SCHEME", "wss", Some("https"), "https is used"),
            (
                Id::Hostname,
                "REVERB_HOST",
                "https://u:p@ws.test/x",
                Some("ws.test"),
                "ws.test is used",
            ),
            (
                Id::Hostname,
                "REVERB_HOST",
                "my.app:8080",
                Some("my.app"),
                "has no port (REVERB_PORT",
            ),
            (Id::Hostname, "REVERB_HOST", "[::1]:80", Some("[::1]"), "[::1] is used"),
            (Id::Hostname, "REVERB_HOST", "a b", Some("localhost"), "localhost is used"),
        ] {
            let (shown, warnings) = shown(id, name, value);
            assert_eq!(shown.as_deref(), expected, "{value}");
            assert!(warnings.len() == 1 && warnings[0].contains(part), "{value}: {warnings:?}");
        }
        for (id, name, value, expected) in [
            (Id::PublicPort, "REVERB_PORT", "443", "443"),
            (Id::Scheme, "REVERB_SCHEME", "HTTPS", "https"),
            (Id::Scheme, "REVERB_SCHEME", "Http", "http"),
            (Id::Hostname, "REVERB_HOST", "ws.example.com", "ws.example.com"),
            (Id::Hostname, "REVERB_HOST", "::1", "::1"),
        ] {
            assert_eq!(shown(id, name, value), (Some(expected.to_owned()), Vec::new()), "{value}");
        }
    }
}
