//! The start message: what runs where, which files were read, and in development mode all that a Laravel app needs to
//! use it. PURE.
//!
//! Owns the text. Input: the configuration, the facts that the probes found (`probe.rs`) and the shares of the host
//! (`resources.rs`). Output: one text for the log. Secrets are masked by their types, except that development mode
//! shows the credentials that the server has generated itself. Does not decide anything.
//! Limit: five apps are named, and the others counted. Cost: once at the start, some 20 lines of text.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::life::Started;
use super::probe::KernelFacts;
use super::resources::Shares;
use crate::config::options::OptionId;
use crate::config::{Config, Files, Merged, TlsOptions};
use crate::worker::kernel::{Choice, RingSize};

/// How browsers reach the server, as far as it is configured.
pub(super) struct PublicAddress {
    host: String,
    port: Option<String>,
    scheme: String,
    is_given: bool,
}

impl PublicAddress {
    pub(super) fn of(merged: &Merged) -> Self {
        let value = |id| merged.server.get(id).map(|given| given.value.clone());
        let is_given =
            |id: &OptionId| merged.server.get(*id).is_some_and(|given| !given.is_default());
        Self {
            host: value(OptionId::Hostname).unwrap_or_else(|| "localhost".to_owned()),
            port: value(OptionId::PublicPort),
            scheme: value(OptionId::Scheme).unwrap_or_else(|| "http".to_owned()),
            is_given: [OptionId::Hostname, OptionId::PublicPort, OptionId::Scheme]
                .iter()
                .any(is_given),
        }
    }

    /// `own_port` counts if no other one is given: in development mode browsers connect to this server itself.
    fn public_url(&self, own_port: Option<&str>, path: &str) -> String {
        let Self { host, port, scheme, .. } = self;
        match (scheme.as_str(), port.as_deref().or(own_port)) {
            (_, None) | ("http", Some("80")) | ("https", Some("443")) => {
                format!("{scheme}://{host}{path}")
            }
            (_, Some(port)) => format!("{scheme}://{host}:{port}{path}"),
        }
    }
}

/// How the program was started, so that the commands in the start message work in the same shell.
#[derive(Debug, Default)]
pub(super) struct Invocation {
    /// How the program was called, such as `target/release/ringverb`.
    pub(super) program: String,
    /// Commands of this user find the server by its file (`development.rs`), so they need no credentials.
    pub(super) is_found: bool,
    pub(super) has_color: bool,
}

