//! The table of log events: the values of the key `event` of JSON lines, and what each means.
//!
//! Owns names and meanings; does not write a line. Names are a contract: they do not change. docs/LOGS.md is made from
//! this table and from the table of causes, and a test compares the table with the calls in the sources. Targets of
//! lines with a budget of their own are here, too.
//!
//! No limits: rows are constants. Cost: for a line in JSON, one comparison with each name up to its own.

/// The `tracing` target of lines that peers can cause: they are shorter, and have a smaller budget (`budget.rs`).
pub(crate) const PEER: &str = "ringverb::peer";
/// The target of the access log, whose budget is larger, because the operator has asked for it.
pub(crate) const ACCESS: &str = "ringverb::access";

#[derive(Debug)]
pub(super) struct LogEventSpec {
    pub(super) name: &'static str,
    #[cfg(test)]
    meaning: &'static str,
}

/// Makes `LOG_EVENTS`. The meanings are compiled into tests only, which make docs/LOGS.md.
macro_rules! events {
    ($($name:literal $meaning:literal;)+) => {
        pub(super) static LOG_EVENTS: &[LogEventSpec] = &[$(LogEventSpec {
            name: $name,
            #[cfg(test)]
            meaning: $meaning,
        }),+];
    };
}

#[rustfmt::skip]
events! {
    "access"
        "An answered request of the HTTP API, with `RINGVERB_ACCESS_LOG=true`. Fields: `method`, `path`, `status`, \
         `duration_ms` (from the tick that had the whole request to the end of the tick that had the answer), \
         `received_bytes`, `sent_bytes`.";
    "access_suppressed"
        "Requests for which the access log had no room. Field: `left_out`.";
    "admin_listener_missing"
        "The default port of the admin listener is taken, so there are no metrics.";
    "certificates_not_reloaded"
        "New certificates cannot be used, and the earlier ones stay in use.";
    "certificates_reloaded"
        "New TLS handshakes use new certificates.";
    "certificates_warning"
        "Something about the new certificates is unusual.";
    "configuration_changed"
        "A reload, or a change of an app: the new configuration is in use on all cores.";
    "configuration_needs_takeover"
        "Options of a reload that cannot change while the server runs.";
    "configuration_refused"
        "A reload, or a change of an app, was refused, and the earlier configuration stays in use.";
    "configuration_warning"
        "Something about the new configuration is unusual.";
    "connection_closing"
        "The server closes a connection. Level DEBUG.";
    "debug_message"
        "A message of a connection, with `RINGVERB_DEBUG`.";
    "descriptor_not_polled"
        "A descriptor of the control thread cannot be polled. Level DEBUG.";
    "descriptors_shared"
        "The workers share one descriptor table.";
    "development_access_not_published"
        "`ringverb publish` does not find this server by itself.";
    "lines_lost"
        "Log lines that were not written. Fields: `unread` (the reader was too slow), `unwritten` (the stream refused \
         them), `over_rate` (the limit of bytes a second).";
    "lines_suppressed"
        "Notes of a worker over its limit of lines a second.";
    "memory_level_changed"
        "Memory is short, or no longer: from 3 % below `RINGVERB_MEMORY_MAX` on, until it is 9 % below.";
    "memory_not_measured"
        "The memory of the process could not be measured. Level DEBUG.";
    "node_started"
        "The number of this node in a cluster.";
    "notice"
        "A message about the configuration or the start. It goes to standard error.";
    "panic"
        "A fault of the server, which ends it. It goes to standard error.";
    "port_in_use"
        "The server waits for its port.";
    "redis_connected"
        "A core has a session with Redis.";
    "redis_lost"
        "A core has lost its session with Redis, or got none.";
    "refusals_summary"
        "What was refused since the line before, once a minute at most.";
    "refusals_total"
        "What was refused since the start, at the end.";
    "refused"
        "The server refused something or closed a connection. `reason` is a name of the table below. Fields as far as \
         they are known: `app`, `peer` (address and port), `client` (the address that a trusted proxy names), \
         `socket_id`, `channel`, `left_out` (lines of this reason that were left out before).";
    "replacement_complete"
        "SIGUSR2: the new program serves.";
    "replacement_ended"
        "SIGUSR2: a process of the exchange has ended.";
    "replacement_failed"
        "SIGUSR2: a stage failed. The message says which process serves.";
    "replacement_refused"
        "SIGUSR2 was ignored.";
    "replacement_serving"
        "SIGUSR2: the stand-in serves.";
    "replacement_started"
        "SIGUSR2: the stand-in starts.";
    "rings_small"
        "Workers have smaller rings of io_uring than was planned, because other processes of the user have locked \
         memory.";
    "server_started"
        "The start message: addresses, apps, limits.";
    "server_stopped"
        "The server has ended in order.";
    "shutdown_delay_ended"
        "A second signal has ended `RINGVERB_SHUTDOWN_DELAY`.";
    "shutdown_delay_started"
        "`/up` answers 503 for `RINGVERB_SHUTDOWN_DELAY`.";
    "shutdown_forced"
        "A second signal has ended the server at once.";
    "shutdown_started"
        "Connections are being closed.";
    "signal_ignored"
        "A signal had no effect.";
    "signal_not_forwarded"
        "A signal could not be forwarded to the stand-in.";
    "system_setting_refused"
        "The system refused a setting; the message says what follows.";
    "systemd_not_notified"
        "systemd could not be notified.";
    "takeover_asked"
        "Another process asked which process serves the address. Level DEBUG.";
    "takeover_complete"
        "A new process has taken over, and this one ends. Field: `process`, the id of the new one.";
    "takeover_failed"
        "A take-over failed, and the old process continues.";
    "takeover_http_refused"
        "HTTP requests that were incomplete during a take-over are refused.";
    "takeover_listeners_only"
        "Only the listening sockets were taken over.";
    "takeover_not_confirmed"
        "The old process did not confirm that it closes its connections.";
    "takeover_not_needed"
        "There was no server to take over from.";
    "takeover_old_process_died"
        "The old process died during the take-over.";
    "takeover_refused"
        "A process that asked for a take-over was refused.";
    "takeover_started"
        "This process takes over from a stand-in whose parent is gone.";
    "takeover_unavailable"
        "No new process can take over from this server.";
    "unnamed"
        "An event without a name, of a library.";
    "webhook_authorities"
        "Certificate authorities of the host are missing, cannot be read, or are not read in time.";
    "webhook_events_discarded"
        "Events that were not delivered at the end of the server.";
    "webhook_events_dropped"
        "Events that found a queue full.";
    "webhook_failing"
        "An endpoint refuses requests, or events were given up.";
    "webhook_recovered"
        "An endpoint accepts requests again.";
    "worker_not_pinned"
        "A worker is not pinned to its CPU.";
    "worker_note"
        "A hint for developers, or a fact about another node.";
    "worker_stalled"
        "A worker has stood still for so long that the watchdog of systemd is not notified.";
}

/// The name for events that name none: those of libraries.
pub(super) const UNNAMED: &str = "unnamed";

/// The same name as a text of the table, which outlives the event. `UNNAMED` if the table has no such name.
pub(super) fn static_name(name: &str) -> &'static str {
    LOG_EVENTS.iter().find(|event| event.name == name).map_or(UNNAMED, |event| event.name)
}

#[cfg(test)]
mod tests;
