//! Changes of the configuration while the server runs: `ringverb reload` and SIGHUP, and apps over the admin API.
//!
//! Owns the steps of a change. It runs on the main thread (`life.rs`), so changes come one after another. Input: a
//! `ChangeRequest`. Output: a `ChangeOutcome`, which is the answer and the log. A change is applied whole or not at
//! all: it is checked (`in_use.rs`), then the new apps file replaces the old one, then all cores learn new apps
//! (`publication.rs`), and then all cores apply the change. If a core does not learn the new apps in time, the old text
//! of the file is put back. Never closes a connection of an app that stays. What cannot change while the server runs is
//! named, and keeps its old value.
//! Limits: `CHANGE_TIME_MAX` for the cores; `Apps::MAX` apps of one process; one file of `config::FILE_BYTES_MAX`
//! bytes. Cost: linear in the number of apps, and two rounds through all cores.

mod app_table;
mod apps_file;
mod credentials;
mod in_use;
mod origin;
mod outcome;
mod publication;
mod request;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::config::{Config, Sources, TlsOptions};
use crate::mailbox::Doorbell;
use crate::output;
use crate::running_configuration::ConfigurationLink;
use crate::webhook::WebhookChanges;
use crate::worker::Shared;
pub(super) use app_table::{AppChange, AppEdit};
use apps_file::ReplacedFile;
use in_use::{CheckedChange, ConfigurationInUse};
pub(super) use origin::Origin;
pub(super) use outcome::ChangeOutcome;
use publication::ConfigurationPublication;
pub(super) use publication::{CHANGE_TIME_MAX, first_link};
use request::HeldRequests;
pub(super) use request::{ChangeCommand, ChangeRequest, PendingReload};

/// The main thread's side of all changes.
pub(super) struct Changer {
    in_use: ConfigurationInUse,
    publication: ConfigurationPublication,
    held: HeldRequests,
    /// To the task that watches the certificates, after each reload. `None` without TLS.
    certificates: Option<Sender<TlsOptions>>,
}

impl Changer {
    pub(super) fn new(
        origin: Origin,
        shared: Arc<Shared>,
        doorbells: Arc<[Doorbell]>,
        webhooks: WebhookChanges,
        certificates: Option<Sender<TlsOptions>>,
        first_link: Arc<ConfigurationLink>,
    ) -> Self {
        Self {
            in_use: ConfigurationInUse::new(origin, &shared.config),
            publication: ConfigurationPublication::new(shared, doorbells, webhooks, first_link),
            held: HeldRequests::default(),
            certificates,
        }
    }

    /// A take-over begins. From here on changes wait, because the new process might not see them. Returns whether this
    /// is a development server.
    pub(super) fn hold_changes(&mut self) -> bool {
        self.held.begin();
        self.in_use.is_development
    }

    /// The take-over has failed. Returns the requests that waited, for `carry_out`. After one that succeeds, the admin
    /// listener refuses them.
    pub(super) fn resume_changes(&mut self) -> Vec<ChangeRequest> {
        self.held.end()
    }

    pub(super) fn carry_out(&mut self, request: ChangeRequest) {
        let Some(mut request) = self.held.pass(request) else { return };
        let answers = request.start();
        let outcome = match request.what {
            ChangeCommand::Reload => self.reload(),
            ChangeCommand::ListApps => self.in_use.list_apps(&self.publication.in_use()),
            ChangeCommand::ShowApp(id) => self.in_use.show_app(&id, &self.publication.in_use()),
            ChangeCommand::ChangeApp(change) => self.change_app(change),
        };
        outcome.log();
        for answer in answers {
            // The thread that asked may have stopped waiting.
            answer.send(outcome.clone()).ok();
        }
    }

    fn reload(&mut self) -> ChangeOutcome {
        let read = self.in_use.origin.read_again();
        self.reload_from(read)
    }

    fn reload_from(&mut self, read: Result<Sources, Vec<String>>) -> ChangeOutcome {
        let checked = read.and_then(|sources| self.in_use.check(sources));
        match checked.and_then(|checked| self.apply(checked, None)) {
            Ok(mut applied) => {
                applied.certificate_problems = self.in_use.unusable_certificates();
                ChangeOutcome::reloaded(&applied)
            }
            Err(problems) => ChangeOutcome::refused(&problems),
        }
    }

