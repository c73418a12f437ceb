//! Constants that bound what a peer or a core may cost, each with its reason.
//!
//! A limit that concerns one file only is in that file. Configurable limits are in `config`, and SECURITY.md lists all
//! that a peer can reach, with the answer when it is reached. Assertions below check what must hold between limits.
//! Owns constants and one function of a number, and knows no option. Does not enforce them: the file that enforces a
//! limit counts what is over it.
//!
//! Limits: the constants of this file. Cost: none at run time, no bytes and no instructions: they are compiled into the
//! comparisons.

/// Longest request head in bytes; `request_size_max` covers head and body together and may be smaller.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of one request. Browsers send about 15; proxies add some.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Descriptors of the process. The kernel would give more (`fs.nr_open`); requests of io_uring name a connection's slot
/// in 28 bits.
pub const DESCRIPTORS_MAX: u64 = 1 << 27;
/// Memory of a connection that speaks HTTP beside its buffers: its entries in tables and queues.
pub const HTTP_CONNECTION_BYTES: usize = 256;
/// Connections accepted in one tick. A worker with a flood of new connections then serves those that it has.
pub const ACCEPTS_PER_TICK_MAX: usize = 64;
/// Bytes of answers to pipelined requests after which the session sends them before it reads the next request.
pub const ANSWERS_BYTES_MAX: usize = 16 * 1024;
/// Time for the first byte of a connection, in seconds.
pub const FIRST_BYTE_TIMEOUT_SECONDS: u32 = 5;
/// At most 1/4 of a worker's sockets may speak HTTP. The rest is reserved for WebSockets.
pub const SOCKETS_PER_HTTP_CONNECTION: usize = 4;
/// HTTP connections that a worker may have, however few its descriptors are.
pub const HTTP_CONNECTIONS_MIN: usize = 64;
/// Query parameters of one signed API request. Client libraries send about six.
pub const API_PARAMETERS_MAX: usize = 64;
/// Bytes of messages that one published event may become, over all its channels. The default request size never gets
/// there; Laravel's 100 channels do with more than 160 KB of data.
pub const EVENT_EXPANSION_BYTES_MAX: usize = 16 << 20;
/// Longest control frame payload (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;
/// Longest channel name in bytes. Reverb has no limit; its message size limit of 10,000 is the bound this keeps.
pub const CHANNEL_NAME_BYTES_MAX: usize = 10_000;
/// Ping and pong frames of one connection in a second. Over the limit, the server answers only the latest ping, at the
/// end of the second. Clients send one in 30 s or more.
pub const CONTROL_FRAMES_PER_SECOND_MAX: u16 = 2_000;
/// Pongs that wait for one flush. A socket whose send buffer is full gets at most one more: the answer to the latest
/// ping.
pub const PONGS_PER_FLUSH_MAX: u16 = 16;
/// Bytes read from one connection in one tick, so that one sender cannot hold up the others.
pub const READ_BYTES_PER_TICK_MAX: usize = 64 * 1024;
/// Time for all reads of WebSockets in a tick, as much for those of HTTP sessions, and as much for accepts with the
/// first reads of new connections, in nanoseconds. One read more than that may be under way when it is up; of new
/// connections, 16 reads or one request.
pub const READ_TIME_PER_TICK_NS: u64 = 2_000_000;
/// Bytes read between two looks at the clock.
pub const READ_BYTES_PER_CLOCK: usize = 8 * 1024;
/// The least that a read counts as toward `READ_BYTES_PER_CLOCK`. A read that finds the end of a connection has no
/// bytes, but the connection leaves its channels. So a core processes at most 32 ends between two looks at the clock.
pub const READ_COST_BYTES_MIN: usize = 256;
/// Largest value of RINGVERB_SEND_QUEUE_BYTES_MAX. The transfer to a new process moves a whole send queue in one batch,
/// and the other side waits 5 s for it (`worker/transfer/stream.rs`). On two busy cores a take-over with a queue of
/// 300 MiB took 3.1 s, and one with a queue of 900 MiB failed.
pub const SEND_QUEUE_BYTES_OPTION_MAX: usize = 128 << 20;
/// Largest value of REVERB_APP_MAX_MESSAGE_SIZE. A connection may keep one incomplete message of that size.
pub const MESSAGE_SIZE_OPTION_MAX: usize = 16 << 20;
/// Bytes handed to the kernel for one connection in one send; the rest waits for the next tick.
pub const SEND_BYTES_PER_TICK_MAX: usize = 256 * 1024;
/// Sends of one batch. The io_uring kernel submits them with one system call; 64 measured as fast as 256 and 4,096.
pub const SENDS_PER_SUBMIT: usize = 64;
/// Connections flushed in one tick: about 4 ms of the kernel's send path. Then the next tick reads and accepts.
pub const FLUSHES_PER_TICK_MAX: usize = 1024;
/// Workers of a process: the home of a channel stores them as bits (`shard/core_set.rs`).
pub const WORKERS_MAX: usize = 128;
/// Entries of a ring's submission queue: one batch of sends, and as many watches and cancellations.
pub const RING_ENTRIES: u32 = 128;
/// Entries of a small ring's completion queue. Rings are locked memory, of which a user has 8 MiB by default: 128
/// workers of two processes fit.
///
/// With DEFER_TASKRUN (Linux 6.1) the kernel posts completions only while the worker is inside `io_uring_enter`, newer
/// kernels about 20 a call. The worker calls until half of a small ring is full, then takes all out. Where more fall
/// due at once, their watches end and the worker arms them again.
pub const RING_COMPLETIONS: u32 = 1024;
/// Entries of a large ring's completion queue. The kernel finds the watch of a closed connection in one of
/// `completions / 32` lists, at most 256. So more completions than these gain nothing (docs/decisions/0005).
pub const RING_COMPLETIONS_LARGE: u32 = 8192;
/// Events that one call of `epoll_wait` returns at most. Further ones stay in the kernel until the next call.
pub const EPOLL_EVENTS_MAX: usize = 1024;
/// Mails a core may have waiting beyond its rings before it stops reading from its publishers.
pub const MAIL_OVERFLOW_SOFT_MAX: usize = 4096;
/// Mails that may wait for room on their way to one core, in each direction. Events over it are discarded and counted.
/// Input of one tick, made before the congestion is noticed, causes at most half of it, with 128 workers.
pub const MAIL_OVERFLOW_MAX: usize = 262_144;
/// Effects of one tick for the session with Redis, and transitions that Redis has not ordered. Over either the session
/// begins again. As many as the mail of one tick can cause.
pub const CLUSTER_EFFECTS_MAX: usize = 262_144;
/// Mails that one ring holds at most, and mails that are taken from a ring of lane 0 at once: all that it holds,
/// because a publish must not be ordered before one that was answered earlier.
pub const MAIL_RING_MAX: usize = 2048;
/// Mails taken from one ring of lane 1 in one tick.
pub const MAIL_PER_TICK_MAX: usize = 1024;
/// Time a question to all cores may take, in milliseconds, before the API answers 503.
pub const GATHER_TIMEOUT_MS: u64 = 5_000;
/// Seconds of the liveness wheel; longer deadlines go round again.
pub const WHEEL_SECONDS: u32 = 256;
/// Nanoseconds of a tick above which it counts as slow (`ringverb_slow_ticks_total`). A tick that is full of work takes
/// about 10 ms: three budgets of `READ_TIME_PER_TICK_NS`, and 4 ms for `FLUSHES_PER_TICK_MAX`. One of 25 ms has broken
/// a budget, or the host has stopped the worker, and all clients of the core have waited for it.
pub const SLOW_TICK_NS: u64 = 25_000_000;

