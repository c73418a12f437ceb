//! From text to `Config`: every value is read and checked. PURE.
//!
//! Owns the rules that concern several options; ranges and units come from the table of options. Input: `Merged`, text
//! with its source. Output: a `Config`, or all problems at once, each with the option as it was set, the value unless
//! it is secret, and what is possible. Does not read files or look at the host.
//!
//! Limits: `WEBHOOKS_MAX`, `CREDENTIAL_BYTES_MAX`, and 65,535 apps. Cost: once at the start, at each reload and for
//! each change of an app: a few allocations for each option and app, and a comparison of each app with each.

mod option_reader;

use std::sync::Arc;

use super::admin::{self, Admin, AdminPlace};
use super::merge::Merged;
use super::options::OptionId as Id;
use super::options::boolean;
use super::redis_url::{self, RedisUrl};
use super::values::{Sourced, Values};
use super::{Config, Io, LogFormat, LogLevel, LogOptions, Scaling, names, origins, webhook_url};
use crate::app::{App, ClientEventsFrom, RateLimit, Secret, Webhook, WebhookKind};
use crate::text::shown;
pub(super) use option_reader::OptionReader;
use option_reader::credential;

/// Most webhooks of all apps together, because each that is in use has a thread.
pub const WEBHOOKS_MAX: usize = 1_000;

/// The value that forbids an app with generated credentials: `RINGVERB_DEVELOPMENT=false`, as in the systemd unit.
#[must_use]
pub fn development_refusal(server: &Values) -> Option<&Sourced> {
    server.get(Id::Development).filter(|given| boolean(&given.value) == Some(false))
}

