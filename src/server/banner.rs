//! The start message: what runs where, and in development mode all that a Laravel app needs to use it. PURE.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::life::Started;
use super::probe::Facts;
use crate::config::Config;
use crate::config::load::Merged;

/// How browsers reach the server.
pub(super) struct Public {
    host: String,
    port: Option<String>,
    scheme: String,
}

impl Public {
    pub(super) fn of(merged: &Merged) -> Self {
        let value = |key: &str| merged.server.get(key).map(|given| given.value.clone());
        Self {
            host: value("hostname").unwrap_or_else(|| "localhost".to_owned()),
            port: value("public_port"),
            scheme: value("scheme").unwrap_or_else(|| "http".to_owned()),
        }
    }
}

/// The parts of the configuration that are shown. A secret only of the development app, which has no other place.
pub(super) struct Summary {
    lines: Vec<(&'static str, String)>,
    path: String,
    development: Option<(String, String, String)>,
}

impl Summary {
    pub(super) fn of(config: &Config, facts: &Facts) -> Self {
        let apps: Vec<String> =
            config.apps.iter().take(5).map(|app| format!("{} (key {})", app.id, app.key)).collect();
        let more = config.apps.len().saturating_sub(apps.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let development = config.development.then(|| {
            let app = &config.apps[0];
            (app.id.clone(), app.key.clone(), app.secret.reveal().to_owned())
        });
        let mut lines = vec![
            ("kernel", format!("Linux {}, io_uring", facts.kernel)),
            ("apps", format!("{}{more}, from {}", apps.join(", "), config.source)),
            (
                "limits",
                format!(
                    "{} descriptors a worker, requests of {} bytes, messages of {} bytes",
                    facts.descriptors,
                    config.request_size_max,
                    message_sizes(config)
                ),
            ),
        ];
        lines.extend(config.scaling.as_ref().map(|scaling| {
            ("scaling", format!("redis {}, prefix {}", scaling.address(), scaling.prefix))
        }));
        Self { lines, path: config.path.clone(), development }
    }
}

/// One figure, or the smallest and the largest where apps differ.
fn message_sizes(config: &Config) -> String {
    let sizes = config.apps.iter().map(|app| app.message_size_max);
    let smallest = sizes.clone().min().unwrap_or_default();
    match sizes.max().unwrap_or_default() {
        largest if largest == smallest => largest.to_string(),
        largest => format!("{smallest} to {largest}"),
    }
}

/// The whole message.
pub(super) fn render(started: &Started, summary: &Summary, public: &Public) -> String {
    let mut text = format!("ringverb {}\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<8} {value}");
    };
    line("address", &format!("{}{}", started.address, summary.path));
    line("workers", &started.workers.to_string());
    for (name, value) in &summary.lines {
        line(name, value);
    }
    if let Some((id, key, secret)) = &summary.development {
        text.push_str(&development(started, &summary.path, public, [id, key, secret]));
    }
    text
}

fn development(
    started: &Started,
    path: &str,
    public: &Public,
    [id, key, secret]: [&str; 3],
) -> String {
    let public_port = public.port.clone().unwrap_or_else(|| started.address.port().to_string());
    let (host, scheme) = (&public.host, &public.scheme);
    let publish = publish_line(reachable(started.address), path, id, key, secret);
    let path_line =
        if path.is_empty() { String::new() } else { format!("REVERB_SERVER_PATH={path}\n") };
    format!(
        "
No app is configured, so this is a development app: its key and secret were drawn at random just now,
and the next start draws others. For Laravel's .env:

BROADCAST_CONNECTION=reverb
REVERB_APP_ID={id}
REVERB_APP_KEY={key}
REVERB_APP_SECRET={secret}
REVERB_HOST=\"{host}\"
REVERB_PORT={public_port}
REVERB_SCHEME={scheme}
{path_line}VITE_REVERB_APP_KEY=\"${{REVERB_APP_KEY}}\"
VITE_REVERB_HOST=\"${{REVERB_HOST}}\"
VITE_REVERB_PORT=\"${{REVERB_PORT}}\"
VITE_REVERB_SCHEME=\"${{REVERB_SCHEME}}\"

A first event, for bash with openssl and curl:

{publish}

"
    )
}

/// Where a program on this host reaches the server: "every address" is none to connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// One line of shell that signs and publishes `hello` on the channel `news` (PROTOCOL.md rule 48).
fn publish_line(address: SocketAddr, path: &str, id: &str, key: &str, secret: &str) -> String {
    let body = r#"{"name":"hello","channel":"news","data":"{\"message\":\"hi\"}"}"#;
    format!(
        "B='{body}'; Q=\"auth_key={key}&auth_timestamp=$(date +%s)&auth_version=1.0\
         &body_md5=$(printf %s \"$B\" | openssl md5 | sed 's/.* //')\"; \
         S=$(printf 'POST\\n/apps/{id}/events\\n%s' \"$Q\" | openssl sha256 -hmac {secret} | sed 's/.* //'); \
         curl -sd \"$B\" \"http://{address}{path}/apps/{id}/events?$Q&auth_signature=$S\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Sources, merge};
    use crate::config::validate::{DevelopmentApp, build};

    fn rendered(sources: &Sources) -> String {
        let merged = merge(sources);
        let drawn =
            DevelopmentApp { id: "123456".into(), key: "k".repeat(20), secret: "s".repeat(20) };
        let config = build(&merged, &drawn).unwrap();
        let facts = Facts { kernel: "6.18".into(), descriptors: 20_000 };
        let started = Started { address: "127.0.0.1:8080".parse().unwrap(), workers: 2 };
        render(&started, &Summary::of(&config, &facts), &Public::of(&merged))
    }

    #[test]
    fn a_configured_app_never_shows_its_secret() {
        let environment = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "the-key"),
            ("REVERB_APP_SECRET", "hunter2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let text = rendered(&Sources { environment, ..Sources::default() });
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("1 (key the-key), from environment"), "{text}");
        assert!(
            text.contains("127.0.0.1:8080") && text.contains("20000 descriptors a worker"),
            "{text}"
        );
    }

    #[test]
    fn where_nodes_meet_is_told_without_credentials() {
        let with = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            rendered(&Sources { environment: pairs.collect(), ..Sources::default() })
        };
        let url = ("REDIS_URL", "redis://hunter1:hunter2@[::1]:7");
        let text = with(&[("REVERB_SCALING_ENABLED", "true"), url]);
        assert!(text.contains("\n  scaling  redis [::1]:7, prefix reverb\n"), "{text}");
        assert!(!text.contains("hunter"), "{text}");
        assert!(!with(&[url]).contains("scaling"));
    }

