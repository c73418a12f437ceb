//! The table of causes: each reason for which the server refuses something or closes a connection, with its log line.
//! PURE.
//!
//! Owns the texts and the budget, not the log: a line is a value for the worker, which appends peer, app and socket.
//! Does not decide what is refused. A line says what happened with the wrong value, the rule, and what to change. The
//! gaps `{}` of a line are filled with `Detail`s. `LineBudget` limits the lines of each cause, so that a flood of one
//! cause neither fills the log nor hides other causes. Each cause is counted as one of the coarser `Refused`, whose
//! sums are logged once a minute. `tests/process/refusals` provokes each cause that a peer can provoke. Limits:
//! `LINES_AT_ONCE` lines of a cause at once, then `LINES_PER_SECOND`. Cost: a line is one allocation and one more for
//! each gap; a line over the budget is two array accesses, and is not formatted.

mod detail;

use crate::counters::Refused;
pub use detail::Detail;

/// Gaps of a line at most. A refusal keeps its values in an array of this length until its line is formatted.
pub const DETAILS_MAX: usize = 3;

/// The table: name of the cause, what it counts as, its line.
macro_rules! causes {
    ($($cause:ident $name:literal $counted:ident $line:literal)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Cause { $($cause),* }

        impl Cause {
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$cause),*];

            /// The field `cause` of the log. Operators search for it, so it does not change.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$cause => $name),* }
            }

            /// Several causes have one counter, so that `/metrics` has few labels.
            #[must_use]
            pub fn counter(self) -> Refused {
                match self { $(Self::$cause => Refused::$counted),* }
            }

            /// The line with `{}` where `line` puts values. docs/laravel-errors.md lists these.
            #[must_use]
            pub fn template(self) -> &'static str {
                match self { $(Self::$cause => $line),* }
            }
        }
    };
}

