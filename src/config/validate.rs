//! From text to `Config`: every value is read and checked, and all problems are reported at once. PURE.

use std::net::IpAddr;

use super::load::{Merged, Sourced, Values};
use super::network::Network;
use super::options::{self, Scope};
use super::redis_url::{self, RedisUrl};
use super::{Config, Scaling, names, origins, sizes, webhook_url};
use crate::app::{App, ClientEventsFrom, PerSecond, RateLimit, Secret, Webhook, WebhookKind};
use crate::limits;
use crate::text::shown;

/// Webhooks of all apps together: each that is in use has a thread.
pub const WEBHOOKS_MAX: usize = 1_000;

/// Credentials of development mode, drawn by the caller.
#[derive(Clone, Debug)]
pub struct DevelopmentApp {
    pub id: String,
    pub key: String,
    pub secret: String,
}

/// Builds the configuration.
///
/// # Errors
/// One sentence per problem: the name, the value (a secret's never), what is accepted.
pub fn build(merged: &Merged, development: &DevelopmentApp) -> Result<Config, Vec<String>> {
    let mut reader = Reader { problems: merged.problems.clone(), scope: Scope::Server };
    let server = &merged.server;
    let mut config = Config {
        host: reader.address(server, "host"),
        port: reader.number(server, "port", 0, 65_535),
        path: reader.path(server),
        workers: reader.number(server, "workers", 0, 128),
        debug: reader.boolean(server, "debug"),
        talkative: reader.boolean(server, "development"),
        colour: merged.colour,
        print_events: reader.one_word(server, "print_events", "json"),
        request_size_max: reader.number(server, "max_request_size", 512, 16 << 20),
        handshake_timeout_seconds: reader.number(server, "handshake_timeout", 1, 3_600),
        keepalive_timeout_seconds: reader.number(server, "keepalive_timeout", 1, 86_400),
        shutdown_grace_seconds: reader.number(server, "shutdown_grace", 1, 86_400),
        shutdown_delay_seconds: reader.number(server, "shutdown_delay", 0, 3_600),
        takeover: reader.boolean(server, "takeover"),
        send_queue_bytes_max: reader.number(server, "send_queue_bytes_max", 4_096, 1 << 31),
        connection_bytes_max: 0,
        cache_bytes_max: reader.number(server, "cache_bytes_max", 1 << 16, 1 << 40),
        connections_per_ip_max: reader.some(server, "connections_per_ip_max", 1),
        handshakes_per_ip_per_second_max: reader.some(
            server,
            "handshakes_per_ip_per_second_max",
            1,
        ),
        auth_failures_per_ip_per_second_max: reader.some(
            server,
            "auth_failures_per_ip_per_second_max",
            1,
        ),
        trusted_proxies: reader.networks(server, "trusted_proxies"),
        memory_max: reader.some(server, "memory_max", 16 << 20),
        webhook_timeout_seconds: reader.number(server, "webhook_timeout", 1, 3_600),
        webhook_retry_seconds: reader.number(server, "webhook_retry", 0, 86_400),
        webhook_debounce_ms: reader.number(server, "webhook_debounce", 0, 60_000),
        webhook_queue_events_max: reader.number(server, "webhook_queue_max", 1, 1_000_000),
        scaling: reader.scaling(server),
        apps: Vec::new(),
        development: merged.apps.is_empty(),
        source: merged.source.clone(),
    };
    config.connection_bytes_max = reader
        .some(server, "connection_bytes_max", 65_536)
        .unwrap_or(config.send_queue_bytes_max + CONNECTION_BYTES_BESIDE_QUEUE);
    reader.scope = Scope::App;
    config.apps = merged.apps.iter().map(|values| reader.app(values)).collect();
    if config.development {
        config.talkative |= server.get("development").is_none();
        config.apps.push(reader.development_app(&merged.development, development));
    }
    reader.check_unique(&config.apps);
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

/// What one connection keeps beside its send queue if `connection_bytes_max` is not set. With the default queue, and
/// incomplete input of the default message size, it makes 1.25 MiB.
const CONNECTION_BYTES_BESIDE_QUEUE: usize = 192 * 1024;

struct Reader {
    problems: Vec<String>,
    scope: Scope,
}

impl Reader {
    fn app(&mut self, values: &Values) -> App {
        App {
            id: self.in_url(values, "id"),
            key: self.in_url(values, "key"),
            secret: Secret::new(credential(values, "secret")),
            ..self.options(values)
        }
    }

    /// A credential that is a part of URLs.
    fn in_url(&mut self, values: &Values, key: &str) -> String {
        let Some(given) = values.get(key) else { return String::new() };
        if let Some(why) = unreachable(&given.value, key == "key") {
            let name = options::find(Scope::App, key).environment[0];
            let shown = shown(&given.value);
            self.problems.push(format!("{name} is {shown} ({}), but {why}", given.source));
        }
        given.value.clone()
    }

    fn origins(&mut self, values: &Values, key: &str) -> Vec<String> {
        let Some(given) = values.get(key) else { return Vec::new() };
        let name = options::find(Scope::App, key).environment[0];
        let mut origins = Vec::new();
        let mut entries: Vec<&str> = given.value.split(',').map(str::trim).collect();
        // Several empty entries are one problem.
        entries.dedup();
        for entry in entries {
            match origins::normalize(entry) {
                Ok(origin) => origins.push(origin),
                Err(why) => self.problems.push(format!(
                    "{name} has the entry {} ({}), but {why}",
                    shown(entry),
                    given.source
                )),
            }
        }
        origins
    }

    /// Starts of channel names, taken as they are.
    fn prefixes(&mut self, values: &Values, key: &str) -> Vec<String> {
        let prefixes = self.list(values, key);
        if let Some(prefix) = prefixes.iter().find(|prefix| prefix.contains('*')) {
            let name = options::find(Scope::Webhook, key).environment[0];
            self.problems.push(format!(
                "{name} has the entry {}, but entries are starts of channel names without a wildcard: write {}",
                shown(prefix),
                shown(prefix.split('*').next().unwrap_or_default())
            ));
        }
        prefixes
    }

    /// An app without its credentials.
    fn options(&mut self, values: &Values) -> App {
        let rate_limit = self.boolean(values, "rate_limiting.enabled");
        let rate_limit_values = RateLimit {
            attempts_max: self.number(values, "rate_limiting.max_attempts", 1, u32::MAX.into()),
            decay_seconds: self.number(values, "rate_limiting.decay_seconds", 1, 86_400),
            terminate_on_limit: self.boolean(values, "rate_limiting.terminate_on_limit"),
        };
        let auth_window = self.number(values, "auth_window", 0, u32::MAX.into());
        App {
            id: String::new(),
            key: String::new(),
            secret: Secret::new(""),
            enabled: self.boolean(values, "enabled"),
            ping_interval_seconds: self.number(values, "ping_interval", 1, 86_400),
            activity_timeout_seconds: self.number(values, "activity_timeout", 1, 86_400),
            pong_timeout_seconds: self.number(values, "pong_timeout", 1, 86_400),
            connections_max: self.optional(values, "max_connections"),
            message_size_max: self.number(values, "max_message_size", 64, 16 << 20),
            client_events_from: self.client_events_from(values),
            client_events_on_public: self.boolean(values, "client_events_on_public"),
            rate_limit: rate_limit.then_some(rate_limit_values),
            allowed_origins: self.origins(values, "allowed_origins"),
            allow_missing_origin: self.boolean(values, "allow_missing_origin"),
            auth_window_seconds: (auth_window > 0).then_some(auth_window),
            allow_reserved_events: self.boolean(values, "allow_reserved_events"),
            channels_per_connection_max: self.number(
                values,
                "max_channels_per_connection",
                1,
                u32::MAX.into(),
            ),
            presence_members_max: self.optional(values, "max_presence_members"),
            member_size_max: self.number(values, "max_member_size", 1, u32::MAX.into()),
            user_data_size_max: self.number(values, "max_user_data_size", 1, u32::MAX.into()),
            channel_name_max: self.number(
                values,
                "max_channel_name_length",
                1,
                limits::CHANNEL_NAME_BYTES_MAX as u64,
            ),
            channel_names_are_pushers: self.one_of(values, "channel_names", ["any", "pusher"]),
            client_events_per_second_max: self.optional(values, "max_client_events_per_second"),
            event_payload_max: self.optional(values, "max_event_payload"),
            publishes_per_second_max: self.optional(values, "max_publishes_per_second"),
            subscription_count: self.boolean(values, "subscription_count"),
            cache_seconds: self.number(values, "cache_ttl", 1, u32::MAX.into()),
            authorize_within_seconds: self.optional(values, "authorize_within"),
            webhooks: self.webhooks(values),
            batch_events_max: self.optional(values, "max_batch_events"),
            event_channels_max: self.optional(values, "max_event_channels"),
            event_name_max: self.optional(values, "max_event_name_length"),
            error_data_is_object: self.one_of(values, "error_data", ["string", "object"]),
            over_quota_retries: self.one_of(values, "over_quota_code", ["4004", "4100"]),
            subscription_errors: self.boolean(values, "subscription_errors"),
            connections_open: std::sync::atomic::AtomicU32::new(0),
            published: PerSecond::default(),
        }
    }

    /// Development mode takes the app options of the environment, only with drawn credentials.
    fn development_app(&mut self, values: &Values, drawn: &DevelopmentApp) -> App {
        App {
            id: drawn.id.clone(),
            key: drawn.key.clone(),
            secret: Secret::new(drawn.secret.clone()),
            ..self.options(values)
        }
    }

    fn check_unique(&mut self, apps: &[App]) {
        for (index, app) in apps.iter().enumerate() {
            for earlier in &apps[..index] {
                if earlier.id == app.id && !app.id.is_empty() {
                    self.problems.push(format!("two apps have the id {}", app.id));
                }
                if earlier.key == app.key && !app.key.is_empty() {
                    self.problems
                        .push(format!("the apps {} and {} have the same key", earlier.id, app.id));
                }
            }
        }
        if apps.len() > usize::from(u16::MAX) {
            self.problems.push("there are more than 65,535 apps".to_owned());
        }
        let webhooks: usize = apps.iter().map(|app| app.webhooks.len()).sum();
        if webhooks > WEBHOOKS_MAX {
            self.problems.push(format!(
                "there are {webhooks} webhooks, but all apps together may have {WEBHOOKS_MAX}: send the events of several \
                 channels to one endpoint, or run more servers"
            ));
        }
    }

    fn webhooks(&mut self, values: &Values) -> Vec<Webhook> {
        let before = std::mem::replace(&mut self.scope, Scope::Webhook);
        let webhooks = values.webhooks().iter().map(|values| Webhook {
            url: self.webhook_url(values),
            kinds: self.webhook_kinds(values),
            channel_prefixes: self.prefixes(values, "channel_prefixes"),
        });
        let webhooks = webhooks.collect();
        self.scope = before;
        webhooks
    }

    fn webhook_url(&mut self, values: &Values) -> String {
        let Some(given) = values.get("url") else { return String::new() };
        if let Err(why) = webhook_url::check(&given.value) {
            let name = options::find(Scope::Webhook, "url").environment[0];
            let shown = webhook_url::shown(&given.value);
            self.problems.push(format!("{name} is \"{shown}\" ({}), but {why}", given.source));
        }
        given.value.clone()
    }

    fn webhook_kinds(&mut self, values: &Values) -> Vec<WebhookKind> {
        let names = self.list(values, "events");
        let Some(given) = values.get("events") else { return WebhookKind::ALL.to_vec() };
        let mut kinds = Vec::new();
        for name in &names {
            match WebhookKind::parse(name) {
                Some(kind) if kinds.contains(&kind) => {}
                Some(kind) => kinds.push(kind),
                None => self.problems.push(unknown_kind(name, &given.source)),
            }
        }
        kinds
    }

    /// Redis is looked at only if nodes meet there: Laravel's `.env` names the one of an app's cache, and whatever is
    /// wrong with that one is none of the server's business.
    fn scaling(&mut self, server: &Values) -> Option<Scaling> {
        if !self.boolean(server, "scaling.enabled") {
            return None;
        }
        let RedisUrl { host, port, username, password } = self.redis(server);
        // Without effect, but a slip there may be one of lines.
        let _: u32 = self.number(server, "scaling.server.database", 0, u32::MAX.into());
        let username = username.unwrap_or_else(|| credential(server, "scaling.server.username"));
        let password =
            password.unwrap_or_else(|| Secret::new(credential(server, "scaling.server.password")));
        Some(Scaling {
            host,
            port: port.unwrap_or_else(|| self.number(server, "scaling.server.port", 1, 65_535)),
            username: Some(username).filter(|text| !text.is_empty()),
            password: Some(password).filter(|secret| !secret.reveal().is_empty()),
            prefix: self.scaling_prefix(server),
            timeout_seconds: self.number(server, "scaling.server.timeout", 1, 3_600),
        })
    }

    /// Where Redis is: the URL says it, or else the host.
    fn redis(&mut self, server: &Values) -> RedisUrl {
        let url = server.get("scaling.server.url").map(|given| {
            (given, RedisUrl::parse(&given.value), redis_url::shown(&given.value), "REDIS_URL")
        });
        let host = || {
            let given = server.get("scaling.server.host")?;
            let shown = redis_url::shown_host(&given.value).to_owned();
            Some((given, RedisUrl::of_host(&given.value), shown, "REDIS_HOST"))
        };
        let Some((given, parsed, shown, name)) = url.or_else(host) else {
            return RedisUrl::default();
        };
        parsed.unwrap_or_else(|why| {
            self.problems.push(format!("{name} is \"{shown}\" ({}), but {why}", given.source));
            RedisUrl::default()
        })
    }

    fn scaling_prefix(&mut self, server: &Values) -> String {
        let key = "scaling.channel";
        let Some(given) = server.get(key) else { return String::new() };
        // Such as mean nothing in a pattern of PSUBSCRIBE and need no quoting in redis-cli.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
        if given.value.len() > 100 || !given.value.bytes().all(is_plain) {
            self.wrong(key, given);
        }
        given.value.clone()
    }

    fn wrong(&mut self, key: &str, given: &Sourced) {
        let option = options::find(self.scope, key);
        self.problems.push(format!(
            "{} is \"{}\" ({}), but it takes {}",
            option.environment[0], given.value, given.source, option.accepts
        ));
    }

    fn number<T: TryFrom<u64> + Default>(
        &mut self,
        values: &Values,
        key: &str,
        min: u64,
        max: u64,
    ) -> T {
        let Some(given) = values.get(key) else { return T::default() };
        let number = match options::find(self.scope, key).is_size() {
            true => sizes::parse(&given.value),
            false => given.value.replace('_', "").parse::<u64>().ok(),
        };
        let number = number.filter(|number| (min..=max).contains(number));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => number,
            None => {
                self.wrong(key, given);
                T::default()
            }
        }
    }

    /// A number of at least one, or nothing.
    fn optional(&mut self, values: &Values, key: &str) -> Option<u32> {
        self.some(values, key, 1)
    }

    /// A number of at least `min` that the type can hold, or nothing.
    fn some<T: TryFrom<u64> + Default>(
        &mut self,
        values: &Values,
        key: &str,
        min: u64,
    ) -> Option<T> {
        values.get(key)?;
        Some(self.number(values, key, min, u64::MAX))
    }

    fn networks(&mut self, values: &Values, key: &str) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in self.list(values, key) {
            match Network::parse(&text) {
                Some(network) => networks.push(network),
                None => self.problems.push(format!(
                    "{} has the entry \"{text}\", which is neither an address nor a network such as 10.0.0.0/8",
                    options::find(self.scope, key).environment[0]
                )),
            }
        }
        networks
    }

    /// Whether the second of two words is given.
    fn one_of(&mut self, values: &Values, key: &str, words: [&str; 2]) -> bool {
        let Some(given) = values.get(key) else { return false };
        if !words.contains(&given.value.as_str()) {
            self.wrong(key, given);
        }
        given.value == words[1]
    }

    /// Whether the one word that may be given is given.
    fn one_word(&mut self, values: &Values, key: &str, word: &str) -> bool {
        let Some(given) = values.get(key) else { return false };
        if given.value != word {
            self.wrong(key, given);
        }
        given.value == word
    }

    fn boolean(&mut self, values: &Values, key: &str) -> bool {
        let Some(given) = values.get(key) else { return false };
        boolean(&given.value).unwrap_or_else(|| {
            self.wrong(key, given);
            false
        })
    }

    fn list(&mut self, values: &Values, key: &str) -> Vec<String> {
        let Some(given) = values.get(key) else { return Vec::new() };
        let items = given.value.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Vec<String> = items.map(str::to_owned).collect();
        if items.is_empty() {
            self.wrong(key, given);
        }
        items
    }

    fn address(&mut self, values: &Values, key: &str) -> IpAddr {
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        let Some(given) = values.get(key) else { return unspecified };
        let text = if given.value == "localhost" { "127.0.0.1" } else { &given.value };
        match text.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => address,
            Err(_) => {
                self.wrong(key, given);
                unspecified
            }
        }
    }

    fn path(&mut self, values: &Values) -> String {
        let Some(given) = values.get("path") else { return String::new() };
        let path = given.value.trim_matches('/');
        // Such as need no quoting, neither in a URL nor in the line of shell of the start message.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%+:@,=".contains(&byte);
        if !path.bytes().all(plain) || path.contains("//") {
            self.wrong("path", given);
        }
        if path.is_empty() { String::new() } else { format!("/{path}") }
    }

    fn client_events_from(&mut self, values: &Values) -> ClientEventsFrom {
        let key = "accept_client_events_from";
        let Some(given) = values.get(key) else { return ClientEventsFrom::Members };
        match given.value.as_str() {
            "all" => ClientEventsFrom::All,
            "members" => ClientEventsFrom::Members,
            "none" => ClientEventsFrom::None,
            _ => {
                self.wrong(key, given);
                ClientEventsFrom::None
            }
        }
    }
}

