//! Connections of browsers and the whole tick of a core, over a kernel without sockets. One case accepts a connection,
//! reads its handshake, answers it together with the first frame, and ends it. The other flushes an event.

use std::cell::Cell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use ringverb::admission::overload::Overload;
use ringverb::app::Apps;
use ringverb::clock::Moment;
use ringverb::mailbox::{Doorbell, mesh};
use ringverb::shard::{Settings, Shard};
use ringverb::tick::Core;
use ringverb::tick::http::Http;
use ringverb::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Token, Watched};
use ringverb::tls::TlsChannel;
use ringverb::ws::frame;

use crate::setup::{APP, config, rules};

/// As Chrome sends it for pusher-js 8.4.
const REQUEST: &[u8] = b"GET /app/app-key?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
    Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: http://127.0.0.1:8000\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// Connections of one tick.
pub(super) const CONNECTIONS: usize = 64;

/// Each socket has its handshake to read and then the end. The end is reported in the tick after the handshake.
#[derive(Default)]
struct Browsers {
    waiting: usize,
    ending: Vec<KernelEvent>,
    /// They do not end.
    stay: bool,
    sent_bytes: usize,
}

impl Kernel for Browsers {
    /// Whether the handshake was read.
    type Socket = Cell<bool>;
    type Listener = ();
    type Channel = TlsChannel;

    fn watch_listener(&mut self, (): &(), _index: u32) {}

    fn unwatch_listener(&mut self, (): &(), _index: u32) {}

    fn accept(&mut self, (): &()) -> Accepted<Cell<bool>> {
        match self.waiting.checked_sub(1) {
            None => Accepted::Nothing,
            Some(left) => {
                self.waiting = left;
                Accepted::Socket(Cell::new(false), SocketAddr::from(([127, 0, 0, 1], 4_711)))
            }
        }
    }

    fn watch_readable(&mut self, _socket: &Cell<bool>, watched: Watched) {
        let token = Token::Readable(watched);
        if !self.stay {
            self.ending.push(KernelEvent {
                token,
                is_armed: true,
                has_end: true,
                has_failed: false,
            });
        }
    }

    fn watch_writable(&mut self, _socket: &Cell<bool>, _watched: Watched) {}

    fn unwatch(&mut self, _socket: &Cell<bool>, _watched: Watched, _writable_too: bool) {}

    fn watch_doorbell(&mut self, _doorbell: &Doorbell) {}

    fn submit(&mut self) {}

    fn park(&mut self, _timeout_ms: Option<u64>) {}

    fn reap(&mut self, events: &mut Vec<KernelEvent>) {
        events.append(&mut self.ending);
    }

    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, Cell<bool>>>,
        results: &mut Vec<Sent>,
    ) {
        results.clear();
        results.extend(sends.map(|send| {
            self.sent_bytes += black_box(send.bytes).len();
            Sent::Whole
        }));
    }

    fn receive(&mut self, socket: &Cell<bool>, buffer: &mut [u8]) -> Received {
        if socket.replace(true) {
            return Received::Gone;
        }
        buffer[..REQUEST.len()].copy_from_slice(REQUEST);
        Received::Bytes(REQUEST.len())
    }

    fn shut_down(&mut self, _socket: &Cell<bool>) -> bool {
        true
    }

    fn stamp(&self) -> u64 {
        0
    }
}

fn core() -> Core<Browsers> {
    let apps = Arc::new(Apps::new(config().apps));
    let mut entropy = 0_u64;
    let random = move || {
        entropy = entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        entropy
    };
    let mut http =
        Http::new(rules(1_000), apps.clone(), Arc::new(Overload::default()), Box::new(random));
    http.accepts = true;
    let mailbox = mesh(1).expect("an eventfd").remove(0);
    let mut core = Core::new(
        Shard::new(Settings::single_core(apps)),
        mailbox,
        http,
        Browsers::default(),
        1_000,
    );
    core.reactor.listen(());
    core
}

/// An event to so many subscribers: queued by the shard, gathered, sent and settled by the tick.
pub(super) fn flush_to(subscribers: usize) -> Box<dyn FnMut()> {
    let mut core = core();
    core.reactor.kernel.stay = true;
    while core.shard.keys().count() < subscribers {
        core.reactor.kernel.waiting = CONNECTIONS.min(subscribers - core.shard.keys().count());
        let token = Token::Readable(Watched::Listener(0));
        core.reactor.kernel.ending.push(KernelEvent {
            token,
            is_armed: true,
            has_end: false,
            has_failed: false,
        });
        core.tick();
        core.finish();
    }
    let keys: Vec<_> = core.shard.keys().collect();
    for key in keys {
        let text = br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;
        core.shard.on_message(key, text);
    }
    core.settle();
    core.finish();
    let channel = core.shard.channel_key(APP, "news").expect("a channel name");
    let frame = frame::encode_text(&[b'x'; 100]);
    Box::new(move || {
        core.reactor.kernel.sent_bytes = 0;
        core.shard.publish(channel.clone(), black_box(&frame).clone().into(), None, false);
        core.settle();
        core.finish();
        assert_eq!(core.reactor.kernel.sent_bytes, subscribers * frame.len());
    })
}

pub(super) fn handshakes() -> Box<dyn FnMut()> {
    let mut core = core();
    Box::new(move || {
        let kernel = &mut core.reactor.kernel;
        kernel.waiting = CONNECTIONS;
        kernel.sent_bytes = 0;
        let token = Token::Readable(Watched::Listener(0));
        kernel.ending.push(KernelEvent {
            token,
            is_armed: true,
            has_end: false,
            has_failed: false,
        });
        // Deadlines of connections that have ended leave the wheel.
        core.shard.advance(Moment(core.shard.now().0 + 1_000));
        core.tick();
        core.finish();
        assert_eq!(core.shard.keys().count(), CONNECTIONS);
        assert!(core.reactor.kernel.sent_bytes > CONNECTIONS * 200);
        // The watches report the end.
        core.tick();
        core.finish();
        assert_eq!(core.shard.keys().count(), 0);
    })
}
