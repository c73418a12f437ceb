//! What came of a change: the answer of the admin API as JSON, and its line in the log.
//!
//! Owns the texts of both. Every refusal says what happened, why, and what to change. No answer and no line has a
//! secret, except the answer that creates an app, which shows the secret once. Does not send the answer.
//! Limit: none of its own (bounded by the configuration): its lists name apps and options. Cost: one line in the log; a
//! few bytes of JSON for each app or option named.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::config::options::OptionId;
use crate::text::Counted;

/// The result of an edit, from which the answer and the line of the log are made.
pub(super) struct Edited {
    pub(super) id: String,
    pub(super) what: &'static str,
    pub(super) is_new: bool,
    pub(super) is_removed: bool,
    /// `Some` for a new app only: the answer that creates it is the only one that shows the secret.
    pub(super) secret: Option<String>,
}

/// Status and body go to each requester. `log_line` goes to the log once; questions and wrong requests have none.
#[derive(Clone, Debug)]
pub(in crate::server) struct ChangeOutcome {
    pub(in crate::server) status: u16,
    pub(in crate::server) body: Json,
    log_line: Option<ChangeLogLine>,
}

#[derive(Clone, Debug)]
enum ChangeLogLine {
    Done(String),
    Refused(String),
}

/// What a change has done, in the order in which the log has it.
pub(super) struct Applied {
    pub(super) number: u64,
    pub(super) changed: Vec<OptionId>,
    /// They differ from what is in use, and keep their old values until a take-over.
    pub(super) needs_takeover: Vec<OptionId>,
    pub(super) apps_added: Vec<String>,
    pub(super) apps_removed: Vec<String>,
    pub(super) apps_changed: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// Why the certificates in use are still the earlier ones.
    pub(super) certificate_problems: Vec<String>,
}

fn option_names(options: &[OptionId]) -> Vec<&'static str> {
    options.iter().map(|id| id.spec().environment[0]).collect()
}

impl ChangeOutcome {
    fn new(status: u16, body: Json, log_line: Option<ChangeLogLine>) -> Self {
        Self { status, body, log_line }
    }

    /// Called once for each change, however many requests wait for its outcome.
    pub(super) fn log(&self) {
        match &self.log_line {
            None => {}
            Some(ChangeLogLine::Done(line)) => {
                tracing::info!(event = "configuration_changed", "{line}")
            }
            Some(ChangeLogLine::Refused(line)) => {
                tracing::error!(event = "configuration_refused", "{line}")
            }
        }
    }

    pub(super) fn reloaded(applied: &Applied) -> Self {
        let Applied { number, apps_added, apps_removed, apps_changed, warnings, .. } = applied;
        let (changed, needs_takeover) =
            (option_names(&applied.changed), option_names(&applied.needs_takeover));
        for warning in warnings {
            tracing::warn!(event = "configuration_warning", "{warning}");
        }
        if !needs_takeover.is_empty() {
            tracing::warn!(
                event = "configuration_needs_takeover",
                "options that cannot change while the server runs keep their values: {}. A take-over applies them and \
                 keeps the connections (SIGUSR2)",
                needs_takeover.join(", ")
            );
        }
        let line = format!(
            "configuration {number} is in use: {} added, {} changed, {} removed; {} changed",
            Counted(apps_added.len() as u64, "app"),
            apps_changed.len(),
            apps_removed.len(),
            Counted(changed.len() as u64, "option")
        );
        let body = json!({
            "configuration": number,
            "apps": { "added": apps_added, "changed": apps_changed, "removed": apps_removed },
            "changed": changed,
            "needs_takeover": needs_takeover,
            "warnings": warnings,
            "certificate_problems": applied.certificate_problems,
        });
        Self::new(200, body, Some(ChangeLogLine::Done(line)))
    }

    pub(super) fn refused(problems: &[String]) -> Self {
        let text = "the configuration was refused, and the one before stays in use";
        let line = format!("{text}: {}", problems.join("; "));
        let body = json!({ "error": text, "problems": problems });
        Self::new(422, body, Some(ChangeLogLine::Refused(line)))
    }

    pub(super) fn apps(number: u64, apps: &[Json]) -> Self {
        Self::new(200, json!({ "configuration": number, "apps": apps }), None)
    }

    pub(super) fn app(status: u16, app: &Json) -> Self {
        Self::new(status, json!({ "app": app }), None)
    }

    /// Turns the answer that shows an app into the answer to its change: a new app shows its secret, a removed one its
    /// id only.
    pub(super) fn finish_edit(&mut self, edited: &Edited, number: u64) {
        let Edited { id, what, is_new, is_removed, secret } = edited;
        if *is_removed {
            self.body = json!({ "removed": id });
        }
        self.status = if *is_new { 201 } else { 200 };
        if let Some(secret) = secret {
            self.body["app"]["secret"] = secret.as_str().into();
        }
        self.body["configuration"] = number.into();
        self.log_line = Some(ChangeLogLine::Done(format!(
            "app {id} {what} over the admin API: configuration {number} is in use"
        )));
    }

    pub(super) fn no_such_app(id: &str) -> Self {
        let text = format!("no app has the id {id:?}: GET /api/apps lists them");
        Self::new(404, json!({ "error": text }), None)
    }

    pub(super) fn app_exists(id: &str) -> Self {
        let text = format!("an app with the id {id:?} exists: PATCH /api/apps/{id} changes it");
        Self::new(409, json!({ "error": text }), None)
    }

    pub(super) fn configured_elsewhere(id: &str, path: &Path) -> Self {
        let text = format!(
            "the app {id} is not in {} (RINGVERB_APPS_FILE), so it cannot be changed here: change it where it is \
             configured, and run `ringverb reload`",
            path_text(path)
        );
        Self::new(409, json!({ "error": text }), None)
    }

    pub(super) fn no_apps_file() -> Self {
        let text = "apps cannot be changed at run time, because no file is named for them: set RINGVERB_APPS_FILE to a \
                    path where the server may write, and restart or send SIGUSR2";
        Self::new(409, json!({ "error": text }), None)
    }

    pub(in crate::server) fn invalid(text: &str) -> Self {
        Self::new(422, json!({ "error": text }), None)
    }

    /// The main thread does not learn of a request that is refused with this.
    pub(in crate::server) fn error(status: u16, text: &str) -> Self {
        Self::new(status, json!({ "error": text }), None)
    }
}

pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}
