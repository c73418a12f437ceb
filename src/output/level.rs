//! Which events are logged: the level of the configuration, or the filter in `RUST_LOG`.
//!
//! Owns the subscriber of `tracing`, whose filter can be replaced while the process runs: `set_level` is called when
//! the configuration is read again. The access log has an option of its own, so no level switches it off.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::format::LineFormat;
use super::{ACCESS, Log};
use crate::config::LogLevel;

/// Replaces the filter. `false`: there is no log.
type ReplaceFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static REPLACE: OnceLock<ReplaceFilter> = OnceLock::new();

/// Starts the log of the process.
pub(super) fn install(format: LineFormat, level: Option<LogLevel>) {
    let log = tracing_subscriber::fmt()
        // Internal errors would go to standard error, past the queue.
        .log_internal_errors(false)
        .event_format(format)
        .with_writer(Log)
        .with_env_filter(filter(level))
        .with_filter_reloading();
    let handle = log.reload_handle();
    let replace: ReplaceFilter = Box::new(move |filter| handle.reload(filter).is_ok());
    log.init();
    // The process has one log.
    let _ = REPLACE.set(replace);
}

/// Logs events of this level and above from now on. `None`: what `RUST_LOG` asks for, or INFO. Returns `false` if the
/// log was not started.
pub fn set_level(level: Option<LogLevel>) -> bool {
    REPLACE.get().is_some_and(|replace| replace(filter(level)))
}

fn filter(level: Option<LogLevel>) -> EnvFilter {
    let filter = match level {
        Some(level) => EnvFilter::new(named(level)),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    match format!("{ACCESS}={}", LevelFilter::INFO).parse() {
        Ok(access) => filter.add_directive(access),
        Err(_) => filter,
    }
}

fn named(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
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
        let log = tracing_subscriber::fmt()
            .event_format(LineFormat { color: false, is_json: false, zone: None })
            .with_writer(move || Lines(sender.clone()))
            .with_env_filter(filter(Some(LogLevel::Error)))
            .with_filter_reloading();
        let handle = log.reload_handle();
        with_default(log.finish(), || {
            let say = |word: &str| {
                tracing::info!("own {word}");
                tracing::info!(target: ACCESS, "access {word}");
            };
            say("first");
            handle.reload(filter(Some(LogLevel::Info))).unwrap();
            say("second");
            handle.reload(filter(Some(LogLevel::Warn))).unwrap();
            say("third");
        });
        let text = String::from_utf8(lines.try_iter().flatten().collect()).unwrap();
        for part in ["access first", "own second", "access second", "access third"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("own first") && !text.contains("own third"), "{text}");
    }
}
