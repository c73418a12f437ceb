//! The one table of options: names, defaults, what is accepted, what it means. PURE.
//!
//! Owns every name and every default. Loader, validation, `ringverb check`, `--help` and docs/OPTIONS.md read it. Does
//! not read a value: values are text until `validate.rs` reads them by `kind.rs`. The `REVERB_*` and `REDIS_*` names
//! and their keys are the contract with Laravel (docs/PROTOCOL.md section A). An option of this server's own has one
//! spelling: the key is the name in the environment in small letters, without `RINGVERB_` and without the scope.
//!
//! No limits: a table of constants. Cost: one look-up by id is an index; one by key compares it with each option of a
//! scope.

mod kind;

pub use kind::{Accepts, OptionKind, boolean};

use kind::{
    BOOL, choice, exact_text, list, masked, number, seconds, secret, size, size_or_zero, text,
    units,
};

use super::{redis_url, webhook_url};
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process: `[server]` in `ringverb.toml`.
    Server,
    App,
    /// One endpoint of an app's backend: `[[apps.webhooks]]`.
    Webhook,
    /// Known to Reverb and read without complaint, but without effect in this version.
    Unused,
}

#[derive(Debug)]
pub struct OptionSpec {
    pub id: OptionId,
    pub scope: Scope,
    /// Name in `ringverb.toml`; a dot leads into an inline table.
    pub key: &'static str,
    /// Names in the environment and in `.env`; the first one is the one to use.
    pub environment: &'static [&'static str],
    /// The value if none is given. Empty: the option is not set.
    pub default: &'static str,
    pub accepts: Accepts,
    pub meaning: &'static str,
    /// Whether `ringverb reload` applies it, for an option of the server. Options of apps and endpoints always change
    /// so.
    is_reloadable: bool,
}

/// Makes `OptionId` and `OPTIONS`, in the same order, so that an id is an index.
macro_rules! options {
    ($($scope:ident { $($id:ident $key:literal [$($environment:literal),+] $default:literal,
        $accepts:expr, $meaning:literal $(, $live:ident)?;)+ })+) => {
        /// The name of an option in the code. It is the index of the option in `OPTIONS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum OptionId { $($($id,)+)+ }

        /// Every option, in the order in which they are shown.
        pub const OPTIONS: &[OptionSpec] = &[$($(OptionSpec {
            id: OptionId::$id,
            scope: Scope::$scope,
            key: $key,
            environment: &[$($environment),+],
            default: $default,
            accepts: $accepts,
            meaning: $meaning,
            is_reloadable: options!(@is_live $($live)?),
        },)+)+];
    };
    (@is_live) => { false };
    (@is_live live) => { true };
}

/// The maximum of sizes that have no other one.
const SIZE_MAX: u64 = u64::MAX;
/// The maximum of 32-bit numbers that have no other one.
const U32_MAX: u64 = u32::MAX as u64;
const WORKERS_MAX: u64 = limits::WORKERS_MAX as u64;
const NO_LIMIT: &str = "empty for no limit";
const IN_URLS: &str = "letters, digits and signs such as - and _";

fn redis_host(text: &str) -> String {
    redis_url::shown_host(text).to_owned()
}