/// The parts of the configuration that are shown. A secret only of the development app, which has no other place.
pub(super) struct Summary {
    kernel: String,
    /// The size of rings that was chosen, and the number of workers.
    rings: Option<(RingSize, usize)>,
    lines: Vec<(&'static str, String)>,
    workers: String,
    path: String,
    files: Files,
    development: Option<(String, String, String)>,
    /// The main port is TLS. A second port that is TLS has a line of its own.
    is_secure: bool,
}

impl Summary {
    pub(super) fn of(config: &Config, files: &Files, facts: &KernelFacts, shares: &Shares) -> Self {
        let apps: Vec<String> =
            config.apps.iter().take(5).map(|app| format!("{} (key {})", app.id, app.key)).collect();
        let more = config.apps.len().saturating_sub(apps.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let development = config.development.then(|| {
            let app = &config.apps[0];
            (app.id.clone(), app.key.clone(), app.secret.reveal().to_owned())
        });
        let mut lines = vec![
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
        lines.extend(
            shares.memory_text.as_ref().map(|memory| ("memory", format!("at most {memory}"))),
        );
        lines.extend(config.scaling.as_ref().map(|scaling| {
            ("scaling", format!("redis {}, prefix {}", scaling.address(), scaling.prefix))
        }));
        lines.extend(config.tls.as_ref().map(|tls| ("tls", tls_line(tls))));
        let workers = shares.workers_text.clone();
        let is_secure = config.tls.as_ref().is_some_and(|tls| tls.port.is_none());
        let (path, files) = (config.path.clone(), files.clone());
        let kernel = format!("Linux {}, {}", facts.kernel, facts.io);
        let rings = match facts.io {
            Choice::Uring(size) => Some((size, config.workers)),
            Choice::Epoll(_) => None,
        };
        Self { kernel, rings, lines, workers, path, files, development, is_secure }
    }

    /// The kernel's version and the size of the rings that the workers have got, which may be smaller than the chosen
    /// one.
    fn kernel_text(&self, smaller_rings: usize) -> String {
        let Self { kernel, rings, .. } = self;
        let Some((size, workers)) = rings else { return kernel.clone() };
        let small = RingSize::Small.completions();
        let has_large = smaller_rings == 0 || smaller_rings < *workers;
        let completions = if has_large { size.completions() } else { small };
        let mut text = format!("{kernel} with {completions} completions a ring");
        if (1..*workers).contains(&smaller_rings) {
            text.push_str(&format!(", {small} on {smaller_rings} of {workers} workers"));
        }
        text
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }
}

fn tls_line(tls: &TlsOptions) -> String {
    let certificates: Vec<&str> = tls.pairs.iter().map(|pair| pair.certificate.as_str()).collect();
    let port = tls.port.map_or_else(|| "this port".to_owned(), |port| format!("port {port}"));
    format!("{port}, with {}", certificates.join(", "))
}

/// In bytes: one figure, or the smallest and the largest where apps differ.
fn message_sizes(config: &Config) -> String {
    let sizes = config.apps.iter().map(|app| app.message_size_max);
    let smallest = sizes.clone().min().unwrap_or_default();
    match sizes.max().unwrap_or_default() {
        largest if largest == smallest => largest.to_string(),
        largest => format!("{smallest} to {largest}"),
    }
}

const BOLD: &str = "\x1b[1m";
const GRAY: &str = "\x1b[90m";
/// White on blue, as in the output of artisan.
const BADGE: &str = "\x1b[37;44m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

pub(super) fn render(
    started: &Started,
    summary: &Summary,
    public: &PublicAddress,
    invocation: &Invocation,
) -> String {
    let paint = |paint: &'static str| if invocation.has_color { (paint, PLAIN) } else { ("", "") };
    let (bold, plain) = paint(BOLD);
    let mut text = format!("{bold}ringverb {}{plain}\n", env!("CARGO_PKG_VERSION"));
    let Files { folder, read, .. } = &summary.files;
    if read.is_empty() {
        text.push_str(&format!("No .env and no ringverb.toml in {folder}\n"));
    }
    let ((badge, end), (cyan, plain)) = (paint(BADGE), paint(CYAN));
    let url =
        format!("{}://{}{}/up", summary.scheme(), reachable_address(started.address), summary.path);
    text.push_str(&format!("\n  {badge} INFO {end} Server running: {cyan}{url}{plain}\n\n"));
    let (gray, plain) = paint(GRAY);
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        writeln!(text, "  {gray}{name:<8}{plain} {value}").ok();
    };
    line("address", &format!("{}{}", started.address, summary.path));
    if public.is_given {
        let own_port = summary.development.is_some().then(|| started.address.port().to_string());
        line("browsers", &public.public_url(own_port.as_deref(), &summary.path));
    }
    if !started.admin.is_empty() {
        line("admin", &started.admin);
    }
    line("workers", &summary.workers);
    if !read.is_empty() {
        line("files", &format!("{} (in {folder})", read.join(", ")));
    }
    line("kernel", &summary.kernel_text(started.smaller_rings));
    for (name, value) in &summary.lines {
        line(name, value);
    }
    if let Some((id, key, secret)) = &summary.development {
        let command = first_event_command(started, summary, invocation);
        text.push_str(&development_text(
            started,
            &summary.path,
            public,
            [id, key, secret],
            &command,
        ));
    }
    text.push_str(&format!("\n  {gray}Press Ctrl+C to stop{plain}\n\n"));
    text
}

/// Where the server listens if nothing names a port.
const DEFAULT_PORT: u16 = 8080;

fn development_text(
    started: &Started,
    path: &str,
    public: &PublicAddress,
    [id, key, secret]: [&str; 3],
    first_event: &str,
) -> String {
    let public_port = public.port.clone().unwrap_or_else(|| started.address.port().to_string());
    let (host, scheme) = (&public.host, &public.scheme);
    let path_line =
        if path.is_empty() { String::new() } else { format!("REVERB_SERVER_PATH={path}\n") };
    // The next start reads this block, and must listen where Laravel then looks.
    let port_line = match started.address.port() {
        DEFAULT_PORT => String::new(),
        port => format!("REVERB_SERVER_PORT={port}\n"),
    };
    format!(
        "
No app is configured, so this is a development app. Its key and secret were generated for this run;
the next start generates new ones. For Laravel's .env:

BROADCAST_CONNECTION=reverb
REVERB_APP_ID={id}
REVERB_APP_KEY={key}
REVERB_APP_SECRET={secret}
REVERB_HOST=\"{host}\"
REVERB_PORT={public_port}
REVERB_SCHEME={scheme}
{port_line}{path_line}VITE_REVERB_APP_KEY=\"${{REVERB_APP_KEY}}\"
VITE_REVERB_HOST=\"${{REVERB_HOST}}\"
VITE_REVERB_PORT=\"${{REVERB_PORT}}\"
VITE_REVERB_SCHEME=\"${{REVERB_SCHEME}}\"

A first event, from another terminal:

{first_event}
"
    )
}

/// The command that publishes `hello` on the channel `news`. Where it cannot find the server's credentials by itself,
/// they precede it.
fn first_event_command(started: &Started, summary: &Summary, invocation: &Invocation) -> String {
    let program = &invocation.program;
    let port = started.address.port();
    let port_option = if port == DEFAULT_PORT { String::new() } else { format!(" --port {port}") };
    let event = r#"news hello '{"message":"hi"}'"#;
    match &summary.development {
        Some((id, key, secret)) if !invocation.is_found => {
            let address = reachable_address(started.address);
            let url = format!("{}://{address}{}", summary.scheme(), summary.path);
            format!(
                "REVERB_APP_ID={id} REVERB_APP_KEY={key} REVERB_APP_SECRET={secret} {program} publish --url {url} \
                 {event}"
            )
        }
        _ => format!("{program} publish{port_option} {event}"),
    }
}

/// Where a program on this host reaches the server: "every address" is none to connect to.
pub(super) fn reachable_address(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validate::{DevelopmentApp, build_config};
    use crate::config::{Sources, merge};

    fn rendered(sources: &Sources) -> String {
        rendered_with(sources, &Shares::default())
    }

    fn rendered_with(sources: &Sources, shares: &Shares) -> String {
        let merged = merge(sources);
        let generated =
            DevelopmentApp { id: "123456".into(), key: "k".repeat(20), secret: "s".repeat(20) };
        let config = build_config(&merged, &generated).unwrap();
        let facts = KernelFacts {
            kernel: "6.18".into(),
            io: Choice::Uring(RingSize::Large),
            descriptors: 20_000,
        };
        let started = Started {
            address: "0.0.0.0:8080".parse().unwrap(),
            admin: "http://127.0.0.1:9601".to_owned(),
            smaller_rings: 0,
        };
        let summary = Summary::of(&config, &merged.files, &facts, shares);
        let program = "ringverb".to_owned();
        let invocation = Invocation { program, is_found: true, has_color: false };
        render(&started, &summary, &PublicAddress::of(&merged), &invocation)
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
            text.contains("  address  0.0.0.0:8080\n  admin    http://127.0.0.1:9601\n")
                && text.contains("  kernel   Linux 6.18, io_uring with 8192 completions a ring\n")
                && text.contains("20000 descriptors a worker"),
            "{text}"
        );
    }

