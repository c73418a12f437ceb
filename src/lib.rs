//! ringverb: a Pusher Channels server, thread per core on io_uring.
//!
//! A worker (one pinned thread per core) owns sockets and a `Shard`; the shard is the core's whole state as one
//! synchronous, I/O-free value; workers talk through bounded SPSC rings (`mailbox`). ARCHITECTURE.md has the map.
//!
//! Rank table. A module uses only lower ranks; `tests/tidy.rs` holds it:
//!
//! | rank | modules | may touch |
//! |---|---|---|
//! | 7 | `server` (and `main.rs`) | process life: start, signals, drain |
//! | 6 | `worker` | one core: its kernel (io_uring or epoll) and its loop |
//! | 5 | `tick` | one core's turn over a kernel that is a parameter: sockets, HTTP, mail, flush |
//! | 4 | `cluster` | one core's line to Redis as a value: bytes in, bytes out |
//! | 4 | `api` `webhook` | HTTP API: requests in, answers out; events to the apps' backends, by threads of their own |
//! | 3 | `mailbox` | core-to-core rings and doorbells |
//! | 3 | `admission` | what each client address may have, and how short of memory the process is |
//! | 3 | `output` | standard output and standard error: a bounded queue and a thread for each |
//! | 2 | `shard` | PURE: one core's state and every rule that changes it |
//! | 1 | `ws` `http1` `pusher` `resp` `config` | PURE codecs and option data |
//! | 1 | `wheel` | PURE: deadlines by the second
//! | 1 | `cause` | PURE: why something is refused, and the line for it |
//! | 0 | `app` `buffer` `clock` `counters` `limits` `text` | values |
#![deny(unsafe_code)]

pub mod app;
pub mod buffer;
pub mod clock;
pub mod counters;
pub mod limits;
pub mod text;

pub mod cause;
pub mod config;
pub mod http1;
pub mod pusher;
pub mod resp;
pub mod wheel;
pub mod ws;

pub mod shard;

pub mod admission;
pub mod mailbox;
pub mod output;

pub mod api;
pub mod cluster;
pub mod tick;
pub mod webhook;

pub mod worker;

pub mod server;