options! {
    Server {
        Host "host" ["REVERB_SERVER_HOST"] "0.0.0.0", text("an IP address"), "address to listen on";
        Port "port" ["REVERB_SERVER_PORT"] "8080", number(0, 65_535), "port to listen on; 0 lets the kernel choose";
        TlsCert "tls_cert" ["RINGVERB_TLS_CERT"] "", list("PEM files with the whole chain, comma separated"),
            "certificates; with them the port is TLS", live;
        TlsKey "tls_key" ["RINGVERB_TLS_KEY"] "", list("PEM files, comma separated, in the same order"),
            "private keys of RINGVERB_TLS_CERT", live;
        TlsKeyPassphrase "tls_key_passphrase" ["RINGVERB_TLS_KEY_PASSPHRASE"] "", secret("text; empty for none"),
            "passphrase of the keys that are encrypted", live;
        TlsPort "tls_port" ["RINGVERB_TLS_PORT"] "", number(1, 65_535).note("empty: the port itself is TLS"),
            "port for TLS beside the plain port";
        TlsTicketSecret "tls_ticket_secret" ["RINGVERB_TLS_TICKET_SECRET"] "",
            secret("16 to 256 characters; empty for none"), "shared by nodes, to resume TLS sessions";
        Path "path" ["REVERB_SERVER_PATH"] "", text("a path such as /ws, or empty"), "prefix of every URL path";
        Hostname "hostname" ["REVERB_HOST"] "localhost", text("a host name"), "host name of URLs in the start message";
        PublicPort "public_port" ["REVERB_PORT"] "", number(1, 65_535),
            "port that browsers use (nginx), for the start message";
        Scheme "scheme" ["REVERB_SCHEME"] "http", choice(&["http", "https"]),
            "scheme that browsers use, for the start message";
        LaravelConfig "laravel_config" ["RINGVERB_LARAVEL_CONFIG"] "", text("a file of mode 600"),
            "config('reverb') of PHP as JSON; replaces names that PHP reads";
        Workers "workers" ["RINGVERB_WORKERS"] "0", number(0, WORKERS_MAX),
            "threads; 0: one for each CPU of affinity mask and cgroup quota";
        Io "io" ["RINGVERB_IO"] "auto", choice(&["auto", "io_uring", "epoll"]),
            "interface of the kernel for sockets; auto: io_uring if it works";
        Debug "debug" ["RINGVERB_DEBUG"] "false", BOOL, "log each message", live;
        LogFormat "log_format" ["RINGVERB_LOG_FORMAT"] "auto", choice(&["auto", "text", "json"]),
            "form of the log; auto: text on a terminal, otherwise JSON";
        LogLevel "log_level" ["RINGVERB_LOG_LEVEL"] "",
            choice(&["error", "warn", "info", "debug", "trace"]).note("empty: RUST_LOG, or info"),
            "least level that is logged", live;
        LogTime "log_time" ["RINGVERB_LOG_TIME"] "utc", choice(&["utc", "local"]),
            "times of a text log; local has the offset; JSON is always UTC";
        AccessLog "access_log" ["RINGVERB_ACCESS_LOG"] "false", BOOL, "log each answered request of the HTTP API";
        Development "development" ["RINGVERB_DEVELOPMENT"] "", BOOL.note("empty: without apps, which false forbids"),
            "send reasons of failures to clients", live;
        PrintEvents "print_events" ["RINGVERB_PRINT_EVENTS"] "", choice(&["json"]).note("empty for none"),
            "write each accepted event to standard output";
        MaxRequestSize "max_request_size" ["REVERB_MAX_REQUEST_SIZE"] "10000", size(512, 16 << 20),
            "head and body of one HTTP request", live;
        HandshakeTimeout "handshake_timeout" ["RINGVERB_HANDSHAKE_TIMEOUT"] "10", seconds(1, 3_600),
            "time for one HTTP request or handshake", live;
        KeepaliveTimeout "keepalive_timeout" ["RINGVERB_KEEPALIVE_TIMEOUT"] "75", seconds(1, 86_400),
            "time between two HTTP requests of one connection", live;
        ShutdownGrace "shutdown_grace" ["RINGVERB_SHUTDOWN_GRACE"] "10", seconds(1, 86_400),
            "time to close all connections after a signal";
        ShutdownDelay "shutdown_delay" ["RINGVERB_SHUTDOWN_DELAY"] "0", seconds(0, 3_600),
            "after SIGTERM: time in which /up answers 503 and all else is served";
        Takeover "takeover" ["RINGVERB_TAKEOVER"] "true", BOOL,
            "let a new process (--takeover, SIGUSR2) take this one's place";
        Admin "admin" ["RINGVERB_ADMIN"] "127.0.0.1:9601", text("an address with a port, unix:/path, or off"),
            "where metrics and probes are served";
        AdminToken "admin_token" ["RINGVERB_ADMIN_TOKEN"] "", secret("16 to 256 characters; empty for none"),
            "bearer token for RINGVERB_ADMIN beyond loopback", live;
        AppsFile "apps_file" ["RINGVERB_APPS_FILE"] "", text("a path; empty for none"),
            "TOML file of apps that are changed at run time";
        SendQueueBytesMax "send_queue_bytes_max" ["RINGVERB_SEND_QUEUE_BYTES_MAX"] "1048576",
            size(4_096, limits::SEND_QUEUE_BYTES_OPTION_MAX as u64), "unsent bytes at which a slow connection closes";
        ConnectionBytesMax "connection_bytes_max" ["RINGVERB_CONNECTION_BYTES_MAX"] "",
            size(1 << 16, SIZE_MAX).note("empty adds 192K"), "all that one connection keeps";
        CacheBytesMax "cache_bytes_max" ["RINGVERB_CACHE_BYTES_MAX"] "134217728", size(1 << 16, 1 << 40),
            "all remembered events of cache channels";
        ConnectionsPerIpMax "connections_per_ip_max" ["RINGVERB_CONNECTIONS_PER_IP_MAX"] "",
            number(1, 65_535).note(NO_LIMIT), "open WebSockets of one client address";
        HandshakesPerIpPerSecondMax "handshakes_per_ip_per_second_max" ["RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX"] "",
            number(1, U32_MAX).note(NO_LIMIT), "WebSocket handshakes of one client address";
        AuthFailuresPerIpPerSecondMax "auth_failures_per_ip_per_second_max"
            ["RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX"] "", number(1, U32_MAX).note(NO_LIMIT),
            "failed API signatures of one client address";
        TrustedProxies "trusted_proxies" ["RINGVERB_TRUSTED_PROXIES"] "",
            list("addresses and networks, comma separated"), "proxies that name the client";
        ProxyProtocol "proxy_protocol" ["RINGVERB_PROXY_PROTOCOL"] "off", choice(&["off", "v1", "v2", "on"]),
            "PROXY header that trusted proxies must send first, on all ports";
        MemoryMax "memory_max" ["RINGVERB_MEMORY_MAX"] "", size_or_zero(16 << 20, SIZE_MAX).note("0 is off"),
            "resident memory; unset: 0.8 of cgroup's";
        WebhookTimeout "webhook_timeout" ["RINGVERB_WEBHOOK_TIMEOUT"] "30", seconds(1, 3_600),
            "time for one request to a backend";
        WebhookRetry "webhook_retry" ["RINGVERB_WEBHOOK_RETRY"] "300", seconds(0, 86_400).note("0 tries once"),
            "time after which a failing batch of webhooks is given up";
        WebhookDebounce "webhook_debounce" ["RINGVERB_WEBHOOK_DEBOUNCE"] "3000",
            units("milliseconds", 0, 60_000).note("0 is off"), "time within which a rejoin cancels a leave";
        WebhookQueueMax "webhook_queue_max" ["RINGVERB_WEBHOOK_QUEUE_MAX"] "10000", number(1, 1_000_000),
            "events of one kind that may wait for one endpoint";
        ScalingEnabled "scaling.enabled" ["REVERB_SCALING_ENABLED"] "false", BOOL,
            "several nodes serve as one, connected by Redis";
        ScalingChannel "scaling.channel" ["REVERB_SCALING_CHANNEL"] "reverb",
            text("letters, digits and ._-:/, at most 100"), "start of all names in Redis; the same on each node";
        RedisUrl "scaling.server.url" ["REDIS_URL"] "",
            masked(redis_url::shown, "redis://[user[:password]@]host[:port]"),
            "Redis or Valkey; wins over the names below";
        RedisHost "scaling.server.host" ["REDIS_HOST"] "127.0.0.1", masked(redis_host, "a host name or an IP address"),
            "host of Redis";
        RedisPort "scaling.server.port" ["REDIS_PORT"] "6379", number(1, 65_535), "port of Redis, for TCP without TLS";
        RedisUsername "scaling.server.username" ["REDIS_USERNAME"] "",
            exact_text("text; empty for Redis' default user"), "user of Redis, with a password";
        RedisPassword "scaling.server.password" ["REDIS_PASSWORD"] "", secret("text; empty for none"),
            "password of Redis";
        RedisDatabase "scaling.server.database" ["REDIS_DB"] "0", number(0, U32_MAX),
            "no effect: keys start with the scaling channel";
        RedisTimeout "scaling.server.timeout" ["REDIS_TIMEOUT"] "60", seconds(1, 3_600),
            "time for a connection to Redis to be made";
    }
    App {
        AppId "id" ["REVERB_APP_ID"] "", exact_text(IN_URLS), "id of the app";
        AppKey "key" ["REVERB_APP_KEY"] "", exact_text(IN_URLS), "public key of the app";
        AppSecret "secret" ["REVERB_APP_SECRET"] "", secret("text"), "secret of the app";
        AppSecondSecret "second_secret" ["RINGVERB_APP_SECOND_SECRET"] "", secret("text; empty for none"),
            "second valid secret, to exchange the first without an outage";
        AppEnabled "enabled" ["RINGVERB_APP_ENABLED"] "true", BOOL,
            "serve the app; false refuses clients with 4003, requests with 403";
        PingInterval "ping_interval" ["REVERB_APP_PING_INTERVAL"] "60", seconds(1, 86_400),
            "silence after which a connection is pinged";
        ActivityTimeout "activity_timeout" ["REVERB_APP_ACTIVITY_TIMEOUT"] "30", seconds(1, 86_400),
            "silence after which clients ping, as sent to them";
        PongTimeout "pong_timeout" ["RINGVERB_PONG_TIMEOUT"] "30", seconds(1, 86_400), "time for the answer to a ping";
        MaxConnections "max_connections" ["REVERB_APP_MAX_CONNECTIONS"] "", number(1, U32_MAX).note(NO_LIMIT),
            "open connections of the app";
        MaxMessageSize "max_message_size" ["REVERB_APP_MAX_MESSAGE_SIZE"] "10000",
            size(64, limits::MESSAGE_SIZE_OPTION_MAX as u64), "one message of a client";
        AcceptClientEventsFrom "accept_client_events_from" ["REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM"] "members",
            choice(&["all", "members", "none"]), "who may send client events";
        ClientEventsOnPublic "client_events_on_public" ["RINGVERB_CLIENT_EVENTS_ON_PUBLIC"] "false", BOOL,
            "client events on public channels too, as in Reverb";
        RateLimit "rate_limiting.enabled" ["REVERB_APP_RATE_LIMITING_ENABLED"] "false", BOOL,
            "limit the messages of each connection";
        RateLimitMaxAttempts "rate_limiting.max_attempts"
            ["REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "REVERB_APP_RATE_LIMITING_MAX_ATTEMPTS"] "60", number(1, U32_MAX),
            "messages per window";
        RateLimitDecaySeconds "rate_limiting.decay_seconds"
            ["REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "REVERB_APP_RATE_LIMITING_DECAY_SECONDS"] "60", seconds(1, 86_400),
            "length of the window";
        RateLimitTerminate "rate_limiting.terminate_on_limit"
            ["REVERB_APP_RATE_LIMIT_TERMINATE", "REVERB_APP_RATE_LIMITING_TERMINATE_ON_LIMIT"] "false", BOOL,
            "close a connection that is over";
        AllowedOrigins "allowed_origins"
            ["RINGVERB_ALLOWED_ORIGINS", "REVERB_ALLOWED_ORIGINS", "REVERB_APP_ALLOWED_ORIGINS"] "*",
            list("hosts or origins, comma separated; * is a wildcard"), "pages that may connect";
        AllowMissingOrigin "allow_missing_origin" ["RINGVERB_ALLOW_MISSING_ORIGIN"] "false", BOOL,
            "accept clients that send no Origin (native SDKs)";
        AuthWindow "auth_window" ["RINGVERB_AUTH_WINDOW"] "600", seconds(0, U32_MAX).note("0 switches the check off"),
            "largest age of a signed API request";
        AllowReservedEvents "allow_reserved_events" ["RINGVERB_ALLOW_RESERVED_EVENTS"] "false", BOOL,
            "publish events named pusher:... over HTTP";
        ChannelsPerConnectionMax "channels_per_connection_max" ["RINGVERB_CHANNELS_PER_CONNECTION_MAX"] "1000",
            number(1, U32_MAX), "channels one connection may be in";
        PresenceMembersMax "presence_members_max" ["RINGVERB_PRESENCE_MEMBERS_MAX"] "",
            number(1, U32_MAX).note(NO_LIMIT), "users in one presence channel";
        MemberSizeMax "member_size_max" ["RINGVERB_MEMBER_SIZE_MAX"] "4096", size(1, U32_MAX),
            "channel_data of one presence member";
        UserDataSizeMax "user_data_size_max" ["RINGVERB_USER_DATA_SIZE_MAX"] "8192", size(1, U32_MAX),
            "user_data of one sign-in";
        ChannelNameLengthMax "channel_name_length_max" ["RINGVERB_CHANNEL_NAME_LENGTH_MAX"] "200",
            units("bytes", 1, limits::CHANNEL_NAME_BYTES_MAX as u64), "longest channel name; Pusher has 164";
        ChannelNames "channel_names" ["RINGVERB_CHANNEL_NAMES"] "any", choice(&["any", "pusher"]),
            "characters of channel names: any, or letters, digits and _-=@,.;";
        ClientEventsPerSecondMax "client_events_per_second_max" ["RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX"] "",
            number(1, U32_MAX).note(NO_LIMIT), "client events of one connection";
        EventPayloadMax "event_payload_max" ["RINGVERB_EVENT_PAYLOAD_MAX"] "",
            size(1, U32_MAX).note("empty: no own limit"), "data of one published event";
        PublishesPerSecondMax "publishes_per_second_max" ["RINGVERB_PUBLISHES_PER_SECOND_MAX"] "",
            number(1, U32_MAX).note(NO_LIMIT), "published events times their channels";
        SubscriptionCount "subscription_count" ["RINGVERB_SUBSCRIPTION_COUNT"] "false", BOOL,
            "send subscribers of a channel their number";
        CacheTtl "cache_ttl" ["RINGVERB_CACHE_TTL"] "1800", seconds(1, U32_MAX),
            "how long a cache channel remembers its last event";
        AuthorizeWithin "authorize_within" ["RINGVERB_AUTHORIZE_WITHIN"] "",
            seconds(1, U32_MAX).note("empty for never"), "close connections without sign-in or private channel";
        BatchEventsMax "batch_events_max" ["RINGVERB_BATCH_EVENTS_MAX"] "", number(1, U32_MAX).note(NO_LIMIT),
            "events in one batch request";
        EventChannelsMax "event_channels_max" ["RINGVERB_EVENT_CHANNELS_MAX"] "", number(1, U32_MAX).note(NO_LIMIT),
            "channels of one published event; Pusher has 100";
        EventNameLengthMax "event_name_length_max" ["RINGVERB_EVENT_NAME_LENGTH_MAX"] "",
            units("characters", 1, U32_MAX).note(NO_LIMIT), "name of one event; Pusher has 200";
        ErrorData "error_data" ["RINGVERB_ERROR_DATA"] "string", choice(&["string", "object"]),
            "the data of pusher:error, as in Reverb or in Pusher";
        OverQuotaCode "over_quota_code" ["RINGVERB_OVER_QUOTA_CODE"] "4004", choice(&["4004", "4100"]),
            "over max_connections: clients stop (4004) or retry (4100)";
        SubscriptionErrors "subscription_errors" ["RINGVERB_SUBSCRIPTION_ERRORS"] "false", BOOL,
            "pusher:subscription_error on the channel too";
    }
    Webhook {
        WebhookUrl "url" ["RINGVERB_WEBHOOK_URL"] "",
            masked(webhook_url::shown, "URLs, comma separated in the environment"), "endpoints of the app's backend";
        WebhookEvents "events" ["RINGVERB_WEBHOOK_EVENTS"] "", list("names of events; empty for all"),
            "events that they receive";
        WebhookChannelPrefixes "channel_prefixes" ["RINGVERB_WEBHOOK_CHANNEL_PREFIXES"] "",
            list("starts of channel names; empty for all"), "channels whose events they receive";
    }
    Unused {
        PulseIngestInterval "pulse_ingest_interval" ["REVERB_PULSE_INGEST_INTERVAL"] "15", seconds(0, U32_MAX),
            "for the recorders of the package for Laravel";
        TelescopeIngestInterval "telescope_ingest_interval" ["REVERB_TELESCOPE_INGEST_INTERVAL"] "15",
            seconds(0, U32_MAX), "Telescope records inside PHP";
    }
}

impl OptionId {
    #[must_use]
    pub fn spec(self) -> &'static OptionSpec {
        &OPTIONS[self as usize]
    }
}

impl OptionSpec {
    /// The option of a key in `ringverb.toml`, or of another file with its keys. `None` if there is none.
    pub(super) fn by_key(scope: Scope, key: &str) -> Option<&'static Self> {
        of_scope(scope).find(|option| option.key == key)
    }

    /// Whether a running server applies another value, so that it needs no restart.
    #[must_use]
    pub fn changes_while_running(&self) -> bool {
        self.is_reloadable || matches!(self.scope, Scope::App | Scope::Webhook)
    }

    /// The line of `--help` for the flag that sets this option.
    #[must_use]
    pub fn flag_help(&self) -> String {
        let Self { meaning, default, .. } = self;
        let meaning = capitalized(meaning);
        if default.is_empty() { meaning } else { format!("{meaning} [{default}]") }
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// The scopes that people see, in the order in which they read about them: title, and where an option stands in the
/// file.
const SCOPE_TITLES: [(Scope, &str, &str); 3] = [
    (Scope::Server, "The server", "[server] in ringverb.toml"),
    (Scope::App, "The app", "each of [[apps]] in ringverb.toml"),
    (Scope::Webhook, "Webhooks of the app", "each of [[apps.webhooks]] in ringverb.toml"),
];

const WEBHOOK_EVENTS: &str = "Events are
channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss
and subscription_count";

/// The environment part of `--help`: name and default, and below it what it means and takes.
#[must_use]
pub fn help() -> String {
    let mut text = String::new();
    for (scope, title, place) in SCOPE_TITLES {
        let events =
            if scope == Scope::Webhook { format!(". {WEBHOOK_EVENTS}") } else { String::new() };
        text.push_str(&format!("\n{title}; {place}{events}:\n"));
        for option in of_scope(scope) {
            text.push_str(&format!("  {}", option.environment[0]));
            if !option.default.is_empty() {
                text.push_str(&format!(" [{}]", option.default));
            }
            if let [_, aliases @ ..] = option.environment
                && !aliases.is_empty()
            {
                text.push_str(&format!("  or {}", aliases.join(", ")));
            }
            text.push_str(&format!("\n      {} ({})\n", option.meaning, option.accepts.sentence()));
        }
    }
    text
}

/// The text of docs/OPTIONS.md.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Options

Each option can be given in the environment, in `.env` and in `ringverb.toml`. A flag wins over the environment, the
environment over `.env`, `.env` over `ringverb.toml`. Both files are those of the working directory. Where it has
neither, and neither `--config`, `--env-file` nor the environment names an app, the configuration of the host's service
is read: `/etc/ringverb/ringverb.toml`, which packages install. With `--laravel-config`, `REVERB_*` and `REDIS_*` names
are not read from the environment and `.env`, because PHP has read them: its values win over `ringverb.toml`, and
`RINGVERB_*` names over its values. `ringverb check` shows the values that count and where they come from. In the column
`change`, `reload` means that a running server applies another value (`ringverb reload`, SIGHUP), and `restart` that it
needs a new start or a take-over. A variable of the environment that is empty counts as not set, so it does not hide the
value of a file. This file is generated from the table in `src/config/options/mod.rs`; a test compares
them.
",
    );
    for (scope, title, place) in SCOPE_TITLES {
        let events = WEBHOOK_EVENTS.replace('\n', " ");
        let events = if scope == Scope::Webhook { format!(" {events}.") } else { String::new() };
        text.push_str(&format!("\n## {title}\n\n{}.{events}\n\n", capitalized(place)));
        text.push_str(
            "| environment | key | default | accepts | meaning | change |\n|---|---|---|---|---|---|\n",
        );
        for option in of_scope(scope) {
            let names: Vec<String> =
                option.environment.iter().map(|name| format!("`{name}`")).collect();
            let default = match option.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            text.push_str(&format!(
                "| {} | `{}` | {default} | {} | {} | {} |\n",
                names.join(", "),
                option.key,
                option.accepts.sentence(),
                option.meaning,
                if option.changes_while_running() { "reload" } else { "restart" }
            ));
        }
    }
    text.push_str("\nKnown to Reverb, and without effect here: ");
    let unused: Vec<String> = of_scope(Scope::Unused)
        .map(|option| format!("`{}` ({})", option.environment[0], option.meaning))
        .collect();
    text.push_str(&format!("{}.\n", unused.join(", ")));
    text
}