/// What may be any text; nothing if it is not given. Of an app, `load` has named the missing ones.
fn credential(values: &Values, key: &str) -> String {
    values.get(key).map(|given| given.value.clone()).unwrap_or_default()
}

/// Longest id or key of an app in bytes. Those that `reverb:install` writes have 6 and 20.
const CREDENTIAL_BYTES_MAX: usize = 200;

/// Why no request can name an app by this id or key, and what to do.
fn unreachable(text: &str, is_key: bool) -> Option<String> {
    let what = if is_key { "key" } else { "id" };
    if text.len() > CREDENTIAL_BYTES_MAX {
        return Some(format!("the {what} of an app has at most {CREDENTIAL_BYTES_MAX} bytes"));
    }
    if matches!(text, "." | "..") {
        return Some(format!("clients remove this from a URL: choose another {what}"));
    }
    let is_bad = |char: &char| !char.is_ascii_graphic() || "/\\?#%:\"<>".contains(*char);
    let bad = text.chars().find(is_bad)?;
    let bad = match bad {
        ' ' => "a space".to_owned(),
        bad => shown(bad.encode_utf8(&mut [0; 4])).to_string(),
    };
    Some(format!(
        "it contains {bad}, and the {what} is a part of URLs: use letters, digits and signs such as - and _"
    ))
}

fn unknown_kind(name: &str, source: &str) -> String {
    let option = options::find(Scope::Webhook, "events").environment[0];
    let names = WebhookKind::ALL.map(WebhookKind::name);
    let near = names.into_iter().min_by_key(|known| names::distance(known, name));
    let near = near.filter(|known| names::distance(known, name) * 2 <= known.len());
    let meant = near.map(|known| format!("is {known} meant? ")).unwrap_or_default();
    format!("{option} names {} ({source}): {meant}Events are {}", shown(name), names.join(", "))
}

/// As PHP and Laravel write booleans.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "(true)" | "1" | "on" | "yes" => Some(true),
        "false" | "(false)" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}
