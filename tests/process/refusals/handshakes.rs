//! Handshakes that do not become connections.

use ringverb::cause::Cause;

use super::case::{Answer, Case, Seen, http, refused_handshake};
use crate::support::{APP_KEY, Client, Handshake, Server};

const ORIGINS: (&str, &str) =
    ("RINGVERB_ALLOWED_ORIGINS", "https://myapp.com, http://localhost:3000");

fn handshake(server: &Server, handshake: &Handshake) -> Seen {
    http(server, &handshake.bytes())
}

fn version(server: &Server, version: &str) -> Seen {
    refused_handshake(server, &Handshake::to(&format!("/app/{APP_KEY}?protocol={version}")))
        .of_app()
}

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        cause: Cause::NoUpgrade, env: &[],
        act: |server| handshake(server, &Handshake::new().without("Upgrade").without("Connection")),
        answer: "426 Upgrade to WebSocket required.",
        line: "GET \"/app/app-key\" is no WebSocket handshake, Upgrade is missing: does a proxy drop the header? \
               nginx needs proxy_set_header Upgrade $http_upgrade and proxy_set_header Connection \"Upgrade\"",
    },
    Case {
        cause: Cause::NoUpgrade, env: &[],
        act: |server| handshake(server, &Handshake::new().header("Upgrade", "h2c")),
        answer: "426 Upgrade to WebSocket required.",
        line: "GET \"/app/app-key\" is no WebSocket handshake, Upgrade is \"h2c\": does a proxy drop the header? \
               nginx needs proxy_set_header Upgrade $http_upgrade and proxy_set_header Connection \"Upgrade\"",
    },
    Case {
        cause: Cause::UpgradeHttp10, env: &[],
        act: |server| handshake(server, &Handshake::new().line("GET /app/app-key HTTP/1.0")),
        answer: "426 WebSocket needs HTTP/1.1.",
        line: "GET \"/app/app-key\" asks for a WebSocket in HTTP/1.0, which has none: nginx needs proxy_http_version \
               1.1",
    },
    Case {
        cause: Cause::WebSocketVersion, env: &[],
        act: |server| handshake(server, &Handshake::new().header("Sec-WebSocket-Version", "8")),
        answer: "426 WebSocket version 13 required.",
        line: "GET \"/app/app-key\" asks for WebSocket version \"8\": the server supports 13 only; update the client \
               or the proxy",
    },
    Case {
        cause: Cause::WebSocketKey, env: &[],
        act: |server| handshake(server, &Handshake::new().header("Sec-WebSocket-Key", "short")),
        answer: "400 Invalid Sec-WebSocket-Key.",
        line: "GET \"/app/app-key\" has the Sec-WebSocket-Key \"short\", which is not 16 bytes in base64: does a \
               proxy change it?",
    },
    Case {
        cause: Cause::WebSocketKeyMissing, env: &[],
        act: |server| handshake(server, &Handshake::new().without("Sec-WebSocket-Key")),
        answer: "400 Invalid Sec-WebSocket-Key.",
        line: "GET \"/app/app-key\" has no Sec-WebSocket-Key: does a proxy drop it?",
    },
    Case {
        cause: Cause::HandshakesPerIp, env: &[("RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX", "1")],
        act: |server| {
            // A new second may begin between two.
            let without = Handshake::new().without("Sec-WebSocket-Key");
            let mut all = (0..100).map(|_| handshake(server, &without));
            all.find(|seen| matches!(seen.answer, Answer::Http(429, _))).expect("more than one a second")
        },
        answer: "429 Too many handshakes: 1 a second from one address; try again.",
        line: "127.0.0.1 began more than 1 handshake in a second; RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX sets the \
               limit, and if this is your proxy, RINGVERB_TRUSTED_PROXIES must name it",
    },
    Case {
        cause: Cause::UnknownKey, env: &[],
        act: |server| refused_handshake(server, &Handshake::to("/app/wrongkey?protocol=7")),
        answer: "4001 Application does not exist",
        line: "no app has the key \"wrongkey\": is VITE_REVERB_APP_KEY the same as REVERB_APP_KEY, and was the front \
               end built again?",
    },
    Case {
        cause: Cause::AppDisabled, env: &[("RINGVERB_APP_ENABLED", "false")],
        act: |server| refused_handshake(server, &Handshake::new()).of_app(),
        answer: "4003 Application disabled",
        line: "app \"1001\" is disabled, so its clients and its backend are refused: remove \
               RINGVERB_APP_ENABLED=false, or enabled = false in ringverb.toml",
    },
    Case {
        cause: Cause::BadVersion, env: &[],
        act: |server| version(server, "seven"),
        answer: "4006 Invalid version string format",
        line: "protocol=\"seven\" in the address of a client is not a number: a client sends 7, or 5 to 7",
    },
    Case {
        cause: Cause::UnsupportedVersion, env: &[],
        act: |server| version(server, "4"),
        answer: "4007 Unsupported protocol version",
        line: "protocol=\"4\" in the address of a client is not supported: 5 to 7 are; update the client library",
    },
    Case {
        cause: Cause::Origin, env: &[ORIGINS],
        act: |server| refused_handshake(server, &Handshake::new().header("Origin", "https://evil.test")).of_app(),
        answer: "4009 Origin not allowed",
        line: "origin \"https://evil.test\" refused. Allowed: https://myapp.com, http://localhost:3000 \
               (RINGVERB_ALLOWED_ORIGINS)",
    },
    Case {
        cause: Cause::OriginMissing, env: &[ORIGINS],
        act: |server| refused_handshake(server, &Handshake::new()).of_app(),
        answer: "4009 Origin not allowed",
        line: "a client without an Origin header refused (a native SDK?); RINGVERB_ALLOW_MISSING_ORIGIN=true accepts \
               it. RINGVERB_ALLOWED_ORIGINS has https://myapp.com, http://localhost:3000",
    },
    Case {
        cause: Cause::ConnectionsPerIp, env: &[("RINGVERB_CONNECTIONS_PER_IP_MAX", "1")],
        act: |server| {
            let _one: Client = server.connect();
            refused_handshake(server, &Handshake::new()).of_app()
        },
        answer: "4100 Too many connections from this address",
        line: "127.0.0.1 has 1 connection already; RINGVERB_CONNECTIONS_PER_IP_MAX sets the limit, and if this is \
               your proxy, RINGVERB_TRUSTED_PROXIES must name it",
    },
    Case {
        cause: Cause::Quota, env: &[("REVERB_APP_MAX_CONNECTIONS", "1")],
        act: |server| {
            let _one: Client = server.connect();
            refused_handshake(server, &Handshake::new()).of_app()
        },
        answer: "4004 Application is over connection quota",
        line: "connection refused: the app has 1 connection, and REVERB_APP_MAX_CONNECTIONS is 1",
    },
];
