//! The publication of a configuration to all cores, in two steps, and to the threads that are no workers.
//!
//! Owns the list of apps that the cores were sent last, and the last link of the list of configurations that each core
//! follows. A core that serves a new app sends mail with the app's index, so all cores learn new apps (`prepare`)
//! before any core finds one (`publish`). A change fails between the two if a core is late. The cores then keep apps
//! that no configuration has, so the next change is computed from the list that the cores have, never from the
//! configuration in use. Does not check a configuration and does not write a file.
//! Limits: `APPLY_TIME_MAX` for each step; `UNAPPLIED_MAX` configurations that some core has not applied; `Apps::MAX`
//! apps. If a core does not answer to `prepare`, the change fails, and its new apps keep their indexes and rows of
//! metrics until the process ends; `UNAPPLIED_MAX` bounds how many changes may fail so while that core stands still.
//! Cost: linear in the number of apps; one allocation and one message for each core and step.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::app::{App, AppListSteps, Apps};
use crate::config::Config;
use crate::mailbox::Doorbell;
use crate::running_configuration::{
    ConfigurationLink, MissingReports, RunningConfiguration, SentConfiguration, UNAPPLIED_MAX,
};
use crate::server::wait::wake_all;
use crate::webhook::WebhookChanges;
use crate::worker::Shared;

/// Time for all cores to apply a configuration. A core ticks at least once a second.
const APPLY_TIME_MAX: Duration = Duration::from_secs(5);
/// Time for a change, which all cores apply in two rounds. The disk may add to it.
pub(in crate::server) const CHANGE_TIME_MAX: Duration =
    Duration::from_secs(2 * APPLY_TIME_MAX.as_secs());

/// The start of the list of configurations, which each worker reads at its own pace.
pub(in crate::server) fn first_link(shared: &Shared) -> Arc<ConfigurationLink> {
    let (applied, _) = mpsc::channel();
    ConfigurationLink::new(SentConfiguration {
        configuration: shared.current_configuration.get(),
        applied,
        missing: MissingReports::none(&shared.unapplied_configurations),
    })
}

pub(super) struct ConfigurationPublication {
    shared: Arc<Shared>,
    doorbells: Arc<[Doorbell]>,
    webhooks: WebhookChanges,
    last_link: Arc<ConfigurationLink>,
    /// Each core has this list, or will have it once it has applied all that it was sent.
    sent_apps: Arc<Apps>,
}

/// The list of a change whose new apps all cores know. Dropped, it leaves the configuration before in use.
#[must_use]
pub(super) struct PreparedApps(Arc<Apps>);

impl ConfigurationPublication {
    pub(super) fn new(
        shared: Arc<Shared>,
        doorbells: Arc<[Doorbell]>,
        webhooks: WebhookChanges,
        last_link: Arc<ConfigurationLink>,
    ) -> Self {
        let sent_apps = last_link.configuration.apps.clone();
        Self { shared, doorbells, webhooks, last_link, sent_apps }
    }

    pub(super) fn in_use(&self) -> Arc<RunningConfiguration> {
        self.shared.current_configuration.get()
    }

    /// What the cores are to be sent for these apps. Nothing is changed yet.
    ///
    /// # Errors
    /// A sentence for the operator: there are too many apps.
    pub(super) fn steps(&self, wanted: Vec<App>) -> Result<AppListSteps, String> {
        self.sent_apps.change_steps(wanted).map_err(|_| {
            format!(
                "this process has had {} apps, removed ones included, which is the most: take over with SIGUSR2, which \
                 keeps the connections, and try again",
                Apps::MAX
            )
        })
    }

    /// Step 1: all cores learn the new apps, and no look-up finds these.
    ///
    /// # Errors
    /// A sentence for the operator: a core does not answer. The configuration before is in use then.
    pub(super) fn prepare(&mut self, steps: AppListSteps) -> Result<PreparedApps, String> {
        let apps = Arc::new(steps.with_new_apps);
        self.send_to_cores(RunningConfiguration { apps, ..(*self.in_use()).clone() }.into())?;
        Ok(PreparedApps(Arc::new(steps.without_removed_apps)))
    }

    /// Step 2: the configuration is in use. Returns its number.
    pub(super) fn publish(&mut self, prepared: PreparedApps, config: &Config) -> u64 {
        let PreparedApps(apps) = prepared;
        debug_assert_eq!(
            apps.iter().len(),
            self.sent_apps.iter().len(),
            "no other change came between the steps"
        );
        let number = self.in_use().number + 1;
        let next = Arc::new(RunningConfiguration::new(number, apps, config));
        self.webhooks.apply(next.apps.clone());
        self.shared.current_configuration.set(next.clone());
        debug_assert_eq!(
            self.shared.unapplied_configurations.waiting.depth(),
            0,
            "all cores have applied step 1, so there is room for step 2"
        );
        if let Err(problem) = self.send_to_cores(next) {
            // They apply it as soon as they run again: it is in their list.
            tracing::warn!(event = "configuration_warning", "{problem}");
        }
        number
    }

    /// Returns when each core has reported that it has applied the configuration, or with an error after
    /// `APPLY_TIME_MAX`.
    fn send_to_cores(&mut self, configuration: Arc<RunningConfiguration>) -> Result<(), String> {
        let workers = self.shared.config.workers;
        let Some(missing) = self.shared.unapplied_configurations.try_add(workers) else {
            return Err(format!(
                "{UNAPPLIED_MAX} configurations wait for a worker that does not run, which is the limit: /live of the \
                 admin listener names it. Try again when it runs, or restart the server"
            ));
        };
        debug_assert!(
            keeps_indexes(&self.sent_apps, &configuration.apps),
            "an index names the same app for ever"
        );
        // From here on the cores get this list, even if one of them is late.
        self.sent_apps = configuration.apps.clone();
        // Of its own, so that a late report about the link before does not count.
        let (report, applied) = mpsc::channel();
        let next =
            ConfigurationLink::new(SentConfiguration { configuration, applied: report, missing });
        self.last_link.append(next.clone());
        self.last_link = next;
        wake_all(&self.doorbells);
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
        Ok(())
    }
}

/// Cores refuse a list that does not.
fn keeps_indexes(before: &Apps, next: &Apps) -> bool {
    next.iter().len() >= before.iter().len()
        && before.iter().zip(next.iter()).all(|(old, new)| old.id == new.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sample;

    fn app(id: &str) -> App {
        App { id: id.to_owned(), key: format!("key-{id}"), ..sample() }
    }

    /// The first change of the two fails after step 1.
    #[test]
    fn the_list_after_a_failed_change_keeps_the_indexes_that_the_cores_know() {
        let in_use = Apps::new(vec![app("1")]);
        let failed = in_use.change_steps(vec![app("1"), app("2")]).unwrap().with_new_apps;
        for wanted in [vec![app("1")], vec![app("1"), app("3")], vec![app("1"), app("2")]] {
            let steps = failed.change_steps(wanted.clone()).unwrap();
            assert!(keeps_indexes(&failed, &steps.with_new_apps));
            assert!(keeps_indexes(&steps.with_new_apps, &steps.without_removed_apps));
            for app in wanted {
                assert!(steps.without_removed_apps.by_id(&app.id).is_some(), "{}", app.id);
            }
        }
        let wrong = in_use.change_steps(vec![app("1"), app("3")]).unwrap().with_new_apps;
        assert!(!keeps_indexes(&failed, &wrong), "the second index was another app's");
        assert!(!keeps_indexes(&failed, &in_use), "the list became shorter");
    }
}