/// The options of a scope, in the order of the table.
pub fn of_scope(scope: Scope) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |option| option.scope == scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_and_names_of_options_are_unique() {
        let keys: BTreeSet<_> = OPTIONS.iter().map(|option| option.key).collect();
        let names: Vec<_> = OPTIONS.iter().flat_map(|option| option.environment).collect();
        assert_eq!(keys.len(), OPTIONS.len());
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let is_in_place = |(index, option): (usize, &OptionSpec)| option.id as usize == index;
        assert!(OPTIONS.iter().enumerate().all(is_in_place));
    }

    /// Key and variable of an option of our own are one word. Reverb's are Reverb's.
    #[test]
    fn an_option_has_one_spelling() {
        for option in OPTIONS {
            let Some(name) = option.environment[0].strip_prefix("RINGVERB_") else { continue };
            let scope = match option.scope {
                Scope::App => "APP_",
                Scope::Webhook => "WEBHOOK_",
                Scope::Server | Scope::Unused => "",
            };
            let short = name.strip_prefix(scope).unwrap_or(name).to_lowercase();
            assert_eq!(option.key, short);
        }
    }

    /// A new secret cannot be shown because its row does not say that it is one.
    #[test]
    fn an_option_with_the_name_of_a_secret_is_never_shown() {
        for option in OPTIONS {
            let last = option.key.rsplit('.').next().unwrap_or_default();
            let sounds = ["secret", "password", "passphrase", "token", "private"];
            let is_secret = matches!(option.accepts.kind, OptionKind::Secret(_));
            assert_eq!(sounds.iter().any(|word| last.contains(word)), is_secret, "{}", option.key);
            // A URL may have credentials in it.
            let is_url = last == "url";
            assert!(!is_url || option.accepts.kind.is_confidential(), "{}", option.key);
        }
    }

    #[test]
    fn each_default_is_accepted_by_its_kind() {
        for option in OPTIONS.iter().filter(|option| !option.default.is_empty()) {
            let (kind, default) = (option.accepts.kind, option.default);
            let is_good = match kind {
                OptionKind::Bool => boolean(default).is_some(),
                OptionKind::Number { .. } | OptionKind::Size { .. } => {
                    kind.number(default).is_some()
                }
                OptionKind::Choice(_) => kind.index_of_word(default).is_some(),
                _ => true,
            };
            assert!(is_good, "{}", option.key);
        }
    }

    /// A help text that clap has to fold is hard to read on a terminal of 100 columns.
    #[test]
    fn help_has_every_option_in_short_lines() {
        let text = help();
        for option in OPTIONS.iter().filter(|option| option.scope != Scope::Unused) {
            assert!(text.contains(&format!("  {}", option.environment[0])), "{}", option.key);
        }
        assert!(text.contains("  RINGVERB_AUTH_WINDOW [600]\n"), "{text}");
        for kind in crate::app::WebhookKind::ALL {
            assert!(text.contains(kind.name()), "{text}");
        }
        let long: Vec<&str> = text.lines().filter(|line| line.len() > 100).collect();
        assert!(long.is_empty(), "{long:#?}");
    }

    #[test]
    fn the_document_is_the_table() {
        crate::text::assert_document("docs/OPTIONS.md", &document());
    }
}