    /// Reloads the configuration if it has changed since this process has read it. The process from which it has taken
    /// over may have reloaded it since then, which it does no longer.
    pub(super) fn reload_if_changed(&mut self) {
        if self.in_use.origin.file_read_once().is_some() {
            return;
        }
        let read = self.in_use.origin.read_again();
        let is_same = read.as_ref().is_ok_and(|sources| self.in_use.is_same(sources));
        if !is_same {
            self.reload_from(read).log();
        }
    }

    /// Only apps of the apps file can be changed: those of other files are a person's text, with comments.
    fn change_app(&mut self, change: AppChange) -> ChangeOutcome {
        let Some((path, in_use)) = self.in_use.origin.sources.apps_file.clone() else {
            return ChangeOutcome::no_apps_file();
        };
        let path = PathBuf::from(path);
        let id = change.id.clone();
        // The file is what counts: an operator may have edited it.
        let edited = apps_file::read(&path, &in_use).and_then(|mut tables| {
            let is_elsewhere = |id: &str| {
                self.in_use.has_app(id)
                    && !tables.iter().any(|table| app_table::is_named(table, id))
            };
            if let Some(id) = id.as_deref().filter(|id| is_elsewhere(id)) {
                return Err(Box::new(ChangeOutcome::configured_elsewhere(id, &path)));
            }
            let edited = app_table::edit(&mut tables, change)?;
            Ok((tables, edited))
        });
        let (tables, edited) = match edited {
            Ok(edited) => edited,
            Err(outcome) => return *outcome,
        };
        let table = apps_file::file_table(&tables);
        let text = match apps_file::file_text(&table) {
            Ok(text) => text,
            Err(problem) => return ChangeOutcome::refused(&[problem]),
        };
        let checked = self.in_use.check(self.in_use.origin.sources.with_apps(table));
        match checked.and_then(|checked| self.apply(checked, Some(&(path, text)))) {
            Err(problems) => ChangeOutcome::refused(&problems),
            Ok(applied) => {
                let mut outcome = self.in_use.show_app(&edited.id, &self.publication.in_use());
                outcome.finish_edit(&edited, applied.number);
                outcome
            }
        }
    }

    /// `file`: path and new content of the apps file. `None` for a reload, which does not write it.
    ///
    /// # Errors
    /// Sentences for the operator: there are too many apps, a core does not answer, or the file cannot be written. The
    /// configuration before is in use then.
    fn apply(
        &mut self,
        checked: CheckedChange,
        file: Option<&(PathBuf, String)>,
    ) -> Result<outcome::Applied, Vec<String>> {
        let CheckedChange { sources, merged, mut config } = checked;
        let wanted = std::mem::take(&mut config.apps);
        let one = |problem| vec![problem];
        let steps = self.publication.steps(wanted).map_err(one)?;
        let replaced = file.map(|(path, text)| ReplacedFile::write(path, text));
        let replaced = replaced.transpose().map_err(one)?;
        let prepared = match self.publication.prepare(steps) {
            Ok(prepared) => prepared,
            Err(problem) => {
                let left = replaced.and_then(|file| file.put_back().err());
                return Err([problem].into_iter().chain(left).collect());
            }
        };
        if let Some(warning) = replaced.and_then(|file| file.warning) {
            tracing::warn!(event = "configuration_warning", "{warning}");
        }
        // From here on nothing can fail: the file has the change already.
        let number = self.publication.publish(prepared, &config);
        output::set_level(config.log.level);
        let can_change_tls = self.send_certificates(&config);
        let applied = self.in_use.differences(number, &merged, can_change_tls);
        self.in_use.adopt(sources, merged, &applied, config.development);
        Ok(applied)
    }

    /// Returns whether the TLS options of the configuration are in use from now on.
    fn send_certificates(&mut self, config: &Config) -> bool {
        let (Some(tls), Some(certificates)) = (self.in_use.tls_to_read(config), &self.certificates)
        else {
            return self.in_use.has_tls() == config.tls.is_some();
        };
        let is_sent = certificates.send(tls.clone()).is_ok();
        self.in_use.set_tls(tls);
        is_sent
    }
}
