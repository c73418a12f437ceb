//! The configuration in use as its sources have it, which a new one is checked against and compared with.
//!
//! Owns where the configuration came from, the values of its options and apps, and the certificates that are read. What
//! cannot change while the server runs keeps its value here. Input: sources. Output: a configuration in which nothing
//! is wrong, or one sentence for each mistake. Does not apply anything: cores have their own copy (`publication.rs`).
//! Limits: `Apps::MAX` apps; one file of `config::FILE_BYTES_MAX` bytes. Cost: linear in the number of apps, and one
//! read of each certificate that changes.

use super::app_table;
use super::origin::Origin;
use super::outcome::{Applied, ChangeOutcome};
use crate::app::Apps;
use crate::config::admin::AdminPlace;
use crate::config::options::OptionId;
use crate::config::validate::build_config;
use crate::config::{Config, Merged, Sources, TlsOptions, Values, merge};
use crate::running_configuration::RunningConfiguration;
use crate::server::certificates::Certificates;

pub(super) struct ConfigurationInUse {
    /// A reload reads the same places again.
    pub(super) origin: Origin,
    /// Those that need a take-over to change have their old values.
    server: Values,
    pub(super) apps: Vec<Values>,
    pub(super) is_development: bool,
    /// The certificates that the task that watches them has received last. `None` without TLS.
    tls: Option<TlsOptions>,
    /// Of the listener that runs, whatever a new configuration has.
    admin_place: AdminPlace,
}

/// A configuration in which nothing is wrong, so that only the disk or a core can still refuse it.
pub(super) struct CheckedChange {
    pub(super) sources: Sources,
    pub(super) merged: Merged,
    pub(super) config: Config,
}

impl ConfigurationInUse {
    /// `config`: that of the start, which was made from the sources of `origin`.
    pub(super) fn new(origin: Origin, config: &Config) -> Self {
        let Merged { server, apps, .. } = merge(&origin.sources);
        Self {
            origin,
            server,
            apps,
            is_development: config.development,
            tls: config.tls.clone(),
            admin_place: config.admin.place.clone(),
        }
    }

    pub(super) fn is_same(&self, sources: &Sources) -> bool {
        let Merged { server, apps, .. } = merge(sources);
        let same_apps = self.apps.iter().zip(&apps).all(|(before, now)| before.is_same(now));
        let is_same_server = self.server.differing_options(&server).is_empty();
        is_same_server && self.apps.len() == apps.len() && same_apps
    }

    pub(super) fn has_app(&self, id: &str) -> bool {
        self.apps.iter().any(|values| app_table::id_of(values) == id)
    }

    pub(super) fn list_apps(&self, running: &RunningConfiguration) -> ChangeOutcome {
        let apps = self.apps.iter().map(|values| self.app_json(values, &running.apps));
        ChangeOutcome::apps(running.number, &apps.collect::<Vec<_>>())
    }

    pub(super) fn show_app(&self, id: &str, running: &RunningConfiguration) -> ChangeOutcome {
        match self.apps.iter().find(|values| app_table::id_of(values) == id) {
            Some(values) => ChangeOutcome::app(200, &self.app_json(values, &running.apps)),
            None => ChangeOutcome::no_such_app(id),
        }
    }

    fn app_json(&self, values: &Values, apps: &Apps) -> serde_json::Value {
        let file = self.origin.sources.apps_file.as_ref().map(|(path, _)| path.as_str());
        app_table::app_as_json(values, apps, file)
    }

    /// Everything that can be wrong is checked before anything changes.
    pub(super) fn check(&self, sources: Sources) -> Result<CheckedChange, Vec<String>> {
        let merged = merge(&sources);
        let mut config = build_config(&merged, &self.origin.development)?;
        if config.development && !self.is_development {
            return Err(vec![
                "no app would be left, and a server that runs does not change to development mode: disable the last \
                 app instead, or stop the server"
                    .to_owned(),
            ]);
        }
        if let Some(problem) = missing_token(&self.admin_place, config.admin.token.is_some()) {
            return Err(vec![problem]);
        }
        if let Some(tls) = self.tls_to_read(&config).filter(|tls| self.tls.as_ref() != Some(tls)) {
            Certificates::check(&tls)?;
        }
        // `build_config` has limited their number.
        config.apps.truncate(Apps::MAX);
        Ok(CheckedChange { sources, merged, config })
    }

    /// The certificates, for the same ports as before. The secret of the session tickets stays as it was at the start.
    pub(super) fn tls_to_read(&self, config: &Config) -> Option<TlsOptions> {
        let (before, now) = (self.tls.as_ref()?, config.tls.as_ref()?);
        let ticket_secret = before.ticket_secret.clone();
        (before.port == now.port).then(|| TlsOptions { ticket_secret, ..now.clone() })
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The task that watches the certificates has received these.
    pub(super) fn set_tls(&mut self, tls: TlsOptions) {
        debug_assert!(self.has_tls(), "a listener with TLS appears at a start only");
        self.tls = Some(tls);
    }

    /// The task that watches the certificates reads the same files, logs it, and keeps the earlier ones.
    pub(super) fn unusable_certificates(&self) -> Vec<String> {
        self.tls.as_ref().and_then(|tls| Certificates::check(tls).err()).unwrap_or_default()
    }

    /// A new configuration is in use, and `applied` has what of it is not (`differences`).
    pub(super) fn adopt(
        &mut self,
        sources: Sources,
        merged: Merged,
        applied: &Applied,
        is_development: bool,
    ) {
        let mut server = merged.server;
        server.copy_options(&self.server, &applied.needs_takeover);
        (self.server, self.apps) = (server, merged.apps);
        self.is_development = is_development;
        self.origin.sources = sources;
    }

    /// Compares with the values in use, so it is called before `adopt`.
    pub(super) fn differences(&self, number: u64, now: &Merged, can_change_tls: bool) -> Applied {
        let is_changeable = |id: &OptionId| {
            let is_tls =
                matches!(id, OptionId::TlsCert | OptionId::TlsKey | OptionId::TlsKeyPassphrase);
            id.spec().changes_while_running() && (can_change_tls || !is_tls)
        };
        let differing = self.server.differing_options(&now.server);
        let (changed, needs_takeover) = differing.into_iter().partition(is_changeable);
        let find = |list: &[Values], id: &str| {
            list.iter().find(|values| app_table::id_of(values) == id).cloned()
        };
        let ids = |list: &[Values], is_meant: &dyn Fn(&Values) -> bool| {
            let meant = list.iter().filter(|values| is_meant(values));
            meant.map(|values| app_table::id_of(values).to_owned()).collect()
        };
        let (before, after) = (&self.apps, &now.apps);
        Applied {
            number,
            changed,
            needs_takeover,
            apps_added: ids(after, &|app| find(before, app_table::id_of(app)).is_none()),
            apps_removed: ids(before, &|app| find(after, app_table::id_of(app)).is_none()),
            apps_changed: ids(after, &|app| {
                find(before, app_table::id_of(app)).is_some_and(|old| !old.is_same(app))
            }),
            warnings: now.warnings.clone(),
            certificate_problems: Vec::new(),
        }
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
