//! Warnings about values that have no effect, or not the one that was probably meant. PURE.
//!
//! Owns no state. `merge.rs` merges the sources, and this file looks at the same sources for what the merge left out:
//! misspelled names, names that another name overrides, options of an app that is not there. Does not change a value.
//! No sentence contains a secret: they name options and files.
//!
//! Limit: `names.rs` bounds how many misspelled names are reported. Cost: once at the start and at each reload, a few
//! look-ups for each option.

use super::names;
use super::options::{OPTIONS, OptionId as Id, boolean};
use super::sources::{
    ENVIRONMENT_SOURCE, Sources, Unreadable, app_options, is_from_kubernetes, webhook_options,
    webhook_values,
};
use super::values::{Sourced, Values, is_null};

/// Warnings about what would be ignored silently otherwise. `orphans`: app options of the environment, if all apps are
/// in files, so that no app has them.
pub(super) fn without_effect(sources: &Sources, orphans: Option<&Values>) -> Vec<String> {
    let maps =
        [(&sources.environment, ENVIRONMENT_SOURCE), (&sources.dotenv, sources.dotenv_name())];
    let given = maps.into_iter().flat_map(|(map, source)| {
        map.iter().map(move |(name, value)| names::NamedValue { name, value, source })
    });
    let mut warnings = names::warnings(given);
    for (map, source) in maps {
        for option in OPTIONS {
            let given = option.environment.iter().filter_map(|name| Some((name, map.get(*name)?)));
            let mut given = given.filter(|(_, value)| !is_null(value));
            let Some((winner, value)) = given.next() else { continue };
            let ignored = given.filter(|(_, other)| *other != value);
            warnings.extend(ignored.map(|(name, _)| {
                format!(
                    "{name} ({source}) is ignored, because {winner} is set too and has precedence"
                )
            }));
            if is_from_kubernetes(option, value) {
                warnings.push(format!(
                    "{winner} ({source}) is ignored: Kubernetes sets it to a URL for a service of that name \
                     (enableServiceLinks: false turns that off); give the port to listen on with --port"
                ));
            }
        }
    }
    let webhooks = webhook_values(sources);
    let of_webhooks: Vec<&Sourced> =
        webhook_options().filter_map(|option| webhooks.get(option.id)).collect();
    if webhooks.get(Id::WebhookUrl).is_none() {
        warnings.extend(of_webhooks.iter().map(|given| {
            format!("{} has no effect: RINGVERB_WEBHOOK_URL is not set", given.source)
        }));
    }
    let given = app_options().filter_map(|option| orphans?.get(option.id));
    let given = given.filter(|given| !given.is_default());
    let of_webhooks = of_webhooks
        .into_iter()
        .filter(|_| orphans.is_some() && webhooks.get(Id::WebhookUrl).is_some());
    warnings.extend(given.chain(of_webhooks).map(|given| {
        format!(
            "{} has no effect: it belongs to the app of REVERB_APP_KEY, and all apps are in {}",
            given.source,
            sources.toml_name()
        )
    }));
    warnings
}

/// A warning that a command is about another server than the service of this host, whose configuration cannot be read.
pub(super) fn unreadable_service_file_warning(sources: &Sources) -> Option<String> {
    let (path, why) = sources.files.unreadable.as_ref()?;
    let (why, remedy) = match why {
        Unreadable::Denied => ("this user may not read it".to_owned(), "use sudo"),
        Unreadable::NotRegular => {
            ("it is not a regular file".to_owned(), "put a file in its place")
        }
        Unreadable::Broken(error) => {
            (format!("it cannot be read ({error})"), "mend the link or the file")
        }
    };
    Some(format!(
        "{path}, the configuration of this host's service, is not used, because {why}: for that server {remedy}, for \
         another one use a folder with its .env or ringverb.toml"
    ))
}

/// An app that is switched off answers no client and no backend, which looks like a fault of the server.
pub(super) fn disabled_app_warning(app: &Values) -> Option<String> {
    let given = app.get(Id::AppEnabled).filter(|given| boolean(&given.value) == Some(false))?;
    let name = match app.get(Id::AppId) {
        Some(id) => format!("app {}", id.value),
        None => "the development app".to_owned(),
    };
    Some(format!(
        "{name} is disabled ({}={}): its clients get 4003, its backend 403",
        given.name(),
        given.value
    ))
}

/// The names of other Pusher servers are no configuration of this one, and without any the server invents an app.
pub(super) fn pusher_names_warning(sources: &Sources) -> Option<String> {
    let maps =
        [(&sources.environment, ENVIRONMENT_SOURCE), (&sources.dotenv, sources.dotenv_name())];
    let mut found = maps.into_iter().filter(|(map, _)| {
        ["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"]
            .iter()
            .all(|name| map.get(*name).is_some_and(|value| !is_null(value)))
    });
    found.next().map(|(_, source)| {
        format!(
            "{source} has PUSHER_APP_ID, PUSHER_APP_KEY and PUSHER_APP_SECRET, which are not read: set REVERB_APP_ID, \
             REVERB_APP_KEY and REVERB_APP_SECRET to serve that app"
        )
    })
}
