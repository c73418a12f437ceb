//! Changes of the configuration while the server runs: `ringverb reload` and SIGHUP, and apps over the admin API.
//!
//! Owns the configuration in use and where it came from. It runs on the main thread (`life.rs`), so changes come one
//! after another. Input: a `ChangeRequest`. Output: a `ChangeOutcome`, which is the answer and the log. A change is
//! applied whole or not at all: it is checked first, then all cores learn new apps, then the apps file is written, and
//! then all cores apply it. Never closes a connection of an app that stays. What cannot change while the server runs is
//! named, and keeps its old value.
//! Limits: `APPLY_TIME_MAX` for the cores; `Apps::MAX` apps of one process; one file of `config::FILE_BYTES_MAX` bytes.
//! Cost: linear in the number of apps, and two rounds through all cores.

mod app_table;
mod apps_file;
mod credentials;
mod origin;
mod outcome;

use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::certificates::Certificates;
use super::wait::wake_all;
use crate::app::Apps;
use crate::config::admin::AdminPlace;
use crate::config::options::OptionId;
use crate::config::validate::build_config;
use crate::config::{Config, Merged, Sources, TlsOptions, Values, merge};
use crate::mailbox::Doorbell;
use crate::output;
use crate::running_configuration::{
    ConfigurationLink, RunningConfiguration, SentConfiguration, UNAPPLIED_MAX,
};
use crate::webhook::WebhookChanges;
use crate::worker::Shared;
pub(super) use app_table::{AppChange, AppEdit};
pub(super) use origin::Origin;
pub(super) use outcome::ChangeOutcome;

/// Time for all cores to apply a configuration. A core ticks at least once a second.
const APPLY_TIME_MAX: Duration = Duration::from_secs(5);
/// Time for a change, which all cores apply in two rounds. The disk may add to it.
pub(super) const CHANGE_TIME_MAX: Duration = Duration::from_secs(2 * APPLY_TIME_MAX.as_secs());

/// Sent to the main thread as `Order::Change`.
pub(super) struct ChangeRequest {
    pub(super) what: ChangeCommand,
    /// `None`: the request is a signal's, or those who wait for the outcome are in `pending`.
    pub(super) answer: Option<Sender<ChangeOutcome>>,
    /// Only a reload has it. It is emptied when the reload starts, so that later requests cause another one.
    pub(super) pending: Option<PendingReload>,
}

/// Whether a reload waits for the main thread, and the requests that wait for its outcome. Further signals and requests
/// add none, because a reload reads the newest files anyway, and SIGTERM must not wait for thousands of them. The admin
/// listener limits those who wait.
#[expect(
    clippy::disallowed_types,
    reason = "held for a push or a take, by the threads of signals and of the admin listener and the main thread"
)]
#[derive(Clone, Debug, Default)]
pub(super) struct PendingReload(Arc<std::sync::Mutex<Option<Vec<Sender<ChangeOutcome>>>>>);

impl PendingReload {
    /// The request of a signal (without `answer`) or of an operator, unless one waits already. Its outcome is the
    /// outcome of all.
    pub(super) fn request(&self, answer: Option<Sender<ChangeOutcome>>) -> Option<ChangeRequest> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_pending = pending.is_some();
        pending.get_or_insert_default().extend(answer);
        (!was_pending).then(|| ChangeRequest {
            what: ChangeCommand::Reload,
            answer: None,
            pending: Some(self.clone()),
        })
    }

    /// The reload starts: a signal or request from here on may announce newer files. Returns who waits.
    fn start(&self) -> Vec<Sender<ChangeOutcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

impl std::fmt::Debug for ChangeRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is wanted may contain a secret.
        formatter.write_str("ChangeRequest")
    }
}

pub(super) enum ChangeCommand {
    /// Reads all files and the environment again.
    Reload,
    ListApps,
    ShowApp(String),
    ChangeApp(AppChange),
}

