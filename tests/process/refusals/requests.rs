//! Bytes that are no request, requests that are not served, and what the HTTP API refuses.

use ringverb::cause::Cause;

use super::case::{Answer, Case, Seen, http, silence};
use crate::support::{Request, Server, unix_seconds};

const LAX_HEAD: &[u8] = b"GET /up?a=b HTTP/1.1\nHost: x\n\n";

fn get(server: &Server, path: &str) -> Seen {
    http(server, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

fn api(server: &Server, request: &Request) -> Seen {
    http(server, &request.bytes()).of_app()
}

fn publish(server: &Server, body: &str) -> Seen {
    api(server, &Request::events(body))
}

fn batch(server: &Server, body: &str) -> Seen {
    api(server, &Request::post("/batch_events", body))
}

const SIGNATURE: &str = "401 Authentication signature invalid.";

const PROXIED: [(&str, &str); 2] =
    [("RINGVERB_PROXY_PROTOCOL", "on"), ("RINGVERB_TRUSTED_PROXIES", "127.0.0.1")];

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        cause: Cause::TlsOnPlainPort, env: &[],
        act: |server| http(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        answer: "400 Bad request.",
        line: "a client speaks TLS to this port, which is plain HTTP: is REVERB_SCHEME=https (or forceTLS in Echo) \
               although no proxy that ends TLS stands between?",
    },
    Case {
        cause: Cause::ProxyProtocol, env: &[],
        act: |server| http(server, b"PROXY TCP4 192.0.2.1 192.0.2.2 5123 8080\r\nGET /up HTTP/1.1\r\nHost: x\r\n\r\n"),
        answer: "400 Bad request.",
        line: "a header of the PROXY protocol was sent, but RINGVERB_PROXY_PROTOCOL is off, or \
               RINGVERB_TRUSTED_PROXIES does not name this peer: set both, or switch it off in the proxy (HAProxy: \
               send-proxy)",
    },
    Case {
        cause: Cause::ProxyHeader, env: &PROXIED,
        act: |server| http(server, b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n"),
        answer: "400 A header of the PROXY protocol must come first.",
        line: "this peer must begin with a header of the PROXY protocol (RINGVERB_PROXY_PROTOCOL, \
               RINGVERB_TRUSTED_PROXIES), but it sent none: switch it on there (HAProxy: send-proxy or send-proxy-v2)",
    },
    Case {
        cause: Cause::ProxyHeaderTimeout, env: &[PROXIED[0], PROXIED[1], ("RINGVERB_HANDSHAKE_TIMEOUT", "1")],
        act: |server| silence(server, b"PROXY TCP4 192.0.2.1"),
        answer: "",
        line: "a connection of a proxy was closed because its header of the PROXY protocol was not complete after 1 s \
               (RINGVERB_PROXY_PROTOCOL)",
    },
    Case {
        cause: Cause::Http2, env: &[],
        act: |server| http(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        answer: "505 HTTP version not supported.",
        line: "a client speaks HTTP/2, but this port serves HTTP/1.1 only: set the proxy's connection to this server \
               to HTTP/1.1",
    },
    Case {
        cause: Cause::NotHttp, env: &[],
        act: |server| http(server, b"SSH-2.0-OpenSSH_9.2\n"),
        answer: "400 Bad request.",
        line: "a client sent \"SSH-2.0-OpenSSH_9.2\", which is not HTTP: is this the port it wants?",
    },
    Case {
        cause: Cause::BadRequest, env: &[],
        act: |server| http(server, LAX_HEAD),
        answer: "400 Bad request.",
        line: "a request cannot be read, because its head or body breaks the rules of HTTP/1.1; it begins with \"GET \
               /up\"",
    },
    Case {
        cause: Cause::Host, env: &[],
        act: |server| http(server, b"GET /up HTTP/1.1\r\n\r\n"),
        answer: "400 Bad request: HTTP/1.1 needs exactly one Host header field.",
        line: "\"GET /up HTTP/1.1\" came without a Host header, or with several",
    },
    Case {
        cause: Cause::Expectation, env: &[],
        act: |server| http(server, b"POST /up HTTP/1.1\r\nHost: x\r\nExpect: magic\r\n\r\n"),
        answer: "417 Expectation failed.",
        line: "\"POST /up HTTP/1.1\" has an Expect header other than 100-continue, which is the only one that is \
               supported",
    },
    Case {
        cause: Cause::TransferCoding, env: &[],
        act: |server| http(server, b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        answer: "501 Transfer coding not supported.",
        line: "\"POST /up HTTP/1.1\" has a Transfer-Encoding other than chunked: send the body as it is, or chunked",
    },
    Case {
        cause: Cause::HttpVersion, env: &[],
        act: |server| http(server, b"GET /up HTTP/3.0\r\nHost: x\r\n\r\n"),
        answer: "505 HTTP version not supported.",
        line: "\"GET /up HTTP/3.0\" has another HTTP version than 1.0 and 1.1, which this server speaks",
    },
    Case {
        cause: Cause::HeadTooLarge, env: &[],
        act: |server| {
            let fields = "X: y\r\n".repeat(70);
            http(server, format!("GET /up HTTP/1.1\r\n{fields}\r\n").as_bytes())
        },
        answer: "431 Request header fields too large.",
        line: "the head of a request has more than 16384 bytes or 64 fields, which are the limits: are cookies sent \
               along?",
    },
    Case {
        cause: Cause::RequestTooLarge, env: &[],
        act: |server| http(server, b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n"),
        answer: "413 Payload too large.",
        line: "a request over 10000 bytes was refused: send less data in an event, or raise REVERB_MAX_REQUEST_SIZE",
    },
    Case {
        cause: Cause::HeadOverRequestSize, env: &[],
        act: |server| http(server, format!("GET /up HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n",
            "y".repeat(10_000)).as_bytes()),
        answer: "413 Payload too large.",
        line: "the header of a request has more than 10000 bytes (REVERB_MAX_REQUEST_SIZE): large cookies?",
    },
    Case {
        cause: Cause::OutsidePrefix, env: &[("REVERB_SERVER_PATH", "/ws")],
        act: |server| get(server, "/other/apps/1001/events"),
        answer: "404 Not found.",
        line: "GET \"/other/apps/1001/events\" is not served: clients use /ws/app/KEY (wsPath in Echo) or /app/KEY; \
               backends use /ws/apps/ID/events or /apps/ID/events",
    },
    Case {
        cause: Cause::DoubledSlash, env: &[("REVERB_SERVER_PATH", "/ws")],
        act: |server| get(server, "/ws//app/app-key"),
        answer: "404 Not found.",
        line: "GET \"/ws//app/app-key\" is not served, because a slash in it is doubled: clients use /ws/app/KEY \
               (wsPath in Echo without a slash at its end); is an app id or key empty?",
    },
    Case {
        cause: Cause::DoubledSlash, env: &[],
        act: |server| get(server, "//app/app-key"),
        answer: "404 Not found.",
        line: "GET \"//app/app-key\" is not served, because a slash in it is doubled: clients use /app/KEY (wsPath in \
               Echo without a slash at its end); is an app id or key empty?",
    },
    Case {
        cause: Cause::UnknownPath, env: &[],
        act: |server| get(server, "/ws/app/app-key?auth_signature=1"),
        answer: "404 Not found.",
        line: "GET \"/ws/app/app-key\" is not served here: clients connect to /app/KEY, backends post to \
               /apps/ID/events; if there is a prefix before that, REVERB_SERVER_PATH must name it",
    },
    Case {
        cause: Cause::WrongMethod, env: &[],
        act: |server| get(server, "/apps/1001/events"),
        answer: "405 Method not allowed.",
        line: "GET \"/apps/1001/events\" has the wrong method: this path takes POST",
    },
    Case {
        cause: Cause::UpgradeOfApi, env: &[],
        act: |server| http(server,
            b"GET /apps/1001/channels HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        answer: "400 Bad request.",
        line: "a WebSocket handshake came to \"/apps/1001/channels\", which is a path of the HTTP API: clients \
               connect to /app/KEY",
    },
    Case {
        cause: Cause::UnknownAppId, env: &[],
        act: |server| http(server, &Request::to("POST", "/apps/7/events").bytes()),
        answer: "404 No matching application for ID [7].",
        line: "no app has the id \"7\": is REVERB_APP_ID the same in Laravel's .env?",
    },
    Case {
        cause: Cause::TooManyParameters, env: &[],
        act: |server| get(server, &format!("/apps/1001/channels?{}", "a=b&".repeat(64))).of_app(),
        answer: "400 The query has more than 64 parameters, which is the limit of this server: a signed request has \
                 about six. Send several values of one parameter separated by commas.",
        line: "GET \"/apps/1001/channels\" has more than 64 query parameters, which is the limit: send several values \
               of one parameter separated by commas",
    },
    Case {
        cause: Cause::ApiKeyMissing, env: &[],
        act: |server| get(server, "/apps/1001/channels").of_app(),
        answer: SIGNATURE,
        line: "GET \"/apps/1001/channels\" came without auth_key: does a proxy drop the query string?",
    },
    Case {
        cause: Cause::ApiKeyWrong, env: &[],
        act: |server| api(server, &Request::events("{}").query("auth_key", "bad")),
        answer: SIGNATURE,
        line: "API request signed with key \"bad\", but app 1001 has another: is REVERB_APP_KEY the same in Laravel's \
               .env?",
    },
    Case {
        cause: Cause::ApiSignatureMissing, env: &[],
        act: |server| get(server, "/apps/1001/channels?auth_key=app-key").of_app(),
        answer: SIGNATURE,
        line: "GET \"/apps/1001/channels\" came without auth_signature: does a proxy drop a part of the query string?",
    },
    Case {
        cause: Cause::ApiSignatureForm, env: &[],
        act: |server| api(server, &Request::events("{}").signature("abc")),
        answer: SIGNATURE,
        line: "POST \"/apps/1001/events\" has an auth_signature of 3 bytes that is not 64 lowercase hex digits",
    },
    Case {
        cause: Cause::ApiBodyChanged, env: &[],
        act: |server| {
            let md5 = "d41d8cd98f00b204e9800998ecf8427e";
            api(server, &Request::events("{}").body_md5(Some(md5)))
        },
        answer: SIGNATURE,
        line: "POST \"/apps/1001/events\" has the body_md5 \"d41d8cd98f00b204e9800998ecf8427e\", which is not that of \
               its body: does a proxy change the body?",
    },
    Case {
        cause: Cause::ApiBodyUnsigned, env: &[],
        act: |server| api(server, &Request::events("{}").body_md5(None)),
        answer: SIGNATURE,
        line: "POST \"/apps/1001/events\" has a body but no body_md5 in its query: sign the request with a Pusher \
               library",
    },
    Case {
        cause: Cause::ApiSignatureMismatch, env: &[],
        act: |server| api(server, &Request::events("{}").secret("other-secret")),
        answer: SIGNATURE,
        line: "API signature does not match for POST \"/apps/1001/events\": is REVERB_APP_SECRET the same in \
               Laravel's .env? A proxy that changes path or query causes this, too",
    },
    Case {
        cause: Cause::TimestampMissing, env: &[],
        act: |server| api(server, &Request::get("/channels").without("auth_timestamp")),
        answer: "401 Authentication timestamp missing: sign auth_timestamp too.",
        line: "GET \"/apps/1001/channels\" came without auth_timestamp: sign one, or set RINGVERB_AUTH_WINDOW=0 to \
               need none",
    },
    Case {
        cause: Cause::BodyNotJson, env: &[],
        act: |server| publish(server, "name=e&channel=news"),
        answer: "400 Bad request: the body is not a JSON object.",
        line: "the body of POST \"/apps/1001/events\" is not a JSON object: \"name=e&channel=news\"; is the request \
               sent by a Pusher library?",
    },
    Case {
        cause: Cause::InvalidFields, env: &[],
        act: |server| publish(server, r#"{"name":7,"channel":"news","data":"x"}"#),
        answer: r#"422 {"name":["The name field must be a string."]}"#,
        line: "POST \"/apps/1001/events\" was refused with 422: name is 7, not a string",
    },
    Case {
        cause: Cause::InvalidFields, env: &[("RINGVERB_EVENT_NAME_LENGTH_MAX", "5")],
        act: |server| publish(server, r#"{"name":"xxxxxxxxx","channel":"news","data":"x"}"#),
        answer: r#"422 {"name":["The name field must not be greater than 5 characters."]}"#,
        line: "POST \"/apps/1001/events\" was refused with 422: event name \"xxxxxxxxx\" has 9 characters: \
               RINGVERB_EVENT_NAME_LENGTH_MAX is 5",
    },
    Case {
        cause: Cause::InvalidFields, env: &[],
        act: |server| publish(server, r#"{"name":"e","channel":"news","data":"x","socket_id":"undefined"}"#),
        answer: r#"422 {"socket_id":["The socket id field format is invalid."]}"#,
        line: "POST \"/apps/1001/events\" was refused with 422: socket_id \"undefined\" is not two numbers joined by \
               a dot: send Echo.socketId() only after the connection is established",
    },
    Case {
        cause: Cause::InvalidFields, env: &[("RINGVERB_EVENT_CHANNELS_MAX", "1")],
        act: |server| publish(server, r#"{"name":"e","channels":["a","b"],"data":"x"}"#),
        answer: r#"422 {"channels":["The channels field must not have more than 1 items."]}"#,
        line: "POST \"/apps/1001/events\" was refused with 422: the event has 2 channels: RINGVERB_EVENT_CHANNELS_MAX \
               is 1",
    },
    Case {
        cause: Cause::InvalidFields, env: &[("RINGVERB_BATCH_EVENTS_MAX", "1")],
        act: |server| batch(server,
            r#"{"batch":[{"name":"e","channel":"a","data":"x"},{"name":"e","channel":"a","data":"x"}]}"#),
        answer: r#"422 {"batch":["The batch field must not have more than 1 items."]}"#,
        line: "POST \"/apps/1001/batch_events\" was refused with 422: the batch has 2 events: \
               RINGVERB_BATCH_EVENTS_MAX is 1",
    },
    Case {
        cause: Cause::InvalidFields, env: &[("RINGVERB_CHANNEL_NAME_LENGTH_MAX", "5")],
        act: |server| batch(server,
            r#"{"batch":[{"name":"e","channel":"a","data":"x"},{"name":"e","channel":"longer","data":"x"}]}"#),
        answer: r#"422 {"batch.1.channel":["The batch.1.channel field must not be greater than 5 characters."]}"#,
        line: "POST \"/apps/1001/batch_events\" was refused with 422: batch.1: channel name \"longer\" has 6 bytes: \
               RINGVERB_CHANNEL_NAME_LENGTH_MAX is 5",
    },
    Case {
        cause: Cause::InvalidFields, env: &[("RINGVERB_CHANNEL_NAMES", "pusher")],
        act: |server| publish(server, r#"{"name":"e","channel":"a b","data":"x"}"#),
        answer: r#"422 {"channel":["The channel field must only contain letters, numbers and _-=@,.; characters."]}"#,
        line: "POST \"/apps/1001/events\" was refused with 422: channel name \"a b\" has other characters than \
               letters, numbers and _-=@,.; (RINGVERB_CHANNEL_NAMES=any accepts them)",
    },
    Case {
        cause: Cause::ReservedEvent, env: &[],
        act: |server| publish(server, r#"{"name":"pusher:error","channel":"news","data":"x"}"#),
        answer: "400 The event name [pusher:error] is reserved for the protocol: choose another, or set \
                 RINGVERB_ALLOW_RESERVED_EVENTS=true.",
        line: "the event name \"pusher:error\" is reserved for the protocol: choose another, or set \
               RINGVERB_ALLOW_RESERVED_EVENTS=true",
    },
    Case {
        cause: Cause::EventPayload, env: &[("RINGVERB_EVENT_PAYLOAD_MAX", "10")],
        act: |server| publish(server, r#"{"name":"e","channel":"news","data":"0123456789a"}"#),
        answer: "413 The data of the event has 11 bytes, 10 are allowed: send less (an id the client can fetch the \
                 rest by), or raise RINGVERB_EVENT_PAYLOAD_MAX.",
        line: "POST \"/apps/1001/events\" was refused with 413: the event has 11 bytes of data, and \
               RINGVERB_EVENT_PAYLOAD_MAX is 10",
    },
    Case {
        cause: Cause::EventExpansion, env: &[("REVERB_MAX_REQUEST_SIZE", "1000000")],
        act: |server| {
            let names: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
            let body = serde_json::json!({"name": "e", "channels": names, "data": "x".repeat(200_000)});
            publish(server, &body.to_string())
        },
        answer: "413 The event for 100 channels becomes 20004790 bytes of messages, and one request may become \
                 16777216: name fewer channels in one request, or send less data (an id that the client can use to \
                 fetch the rest).",
        line: "an event for 100 channels becomes 20004790 bytes of messages, and one request may become 16777216: \
               name fewer channels in one request, or send less data",
    },
    Case {
        cause: Cause::PublishRate, env: &[("RINGVERB_PUBLISHES_PER_SECOND_MAX", "1")],
        act: |server| {
            let body = r#"{"name":"e","channel":"news","data":"x"}"#;
            // A new second may begin between two.
            (0..100).map(|_| publish(server, body)).find(|seen| matches!(seen.answer, Answer::Http(429,
             _))).expect("more than one a second")
        },
        answer: "429 Too many events: this app may publish 1 a second, counting each once for each of its channels. \
                 Try again in a second, or raise RINGVERB_PUBLISHES_PER_SECOND_MAX.",
        line: "a publish was refused: this app may publish 1 event a second (RINGVERB_PUBLISHES_PER_SECOND_MAX), each \
               counted once for each of its channels",
    },
    Case {
        cause: Cause::NotPresence, env: &[],
        act: |server| api(server, &Request::get("/channels/private-x/users")),
        answer: "400 {}",
        line: "users of \"private-x\" were asked for: only channels whose name starts with presence- have users",
    },
    Case {
        cause: Cause::AuthFailuresPerIp, env: &[("RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX", "1")],
        act: |server| (0..100).map(|_| get(server, "/apps/7/channels")).find(|seen| matches!(seen.answer,
            Answer::Http(429, _))).expect("more than one a second"),
        answer: "429 Too many failed authentications: 1 a second from one address; check the app's id, key and \
                 secret, and try again in a second.",
        line: "127.0.0.1 failed to authenticate 1 API request in a second; \
               RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX sets the limit, and if this is your proxy, \
               RINGVERB_TRUSTED_PROXIES must name it",
    },
];

/// How far a clock is away changes while the test runs.
#[test]
fn a_timestamp_that_is_far_away_is_named_with_its_distance() {
    let mut server = super::Setup::new().start();
    let old = unix_seconds() - 1_000;
    let request = Request::get("/channels").query("auth_timestamp", &old.to_string());
    let (status, body) = server.answer(&request);
    assert_eq!(status, 401, "{body}");
    let line = server.line_with("cause=timestamp_far");
    let (_, line) = line.split_once("the auth_timestamp of an API request is ").expect("the line");
    let (distance, rest) =
        line.split_once(" s away from this server's clock, ").expect("a distance");
    assert!(distance.parse::<u64>().expect("a number") >= 1_000, "{line}");
    let expected = "and 600 s are allowed: set both clocks by NTP, or RINGVERB_AUTH_WINDOW=0 to accept any \
                    cause=timestamp_far peer=127.0.0.1:";
    assert!(rest.starts_with(expected), "{line}");
}
