//! The one table of options: names, defaults, what is accepted, what it means. Loader, `check` and
//! `--help` read it; nothing else knows a default. The `REVERB_*` and `REDIS_*` names are the
//! contract with Laravel (PROTOCOL.md section A).

/// What an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process: `[server]` in `ringverb.toml`.
    Server,
    /// One app: `[[apps]]`.
    App,
    /// One endpoint of an app's backend: `[[apps.webhooks]]`.
    Webhook,
    /// Known to Reverb and read without complaint, but without effect in this version.
    Unused,
}

/// One option. Values are text until `validate` reads them.
#[derive(Debug)]
pub struct OptionSpec {
    pub scope: Scope,
    /// Name in `ringverb.toml`; a dot leads into an inline table.
    pub key: &'static str,
    /// Names in the environment and in `.env`; the first one is the one to use.
    pub environment: &'static [&'static str],
    /// Empty means not set.
    pub default: &'static str,
    /// What a value may be.
    pub accepts: &'static str,
    pub meaning: &'static str,
}

const fn option(
    scope: Scope,
    key: &'static str,
    environment: &'static [&'static str],
    default: &'static str,
    accepts: &'static str,
    meaning: &'static str,
) -> OptionSpec {
    OptionSpec { scope, key, environment, default, accepts, meaning }
}

impl OptionSpec {
    /// A number of bytes, which may have a unit.
    #[must_use]
    pub fn is_size(&self) -> bool {
        self.accepts.starts_with("bytes")
    }
}

/// `accepts` of every boolean.
pub const BOOLEAN: &str = "true or false";
const SECONDS: &str = "seconds, 1 or more";

use Scope::{App, Server, Unused, Webhook};