/// The main thread's side of all changes: what is in use, and what has to learn of a change.
pub(super) struct Changer {
    /// A reload reads the same places again.
    pub(super) origin: Origin,
    /// The options in use. Those that need a take-over to change have their old values.
    server: Values,
    apps: Vec<Values>,
    is_development: bool,
    /// The certificates that the task that watches them has received last. `None` without TLS.
    tls: Option<TlsOptions>,
    pub(super) shared: Arc<Shared>,
    pub(super) doorbells: Arc<[Doorbell]>,
    pub(super) webhooks: WebhookChanges,
    /// To the task that watches the certificates, after each reload.
    certificates: Option<Sender<TlsOptions>>,
    last_link: Arc<ConfigurationLink>,
    /// The requests that wait for the end of a take-over, during one. The admin listener limits those who wait.
    held_requests: Option<Vec<ChangeRequest>>,
}

/// A configuration in which nothing is wrong, so that only the disk or a core can still refuse it.
struct CheckedChange {
    sources: Sources,
    merged: Merged,
    config: Config,
    /// Path and new content of the apps file. `None` for a reload, which does not write it.
    file: Option<(PathBuf, String)>,
}

/// The start of the list of configurations, which each worker reads at its own pace.
pub(super) fn first_link(shared: &Shared) -> Arc<ConfigurationLink> {
    let (applied, _) = mpsc::channel();
    ConfigurationLink::new(SentConfiguration {
        configuration: shared.current_configuration.get(),
        applied,
    })
}

impl Changer {
    pub(super) fn new(
        origin: Origin,
        shared: Arc<Shared>,
        doorbells: Arc<[Doorbell]>,
        webhooks: WebhookChanges,
        certificates: Option<Sender<TlsOptions>>,
        last_link: Arc<ConfigurationLink>,
    ) -> Self {
        let Merged { server, apps, .. } = merge(&origin.sources);
        Self {
            server,
            apps,
            is_development: shared.config.development,
            tls: shared.config.tls.clone(),
            origin,
            shared,
            doorbells,
            webhooks,
            certificates,
            last_link,
            held_requests: None,
        }
    }

    /// A take-over begins. From here on changes wait, because the new process might not see them. Returns whether this
    /// is a development server.
    pub(super) fn hold_changes(&mut self) -> bool {
        self.held_requests.get_or_insert_default();
        self.is_development
    }

    /// The take-over has failed. Returns the requests that waited, for `carry_out`. After one that succeeds, the admin
    /// listener refuses them.
    pub(super) fn resume_changes(&mut self) -> Vec<ChangeRequest> {
        self.held_requests.take().unwrap_or_default()
    }

    pub(super) fn carry_out(&mut self, request: ChangeRequest) {
        let is_change = matches!(request.what, ChangeCommand::Reload | ChangeCommand::ChangeApp(_));
        if let Some(held_requests) = self.held_requests.as_mut().filter(|_| is_change) {
            held_requests.push(request);
            return;
        }
        let mut answers = request.pending.as_ref().map(PendingReload::start).unwrap_or_default();
        answers.extend(request.answer);
        let outcome = match request.what {
            ChangeCommand::Reload => self.reload(),
            ChangeCommand::ListApps => self.list_apps(),
            ChangeCommand::ShowApp(id) => self.show_app(&id),
            ChangeCommand::ChangeApp(change) => self.change_app(change),
        };
        outcome.log();
        for answer in answers {
            // The thread that asked may have stopped waiting.
            answer.send(outcome.clone()).ok();
        }
    }

    fn reload(&mut self) -> ChangeOutcome {
        let read = self.origin.read_again();
        self.reload_from(read)
    }

    fn reload_from(&mut self, read: Result<Sources, Vec<String>>) -> ChangeOutcome {
        let checked = read.and_then(|sources| self.check_new_configuration(sources, None));
        match checked.and_then(|checked| self.apply(checked)) {
            Ok(mut applied) => {
                applied.certificate_problems = self.unusable_certificates();
                ChangeOutcome::reloaded(&applied)
            }
            Err(problems) => ChangeOutcome::refused(&problems),
        }
    }