    #[test]
    fn development_mode_says_so_and_gives_everything() {
        let text = rendered(&Sources::default());
        for part in [
            "this is a development app",
            "BROADCAST_CONNECTION=reverb",
            "REVERB_APP_ID=123456",
            "REVERB_APP_SECRET=ssssssssssssssssssss",
            "VITE_REVERB_HOST=\"${REVERB_HOST}\"",
            "/apps/123456/events",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
    }

    /// The line is run with curl and date replaced, so what it would send can be compared with what it should.
    #[test]
    fn the_line_of_shell_signs_rightly() {
        use hmac::{Hmac, KeyInit, Mac};
        use md5::{Digest, Md5};
        let line = publish_line("127.0.0.1:8080".parse().unwrap(), "/ws", "3", "key", "secret");
        let script =
            format!("date() {{ echo 1353088179; }}; curl() {{ printf '%s\\n' \"$@\"; }}; {line}");
        let run = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(run.status.success(), "bash and openssl are needed: {run:?}");
        let output = String::from_utf8(run.stdout).unwrap();
        let [option, body, url] = output.lines().collect::<Vec<_>>()[..] else {
            panic!("-sd, body and address, not {output}")
        };
        assert_eq!(option, "-sd");
        assert_eq!(body, r#"{"name":"hello","channel":"news","data":"{\"message\":\"hi\"}"}"#);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let query = format!(
            "auth_key=key&auth_timestamp=1353088179&auth_version=1.0&body_md5={}",
            hex(&Md5::digest(body))
        );
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(format!("POST\n/apps/3/events\n{query}").as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        assert_eq!(
            url,
            format!("http://127.0.0.1:8080/ws/apps/3/events?{query}&auth_signature={signature}")
        );
    }

    #[test]
    fn the_line_of_shell_goes_where_the_server_listens() {
        for (bound, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:9000", "10.1.2.3:9000"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
