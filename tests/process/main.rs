//! Tests of the running server: each starts the real program, with a folder and an environment of its own.
//!
//! One test program, so that the server is linked and `support` is compiled once. Most tests wait most of the time, so
//! `tests/run` uses more threads than there are cores. A test of `alone` runs while no other test has a server.
//!
//! | module | topic |
//! |---|---|
//! | `admin` | the admin listener: probes, who may see what, take-over |
//! | `alone` | memory, descriptors, fairness: measured, so nothing else may run at that time |
//! | `change` | the configuration, apps and access change while the server runs |
//! | `cluster` | nodes around a Redis: events, presence, churn, faults, floods, transitions, log |
//! | `configuration` | `.env`, `config/reverb.php`, environment, and the command `check` |
//! | `console` | the console and `ringverb top`: pages, the event log, bounds of viewers |
//! | `documents` | commands and options that the documents name; blocks for the shell are run |
//! | `development` | a server without an app: commands find it, and it keeps its credentials |
//! | `doctor` | the command `doctor`: verdicts, exit status, rights in Redis |
//! | `http` | `api`: endpoints and validation; `transport`: HTTP itself |
//! | `install` | `packaging/install.sh` on hosts that lack something |
//! | `laravel` | `--laravel-config`: who may read the file, and when it is read again |
//! | `life` | start and end of the process, restart, output, systemd |
//! | `limits` | of a connection, an app, a client address; overload of the whole server |
//! | `live_fuzz` | random bytes, frames, JSON and requests |
//! | `losses` | `/metrics`: what waits for too long, and what is not written to the log |
//! | `manual` | commands that describe the command line: completions, manual pages, version |
//! | `metrics` | `/metrics`: every value recounted after churn, formats, names in dashboards and alerts |
//! | `protocol` | handshake, framing, transcripts, presence, users, every way to end a connection |
//! | `refusals` | each cause of a refusal: answer and log line |
//! | `regression` | bugs that were found in review or in use, and which test would find each again |
//! | `scripts` | `--help` of the scripts of the tree |
//! | `takeover` | `connections` and `listeners`, a new program by SIGUSR2, who may take over, locked memory |
//! | `tls` | TLS of the server: clients of several kinds, faults, resumption, certificates, take-over |
//! | `tools` | commands that speak to a running server |
//! | `tuning` | the scripts of `tuning/`: apply, check, revert |
//! | `webhooks` | events to backends |
//!
//! `support` has the server, the clients, the backend and the Redis that the tests use.

mod admin;
mod alone;
mod change;
mod cluster;
mod configuration;
mod console;
mod development;
mod doctor;
mod documents;
mod http;
mod install;
mod laravel;
mod life;
mod limits;
mod live_fuzz;
mod losses;
mod manual;
mod metrics;
mod protocol;
mod refusals;
mod regression;
mod scripts;
mod support;
mod takeover;
mod tls;
mod tools;
mod tuning;
mod webhooks;