/// Credentials of development mode. The caller generates them, because this file has no randomness.
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
pub fn build_config(merged: &Merged, development: &DevelopmentApp) -> Result<Config, Vec<String>> {
    let (config, problems) = build_readable(merged, development);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// A configuration for a command that only connects to the server. An option with a wrong value has its default.
pub struct ReachableConfig {
    pub config: Config,
    /// Problems of `CONNECTION_OPTIONS`: the command may connect to another server than the one that is meant.
    pub connection_problems: Vec<String>,
    /// All other problems: the command can work nevertheless.
    pub other_problems: Vec<String>,
}

pub const CONNECTION_OPTIONS: [Id; 9] = [
    Id::Host,
    Id::Port,
    Id::Path,
    Id::TlsCert,
    Id::TlsKey,
    Id::TlsKeyPassphrase,
    Id::TlsPort,
    Id::TrustedProxies,
    Id::ProxyProtocol,
];

/// Builds the configuration for a command that only connects to the server. Never fails.
#[must_use]
pub fn build_reachable_config(merged: &Merged, development: &DevelopmentApp) -> ReachableConfig {
    let mut reader = OptionReader { problems: Vec::new() };
    let server = &merged.server;
    reader.address(server, Id::Host);
    let port = reader.number(server, Id::Port);
    reader.read_path(server);
    reader.tls(server, port);
    reader.networks(server, Id::TrustedProxies);
    reader.proxy_protocol(server);
    let connection_problems = reader.problems;
    let (config, mut other_problems) = build_readable(merged, development);
    other_problems.retain(|problem| !connection_problems.contains(problem));
    ReachableConfig { config, connection_problems, other_problems }
}

/// Builds the configuration. An option with a wrong value has its default and is a problem.
fn build_readable(merged: &Merged, development: &DevelopmentApp) -> (Config, Vec<String>) {
    let mut reader = OptionReader { problems: merged.problems.clone() };
    let server = &merged.server;
    let mut config = Config {
        host: reader.address(server, Id::Host),
        port: reader.number(server, Id::Port),
        tls: None,
        path: reader.read_path(server),
        workers: reader.number(server, Id::Workers),
        io: reader.read_io(server),
        debug: reader.boolean(server, Id::Debug),
        log: reader.read_log(server),
        verbose_errors: reader.boolean(server, Id::Development),
        color: merged.color,
        print_events: reader.is_given(server, Id::PrintEvents),
        request_size_max: reader.number(server, Id::MaxRequestSize),
        handshake_timeout_seconds: reader.number(server, Id::HandshakeTimeout),
        keepalive_timeout_seconds: reader.number(server, Id::KeepaliveTimeout),
        shutdown_grace_seconds: reader.number(server, Id::ShutdownGrace),
        shutdown_delay_seconds: reader.number(server, Id::ShutdownDelay),
        takeover: reader.boolean(server, Id::Takeover),
        admin: reader.read_admin(server),
        send_queue_bytes_max: reader.number(server, Id::SendQueueBytesMax),
        connection_bytes_max: 0,
        cache_bytes_max: reader.number(server, Id::CacheBytesMax),
        connections_per_ip_max: reader.optional_number(server, Id::ConnectionsPerIpMax),
        handshakes_per_ip_per_second_max: reader
            .optional_number(server, Id::HandshakesPerIpPerSecondMax),
        auth_failures_per_ip_per_second_max: reader
            .optional_number(server, Id::AuthFailuresPerIpPerSecondMax),
        trusted_proxies: reader.networks(server, Id::TrustedProxies),
        proxy_protocol: reader.proxy_protocol(server),
        memory_max: reader.optional_number(server, Id::MemoryMax).filter(|bytes| *bytes > 0),
        memory_max_by_cgroup: server.get(Id::MemoryMax).is_none(),
        webhook_timeout_seconds: reader.number(server, Id::WebhookTimeout),
        webhook_retry_seconds: reader.number(server, Id::WebhookRetry),
        webhook_debounce_ms: reader.number(server, Id::WebhookDebounce),
        webhook_queue_events_max: reader.number(server, Id::WebhookQueueMax),
        scaling: reader.read_scaling(server),
        apps: Vec::new(),
        development: merged.apps.is_empty(),
        source: merged.source.clone(),
    };
    config.connection_bytes_max = reader
        .optional_number(server, Id::ConnectionBytesMax)
        .unwrap_or(config.send_queue_bytes_max + CONNECTION_BYTES_BESIDE_QUEUE);
    config.tls = reader.tls(server, config.port);
    config.apps = merged.apps.iter().map(|values| reader.read_app(values)).collect();
    if config.development {
        config.verbose_errors |= server.get(Id::Development).is_none();
        reader.check_development(server);
        config.apps.push(reader.development_app(&merged.development, development));
    }
    reader.check_unique(&config.apps);
    (config, reader.problems)
}

/// What one connection keeps beside its send queue if `connection_bytes_max` is not set. With the default queue, and
/// incomplete input of the default message size, it makes 1.25 MiB.
const CONNECTION_BYTES_BESIDE_QUEUE: usize = 192 * 1024;

impl OptionReader {
    fn read_app(&mut self, values: &Values) -> App {
        App {
            id: self.url_credential(values, Id::AppId),
            key: self.url_credential(values, Id::AppKey),
            secret: self.secret(values, Id::AppSecret).unwrap_or_else(|| Secret::new("")),
            ..self.read_app_options(values)
        }
    }

    fn read_origins(&mut self, values: &Values, id: Id) -> Vec<String> {
        let Some(given) = values.get(id) else { return Vec::new() };
        let mut origins = Vec::new();
        let mut entries: Vec<&str> = given.value.split(',').map(str::trim).collect();
        // Several empty entries are one problem.
        entries.dedup();
        for entry in entries {
            match origins::normalize(entry) {
                Ok(origin) => origins.push(origin),
                Err(why) => self.problems.push(format!(
                    "{} has the entry {}{}, but {why}",
                    given.name(),
                    shown(entry),
                    given.source_in_brackets()
                )),
            }
        }
        origins
    }

    /// The options of an app. Its credentials are empty.
    fn read_app_options(&mut self, values: &Values) -> App {
        let rate_limit = self.boolean(values, Id::RateLimit);
        let rate_limit_values = RateLimit {
            attempts_max: self.number(values, Id::RateLimitMaxAttempts),
            decay_seconds: self.number(values, Id::RateLimitDecaySeconds),
            terminate_on_limit: self.boolean(values, Id::RateLimitTerminate),
        };
        let auth_window = self.number(values, Id::AuthWindow);
        App {
            id: String::new(),
            key: String::new(),
            secret: Secret::new(""),
            second_secret: self.secret(values, Id::AppSecondSecret),
            is_removed: false,
            is_enabled: self.boolean(values, Id::AppEnabled),
            ping_interval_seconds: self.number(values, Id::PingInterval),
            activity_timeout_seconds: self.number(values, Id::ActivityTimeout),
            pong_timeout_seconds: self.number(values, Id::PongTimeout),
            connections_max: self.optional_number(values, Id::MaxConnections),
            message_size_max: self.number(values, Id::MaxMessageSize),
            client_events_from: self.client_events_from(values),
            client_events_on_public: self.boolean(values, Id::ClientEventsOnPublic),
            rate_limit: rate_limit.then_some(rate_limit_values),
            allowed_origins: self.read_origins(values, Id::AllowedOrigins),
            allow_missing_origin: self.boolean(values, Id::AllowMissingOrigin),
            auth_window_seconds: (auth_window > 0).then_some(auth_window),
            allow_reserved_events: self.boolean(values, Id::AllowReservedEvents),
            channels_per_connection_max: self.number(values, Id::ChannelsPerConnectionMax),
            presence_members_max: self.optional_number(values, Id::PresenceMembersMax),
            member_size_max: self.number(values, Id::MemberSizeMax),
            user_data_size_max: self.number(values, Id::UserDataSizeMax),
            channel_name_length_max: self.number(values, Id::ChannelNameLengthMax),
            channel_names_are_pushers: self.choice(values, Id::ChannelNames) == 1,
            client_events_per_second_max: self
                .optional_number(values, Id::ClientEventsPerSecondMax),
            event_payload_max: self.optional_number(values, Id::EventPayloadMax),
            publishes_per_second_max: self.optional_number(values, Id::PublishesPerSecondMax),
            sends_subscription_count: self.boolean(values, Id::SubscriptionCount),
            cache_ttl_seconds: self.number(values, Id::CacheTtl),
            authorize_within_seconds: self.optional_number(values, Id::AuthorizeWithin),
            webhooks: self.read_webhooks(values),
            batch_events_max: self.optional_number(values, Id::BatchEventsMax),
            event_channels_max: self.optional_number(values, Id::EventChannelsMax),
            event_name_length_max: self.optional_number(values, Id::EventNameLengthMax),
            error_data_is_object: self.choice(values, Id::ErrorData) == 1,
            over_quota_retries: self.choice(values, Id::OverQuotaCode) == 1,
            subscription_errors: self.boolean(values, Id::SubscriptionErrors),
            connections_open: Arc::default(),
            published: Arc::default(),
        }
    }

    /// The app of development mode: the app options of the environment with generated credentials.
    fn development_app(&mut self, values: &Values, generated: &DevelopmentApp) -> App {
        App {
            id: generated.id.clone(),
            key: generated.key.clone(),
            secret: Secret::new(generated.secret.clone()),
            ..self.read_app_options(values)
        }
    }

    fn check_development(&mut self, server: &Values) {
        if let Some(given) = development_refusal(server) {
            self.problems.push(format!(
                "no app is configured, and {} is false{}, which forbids a development app with generated credentials: \
                 set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET, or [[apps]] in ringverb.toml",
                given.name(),
                given.source_in_brackets()
            ));
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
                "there are {webhooks} webhooks, but all apps together may have {WEBHOOKS_MAX}: send the events of \
                 several channels to one endpoint, or run more servers"
            ));
        }
    }

    fn read_webhooks(&mut self, values: &Values) -> Vec<Webhook> {
        let webhooks = values.webhooks().iter().map(|values| Webhook {
            url: self.webhook_url(values),
            kinds: self.webhook_kinds(values),
            channel_prefixes: self.prefixes(values, Id::WebhookChannelPrefixes),
        });
        webhooks.collect()
    }

    fn webhook_url(&mut self, values: &Values) -> String {
        let Some(given) = values.get(Id::WebhookUrl) else { return String::new() };
        if let Err(why) = webhook_url::check(&given.value) {
            let shown = webhook_url::shown(&given.value);
            let (name, place) = (given.name(), given.source_in_brackets());
            self.problems.push(format!("{name} is \"{shown}\"{place}, but {why}"));
        }
        given.value.clone()
    }

    fn webhook_kinds(&mut self, values: &Values) -> Vec<WebhookKind> {
        let names = self.list(values, Id::WebhookEvents);
        let Some(given) = values.get(Id::WebhookEvents) else { return WebhookKind::ALL.to_vec() };
        let mut kinds = Vec::new();
        for name in &names {
            match WebhookKind::parse(name) {
                Some(kind) if kinds.contains(&kind) => {}
                Some(kind) => kinds.push(kind),
                None => self.problems.push(unknown_kind(name, given)),
            }
        }
        kinds
    }

    fn read_admin(&mut self, server: &Values) -> Admin {
        let Some(given) = server.get(Id::Admin) else {
            return Admin { place: AdminPlace::Off, is_explicit: false, token: None };
        };
        let place = AdminPlace::parse(&given.value).unwrap_or_else(|why| {
            let (name, place) = (given.name(), given.source_in_brackets());
            self.problems.push(format!("{name} is {}{place}, but {why}", shown(&given.value)));
            AdminPlace::Off
        });
        let token = server.get(Id::AdminToken).filter(|token| !token.value.is_empty());
        match token {
            Some(token) => {
                if let Some(why) = admin::token_problem(&token.value) {
                    let (name, place) = (token.name(), token.source_in_brackets());
                    self.problems.push(format!("{name}{place} is refused: {why}"));
                }
            }
            None if place.is_public() => self.problems.push(format!(
                "{} is {place}{}, which other hosts may reach, so it needs a token: set RINGVERB_ADMIN_TOKEN, for \
                 example to the output of `openssl rand -hex 32`; or listen on 127.0.0.1",
                given.name(),
                given.source_in_brackets()
            )),
            None => {}
        }
        let token = token.map(|token| Secret::new(token.value.clone()));
        Admin { place, is_explicit: !given.is_default(), token }
    }

    /// The options of Redis are checked only with scaling: Laravel's `.env` describes the Redis of the application's
    /// cache, which this server does not use.
    fn read_scaling(&mut self, server: &Values) -> Option<Scaling> {
        if !self.boolean(server, Id::ScalingEnabled) {
            return None;
        }
        let RedisUrl { host, port, username, password } = self.read_redis(server);
        // Without effect, but a wrong number may be the port or another value in the wrong line.
        let _: u32 = self.number(server, Id::RedisDatabase);
        let username = username.unwrap_or_else(|| credential(server, Id::RedisUsername));
        let password =
            password.unwrap_or_else(|| Secret::new(credential(server, Id::RedisPassword)));
        Some(Scaling {
            host,
            port: port.unwrap_or_else(|| self.number(server, Id::RedisPort)),
            username: Some(username).filter(|text| !text.is_empty()),
            password: Some(password).filter(|secret| !secret.reveal().is_empty()),
            prefix: self.scaling_prefix(server),
            timeout_seconds: self.number(server, Id::RedisTimeout),
        })
    }

    /// The address of Redis from the URL, or else from the host. A wrong one is a problem, and then empty.
    fn read_redis(&mut self, server: &Values) -> RedisUrl {
        let url = server
            .get(Id::RedisUrl)
            .map(|given| (given, RedisUrl::parse(&given.value), redis_url::shown(&given.value)));
        let host = || {
            let given = server.get(Id::RedisHost)?;
            let shown = redis_url::shown_host(&given.value).to_owned();
            Some((given, RedisUrl::of_host(&given.value), shown))
        };
        let Some((given, parsed, shown)) = url.or_else(host) else {
            return RedisUrl::default();
        };
        parsed.unwrap_or_else(|why| {
            let (name, place) = (given.name(), given.source_in_brackets());
            self.problems.push(format!("{name} is \"{shown}\"{place}, but {why}"));
            RedisUrl::default()
        })
    }

    fn scaling_prefix(&mut self, server: &Values) -> String {
        let id = Id::ScalingChannel;
        let Some(given) = server.get(id) else { return String::new() };
        // Characters without a meaning in a pattern of PSUBSCRIBE, which need no quotes in redis-cli.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
        if given.value.len() > 100 || !given.value.bytes().all(is_plain) {
            self.add_problem(id, given);
        }
        given.value.clone()
    }

    fn read_log(&mut self, server: &Values) -> LogOptions {
        let format = match self.choice(server, Id::LogFormat) {
            1 => LogFormat::Text,
            2 => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        let level = server.get(Id::LogLevel).is_some().then(|| self.choice(server, Id::LogLevel));
        let level = level.map(|level| match level {
            0 => LogLevel::Error,
            1 => LogLevel::Warn,
            2 => LogLevel::Info,
            3 => LogLevel::Debug,
            _ => LogLevel::Trace,
        });
        let is_local_time = self.choice(server, Id::LogTime) == 1;
        LogOptions { format, level, is_local_time, access: self.boolean(server, Id::AccessLog) }
    }

    fn read_io(&mut self, server: &Values) -> Io {
        match self.choice(server, Id::Io) {
            0 => Io::Auto,
            1 => Io::IoUring,
            _ => Io::Epoll,
        }
    }

    fn read_path(&mut self, values: &Values) -> String {
        let Some(given) = values.get(Id::Path) else { return String::new() };
        let path = given.value.trim_matches('/');
        // Characters that need no quotes, neither in a URL nor in the shell command of the start message.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%+:@,=".contains(&byte);
        if !path.bytes().all(is_plain) || path.contains("//") {
            self.add_problem(Id::Path, given);
        }
        if path.is_empty() { String::new() } else { format!("/{path}") }
    }

    fn client_events_from(&mut self, values: &Values) -> ClientEventsFrom {
        match self.choice(values, Id::AcceptClientEventsFrom) {
            0 => ClientEventsFrom::All,
            1 => ClientEventsFrom::Members,
            _ => ClientEventsFrom::None,
        }
    }
}

fn unknown_kind(name: &str, given: &Sourced) -> String {
    let names = WebhookKind::ALL.map(WebhookKind::name);
    let near = names.into_iter().min_by_key(|known| names::edit_distance(known, name));
    let near = near.filter(|known| names::edit_distance(known, name) * 2 <= known.len());
    let meant = near.map(|known| format!("is {known} meant? ")).unwrap_or_default();
    format!(
        "{} names {}{}: {meant}Events are {}",
        given.name(),
        shown(name),
        given.source_in_brackets(),
        names.join(", ")
    )
}