/// Entries of a list that an assertion looks at one by one where the list changes. With a longer one each change would
/// cost a walk, and a debug build with 10,000 channels would stand still. `check_invariants` looks at all of
/// them, but not at `Local::pongs_due`, `Http::congested` and the order of `Cluster::waiting`.
pub const ASSERTED_LEN_MAX: usize = 64;

/// Entries that a queue may have whose entries outlive what they name, if so many of the named things live. Over it,
/// the entries of ended things are removed. Twice as many, so that a removal costs constant time for each new entry;
/// 64 more, so that a core with few connections does not remove at each end.
#[must_use]
pub const fn stale_entries_max(living: usize) -> usize {
    64 + 2 * living
}

const _: () = assert!(
    2 * SENDS_PER_SUBMIT <= RING_ENTRIES as usize,
    "a batch fits beside what a tick has pushed"
);
const _: () = assert!(
    RING_COMPLETIONS >= 4 * RING_ENTRIES,
    "each submission may fail, and each failure has a place"
);
const _: () = assert!(WHEEL_SECONDS.is_power_of_two());
const _: () = assert!(
    SLOW_TICK_NS > 3 * READ_TIME_PER_TICK_NS + FLUSHES_PER_TICK_MAX as u64 * 4_000,
    "a tick within its budgets is not slow"
);