#[rustfmt::skip]
causes! {
    TlsOnPlainPort "tls_on_plain_port" BadRequest
        "a client speaks TLS to this port, which is plain HTTP: is REVERB_SCHEME=https (or forceTLS in Echo) although \
         no proxy that ends TLS stands between?"
    PlainOnTlsPort "plain_on_tls_port" Tls
        "a client speaks plain HTTP to this port, which is TLS: use https:// and wss:// (REVERB_SCHEME=https, forceTLS \
         in Echo), or give TLS a port of its own by RINGVERB_TLS_PORT"
    TlsHandshake "tls_handshake" Tls
        "a TLS handshake failed, because of the client: {}"
    TlsRecord "tls_record" Tls
        "a TLS connection was closed because of its client: {}"
    TlsTimeout "tls_timeout" RequestTimeout
        "a connection was closed because its TLS handshake was not complete after {} s (RINGVERB_HANDSHAKE_TIMEOUT)"
    ProxyProtocol "proxy_protocol" BadRequest
        "a header of the PROXY protocol was sent, but RINGVERB_PROXY_PROTOCOL is off, or RINGVERB_TRUSTED_PROXIES does \
         not name this peer: set both, or switch it off in the proxy (HAProxy: send-proxy)"
    ProxyHeader "proxy_header" BadRequest
        "this peer must begin with a header of the PROXY protocol (RINGVERB_PROXY_PROTOCOL, RINGVERB_TRUSTED_PROXIES), \
         but it {}"
    ProxyHeaderTimeout "proxy_header_timeout" RequestTimeout
        "a connection of a proxy was closed because its header of the PROXY protocol was not complete after {} s \
         (RINGVERB_PROXY_PROTOCOL)"
    Http2 "http2" BadRequest
        "a client speaks HTTP/2, but this port serves HTTP/1.1 only: set the proxy's connection to this server to \
         HTTP/1.1"
    NotHttp "not_http" BadRequest
        "a client sent {}, which is not HTTP: is this the port it wants?"
    BadRequest "bad_request" BadRequest
        "a request cannot be read, because its head or body breaks the rules of HTTP/1.1; it begins with {}"
    Host "host" BadRequest
        "{} came without a Host header, or with several"
    Expectation "expectation" BadRequest
        "{} has an Expect header other than 100-continue, which is the only one that is supported"
    TransferCoding "transfer_coding" BadRequest
        "{} has a Transfer-Encoding other than chunked: send the body as it is, or chunked"
    HttpVersion "http_version" BadRequest
        "{} has another HTTP version than 1.0 and 1.1, which this server speaks"
    HeadTooLarge "head_too_large" HeadTooLarge
        "the head of a request has more than {} bytes or {} fields, which are the limits: are cookies sent along?"
    RequestTooLarge "request_too_large" RequestTooLarge
        "a request over {} bytes was refused: send less data in an event, or raise REVERB_MAX_REQUEST_SIZE"
    HeadOverRequestSize "head_over_request_size" RequestTooLarge
        "the header of a request has more than {} bytes (REVERB_MAX_REQUEST_SIZE): large cookies?"
    NothingSent "nothing_sent" NothingSent
        "a connection was closed because it sent nothing for {} s: is it a health check that only connects?"
    RequestTimeout "request_timeout" RequestTimeout
        "a connection was closed because its request was not complete after {} s (RINGVERB_HANDSHAKE_TIMEOUT)"
    TakeOver "take_over" RequestTimeout
        "a request was refused because only a part of it had arrived when a new process took over: its client can send \
         it again"
    AnswerUnread "answer_unread" AnswerUnread
        "a connection was closed because it did not read its answer within {} s (RINGVERB_HANDSHAKE_TIMEOUT)"
    HttpConnections "http_connections" HttpConnections
        "an idle HTTP connection was closed for a newer one: a worker has room for {}; raise LimitNOFILE \
         (ulimit -n), or close idle connections in the proxy sooner"
    SocketsPerIp "sockets_per_ip" SocketsPerIp
        "{} has {} already; RINGVERB_CONNECTIONS_PER_IP_MAX sets the limit, and if this is your proxy or your backend, \
         RINGVERB_TRUSTED_PROXIES must name it"
    HttpMemory "http_memory" HttpMemory
        "a request was refused because the server is short of memory: RINGVERB_MEMORY_MAX sets the limit"
    AcceptPaused "accept_paused" AcceptPaused
        "accepting pauses: {}"

    OutsidePrefix "outside_prefix" NotFound
        "{} is not served: clients use {}/app/KEY (wsPath in Echo) or /app/KEY; backends use {}/apps/ID/events or \
         /apps/ID/events"
    DoubledSlash "doubled_slash" NotFound
        "{} is not served, because a slash in it is doubled: clients use {}/app/KEY (wsPath in Echo without a slash at \
         its end); is an app id or key empty?"
    UnknownPath "unknown_path" NotFound
        "{} is not served here: clients connect to /app/KEY, backends post to /apps/ID/events; if there is a prefix \
         before that, REVERB_SERVER_PATH must name it"
    WrongMethod "wrong_method" NotFound
        "{} has the wrong method: this path takes {}"
    UpgradeOfApi "upgrade_of_api" BadRequest
        "a WebSocket handshake came to {}, which is a path of the HTTP API: clients connect to /app/KEY"
    NoUpgrade "no_upgrade" BadRequest
        "{} is no WebSocket handshake, Upgrade is {}: does a proxy drop the header? nginx needs proxy_set_header \
         Upgrade $http_upgrade and proxy_set_header Connection \"Upgrade\""
    UpgradeHttp10 "upgrade_http_1_0" BadRequest
        "{} asks for a WebSocket in HTTP/1.0, which has none: nginx needs proxy_http_version 1.1"
    WebSocketVersion "websocket_version" BadRequest
        "{} asks for WebSocket version {}: the server supports 13 only; update the client or the proxy"
    WebSocketKeyMissing "websocket_key_missing" BadRequest
        "{} has no Sec-WebSocket-Key: does a proxy drop it?"
    WebSocketKey "websocket_key" BadRequest
        "{} has the Sec-WebSocket-Key {}, which is not 16 bytes in base64: does a proxy change it?"
    HandshakesPerIp "handshakes_per_ip" HandshakesPerIp
        "{} began more than {} in a second; RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX sets the limit, and if this is \
         your proxy, RINGVERB_TRUSTED_PROXIES must name it"

    UnknownAppId "unknown_app_id" Unauthenticated
        "no app has the id {}: is REVERB_APP_ID the same in Laravel's .env?"
    TooManyParameters "too_many_parameters" Unauthenticated
        "{} has more than {} query parameters, which is the limit: send several values of one parameter separated by \
         commas"
    ApiKeyMissing "api_key_missing" Unauthenticated
        "{} came without auth_key: does a proxy drop the query string?"
    ApiKeyWrong "api_key_wrong" Unauthenticated
        "API request signed with key {}, but app {} has another: is REVERB_APP_KEY the same in Laravel's .env?"
    ApiSignatureMissing "api_signature_missing" Unauthenticated
        "{} came without auth_signature: does a proxy drop a part of the query string?"
    ApiSignatureForm "api_signature_form" Unauthenticated
        "{} has an auth_signature of {} bytes that is not 64 lowercase hex digits"
    ApiBodyChanged "api_body_changed" Unauthenticated
        "{} has the body_md5 {}, which is not that of its body: does a proxy change the body?"
    ApiBodyUnsigned "api_body_unsigned" Unauthenticated
        "{} has a body but no body_md5 in its query: sign the request with a Pusher library"
    ApiSignatureMismatch "api_signature_mismatch" Unauthenticated
        "API signature does not match for {}: is REVERB_APP_SECRET the same in Laravel's .env? A proxy that changes \
         path or query causes this, too{}"
    TimestampMissing "timestamp_missing" Unauthenticated
        "{} came without auth_timestamp: sign one, or set RINGVERB_AUTH_WINDOW=0 to need none"
    TimestampFar "timestamp_far" Unauthenticated
        "the auth_timestamp of an API request is {} s away from this server's clock, and {} s are allowed: set both \
         clocks by NTP, or RINGVERB_AUTH_WINDOW=0 to accept any"
    AuthFailuresPerIp "auth_failures_per_ip" AuthFailuresPerIp
        "{} failed to authenticate {} in a second; RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX sets the limit, and if \
         this is your proxy, RINGVERB_TRUSTED_PROXIES must name it"

    BodyNotJson "body_not_json" InvalidRequest
        "the body of {} is not a JSON object: {}; is the request sent by a Pusher library?"
    InvalidFields "invalid_fields" InvalidRequest
        "{} was refused with 422: {}"
    ReservedEvent "reserved_event" InvalidRequest
        "the event name {} is reserved for the protocol: choose another, or set RINGVERB_ALLOW_RESERVED_EVENTS=true"
    EventPayload "event_payload" InvalidRequest
        "{} was refused with 413: the event has {} bytes of data, and RINGVERB_EVENT_PAYLOAD_MAX is {}"
    EventExpansion "event_expansion" InvalidRequest
        "an event for {} channels becomes {} bytes of messages, and one request may become {}: name fewer channels in \
         one request, or send less data"
    PublishRate "publish_rate" PublishRate
        "a publish was refused: this app may publish {} a second (RINGVERB_PUBLISHES_PER_SECOND_MAX), each counted \
         once for each of its channels"
    NotPresence "not_presence" InvalidRequest
        "users of {} were asked for: only channels whose name starts with presence- have users"
    MemoryPublish "memory_publish" MemoryPublish
        "a publish was refused because the server is far over RINGVERB_MEMORY_MAX"
    CoreSilent "core_silent" CoreSilent
        "an API request was answered with 503 because a core did not answer within {} ms: is the host overloaded?"

    Memory "memory" Memory
        "a connection was refused because the server is short of memory: RINGVERB_MEMORY_MAX sets the limit"
    UnknownKey "unknown_key" NoSuchApp
        "no app has the key {}: is VITE_REVERB_APP_KEY the same as REVERB_APP_KEY, and was the front end built again?"
    AppGone "app_gone" NoSuchApp
        "a connection of app {} was closed after the take-over: this process has no such app"
    AppDisabled "app_disabled" AppDisabled
        "app {} is disabled, so its clients and its backend are refused: remove RINGVERB_APP_ENABLED=false, or enabled \
         = false in ringverb.toml"
    BadVersion "bad_version" Version
        "protocol={} in the address of a client is not a number: a client sends 7, or 5 to 7"
    UnsupportedVersion "unsupported_version" Version
        "protocol={} in the address of a client is not supported: 5 to 7 are; update the client library"
    Origin "origin" Origin
        "origin {} refused. Allowed: {} (RINGVERB_ALLOWED_ORIGINS)"
    OriginMissing "origin_missing" Origin
        "a client without an Origin header refused (a native SDK?); RINGVERB_ALLOW_MISSING_ORIGIN=true accepts it. \
         RINGVERB_ALLOWED_ORIGINS has {}"
    ConnectionsPerIp "connections_per_ip" ConnectionsPerIp
        "{} has {} already; RINGVERB_CONNECTIONS_PER_IP_MAX sets the limit, and if this is your proxy, \
         RINGVERB_TRUSTED_PROXIES must name it"
    Quota "quota" Quota
        "connection refused: the app has {}, and REVERB_APP_MAX_CONNECTIONS is {}"

    NotJson "not_json" Malformed
        "message {} is not a JSON object: a client sends {\"event\":\"...\",\"data\":{...}}"
    NoEvent "no_event" Malformed
        "a message has no event name: `event` must be a text, and is {}"
    UnknownEvent "unknown_event" Malformed
        "event {} is unknown: clients may send pusher:ping, pusher:pong, pusher:subscribe, pusher:unsubscribe, \
         pusher:signin and client- events"
    EventWithoutChannel "event_without_channel" Malformed
        "event {} names no channel: `channel` beside `event` must be a text"
    SubscribeData "subscribe_data" Malformed
        "{} has no `data`, or it is no JSON object: it needs {\"channel\":\"...\"}"
    SubscribeChannel "subscribe_channel" Malformed
        "{}; it must be a non-empty string"
    ChannelDataText "channel_data_text" Malformed
        "{} is not a string with a JSON object, exactly as the auth endpoint returned it"
    SignInData "signin_data" Malformed
        "pusher:signin has no user_data that is a JSON object in a text, exactly as the auth endpoint \
         (/broadcasting/user-auth) returned it"
    BadChannel "bad_channel" Malformed
        "{} refused: a channel name has 1 to {} bytes"
    NoChannelData "no_channel_data" Malformed
        "{} refused: no channel_data came with it; does the channel's callback in routes/channels.php return the user?"
    NoUser "no_user" Malformed
        "{} refused: channel_data names no user_id; does the channel's callback in routes/channels.php return the user?"
    NotClientEvent "not_client_event" Malformed
        "event {} dropped: only events whose name starts with client- are sent on (whisper() in Echo adds that)"
    MessageRate "message_rate" MessageRate
        "a connection sent more than {} in {} s (REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS, \
         REVERB_APP_RATE_LIMIT_DECAY_SECONDS): further messages are discarded until the window ends"
    MessageRateClosed "message_rate_closed" MessageRate
        "a connection was closed because it sent more than {} in {} s (REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS; \
         REVERB_APP_RATE_LIMIT_TERMINATE=false only drops them)"
    ControlFrameRate "control_frame_rate" ControlFrameRate
        "a connection sent more than {} ping and pong frames in a second: not each is answered"

    AuthMissing "auth_missing" Unauthorized
        "{} refused: no signature came with it; does the client's auth endpoint (/broadcasting/auth) answer with \
         `auth`?"
    AuthType "auth_type" Unauthorized
        "{} refused: auth is {}, but must be a string KEY:SIGNATURE"
    AuthForm "auth_form" Unauthorized
        "{} refused: its auth of {} bytes is not KEY:SIGNATURE; does the auth endpoint sign with a Pusher library?"
    AuthKey "auth_key" Unauthorized
        "{} refused: signed for key {}, but this app has another; is REVERB_APP_KEY the same in Laravel's .env?"
    AuthMismatch "auth_mismatch" Unauthorized
        "{} refused: the signature does not match: is REVERB_APP_SECRET the same in Laravel's .env, and was the \
         signature made for this socket id and channel?"
    AuthDataNotSigned "auth_data_not_signed" Unauthorized
        "{} refused: channel_data came along but is not part of what was signed; sign socket_id:channel:channel_data, \
         or send none"
    OtherUser "other_user" Unauthorized
        "{} refused: a user's channel is for connections signed in as that user; call pusher.signin() first"
    UserId "user_id" Unauthorized
        "sign-in refused: user_data names no id, or one that is not a text; cast it to a string in the callback of \
         resolveAuthenticatedUserUsing"
    UserIdTooLong "user_id_too_long" Unauthorized
        "sign-in refused: the id of the user has {} bytes, which is too long for a channel name"
    SignedInAlready "signed_in_already" Other
        "sign-in as {} refused: the connection is signed in as another user; disconnect before another user signs in"
    ChannelNameLength "channel_name_length" Other
        "{} refused: the name has {} bytes, and RINGVERB_CHANNEL_NAME_LENGTH_MAX is {}"
    ChannelNameCharacter "channel_name_character" Other
        "{} refused: the name has characters other than letters, numbers and _-=@,.; and RINGVERB_CHANNEL_NAMES takes \
         those only"
    ChannelNameColon "channel_name_colon" Other
        "{} refused: the name of a private or presence channel has a colon, and its signature would be ambiguous; \
         choose a name without a colon"
    MemberTooLarge "member_too_large" Other
        "{} refused: channel_data has {} bytes, and RINGVERB_MEMBER_SIZE_MAX is {}; return less from \
         routes/channels.php"
    TooManyChannels "too_many_channels" Other
        "{} refused: the connection is in {} already (RINGVERB_CHANNELS_PER_CONNECTION_MAX); leave some"
    TooManyMembers "too_many_members" Other
        "{} refused: the channel has {} already (RINGVERB_PRESENCE_MEMBERS_MAX)"
    ConnectionMemory "connection_memory" ConnectionMemory
        "{} refused: subscriptions and sign-in of the connection would keep more than {} bytes, which is half of \
         RINGVERB_CONNECTION_BYTES_MAX; leave channels, or raise it"
    MemorySubscription "memory_subscription" MemorySubscription
        "{} refused because the server is short of memory: RINGVERB_MEMORY_MAX sets the limit"
    UserDataTooLarge "user_data_too_large" Other
        "sign-in refused: user_data has {} bytes, and RINGVERB_USER_DATA_SIZE_MAX is {}; return less from the user \
         authentication callback"
    WatchlistTooLong "watchlist_too_long" Other
        "a watchlist is too long: its first {} users are watched; name fewer in `watchlist` of user_data"

    ClientEventsDisabled "client_events_disabled" Other
        "client event {} refused: this app takes none; REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=members lets them through"
    ClientEventOnPublic "client_event_on_public" Other
        "client event {} on {} refused: client events on public channels need RINGVERB_CLIENT_EVENTS_ON_PUBLIC=true, \
         or a private channel"
    ClientEventOnUserChannel "client_event_on_user_channel" Other
        "client event {} on {} refused: only the app's backend publishes to a user's own channel; use a private channel"
    ClientEventName "client_event_name" Other
        "client event {} refused: its name has more than {} (RINGVERB_EVENT_NAME_LENGTH_MAX)"
    NotAMember "not_a_member" Other
        "client event {} on {} refused: the connection is not subscribed to that channel; \
         REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=all needs no subscription"
    ClientEventRate "client_event_rate" MessageRate
        "client event {} dropped: the connection sent more than {} in a second (RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX)"

    MessageTooLarge "message_too_large" MessageTooLarge
        "a connection was closed, its message was larger than {} bytes (REVERB_APP_MAX_MESSAGE_SIZE)"
    Violation "violation" Violation
        "a connection was closed with {}, because it broke the WebSocket protocol: {}; is a proxy or a hand-made \
         client in between?"
    NoPong "no_pong" NoPong
        "a connection was closed because it did not answer a ping within {} s: the client or its network is gone"
    NotAuthorizedInTime "not_authorized_in_time" Other
        "a connection was closed because it neither signed in nor joined a private channel within {} s \
         (RINGVERB_AUTHORIZE_WITHIN)"
    Terminated "terminated" Terminated
        "a connection of user {} was closed because the app's backend asked for it (terminate_connections)"
    Disconnected "disconnected" Terminated
        "a connection was closed because an operator asked for it (console, or POST /api/disconnect of RINGVERB_ADMIN)"
    ConnectionTerminated "connection_terminated" Terminated
        "a connection was closed because the app's backend asked for it (connections/{}/terminate)"
    ReconnectForced "reconnect_forced" Terminated
        "a connection was asked to connect again because the app's backend asked for it (force_reconnect)"
    AccessWithdrawn "access_withdrawn" AccessWithdrawn
        "{} ended because the app's backend withdrew it (unsubscribe)"
    SubscriptionEnded "subscription_ended" AccessWithdrawn
        "{} ended because an operator asked for it (console, or POST /api/unsubscribe of RINGVERB_ADMIN)"
    AppSwitchedOff "app_switched_off" AppDisabled
        "a connection was closed because app {} was disabled; enable it to serve its clients again"
    AppRemoved "app_removed" NoSuchApp
        "a connection was closed because app {} was removed from the configuration"
    SlowConsumer "slow_consumer" SlowConsumer
        "a connection was closed because it does not read: {} bytes waited for it (RINGVERB_SEND_QUEUE_BYTES_MAX, \
         RINGVERB_CONNECTION_BYTES_MAX)"
    Shed "shed" Shed
        "a connection that kept {} bytes was closed because the server is short of memory (RINGVERB_MEMORY_MAX)"
    InputMemory "input_memory" Shed
        "a connection was closed in the middle of a message of {} bytes or more because the server is short of memory \
         (RINGVERB_MEMORY_MAX)"
    Kernel "kernel" Kernel
        "a connection was closed because the kernel failed it: {}"
}

