//! Which events are logged: the level of the configuration, or the filter in `RUST_LOG`.
//!
//! Owns the subscriber of `tracing`, whose filter can be replaced while the process runs: `set_level` is called when
//! the configuration is read again. The access log has an option of its own, so no level switches it off. Does not
//! format or write a line.
//!
//! No limits: one filter for the process. Cost: one look-up in the filter for an event; a new filter is a lock and a
//! few allocations.

use std::env;
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry, reload};

use super::events::ACCESS;
use super::format::LineFormat;
use crate::config::LogLevel;

/// Replaces the filter. Returns `false` if the subscriber no longer exists.
type ReplaceFilter = Box<dyn Fn(Targets) -> bool + Send + Sync>;

static REPLACE_FILTER: OnceLock<ReplaceFilter> = OnceLock::new();

/// Starts the log of the process. Called once, because a process has one subscriber.
pub(super) fn install<W>(format: LineFormat, level: Option<LogLevel>, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer()
        // Internal errors would go to standard error, past the queue.
        .log_internal_errors(false)
        .event_format(format)
        .with_writer(writer);
    let replace: ReplaceFilter = Box::new(move |filter| handle.reload(filter).is_ok());
    registry().with(filter).with(lines).init();
    // Called once, so the cell is empty.
    REPLACE_FILTER.set(replace).ok();
}

/// Logs events of this level and above from now on. `None`: what `RUST_LOG` asks for, or INFO. Returns `false` if the
/// log was not started.
pub(crate) fn set_level(level: Option<LogLevel>) -> bool {
    REPLACE_FILTER.get().is_some_and(|replace| replace(filter(level)))
}

/// The filter for a level. `None`: the targets and levels in `RUST_LOG` (`info`, `warn,ringverb::webhook=debug`), or
/// INFO if it is unset or cannot be read. The access log passes every filter.
#[expect(
    clippy::disallowed_methods,
    reason = "RUST_LOG is a convention of Rust's programs, and no option"
)]
fn filter(level: Option<LogLevel>) -> Targets {
    let targets = match level {
        Some(level) => Targets::new().with_default(filter_of(level)),
        None => env::var("RUST_LOG")
            .ok()
            .filter(|text| !text.trim().is_empty())
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO)),
    };
    targets.with_target(ACCESS, LevelFilter::INFO)
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::mpsc::{Sender, channel};
    use tracing::subscriber::with_default;

    struct Lines(Sender<Vec<u8>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).expect("the test reads it");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_level_takes_effect_while_the_log_runs_and_spares_the_access_log() {
        let (sender, lines) = channel();
        let (level, handle) = reload::Layer::new(filter(Some(LogLevel::Error)));
        let lines_of = fmt::layer()
            .event_format(LineFormat { color: false, is_json: false, zone: None })
            .with_writer(move || Lines(sender.clone()));
        with_default(registry().with(level).with(lines_of), || {
            let write = |word: &str| {
                tracing::info!("own {word}");
                tracing::info!(target: ACCESS, "access {word}");
            };
            write("first");
            handle.reload(filter(Some(LogLevel::Info))).unwrap();
            write("second");
            handle.reload(filter(Some(LogLevel::Warn))).unwrap();
            write("third");
        });
        let text = String::from_utf8(lines.try_iter().flatten().collect()).unwrap();
        for part in ["access first", "own second", "access second", "access third"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("own first") && !text.contains("own third"), "{text}");
    }
}