    /// Reloads the configuration if it has changed since this process has read it. The process from which it has taken
    /// over may have reloaded it since then, which it does no longer.
    pub(super) fn reload_if_changed(&mut self) {
        if self.origin.file_read_once().is_some() {
            return;
        }
        let read = self.origin.read_again();
        let is_same = read.as_ref().is_ok_and(|sources| {
            let Merged { server, apps, .. } = merge(sources);
            let same_apps = self.apps.iter().zip(&apps).all(|(before, now)| before.is_same(now));
            let is_same_server = self.server.differing_options(&server).is_empty();
            is_same_server && self.apps.len() == apps.len() && same_apps
        });
        if !is_same {
            self.reload_from(read).log();
        }
    }

    /// The task that watches the certificates reads the same files, logs it, and keeps the earlier ones.
    fn unusable_certificates(&self) -> Vec<String> {
        self.tls.as_ref().and_then(|tls| Certificates::check(tls).err()).unwrap_or_default()
    }

    fn list_apps(&self) -> ChangeOutcome {
        let running = self.shared.current_configuration.get();
        let apps = self.apps.iter().map(|values| self.app_json(values, &running.apps));
        ChangeOutcome::apps(running.number, &apps.collect::<Vec<_>>())
    }

    fn show_app(&self, id: &str) -> ChangeOutcome {
        let running = self.shared.current_configuration.get();
        match self.apps.iter().find(|values| app_table::id_of(values) == id) {
            Some(values) => ChangeOutcome::app(200, &self.app_json(values, &running.apps)),
            None => ChangeOutcome::no_such_app(id),
        }
    }

    fn app_json(&self, values: &Values, apps: &Apps) -> serde_json::Value {
        let file = self.origin.sources.apps_file.as_ref().map(|(path, _)| path.as_str());
        app_table::app_as_json(values, apps, file)
    }

