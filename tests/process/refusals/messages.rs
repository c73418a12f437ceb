//! Messages, subscriptions, sign-ins and client events that are refused.

use ringverb::cause::Cause;
use serde_json::json;

use super::case::{Answer, Case, Seen, error_of, message, message_of};
use crate::support::{APP_KEY, Client, Handshake, Request, Server, channel_auth, frame, sign};

/// A subscription to this channel with these fields of `data`.
fn subscription(mut client: Client, channel: &str, mut data: serde_json::Value) -> Seen {
    data["channel"] = channel.into();
    client.send(&json!({"event": "pusher:subscribe", "data": data}).to_string());
    let answer = error_of(&client.event());
    client.sync();
    Seen::socket(&client, answer)
}

/// The same, signed.
fn signed(server: &Server, channel: &str, channel_data: Option<&str>) -> Seen {
    let client = server.connect();
    let text = client.subscribe_message(channel, channel_data);
    message_of(client, &text)
}

/// A sign-in with this `user_data`, signed.
fn sign_in(client: Client, user_data: &str) -> Seen {
    let text = sign_in_message(&client, user_data);
    message_of(client, &text)
}

fn sign_in_message(client: &Client, user_data: &str) -> String {
    let auth = sign(&[&client.socket_id, "::user::", user_data]);
    let data = json!({"auth": format!("{APP_KEY}:{auth}"), "user_data": user_data});
    json!({"event": "pusher:signin", "data": data}).to_string()
}

fn client_event(client: Client, channel: &str) -> Seen {
    message_of(
        client,
        &json!({"event": "client-typing", "channel": channel, "data": {}}).to_string(),
    )
}

fn subscribed(server: &Server, channel: &str) -> Client {
    let mut client = server.connect();
    client.subscribe(channel);
    client
}

