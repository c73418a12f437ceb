//! Every error code that the server sends, with its text and the reaction of clients (docs/PROTOCOL.md C8, rule 55).
//! Plain values.
//!
//! Owns the only table of codes; texts are Reverb's where Reverb has one. Does not decide when an error is sent.
//! pusher-js decides by the code alone: 4000 to 4099 do not connect again, 4100 to 4199 wait first, 4200 to 4299
//! connect at once. `cause` has the reasons for the log, and `ws/violation.rs` the close codes of WebSocket itself. No
//! limits: a table of constants. Cost: none at run time; an error is 24 bytes that are copied, without allocation.

/// A client may show the text to a developer; it does not decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    pub code: u16,
    pub message: &'static str,
}

/// No app has this key. pusher-js stops for good.
pub const NO_SUCH_APP: ErrorCode = ErrorCode { code: 4001, message: "Application does not exist" };
/// The app is configured and disabled. pusher-js stops for good.
pub const APP_DISABLED: ErrorCode = ErrorCode { code: 4003, message: "Application disabled" };
/// `max_connections` is reached. pusher-js stops for good; Reverb's code, kept (docs/PROTOCOL.md C13).
pub const OVER_QUOTA: ErrorCode =
    ErrorCode { code: 4004, message: "Application is over connection quota" };
/// The same, with the code after which clients retry (`over_quota_code`).
pub const OVER_QUOTA_RETRY: ErrorCode = ErrorCode { code: 4100, message: OVER_QUOTA.message };
/// `?protocol=` is no number.
pub const BAD_VERSION: ErrorCode =
    ErrorCode { code: 4006, message: "Invalid version string format" };
/// `?protocol=` is a number this server does not speak (it speaks 5 to 7).
pub const UNSUPPORTED_VERSION: ErrorCode =
    ErrorCode { code: 4007, message: "Unsupported protocol version" };
/// A private or presence subscription without a valid signature. The connection stays.
pub const UNAUTHORIZED: ErrorCode = ErrorCode { code: 4009, message: "Connection is unauthorized" };
/// The Origin header is not in `allowed_origins`. pusher-js stops for good.
pub const ORIGIN_NOT_ALLOWED: ErrorCode = ErrorCode { code: 4009, message: "Origin not allowed" };
/// A client event for a channel the sender is not in. The connection stays.
pub const NOT_A_MEMBER: ErrorCode =
    ErrorCode { code: 4009, message: "The client is not a member of the specified channel." };
/// The app's backend ended this user's connections. pusher-js stops for good, as wanted.
pub const TERMINATED: ErrorCode =
    ErrorCode { code: 4009, message: "Connection terminated by the application" };
/// The app's backend has withdrawn a subscription. The connection stays.
pub const ACCESS_WITHDRAWN: ErrorCode =
    ErrorCode { code: 4009, message: "Access to the channel was withdrawn by the application" };
/// The app's backend wants the connection to authorize its channels again. pusher-js reconnects at once.
pub const RECONNECT: ErrorCode =
    ErrorCode { code: 4200, message: "The application asks the client to connect again" };
/// The connection does not read its messages. pusher-js retries after a second.
pub const SLOW_CONSUMER: ErrorCode =
    ErrorCode { code: 4100, message: "Connection is too slow to receive its events" };
/// A client address has reached its limit of connections. pusher-js retries after a second, then less often.
pub const TOO_MANY_CONNECTIONS: ErrorCode =
    ErrorCode { code: 4100, message: "Too many connections from this address" };
/// The server is short of memory (`OverloadLevel`). pusher-js retries after a second, then less often.
pub const SHORT_OF_MEMORY: ErrorCode =
    ErrorCode { code: 4100, message: "The server is short of memory" };