    /// Only apps of the apps file can be changed: those of other files are a person's text, with comments.
    fn change_app(&mut self, change: AppChange) -> ChangeOutcome {
        let Some((path, in_use)) = self.origin.sources.apps_file.clone() else {
            return ChangeOutcome::no_apps_file();
        };
        let path = PathBuf::from(path);
        let id = change.id.clone();
        // The file is what counts: an operator may have edited it.
        let edited = apps_file::read(&path, &in_use).and_then(|mut tables| {
            let is_elsewhere = |id: &str| {
                self.apps.iter().any(|values| app_table::id_of(values) == id)
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
        let sources = self.origin.sources.with_apps(table);
        let checked = self.check_new_configuration(sources, Some((path, text)));
        match checked.and_then(|checked| self.apply(checked)) {
            Err(problems) => ChangeOutcome::refused(&problems),
            Ok(_) => self.finish_edit_outcome(&edited),
        }
    }

    fn finish_edit_outcome(&self, edited: &outcome::Edited) -> ChangeOutcome {
        let mut outcome = self.show_app(&edited.id);
        outcome.finish_edit(edited, self.shared.current_configuration.get().number);
        outcome
    }

    /// Everything that can be wrong is checked before anything changes.
    fn check_new_configuration(
        &self,
        sources: Sources,
        file: Option<(PathBuf, String)>,
    ) -> Result<CheckedChange, Vec<String>> {
        let merged = merge(&sources);
        let mut config = build_config(&merged, &self.origin.development)?;
        if config.development && !self.is_development {
            return Err(vec![
                "no app would be left, and a server that runs does not change to development mode: disable the last \
                 app instead, or stop the server"
                    .to_owned(),
            ]);
        }
        let running_place = &self.shared.config.admin.place;
        if let Some(problem) = missing_token(running_place, config.admin.token.is_some()) {
            return Err(vec![problem]);
        }
        if let Some(tls) = self.tls_to_read(&config).filter(|tls| self.tls.as_ref() != Some(tls)) {
            Certificates::check(&tls)?;
        }
        // `build_config` has limited their number.
        config.apps.truncate(Apps::MAX);
        Ok(CheckedChange { sources, merged, config, file })
    }

    /// The certificates, for the same ports as before. The secret of the session tickets stays as it was at the start.
    fn tls_to_read(&self, config: &Config) -> Option<TlsOptions> {
        let (before, now) = (self.tls.as_ref()?, config.tls.as_ref()?);
        let ticket_secret = before.ticket_secret.clone();
        (before.port == now.port).then(|| TlsOptions { ticket_secret, ..now.clone() })
    }

    /// # Errors
    /// Sentences for the operator: there are too many apps, a core does not answer, or the file cannot be written. The
    /// configuration before is in use then.
    fn apply(&mut self, checked: CheckedChange) -> Result<outcome::Applied, Vec<String>> {
        let CheckedChange { sources, merged, mut config, file } = checked;
        let running = self.shared.current_configuration.get();
        let wanted = std::mem::take(&mut config.apps);
        let changed = running.apps.change_steps(wanted).map_err(|_| {
            vec![format!(
                "this process has had {} apps, removed ones included, which is the most: take over with SIGUSR2, which \
                 keeps the connections, and try again",
                Apps::MAX
            )]
        })?;
        let prepared =
            RunningConfiguration { apps: Arc::new(changed.with_new_apps), ..(*running).clone() };
        self.send_to_cores(Arc::new(prepared)).map_err(|problem| vec![problem])?;
        if let Some((path, text)) = &file {
            let written = apps_file::write(path, text).map_err(|problem| vec![problem])?;
            if let Some(warning) = written {
                tracing::warn!(event = "configuration_warning", "{warning}");
            }
        }
        let (number, apps) = (running.number + 1, Arc::new(changed.without_removed_apps));
        let next = Arc::new(RunningConfiguration::new(number, apps, &config));
        self.webhooks.apply(next.apps.clone());
        self.shared.current_configuration.set(next.clone());
        if let Err(problem) = self.send_to_cores(next.clone()) {
            // They apply it as soon as they run again: it is in their list.
            tracing::warn!(event = "configuration_warning", "{problem}");
        }
        output::set_level(config.log.level);
        let mut can_change_tls = self.tls.is_some() == config.tls.is_some();
        if let (Some(tls), Some(certificates)) = (self.tls_to_read(&config), &self.certificates) {
            can_change_tls = certificates.send(tls.clone()).is_ok();
            self.tls = Some(tls);
        }
        let applied = self.applied_changes(next.number, &merged, can_change_tls);
        let mut server = merged.server;
        server.copy_options(&self.server, &applied.needs_takeover);
        (self.server, self.apps) = (server, merged.apps);
        self.is_development = config.development;
        self.origin.sources = sources;
        Ok(applied)
    }

    /// Compares with the values in use, so it is called before the new ones replace them.
    fn applied_changes(
        &self,
        number: u64,
        merged: &Merged,
        can_change_tls: bool,
    ) -> outcome::Applied {
        let is_changeable = |id: &OptionId| {
            let is_tls =
                matches!(id, OptionId::TlsCert | OptionId::TlsKey | OptionId::TlsKeyPassphrase);
            id.spec().changes_while_running() && (can_change_tls || !is_tls)
        };
        let differing = self.server.differing_options(&merged.server);
        let (changed, needs_takeover) = differing.into_iter().partition(is_changeable);
        let find = |list: &[Values], id: &str| {
            list.iter().find(|values| app_table::id_of(values) == id).cloned()
        };
        let ids = |list: &[Values], is_meant: &dyn Fn(&Values) -> bool| {
            let meant = list.iter().filter(|values| is_meant(values));
            meant.map(|values| app_table::id_of(values).to_owned()).collect()
        };
        let (before, now) = (&self.apps, &merged.apps);
        outcome::Applied {
            number,
            changed,
            needs_takeover,
            apps_added: ids(now, &|app| find(before, app_table::id_of(app)).is_none()),
            apps_removed: ids(before, &|app| find(now, app_table::id_of(app)).is_none()),
            apps_changed: ids(now, &|app| {
                find(before, app_table::id_of(app)).is_some_and(|old| !old.is_same(app))
            }),
            warnings: merged.warnings.clone(),
            certificate_problems: Vec::new(),
        }
    }

    /// Returns when each core has reported that it has applied the configuration, or with an error after
    /// `APPLY_TIME_MAX`.
    fn send_to_cores(&mut self, configuration: Arc<RunningConfiguration>) -> Result<(), String> {
        let unapplied = &self.shared.unapplied_configurations;
        if !unapplied.try_add() {
            return Err(format!(
                "{UNAPPLIED_MAX} configurations wait for a worker that does not run, which is the limit: /live of the \
                 admin listener names it. Restart the server, which then has the newest configuration"
            ));
        }
        // Of its own, so that a late report about the link before does not count.
        let (report, applied) = mpsc::channel();
        let next = ConfigurationLink::new(SentConfiguration { configuration, applied: report });
        self.last_link.append(next.clone());
        self.last_link = next;
        wake_all(&self.doorbells);
        let workers = self.shared.config.workers;
        let mut left = workers;
        let began = self.shared.clock.now();
        while left > 0 {
            let passed = self.shared.clock.now().0.saturating_sub(began.0);
            let time = APPLY_TIME_MAX.saturating_sub(Duration::from_millis(passed));
            if applied.recv_timeout(time).is_err() {
                let seconds = APPLY_TIME_MAX.as_secs();
                return Err(format!(
                    "{left} of {workers} workers have not applied the configuration within {seconds} s: is the host \
                     overloaded? /live of the admin listener names a worker that stands still"
                ));
            }
            left -= 1;
        }
        self.shared.unapplied_configurations.note_all_applied();
        Ok(())
    }
}

/// Why the running admin listener must keep a token. It stays where it is until the process ends or another one takes
/// over, so the address in the new configuration does not count.
fn missing_token(running: &AdminPlace, has_token: bool) -> Option<String> {
    (running.is_public() && !has_token).then(|| {
        format!(
            "RINGVERB_ADMIN_TOKEN is not set, but the admin listener of this process is {running}, which other hosts \
             may reach until the process is replaced: keep the token for this reload, or set RINGVERB_ADMIN to a \
             loopback address and restart without it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_add_no_second_reload_to_one_that_waits() {
        let pending = PendingReload::default();
        let first = pending.request(None).expect("nothing waits");
        let (answer, outcome) = mpsc::channel();
        for _ in 0..1_000 {
            assert!(pending.request(None).is_none());
            assert!(pending.request(Some(answer.clone())).is_none());
        }
        let answers = first.pending.expect("of a reload").start();
        assert_eq!(answers.len(), 1_000, "each request has its answer, and each signal needs none");
        answers[999].send(ChangeOutcome::invalid("x")).unwrap();
        assert_eq!(outcome.recv().unwrap().status, 422);
        assert!(pending.request(None).is_some(), "the files may have changed since the start");
        assert!(pending.request(None).is_none());
    }

    #[test]
    fn a_running_place_that_is_public_keeps_a_token() {
        for (place, has_token, is_refused) in [
            ("0.0.0.0:9601", false, true),
            ("[::]:9601", false, true),
            ("0.0.0.0:9601", true, false),
            ("127.0.0.1:9601", false, false),
            ("unix:/run/admin", false, false),
            ("off", false, false),
        ] {
            let place = AdminPlace::parse(place).unwrap();
            assert_eq!(missing_token(&place, has_token).is_some(), is_refused, "{place}");
        }
    }
}
