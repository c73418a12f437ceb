//! ringverb: a server for the Pusher Channels protocol, with one thread per core on io_uring or epoll.
//!
//! Owns the list of modules and their ranks; does not contain code. A worker is a pinned thread. It owns sockets and a
//! `Shard`, which is the whole state of its core as a value without I/O. Workers exchange mail through bounded rings
//! (`mailbox`). ARCHITECTURE.md has the glossary, docs/CODE_MAP.md has the files.
//!
//! No limits: this file declares modules only; each module states its own. Cost: none, no call at run time.
//!
//! Ranks: a module uses only modules of a lower rank. `tests/tidy.rs` checks it. PURE modules use no clock, socket,
//! thread, lock, file or random source.
//!
//! | rank | modules | what they are |
//! |---|---|---|
//! | 7 | `server` (and `main.rs`) | the process: start, signals, take-over, drain |
//! | 6 | `worker` | one thread: its kernel interface (io_uring or epoll) and its loop |
//! | 5 | `tick` | PURE: one core's tick over a kernel interface that is a parameter: sockets, HTTP, mail, flush |
//! | 4 | `cluster` | PURE: one core's cluster session over Redis: bytes in, bytes out |
//! | 4 | `api` `webhook` | HTTP API: requests to plans; events to the apps' backends, on threads of their own |
//! | 4 | `operator_requests` | questions of operators on their way to a worker, and the answers |
//! | 4 | `debug_log` | the output of `--debug` |
//! | 3 | `mailbox` | rings and doorbells between cores |
//! | 3 | `admission` | limits of client addresses, and the overload level of the process |
//! | 3 | `event_log` | events on their way to the console |
//! | 3 | `output` | standard output and standard error: a bounded queue and a thread for each |
//! | 2 | `running_configuration` | the configuration in use on its way to workers |
//! | 2 | `shard` | PURE: one core's state and every rule that changes it |
//! | 1 | `proxy_header` | PURE: the header of the PROXY protocol |
//! | 1 | `ws` `http1` `pusher` `resp` `config` | PURE codecs; option data, whose files `config` reads |
//! | 1 | `tls` | PURE but for random numbers of the handshake: TLS without sockets |
//! | 1 | `wheel` | PURE: deadlines by the second |
//! | 1 | `cause` | PURE: the reasons of refusals, and their log lines |
//! | 1 | `metrics` | what one core counts: values that one thread writes and others read |
//! | 0 | `app` `buffer` `clock` `counters` `latest_value` `limits` `phase` `slot` `text` | values |
//! | 0 | `listed_enum` | the macro for enums with the list of their variants |
#![deny(unsafe_code)]
// Tests unwrap what they have just made.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::let_underscore_must_use))]

#[macro_use]
mod listed_enum;

pub mod app;
pub mod buffer;
pub mod clock;
mod counters;
mod latest_value;
pub mod limits;
mod phase;
pub mod slot;
mod text;

pub mod cause;
pub mod config;
pub mod http1;
pub mod metrics;
pub mod proxy_header;
pub mod pusher;
pub mod resp;
pub mod tls;
mod wheel;
pub mod ws;

mod running_configuration;
pub mod shard;

pub mod admission;
mod event_log;
pub mod mailbox;
mod output;

pub mod api;
pub mod cluster;
mod debug_log;
mod operator_requests;
pub mod tick;
mod webhook;

mod worker;
pub use worker::{kernel, time};

mod server;
pub use server::main;