/// Malformed or unknown message, with Reverb's text. The connection stays.
pub const INVALID_MESSAGE: ErrorCode = ErrorCode { code: 4200, message: "Invalid message format" };
/// The server stops, and no process listens on its port until the next one has started. pusher-js reconnects after 1 s.
/// With 4200 it would reconnect at once, be refused, and then wait 15 s.
pub const SHUTTING_DOWN: ErrorCode = ErrorCode { code: 4100, message: "Server is shutting down" };
/// The server stops, and another process accepts on its port already. pusher-js connects again at once.
pub const REPLACED: ErrorCode = ErrorCode { code: 4200, message: SHUTTING_DOWN.message };
/// No pong in time. pusher-js reconnects at once.
pub const NO_PONG: ErrorCode = ErrorCode { code: 4201, message: "Pong reply not received in time" };
/// Too many messages in the window. The connection stays unless `terminate_on_limit`.
pub const RATE_LIMITED: ErrorCode = ErrorCode { code: 4301, message: "Rate limit exceeded" };
/// `rate_limiting.terminate_on_limit`: closed with a code after which pusher-js reconnects (docs/PROTOCOL.md rule 105).
pub const RATE_TERMINATED: ErrorCode = ErrorCode { code: 4100, message: "Rate limit exceeded" };
/// `accept_client_events_from = none`. The connection stays.
pub const CLIENT_EVENTS_DISABLED: ErrorCode =
    ErrorCode { code: 4301, message: "The app does not have client messaging enabled." };
/// The name of a client event is over `event_name_length_max`. The connection stays.
pub const CLIENT_EVENT_NAME_TOO_LONG: ErrorCode =
    ErrorCode { code: 4301, message: "The name of the client event is too long" };
/// A client event on a public channel (docs/PROTOCOL.md C13) or on a user's own channel. The connection stays.
pub const CLIENT_EVENT_ON_PUBLIC: ErrorCode = ErrorCode {
    code: 4301,
    message: "Client events are only accepted on private and presence channels.",
};
/// `presence_members_max` is reached. The connection stays.
pub const TOO_MANY_MEMBERS: ErrorCode =
    ErrorCode { code: 4100, message: "The presence channel has as many members as it may have" };
/// `channels_per_connection_max` is reached. The connection stays.
pub const TOO_MANY_CHANNELS: ErrorCode =
    ErrorCode { code: 4300, message: "Too many channels on one connection" };
/// A subscription or sign-in over half of `connection_bytes_max`. The connection stays.
pub const CONNECTION_KEEPS_TOO_MUCH: ErrorCode =
    ErrorCode { code: 4300, message: "The subscriptions of the connection take too much memory" };
/// A channel name over the app's limit, or with characters it does not take. The connection stays.
pub const BAD_CHANNEL_NAME: ErrorCode = ErrorCode {
    code: 4009,
    message: "The channel name is too long or has characters that are not accepted",
};
/// `channel_data` over the app's limit. The connection stays.
pub const MEMBER_TOO_LARGE: ErrorCode =
    ErrorCode { code: 4301, message: "The channel_data of the member is too large" };
/// `user_data` over the app's limit. The connection stays.
pub const USER_DATA_TOO_LARGE: ErrorCode =
    ErrorCode { code: 4301, message: "The user_data of the sign-in is too large" };
/// A second sign-in as another user (docs/PROTOCOL.md rule 41). The connection stays.
pub const SIGNED_IN_ALREADY: ErrorCode =
    ErrorCode { code: 4009, message: "Connection is signed in as another user" };
/// `authorize_within` is over. pusher-js stops for good, as Pusher has it (docs/PROTOCOL.md rule 44).
pub const NOT_AUTHORIZED_IN_TIME: ErrorCode =
    ErrorCode { code: 4009, message: "Connection not authorized within timeout" };
/// More than 100 users to watch: the first 100 are (docs/PROTOCOL.md rule 43). The connection stays.
pub const WATCHLIST_TOO_LONG: ErrorCode =
    ErrorCode { code: 4302, message: "The watchlist is too long: the first 100 users are watched" };
