//! Which server and which app a command speaks to.
//!
//! Owns the choice. Inputs: the configuration, the command line (`--url`, `--app`), and in development mode what the
//! running development server has published of itself (`development.rs`). Output: a `ServerPeer` with the credentials
//! of one app. Where several apps are configured and none is named, it is the first one, and a note says so. Does not
//! connect.
//! Limit: none of its own, bounded by the configuration's list of apps. Cost: once in a command, a look-up of one app.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::outcome::{CommandFailure, escaped_text, print_to_stderr};
use crate::app::{App, Secret};
use crate::config::network::Network;
use crate::config::{Config, TlsOptions};
use crate::proxy_header::OWN_HEADERS;
use crate::server::cli::{Address, CommandTarget};
use crate::server::development::{self, DevelopmentAccess};

/// A server, and an app of it with its secret.
#[derive(Debug)]
pub(super) struct ServerPeer {
    /// An IPv6 address is without the brackets that it has in a URL.
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty, or `/something` without a slash at its end.
    pub(super) prefix: String,
    pub(super) app: App,
    /// `None`: plain HTTP. The command accepts these certificates and no other ones.
    pub(super) tls: Option<TlsOptions>,
    /// The header that the server expects from trusted proxies, of which this host may be one.
    pub(super) proxied: Proxied,
}

/// Which header the configured server wants from trusted proxies. This host may be one of them.
#[derive(Debug, Default)]
pub(super) struct Proxied {
    versions: Option<[bool; 2]>,
    proxies: Vec<Network>,
}

impl Proxied {
    /// The default with a URL, because the configuration is that of another server.
    fn of(config: &Config, has_url: bool) -> Self {
        if has_url {
            return Self::default();
        }
        Self { versions: config.proxy_protocol, proxies: config.trusted_proxies.clone() }
    }

    /// The header that a connection from this address must begin with: this command speaks for itself.
    pub(super) fn proxy_header(&self, own: IpAddr) -> &'static [u8] {
        let [line, binary] = OWN_HEADERS;
        match self.versions {
            Some(_) if !self.proxies.iter().any(|proxy| proxy.contains(own)) => &[],
            None => &[],
            Some([_, true]) => binary,
            Some([_, false]) => line,
        }
    }
}

impl ServerPeer {
    pub(super) fn choose_server(
        mut config: Config,
        target: &CommandTarget,
    ) -> Result<Self, CommandFailure> {
        let url = given_url(&target.address)?;
        let port = url.as_ref().map_or(config.port, |(_, port, _)| *port);
        if config.development {
            let access = development_server(port)?;
            if let Some(id) = target.app.as_deref().filter(|id| *id != access.id) {
                return Err(CommandFailure::Usage(format!(
                    "--app is {}, but no app is configured here, and the development server on port {} has only the \
                     app {}: leave --app out, or run this in the folder of the .env with that app (--env-file, \
                     --config)",
                    escaped_text(id),
                    access.address.port(),
                    access.id
                )));
            }
            let address = access.address;
            let tls = main_port_tls(&config, url.is_some());
            let proxied = Proxied::of(&config, url.is_some());
            let app = with_credentials(config.apps.swap_remove(0), &access);
            let (host, port, prefix) =
                url.unwrap_or_else(|| (address.ip().to_string(), address.port(), access.path));
            return Ok(Self { host, port, prefix, app, tls, proxied });
        }
        let app = choose_app(&mut config, target.app.as_deref())?;
        Self::configured(config, url, app)
    }

    /// For requests that need no app. The app is the first one of the configuration, or one that the server does not
    /// know.
    pub(super) fn of_any_app(
        mut config: Config,
        address: &Address,
    ) -> Result<Self, CommandFailure> {
        let url = given_url(address)?;
        let app = config.apps.swap_remove(0);
        Self::configured(config, url, app)
    }

    /// The URL wins over the configured address.
    fn configured(config: Config, url: Option<Url>, app: App) -> Result<Self, CommandFailure> {
        if let Some((host, port, prefix)) = url {
            let proxied = Proxied::default();
            return Ok(Self { host, port, prefix, app, tls: None, proxied });
        }
        if config.port == 0 {
            return Err(CommandFailure::Usage(
                "REVERB_SERVER_PORT is 0, so the kernel chose the server's port. The start message of the server has \
                 it: give it with --port"
                    .to_owned(),
            ));
        }
        // "Every address" is none to connect to.
        let host = match config.host {
            IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            host => host.to_string(),
        };
        let tls = main_port_tls(&config, false);
        let proxied = Proxied::of(&config, false);
        Ok(Self { host, port: config.port, prefix: config.path, app, tls, proxied })
    }