/// Every option, in the order in which they are shown.
#[rustfmt::skip]
pub const OPTIONS: &[OptionSpec] = &[
    option(Server, "host", &["REVERB_SERVER_HOST"], "0.0.0.0", "an IP address", "address to listen on"),
    option(Server, "port", &["REVERB_SERVER_PORT"], "8080", "a number from 0 to 65535", "port to listen on; 0 lets the kernel choose"),
    option(Server, "path", &["REVERB_SERVER_PATH"], "", "a path such as /ws, or empty", "prefix of every URL path"),
    option(Server, "hostname", &["REVERB_HOST"], "localhost", "a host name", "host name of URLs in the start message"),
    option(Server, "public_port", &["REVERB_PORT"], "", "a number from 1 to 65535", "port that browsers use (nginx), for the start message"),
    option(Server, "scheme", &["REVERB_SCHEME"], "http", "http or https", "scheme that browsers use, for the start message; nginx does the TLS"),
    option(Server, "workers", &["RINGVERB_WORKERS"], "0", "a number from 0 to 128", "threads; 0: one for each CPU of affinity mask and cgroup quota"),
    option(Server, "io", &["RINGVERB_IO"], "auto", "auto, io_uring or epoll", "interface of the kernel for sockets; auto: io_uring if it works"),
    option(Server, "debug", &["RINGVERB_DEBUG"], "false", BOOLEAN, "log each message"),
    option(Server, "development", &["RINGVERB_DEVELOPMENT"], "", "true or false; empty: if no app is configured", "send reasons of failures to clients too"),
    option(Server, "print_events", &["RINGVERB_PRINT_EVENTS"], "", "json, or empty", "write each accepted event to standard output"),
    option(Server, "max_request_size", &["REVERB_MAX_REQUEST_SIZE"], "10000", "bytes, or a size such as 64K: 512 to 16M", "head and body of one HTTP request"),
    option(Server, "handshake_timeout", &["RINGVERB_HANDSHAKE_TIMEOUT"], "10", SECONDS, "time for one HTTP request or handshake"),
    option(Server, "keepalive_timeout", &["RINGVERB_KEEPALIVE_TIMEOUT"], "75", SECONDS, "time between two HTTP requests of one connection"),
    option(Server, "shutdown_grace", &["RINGVERB_SHUTDOWN_GRACE"], "10", SECONDS, "time to close all connections after a signal"),
    option(Server, "shutdown_delay", &["RINGVERB_SHUTDOWN_DELAY"], "0", "seconds, 0 to 3600", "after SIGTERM: time in which /up answers 503 and all else is served"),
    option(Server, "takeover", &["RINGVERB_TAKEOVER"], "true", BOOLEAN, "let a new process (--takeover, SIGUSR2) take this one's place"),
    option(Server, "send_queue_bytes_max", &["RINGVERB_SEND_QUEUE_BYTES_MAX"], "1048576", "bytes, or a size such as 2M: 4K to 2G", "unsent bytes after which a slow connection is closed"),
    option(Server, "connection_bytes_max", &["RINGVERB_CONNECTION_BYTES_MAX"], "", "bytes, or a size such as 2M: at least 64K; empty adds 192K", "all that one connection keeps"),
    option(Server, "cache_bytes_max", &["RINGVERB_CACHE_BYTES_MAX"], "134217728", "bytes, or a size such as 64M: at least 64K", "all remembered events of cache channels"),
    option(Server, "connections_per_ip_max", &["RINGVERB_CONNECTIONS_PER_IP_MAX"], "", "a number, 1 to 65535; empty for no limit", "open WebSockets of one client address"),
    option(Server, "handshakes_per_ip_per_second_max", &["RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX"], "", "a number, 1 or more; empty for no limit", "WebSocket handshakes of one client address"),
    option(Server, "auth_failures_per_ip_per_second_max", &["RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX"], "", "a number, 1 or more; empty for no limit", "failed API signatures of one client address"),
    option(Server, "trusted_proxies", &["RINGVERB_TRUSTED_PROXIES"], "", "addresses and networks, comma separated", "proxies whose X-Forwarded-For names the client"),
    option(Server, "memory_max", &["RINGVERB_MEMORY_MAX"], "", "bytes, or a size such as 512M: at least 16M; 0: off", "resident memory; unset: 0.8 of cgroup's"),
    option(Server, "webhook_timeout", &["RINGVERB_WEBHOOK_TIMEOUT"], "30", "seconds, 1 to 3600", "time for one request to a backend"),
    option(Server, "webhook_retry", &["RINGVERB_WEBHOOK_RETRY"], "300", "seconds, 0 to 86400; 0 tries once", "time after which a failing batch of webhooks is given up"),
    option(Server, "webhook_debounce", &["RINGVERB_WEBHOOK_DEBOUNCE"], "3000", "milliseconds, 0 to 60000; 0 is off", "time within which a rejoin cancels a leave"),
    option(Server, "webhook_queue_max", &["RINGVERB_WEBHOOK_QUEUE_MAX"], "10000", "a number, 1 to 1000000", "events of one kind that may wait for one endpoint"),
    option(Server, "scaling.enabled", &["REVERB_SCALING_ENABLED"], "false", BOOLEAN, "several nodes serve as one, connected by Redis"),
    option(Server, "scaling.channel", &["REVERB_SCALING_CHANNEL"], "reverb", "letters, digits and ._-:/, at most 100", "start of all names in Redis; the same on each node"),
    option(Server, "scaling.server.url", &["REDIS_URL"], "", "redis://[user[:password]@]host[:port]", "Redis or Valkey; wins over the names below"),
    option(Server, "scaling.server.host", &["REDIS_HOST"], "127.0.0.1", "a host name or an IP address", "host of Redis"),
    option(Server, "scaling.server.port", &["REDIS_PORT"], "6379", "a number from 1 to 65535", "port of Redis, for TCP without TLS"),
    option(Server, "scaling.server.username", &["REDIS_USERNAME"], "", "text; empty for Redis' default user", "user of Redis, with a password"),
    option(Server, "scaling.server.password", &["REDIS_PASSWORD"], "", "text; empty for none", "password of Redis"),
    option(Server, "scaling.server.database", &["REDIS_DB"], "0", "a number", "no effect: keys start with the scaling channel"),
    option(Server, "scaling.server.timeout", &["REDIS_TIMEOUT"], "60", "seconds, 1 to 3600", "time for a connection to Redis to be made"),
    option(App, "id", &["REVERB_APP_ID"], "", "letters, digits and signs such as - and _", "id of the app"),
    option(App, "key", &["REVERB_APP_KEY"], "", "letters, digits and signs such as - and _", "public key of the app"),
    option(App, "secret", &["REVERB_APP_SECRET"], "", "text", "secret of the app"),
    option(App, "enabled", &["RINGVERB_APP_ENABLED"], "true", BOOLEAN, "serve the app; false refuses clients with 4003, requests with 403"),
    option(App, "ping_interval", &["REVERB_APP_PING_INTERVAL"], "60", SECONDS, "silence after which a connection is pinged"),
    option(App, "activity_timeout", &["REVERB_APP_ACTIVITY_TIMEOUT"], "30", SECONDS, "silence after which clients ping, as sent to them"),
    option(App, "pong_timeout", &["RINGVERB_PONG_TIMEOUT"], "30", SECONDS, "time for the answer to a ping"),
    option(App, "max_connections", &["REVERB_APP_MAX_CONNECTIONS"], "", "a number, 1 or more; empty for no limit", "open connections of the app"),
    option(App, "max_message_size", &["REVERB_APP_MAX_MESSAGE_SIZE"], "10000", "bytes, or a size such as 64K: 64 to 16M", "one message of a client"),
    option(App, "accept_client_events_from", &["REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM"], "members", "all, members or none", "who may send client events"),
    option(App, "client_events_on_public", &["RINGVERB_CLIENT_EVENTS_ON_PUBLIC"], "false", BOOLEAN, "client events on public channels too, as in Reverb"),
    option(App, "rate_limiting.enabled", &["REVERB_APP_RATE_LIMITING_ENABLED"], "false", BOOLEAN, "limit the messages of each connection"),
    option(App, "rate_limiting.max_attempts", &["REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "REVERB_APP_RATE_LIMITING_MAX_ATTEMPTS"], "60", "a number, 1 or more", "messages per window"),
    option(App, "rate_limiting.decay_seconds", &["REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "REVERB_APP_RATE_LIMITING_DECAY_SECONDS"], "60", SECONDS, "length of the window"),
    option(App, "rate_limiting.terminate_on_limit", &["REVERB_APP_RATE_LIMIT_TERMINATE", "REVERB_APP_RATE_LIMITING_TERMINATE_ON_LIMIT"], "false", BOOLEAN, "close a connection that is over"),
    option(App, "allowed_origins", &["RINGVERB_ALLOWED_ORIGINS", "REVERB_ALLOWED_ORIGINS", "REVERB_APP_ALLOWED_ORIGINS"], "*", "hosts or origins, comma separated; * is a wildcard", "pages that may connect"),
    option(App, "allow_missing_origin", &["RINGVERB_ALLOW_MISSING_ORIGIN"], "false", BOOLEAN, "accept clients that send no Origin (native SDKs)"),
    option(App, "auth_window", &["RINGVERB_AUTH_WINDOW"], "600", "seconds; 0 switches the check off", "largest age of a signed API request"),
    option(App, "allow_reserved_events", &["RINGVERB_ALLOW_RESERVED_EVENTS"], "false", BOOLEAN, "publish events named pusher:... over HTTP"),
    option(App, "max_channels_per_connection", &["RINGVERB_CHANNELS_PER_CONNECTION_MAX"], "1000", "a number, 1 or more", "channels one connection may be in"),
    option(App, "max_presence_members", &["RINGVERB_PRESENCE_MEMBERS_MAX"], "", "a number, 1 or more; empty for no limit", "users in one presence channel"),
    option(App, "max_member_size", &["RINGVERB_MEMBER_SIZE_MAX"], "4096", "bytes, or a size such as 4K: at least 1", "channel_data of one presence member"),
    option(App, "max_user_data_size", &["RINGVERB_USER_DATA_SIZE_MAX"], "8192", "bytes, or a size such as 8K: at least 1", "user_data of one sign-in"),
    option(App, "max_channel_name_length", &["RINGVERB_CHANNEL_NAME_LENGTH_MAX"], "200", "bytes, 1 to 10000", "longest channel name; Pusher has 164"),
    option(App, "channel_names", &["RINGVERB_CHANNEL_NAMES"], "any", "any or pusher", "characters of channel names: any, or letters, digits and _-=@,.;"),
    option(App, "max_client_events_per_second", &["RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX"], "", "a number, 1 or more; empty for no limit", "client events of one connection"),
    option(App, "max_event_payload", &["RINGVERB_EVENT_PAYLOAD_MAX"], "", "bytes, or a size such as 10K; empty: the request's limit only", "data of one published event"),
    option(App, "max_publishes_per_second", &["RINGVERB_PUBLISHES_PER_SECOND_MAX"], "", "a number, 1 or more; empty for no limit", "published events times their channels"),
    option(App, "subscription_count", &["RINGVERB_SUBSCRIPTION_COUNT"], "false", BOOLEAN, "send subscribers of a channel their number"),
    option(App, "cache_ttl", &["RINGVERB_CACHE_TTL"], "1800", SECONDS, "how long a cache channel remembers its last event"),
    option(App, "authorize_within", &["RINGVERB_AUTHORIZE_WITHIN"], "", "seconds, 1 or more; empty for never", "close who has not signed in or joined a private channel"),
    option(App, "max_batch_events", &["RINGVERB_BATCH_EVENTS_MAX"], "", "a number, 1 or more; empty for no limit", "events in one batch request"),
    option(App, "max_event_channels", &["RINGVERB_EVENT_CHANNELS_MAX"], "", "a number, 1 or more; empty for no limit", "channels of one published event; Pusher has 100"),
    option(App, "max_event_name_length", &["RINGVERB_EVENT_NAME_LENGTH_MAX"], "", "characters, 1 or more; empty for no limit", "name of one event; Pusher has 200"),
    option(App, "error_data", &["RINGVERB_ERROR_DATA"], "string", "string or object", "the data of pusher:error, as in Reverb or in Pusher"),
    option(App, "over_quota_code", &["RINGVERB_OVER_QUOTA_CODE"], "4004", "4004 or 4100", "over max_connections: clients stop (4004) or retry (4100)"),
    option(App, "subscription_errors", &["RINGVERB_SUBSCRIPTION_ERRORS"], "false", BOOLEAN, "pusher:subscription_error on the channel too"),
    option(Webhook, "url", &["RINGVERB_WEBHOOK_URL"], "", "URLs, comma separated in the environment", "endpoints of the app's backend"),
    option(Webhook, "events", &["RINGVERB_WEBHOOK_EVENTS"], "", "names of events; empty for all", "events that they receive"),
    option(Webhook, "channel_prefixes", &["RINGVERB_WEBHOOK_CHANNEL_PREFIXES"], "", "starts of channel names; empty for all", "channels whose events they receive"),
    option(Unused, "pulse_ingest_interval", &["REVERB_PULSE_INGEST_INTERVAL"], "15", "seconds", "Pulse records inside PHP; poll GET /connections"),
    option(Unused, "telescope_ingest_interval", &["REVERB_TELESCOPE_INGEST_INTERVAL"], "15", "seconds", "Telescope records inside PHP"),
];

/// The option of that name.
///
/// # Panics
/// When there is none: names are literals of this crate.
#[must_use]
pub fn find(scope: Scope, key: &str) -> &'static OptionSpec {
    let found = OPTIONS.iter().find(|option| option.scope == scope && option.key == key);
    assert!(found.is_some(), "no option is named {key}");
    found.unwrap_or(&OPTIONS[0])
}

/// The scopes in the order in which people read about them.
const TITLES: [(Scope, &str); 3] = [
    (Server, "The server; [server] in ringverb.toml"),
    (App, "The app; each of [[apps]] in ringverb.toml"),
    (
        Webhook,
        "Webhooks of the app; each of [[apps.webhooks]] in ringverb.toml. Events are\n\
         channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss\n\
         and subscription_count",
    ),
];

/// The environment part of `--help`: name and default, and below it what it means and takes.
#[must_use]
pub fn help() -> String {
    let mut text = String::new();
    for (scope, title) in TITLES {
        text.push_str(&format!("\n{title}:\n"));
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
            text.push_str(&format!("\n      {} ({})\n", option.meaning, option.accepts));
        }
    }
    text
}

fn of_scope(scope: Scope) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |option| option.scope == scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let keys: BTreeSet<_> = OPTIONS.iter().map(|option| option.key).collect();
        let names: Vec<_> = OPTIONS.iter().flat_map(|option| option.environment).collect();
        assert_eq!(keys.len(), OPTIONS.len());
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    /// A help text that clap has to fold is hard to read on a terminal of 100 columns.
    #[test]
    fn help_has_every_option_in_short_lines() {
        let text = help();
        for option in OPTIONS.iter().filter(|option| option.scope != Unused) {
            assert!(text.contains(&format!("  {}", option.environment[0])), "{}", option.key);
        }
        assert!(text.contains("  RINGVERB_AUTH_WINDOW [600]\n"), "{text}");
        for kind in crate::app::WebhookKind::ALL {
            assert!(text.contains(kind.name()), "{text}");
        }
        let long: Vec<&str> = text.lines().filter(|line| line.len() > 100).collect();
        assert!(long.is_empty(), "{long:#?}");
    }
}