const INVALID: &str = "4200 Invalid message format";
const UNAUTHORIZED: &str = "4009 Connection is unauthorized";

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        cause: Cause::NotJson, env: &[],
        act: |server| message(server, "hello"),
        answer: INVALID,
        line: "message \"hello\" is not a JSON object: a client sends {\"event\":\"...\",\"data\":{...}}",
    },
    Case {
        cause: Cause::NoEvent, env: &[],
        act: |server| message(server, r#"{"event":7}"#),
        answer: INVALID,
        line: "a message has no event name: `event` must be a text, and is 7",
    },
    Case {
        cause: Cause::NoEvent, env: &[],
        act: |server| message(server, r#"{"data":{}}"#),
        answer: INVALID,
        line: "a message has no event name: `event` must be a text, and is missing",
    },
    Case {
        cause: Cause::UnknownEvent, env: &[],
        act: |server| message(server, r#"{"event":"pusher:join","data":{}}"#),
        answer: INVALID,
        line: "event \"pusher:join\" is unknown: clients may send pusher:ping, pusher:pong, pusher:subscribe, \
               pusher:unsubscribe, pusher:signin and client- events",
    },
    Case {
        cause: Cause::EventWithoutChannel, env: &[],
        act: |server| message(server, r#"{"event":"client-typing","data":{}}"#),
        answer: INVALID,
        line: "event \"client-typing\" names no channel: `channel` beside `event` must be a text",
    },
    Case {
        cause: Cause::SubscribeData, env: &[],
        act: |server| message(server, r#"{"event":"pusher:subscribe","channel":"news"}"#),
        answer: INVALID,
        line: "pusher:subscribe has no `data`, or it is no JSON object: it needs {\"channel\":\"...\"}",
    },
    Case {
        cause: Cause::SubscribeChannel, env: &[],
        act: |server| message(server, r#"{"event":"pusher:subscribe","data":{"channel":""}}"#),
        answer: INVALID,
        line: "pusher:subscribe has channel \"\"; it must be a non-empty string",
    },
    Case {
        cause: Cause::SubscribeChannel, env: &[],
        act: |server| message(server, r#"{"event":"pusher:subscribe","data":{"channel":5}}"#),
        answer: INVALID,
        line: "pusher:subscribe has channel 5; it must be a non-empty string",
    },
    Case {
        cause: Cause::SubscribeChannel, env: &[],
        act: |server| message(server, r#"{"event":"pusher:unsubscribe","data":{}}"#),
        answer: INVALID,
        line: "pusher:unsubscribe has no channel; it must be a non-empty string",
    },
    Case {
        cause: Cause::ChannelDataText, env: &[],
        act: |server| message(server,
            r#"{"event":"pusher:subscribe","data":{"channel":"presence-r","channel_data":"user 7"}}"#),
        answer: INVALID,
        line: "subscription to \"presence-r\" refused: channel_data \"user 7\" is not a string with a JSON object, \
               exactly as the auth endpoint returned it",
    },
    Case {
        cause: Cause::SignInData, env: &[],
        act: |server| message(server, r#"{"event":"pusher:signin","data":{"user_data":{"id":"7"}}}"#),
        answer: INVALID,
        line: "pusher:signin has no user_data that is a JSON object in a text, exactly as the auth endpoint \
               (/broadcasting/user-auth) returned it",
    },
    Case {
        cause: Cause::BadChannel, env: &[],
        act: |server| message(server, r#"{"event":"client-typing","channel":"","data":{}}"#),
        answer: INVALID,
        line: "a client event refused: a channel name has 1 to 10000 bytes",
    },
    Case {
        cause: Cause::NotClientEvent, env: &[],
        act: |server| {
            let mut client = server.connect();
            client.send(r#"{"event":"typing","channel":"news","data":{}}"#);
            client.send(crate::support::PING);
            // In development an error comes before the answer to the ping.
            let first = client.event();
            let answer = if first["event"] == "pusher:error" { error_of(&first) } else { Answer::Silence };
            Seen::socket(&client, answer)
        },
        answer: "",
        line: "event \"typing\" dropped: only events whose name starts with client- are sent on (whisper() in Echo \
               adds that)",
    },
    Case {
        cause: Cause::MessageRate,
        env: &[("REVERB_APP_RATE_LIMITING_ENABLED", "true"), ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "1"),
            ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "600")],
        act: |server| {
            let mut client = server.connect();
            client.ask(crate::support::PING, crate::support::PONG);
            message_of(client, crate::support::PING)
        },
        answer: "4301 Rate limit exceeded",
        line: "a connection sent more than 1 message in 600 s (REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS, \
               REVERB_APP_RATE_LIMIT_DECAY_SECONDS): further messages are discarded until the window ends",
    },
    Case {
        cause: Cause::MessageRateClosed,
        env: &[("REVERB_APP_RATE_LIMITING_ENABLED", "true"), ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "1"),
            ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "600"), ("REVERB_APP_RATE_LIMIT_TERMINATE", "true")],
        act: |server| {
            let mut client = server.connect();
            client.ask(crate::support::PING, crate::support::PONG);
            client.send(crate::support::PING);
            let answer = error_of(&client.event());
            assert_eq!(client.closed(), (4100, "Rate limit exceeded".to_owned()));
            Seen::socket(&client, answer)
        },
        answer: "4301 Rate limit exceeded",
        line: "a connection was closed because it sent more than 1 message in 600 s \
               (REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS; REVERB_APP_RATE_LIMIT_TERMINATE=false only drops them)",
    },
    Case {
        cause: Cause::ControlFrameRate, env: &[],
        act: |server| {
            let mut client = server.connect();
            let pongs = frame::raw(frame::FIN | frame::PONG, b"").repeat(2_500);
            // A new second may begin between them.
            for _ in 0..4 {
                client.send_bytes(&pongs);
            }
            client.ask(crate::support::PING, crate::support::PONG);
            Seen::socket(&client, Answer::Silence)
        },
        answer: "",
        line: "a connection sent more than 2000 ping and pong frames in a second: not each is answered",
    },
    Case {
        cause: Cause::ClientEventsDisabled, env: &[("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none")],
        act: |server| client_event(server.connect(), "private-x"),
        answer: "4301 The app does not have client messaging enabled.",
        line: "client event \"client-typing\" refused: this app takes none; \
               REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=members lets them through",
    },
    Case {
        cause: Cause::ClientEventOnPublic, env: &[],
        act: |server| client_event(subscribed(server, "news"), "news"),
        answer: "4301 Client events are only accepted on private and presence channels.",
        line: "client event \"client-typing\" on \"news\" refused: client events on public channels need \
               RINGVERB_CLIENT_EVENTS_ON_PUBLIC=true, or a private channel",
    },
    Case {
        cause: Cause::ClientEventOnUserChannel, env: &[("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "all")],
        act: |server| client_event(server.connect(), "#server-to-user-7"),
        answer: "4301 Client events are only accepted on private and presence channels.",
        line: "client event \"client-typing\" on \"#server-to-user-7\" refused: only the app's backend publishes to a \
               user's own channel; use a private channel",
    },
    Case {
        cause: Cause::ClientEventName, env: &[("RINGVERB_EVENT_NAME_LENGTH_MAX", "12")],
        act: |server| client_event(server.connect(), "private-x"),
        answer: "4301 The name of the client event is too long",
        line: "client event \"client-typing\" refused: its name has more than 12 characters \
               (RINGVERB_EVENT_NAME_LENGTH_MAX)",
    },
    Case {
        cause: Cause::NotAMember, env: &[],
        act: |server| client_event(server.connect(), "private-x"),
        answer: "4009 The client is not a member of the specified channel.",
        line: "client event \"client-typing\" on \"private-x\" refused: the connection is not subscribed to that \
               channel; REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=all needs no subscription",
    },
    Case {
        cause: Cause::ClientEventRate, env: &[("RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX", "1")],
        act: |server| {
            let mut client = subscribed(server, "private-x");
            let event = json!({"event": "client-typing", "channel": "private-x", "data": {}}).to_string();
            // A new second may begin between two.
            (0..100).for_each(|_| client.send(&event));
            let answer = error_of(&client.event());
            Seen::socket(&client, answer)
        },
        answer: "4301 Rate limit exceeded",
        line: "client event \"client-typing\" dropped: the connection sent more than 1 in a second \
               (RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX)",
    },
];

#[rustfmt::skip]
pub(crate) const SUBSCRIPTIONS: &[Case] = &[
    Case {
        cause: Cause::AuthMissing, env: &[],
        act: |server| subscription(server.connect(), "private-x", json!({})),
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: no signature came with it; does the client's auth endpoint \
               (/broadcasting/auth) answer with `auth`?",
    },
    Case {
        cause: Cause::AuthType, env: &[],
        act: |server| subscription(server.connect(), "private-x", json!({"auth": {}})),
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: auth is {}, but must be a string KEY:SIGNATURE",
    },
    Case {
        cause: Cause::AuthType, env: &[],
        act: |server| subscription(server.connect(), "private-x", json!({"auth": {"auth": "app-key:0123"}})),
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: auth is a JSON object, but must be a string KEY:SIGNATURE",
    },
    Case {
        cause: Cause::AuthForm, env: &[],
        act: |server| subscription(server.connect(), "private-x", json!({"auth": "0123456789"})),
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: its auth of 10 bytes is not KEY:SIGNATURE; does the auth \
               endpoint sign with a Pusher library?",
    },
    Case {
        cause: Cause::AuthKey, env: &[],
        act: |server| subscription(server.connect(), "private-x", json!({"auth": "oldkey:0123"})),
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: signed for key \"oldkey\", but this app has another; is \
               REVERB_APP_KEY the same in Laravel's .env?",
    },
    Case {
        cause: Cause::AuthMismatch, env: &[],
        act: |server| subscription(server.connect(), "private-x", json!({"auth": "app-key:0123"})),
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: the signature does not match: is REVERB_APP_SECRET the same in \
               Laravel's .env, and was the signature made for this socket id and channel?",
    },
    Case {
        cause: Cause::AuthMismatch, env: &[],
        act: |server| {
            let data = json!({"auth": "app-key:0123", "user_data": "{\"id\":\"7\"}"});
            message(server, &json!({"event": "pusher:signin", "data": data}).to_string())
        },
        answer: UNAUTHORIZED,
        line: "sign-in refused: the signature does not match: is REVERB_APP_SECRET the same in Laravel's .env, and \
               was the signature made for this socket id and channel?",
    },
    Case {
        cause: Cause::AuthDataNotSigned, env: &[],
        act: |server| {
            let client = server.connect();
            let auth = channel_auth(&client.socket_id, "private-x", None);
            subscription(client, "private-x", json!({"auth": auth, "channel_data": "{}"}))
        },
        answer: UNAUTHORIZED,
        line: "subscription to \"private-x\" refused: channel_data came along but is not part of what was signed; \
               sign socket_id:channel:channel_data, or send none",
    },
    Case {
        cause: Cause::OtherUser, env: &[],
        act: |server| subscription(server.connect(), "#server-to-user-7", json!({})),
        answer: UNAUTHORIZED,
        line: "subscription to \"#server-to-user-7\" refused: a user's channel is for connections signed in as that \
               user; call pusher.signin() first",
    },
    Case {
        cause: Cause::NoChannelData, env: &[],
        act: |server| signed(server, "presence-r", None),
        answer: INVALID,
        line: "subscription to \"presence-r\" refused: no channel_data came with it; does the channel's callback in \
               routes/channels.php return the user?",
    },
    Case {
        cause: Cause::NoUser, env: &[],
        act: |server| signed(server, "presence-r", Some("{}")),
        answer: INVALID,
        line: "subscription to \"presence-r\" refused: channel_data names no user_id; does the channel's callback in \
               routes/channels.php return the user?",
    },
    Case {
        cause: Cause::UserId, env: &[],
        act: |server| sign_in(server.connect(), r#"{"id":7}"#),
        answer: UNAUTHORIZED,
        line: "sign-in refused: user_data names no id, or one that is not a text; cast it to a string in the callback \
               of resolveAuthenticatedUserUsing",
    },
    Case {
        cause: Cause::SignedInAlready, env: &[],
        act: |server| {
            let mut client = server.connect();
            let text = sign_in_message(&client, r#"{"id":"7"}"#);
            client.send(&text);
            assert_eq!(client.event()["event"], "pusher:signin_success");
            sign_in(client, r#"{"id":"8"}"#)
        },
        answer: "4009 Connection is signed in as another user",
        line: "sign-in as \"8\" refused: the connection is signed in as another user; disconnect before another user \
               signs in",
    },
    Case {
        cause: Cause::ChannelNameLength, env: &[("RINGVERB_CHANNEL_NAME_LENGTH_MAX", "5")],
        act: |server| signed(server, "longer", None),
        answer: "4009 The channel name is too long or has characters that are not accepted",
        line: "subscription to \"longer\" refused: the name has 6 bytes, and RINGVERB_CHANNEL_NAME_LENGTH_MAX is 5",
    },
    Case {
        cause: Cause::ChannelNameCharacter, env: &[("RINGVERB_CHANNEL_NAMES", "pusher")],
        act: |server| signed(server, "a b", None),
        answer: "4009 The channel name is too long or has characters that are not accepted",
        line: "subscription to \"a b\" refused: the name has characters other than letters, numbers and _-=@,.; and \
               RINGVERB_CHANNEL_NAMES takes those only",
    },
    Case {
        cause: Cause::ChannelNameColon, env: &[],
        act: |server| signed(server, "private-a:b", None),
        answer: "4009 The channel name is too long or has characters that are not accepted",
        line: "subscription to \"private-a:b\" refused: the name of a private or presence channel has a colon, and \
               its signature would be ambiguous; choose a name without a colon",
    },
    Case {
        cause: Cause::MemberTooLarge, env: &[("RINGVERB_MEMBER_SIZE_MAX", "10")],
        act: |server| signed(server, "presence-r", Some(r#"{"user_id":"7"}"#)),
        answer: "4301 The channel_data of the member is too large",
        line: "subscription to \"presence-r\" refused: channel_data has 15 bytes, and RINGVERB_MEMBER_SIZE_MAX is 10; \
               return less from routes/channels.php",
    },
    Case {
        cause: Cause::TooManyChannels, env: &[("RINGVERB_CHANNELS_PER_CONNECTION_MAX", "1")],
        act: |server| subscription(subscribed(server, "one"), "two", json!({})),
        answer: "4300 Too many channels on one connection",
        line: "subscription to \"two\" refused: the connection is in 1 channel already \
               (RINGVERB_CHANNELS_PER_CONNECTION_MAX); leave some",
    },
    Case {
        cause: Cause::TooManyMembers, env: &[("RINGVERB_PRESENCE_MEMBERS_MAX", "1")],
        act: |server| {
            let mut first = server.connect();
            first.join("presence-r", r#"{"user_id":"7"}"#);
            signed(server, "presence-r", Some(r#"{"user_id":"8"}"#))
        },
        answer: "4100 The presence channel has as many members as it may have",
        line: "subscription to \"presence-r\" refused: the channel has 1 member already \
               (RINGVERB_PRESENCE_MEMBERS_MAX)",
    },
    Case {
        cause: Cause::ConnectionMemory,
        env: &[("RINGVERB_SEND_QUEUE_BYTES_MAX", "4096"), ("RINGVERB_CONNECTION_BYTES_MAX", "200704")],
        act: |server| {
            let mut client = server.connect();
            let name = |number: usize| format!("{number:0>199}");
            let error = (0..1_000).find_map(|number| {
                client.send_subscribe(&name(number), None);
                Some(client.event()).filter(|event| event["event"] == "pusher:error")
            });
            let answer = error_of(&error.expect("memory for fewer than 1,000"));
            Seen::socket(&client, answer)
        },
        answer: "4300 The subscriptions of the connection take too much memory",
        line: "subscription to \"0000000000000000000000000000000000000000000000000000000000000000…\" refused: \
               subscriptions and sign-in of the connection would keep more than 100352 bytes, which is half of \
               RINGVERB_CONNECTION_BYTES_MAX; leave channels, or raise it",
    },
    Case {
        cause: Cause::UserDataTooLarge, env: &[("RINGVERB_USER_DATA_SIZE_MAX", "8")],
        act: |server| sign_in(server.connect(), r#"{"id":"7"}"#),
        answer: "4301 The user_data of the sign-in is too large",
        line: "sign-in refused: user_data has 10 bytes, and RINGVERB_USER_DATA_SIZE_MAX is 8; return less from the \
               user authentication callback",
    },
    Case {
        cause: Cause::WatchlistTooLong, env: &[],
        act: |server| {
            let mut client = server.connect();
            let watchlist: Vec<String> = (0..101).map(|number| format!("u{number}")).collect();
            let text = sign_in_message(&client, &json!({"id": "7", "watchlist": watchlist}).to_string());
            client.send(&text);
            assert_eq!(client.event()["event"], "pusher:signin_success");
            let answer = error_of(&client.event());
            Seen::socket(&client, answer)
        },
        answer: "4302 The watchlist is too long: the first 100 users are watched",
        line: "a watchlist is too long: its first 100 users are watched; name fewer in `watchlist` of user_data",
    },
];

/// The error on the channel has the line in development too.
#[test]
fn a_subscription_error_has_its_reason_in_development() {
    for (development, error) in [
        ("false", "Connection is unauthorized"),
        (
            "true",
            "Connection is unauthorized. Subscription to \"private-x\" refused: no signature came with it; does the \
             client's auth endpoint (/broadcasting/auth) answer with `auth`?",
        ),
    ] {
        let server = super::Setup::new()
            .env("RINGVERB_SUBSCRIPTION_ERRORS", "true")
            .env("RINGVERB_DEVELOPMENT", development)
            .start();
        let mut client = Client::open(&server, &Handshake::new()).established();
        client.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-x"}}"#);
        client.event();
        let event = client.event();
        assert_eq!(event["event"], "pusher:subscription_error");
        assert_eq!(event["data"], json!({"type": "AuthError", "error": error, "status": 401}));
    }
}

#[test]
fn an_event_for_a_user_without_sign_in_is_logged_with_the_user() {
    let mut server = super::Setup::new().env("RINGVERB_DEVELOPMENT", "true").start();
    let body = json!({"name": "e", "channel": "#server-to-user-7", "data": "x"}).to_string();
    assert_eq!(server.answer(&Request::events(&body)).0, 200);
    let line = server.line_with("#server-to-user-7");
    let (_, line) = line.split_once("WARN ").expect("a level");
    assert_eq!(
        line,
        "event \"e\" was published to \"#server-to-user-7\", and no connection is signed in as that user. Does the \
         page call pusher.signin(), and does /broadcasting/user-auth answer with that id? app=1001"
    );
}