    /// As in a URL or a `Host` field: an IPv6 address has brackets.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// The TLS of the configured port. A URL names another server, in plain HTTP.
fn main_port_tls(config: &Config, has_url: bool) -> Option<TlsOptions> {
    config.tls.clone().filter(|tls| tls.port.is_none() && !has_url)
}

/// Without a configured app, the command means a development server of the same user.
fn development_server(port: u16) -> Result<DevelopmentAccess, CommandFailure> {
    let ports = development::ports();
    if let Some(access) = development::find(port) {
        return Ok(access);
    }
    let running = match ports.as_slice() {
        [] => "no development server of this user is running (`ringverb` in a folder without .env starts \
               one)".to_owned(),
        [only] => format!("a development server of this user is running on port {only}, not {port}: give --port \
                           {only}"),
        several => {
            let several: Vec<String> = several.iter().map(u16::to_string).collect();
            format!("development servers of this user are running on the ports {}: give --port", several.join(", "))
        }
    };
    Err(CommandFailure::Usage(format!(
        "no app is configured here, and {running}. For another server set REVERB_APP_ID, REVERB_APP_KEY and \
         REVERB_APP_SECRET in .env or in the environment, or run this in the folder of your .env (--env-file, --config)"
    )))
}

fn with_credentials(app: App, access: &DevelopmentAccess) -> App {
    App {
        id: access.id.clone(),
        key: access.key.clone(),
        secret: Secret::new(access.secret.clone()),
        ..app
    }
}

fn choose_app(config: &mut Config, id: Option<&str>) -> Result<App, CommandFailure> {
    let ids: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
    let ids = ids.join(", ");
    let index = match id {
        Some(id) => config.apps.iter().position(|app| app.id == id).ok_or_else(|| {
            CommandFailure::Usage(format!("no app has the id {id}; the configuration has {ids}"))
        })?,
        None => {
            if config.apps.len() > 1 {
                print_to_stderr(&format!(
                    "app {} of {ids}; --app chooses another",
                    config.apps[0].id
                ));
            }
            0
        }
    };
    Ok(config.apps.swap_remove(index))
}

/// Host without brackets, port, and a path prefix that is empty or begins with a slash.
type Url = (String, u16, String);

fn given_url(address: &Address) -> Result<Option<Url>, CommandFailure> {
    address.url.as_ref().map(|url| parse_url(url).map_err(CommandFailure::Usage)).transpose()
}

/// Plain HTTP only: `http://host:port/prefix`, where port and prefix may be absent.
fn parse_url(url: &str) -> Result<Url, String> {
    const FORM: &str = "it takes the form http://127.0.0.1:8080/prefix";
    if url.starts_with("https://") || url.starts_with("wss://") {
        return Err(format!(
            "--url is {url:?}, but TLS is the proxy's: give the address of the server itself, such as \
             http://127.0.0.1:8080"
        ));
    }
    let wrong = || format!("--url is {url:?}, but {FORM}");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (authority, 80),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let path = path.trim_end_matches('/');
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let sound = !host.is_empty() && plain(host) && plain(path);
    if !sound || port == 0 || host.contains(['@', '?', '#', '[']) || path.contains(['?', '#']) {
        return Err(wrong());
    }
    let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok((host.to_owned(), port, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validate::{DevelopmentApp, build_config};
    use crate::config::{Sources, merge};

    fn choose(
        environment: &[(&str, &str)],
        target: &CommandTarget,
    ) -> Result<ServerPeer, CommandFailure> {
        let app = [("APP_ID", "1"), ("APP_KEY", "k"), ("APP_SECRET", "s")];
        let given = app.iter().chain(environment);
        let environment =
            given.map(|(name, value)| (format!("REVERB_{name}"), (*value).to_owned()));
        let merged = merge(&Sources { environment: environment.collect(), ..Sources::default() });
        let generated =
            DevelopmentApp { id: String::new(), key: String::new(), secret: String::new() };
        ServerPeer::choose_server(build_config(&merged, &generated).unwrap(), target)
    }

    #[test]
    fn the_address_is_the_servers_own() {
        let public = [("HOST", "ws.example.com"), ("PORT", "443"), ("SCHEME", "https")];
        for (host, expected) in [
            ("0.0.0.0", "http://127.0.0.1:9000/ws"),
            ("::", "http://[::1]:9000/ws"),
            ("10.0.0.1", "http://10.0.0.1:9000/ws"),
        ] {
            let own = [("SERVER_HOST", host), ("SERVER_PORT", "9000"), ("SERVER_PATH", "ws/")];
            let peer = choose(&[&public[..], &own].concat(), &CommandTarget::default()).unwrap();
            assert_eq!(peer.url(), expected);
        }
        let any = choose(&[("SERVER_PORT", "0")], &CommandTarget::default());
        assert!(matches!(any, Err(CommandFailure::Usage(text)) if text.contains("--port")));
    }

    #[test]
    fn a_given_url_wins_over_the_configuration() {
        let url = Some("http://[::1]:1/a/".to_owned());
        let target = CommandTarget {
            address: Address { url, ..Address::default() },
            ..CommandTarget::default()
        };
        assert_eq!(choose(&[("SERVER_PORT", "0")], &target).unwrap().url(), "http://[::1]:1/a");
    }

    #[test]
    fn a_url_names_scheme_host_port_and_prefix() {
        for (url, host, port, prefix) in [
            ("http://localhost:8080", "localhost", 8080, ""),
            ("http://localhost", "localhost", 80, ""),
            ("http://h:1/a/b/", "h", 1, "/a/b"),
            ("http://[::1]:8080/", "::1", 8080, ""),
            ("http://[::1]", "::1", 80, ""),
        ] {
            assert_eq!(parse_url(url), Ok((host.to_owned(), port, prefix.to_owned())), "{url}");
        }
        for url in [
            "",
            "localhost:8080",
            "http://",
            "http://:1",
            "http://h:0",
            "http://h:99999",
            "http://h:x",
            "http://u@h",
            "http://h/a b",
            "http://h/?q",
            "http://h\r\n",
        ] {
            assert!(parse_url(url).unwrap_err().contains("takes the form"), "{url}");
        }
        assert!(parse_url("https://h").unwrap_err().contains("TLS is the proxy's"));
    }
}