impl Cause {
    /// Fills the gaps in order. A gap without a value is empty, and a value without a gap is left out.
    #[must_use]
    pub fn line(self, values: &[Detail<'_>]) -> String {
        let mut line = String::with_capacity(256);
        let mut values = values.iter();
        for (number, piece) in self.template().split("{}").enumerate() {
            if number > 0 {
                line.push_str(&values.next().copied().unwrap_or_default().to_string());
            }
            line.push_str(piece);
        }
        line
    }

    /// The answer to the client has the same values and remedies, so verbose errors do not repeat them.
    #[must_use]
    pub fn is_in_answer(self) -> bool {
        matches!(
            self,
            Self::TimestampFar
                | Self::TimestampMissing
                | Self::TooManyParameters
                | Self::ReservedEvent
                | Self::EventPayload
                | Self::EventExpansion
                | Self::PublishRate
                | Self::WatchlistTooLong
        )
    }

    /// It happens in every healthy service, because clients disconnect and networks fail: logged at level INFO.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        matches!(
            self,
            Self::NoPong
                | Self::NothingSent
                | Self::Terminated
                | Self::Disconnected
                | Self::ConnectionTerminated
                | Self::ReconnectForced
                | Self::AccessWithdrawn
                | Self::SubscriptionEnded
                | Self::AppSwitchedOff
                | Self::AppRemoved
        )
    }
}