    /// Other processes of the user may use the locked memory that was to hold larger rings.
    #[test]
    fn the_start_message_has_the_rings_that_are_in_use() {
        let summary = |io| {
            let facts = KernelFacts { kernel: "6.18".into(), io, descriptors: 20_000 };
            let merged = merge(&Sources::default());
            let app = DevelopmentApp { id: "1".into(), key: "k".into(), secret: "s".into() };
            let config = Config { workers: 4, ..build_config(&merged, &app).unwrap() };
            Summary::of(&config, &merged.files, &facts, &Shares::default())
        };
        let large = summary(Choice::Uring(RingSize::Large));
        for (smaller, rings) in [
            (0, "with 8192 completions a ring"),
            (1, "with 8192 completions a ring, 1024 on 1 of 4 workers"),
            (4, "with 1024 completions a ring"),
        ] {
            assert_eq!(large.kernel_text(smaller), format!("Linux 6.18, io_uring {rings}"));
        }
        let small = summary(Choice::Uring(RingSize::Small));
        assert_eq!(small.kernel_text(0), "Linux 6.18, io_uring with 1024 completions a ring");
        assert_eq!(summary(Choice::Epoll(None)).kernel_text(0), "Linux 6.18, epoll (RINGVERB_IO)");
    }

    #[test]
    fn workers_and_the_memory_limit_are_shown_as_they_were_decided() {
        let shares = Shares {
            workers_text: "1, not pinned: the cgroup's CPU quota is 1 of 2 CPUs".to_owned(),
            memory_text: Some("204 MiB, 0.8 of the cgroup's limit of 256 MiB".to_owned()),
            ..Shares::default()
        };
        let text = rendered_with(&Sources::default(), &shares);
        for line in [
            "\n  workers  1, not pinned: the cgroup's CPU quota is 1 of 2 CPUs\n",
            "\n  memory   at most 204 MiB, 0.8 of the cgroup's limit of 256 MiB\n",
        ] {
            assert!(text.contains(line), "{line}\nnot in\n{text}");
        }
        assert!(!rendered(&Sources::default()).contains("\n  memory"));
    }