/// A refusal that was counted, with what the log and the client need of it.
#[derive(Debug)]
pub struct NotedRefusal {
    pub cause: Cause,
    /// `None`: neither the log nor the client needs it.
    pub line: Option<String>,
    /// Lines of the cause that were left out before this one. `None`: this one is left out of the log, too.
    pub left_out: Option<u32>,
    /// The channel that the line is about, cut to `CHANNEL_BYTES_MAX`.
    pub channel: Option<Box<str>>,
}

/// Lines that one cause may have at once on one core, and lines that it regains each second.
pub const LINES_AT_ONCE: u8 = 20;
const LINES_PER_SECOND: u8 = 1;

/// One for each core, indexed by cause.
#[derive(Debug)]
pub struct LineBudget {
    lines_left: [u8; Cause::ALL.len()],
    left_out: [u32; Cause::ALL.len()],
    /// With `--debug`, where a developer wants each line.
    is_unlimited: bool,
}

impl Default for LineBudget {
    fn default() -> Self {
        Self {
            lines_left: [LINES_AT_ONCE; Cause::ALL.len()],
            left_out: [0; Cause::ALL.len()],
            is_unlimited: false,
        }
    }
}

impl LineBudget {
    #[must_use]
    pub fn new(is_unlimited: bool) -> Self {
        Self { is_unlimited, ..Self::default() }
    }

    /// Returns how many lines of the cause were left out since its last one. `None`: the budget is used up, and this
    /// line is left out.
    pub fn charge_line(&mut self, cause: Cause) -> Option<u32> {
        if self.is_unlimited {
            return Some(0);
        }
        let (left, left_out) =
            (self.lines_left.get_mut(cause as usize)?, self.left_out.get_mut(cause as usize)?);
        if let Some(fewer) = left.checked_sub(1) {
            *left = fewer;
            Some(std::mem::take(left_out))
        } else {
            *left_out = left_out.saturating_add(1);
            None
        }
    }

    /// Formats the line of a cause if the budget has room for it, or if it is wanted anyway: with verbose errors the
    /// client receives it.
    pub fn note(&mut self, cause: Cause, values: &[Detail<'_>], is_wanted: bool) -> NotedRefusal {
        let left_out = self.charge_line(cause);
        let line = (is_wanted || left_out.is_some()).then(|| cause.line(values));
        let channel = left_out.and_then(|_| values.iter().find_map(Detail::channel));
        NotedRefusal { cause, line, left_out, channel }
    }

    /// Once a second, by the worker.
    pub fn refill(&mut self) {
        for left in &mut self.lines_left {
            *left = (*left + LINES_PER_SECOND).min(LINES_AT_ONCE);
        }
    }
}

#[cfg(test)]
mod tests;