    #[test]
    fn the_start_message_names_redis_without_credentials() {
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
    fn the_start_message_of_development_mode_has_all_credentials() {
        let text = rendered(&Sources::default());
        for part in [
            "this is a development app",
            "BROADCAST_CONNECTION=reverb",
            "REVERB_APP_ID=123456",
            "REVERB_APP_SECRET=ssssssssssssssssssss",
            "VITE_REVERB_HOST=\"${REVERB_HOST}\"",
            "\nringverb publish news hello '{\"message\":\"hi\"}'\n",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
    }

    #[test]
    fn the_start_message_names_addresses_and_files() {
        let files = |read: &[&str]| Files {
            folder: "/srv/app".to_owned(),
            read: read.iter().map(|name| (*name).to_owned()).collect(),
            unreadable: None,
            reader: crate::config::FileReader::Server,
        };
        let text = rendered(&Sources { files: files(&[]), ..Sources::default() });
        assert_eq!(text.lines().nth(1), Some("No .env and no ringverb.toml in /srv/app"));
        for part in ["INFO  Server running: http://127.0.0.1:8080/up\n", "Press Ctrl+C to stop"] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
        assert!(!text.contains("browsers") && !text.contains('\x1b'), "{text}");
        let environment =
            [("REVERB_HOST", "ws.test"), ("REVERB_PORT", "443"), ("REVERB_SCHEME", "HTTPS")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let files = files(&[".env", "ringverb.toml"]);
        let text =
            rendered(&Sources { files, environment: environment.into(), ..Sources::default() });
        assert!(text.contains("\n  files    .env, ringverb.toml (in /srv/app)\n"), "{text}");
        assert!(
            text.contains("\n  browsers https://ws.test\n") && !text.contains("No .env"),
            "{text}"
        );
    }

    /// The port is the one of the lines for .env.
    #[test]
    fn in_development_mode_the_url_of_browsers_has_the_port_of_the_server() {
        let environment = [("REVERB_HOST".to_owned(), "foo.test".to_owned())].into();
        let text = rendered(&Sources { environment, ..Sources::default() });
        assert!(text.contains("\n  browsers http://foo.test:8080\n"), "{text}");
        assert!(text.contains("\nREVERB_PORT=8080\n"), "{text}");
    }

    #[test]
    fn the_block_for_the_env_file_names_a_port_that_is_not_the_default() {
        let block = |address: &str| {
            let (address, admin) = (address.parse().unwrap(), String::new());
            let started = Started { address, admin, smaller_rings: 0 };
            let public = PublicAddress::of(&merge(&Sources::default()));
            development_text(&started, "", &public, ["1", "k", "s"], "")
        };
        assert!(
            block("0.0.0.0:9000")
                .contains("REVERB_PORT=9000\nREVERB_SCHEME=http\nREVERB_SERVER_PORT=9000\n")
        );
        assert!(!block("0.0.0.0:8080").contains("REVERB_SERVER_PORT"));
    }

    #[test]
    fn the_first_event_goes_where_the_server_listens() {
        let merged = merge(&Sources::default());
        let app = DevelopmentApp { id: "1".into(), key: "k".into(), secret: "s".into() };
        let facts = KernelFacts {
            kernel: String::new(),
            io: Choice::Uring(RingSize::Large),
            descriptors: 0,
        };
        let config = build_config(&merged, &app).unwrap();
        let summary = Summary::of(&config, &merged.files, &facts, &Shares::default());
        let line = |address: &str, is_found| {
            let (address, admin) = (address.parse().unwrap(), String::new());
            let started = Started { address, admin, smaller_rings: 0 };
            let program = "./ringverb".to_owned();
            first_event_command(
                &started,
                &summary,
                &Invocation { program, is_found, has_color: false },
            )
        };
        let event = r#"news hello '{"message":"hi"}'"#;
        assert_eq!(line("0.0.0.0:8080", true), format!("./ringverb publish {event}"));
        assert_eq!(line("0.0.0.0:81", true), format!("./ringverb publish --port 81 {event}"));
        let expected = "REVERB_APP_ID=1 REVERB_APP_KEY=k REVERB_APP_SECRET=s ./ringverb publish --url http://[::1]:81";
        assert_eq!(line("[::]:81", false), format!("{expected} {event}"));
    }

    #[test]
    fn every_address_is_reached_by_the_loopback() {
        for (bound, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:9000", "10.1.2.3:9000"),
        ] {
            assert_eq!(reachable_address(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
