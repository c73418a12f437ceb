//! Merges the sources into one value per option: flags > environment > `.env` > `ringverb.toml` > defaults. PURE. The
//! file of `--laravel-config` stands between `.env` and `ringverb.toml`, and replaces the names that PHP reads.
//!
//! Owns that precedence. Inputs: `Sources`, as `load.rs` found them. Outputs: `Merged`, text that `validate.rs` checks,
//! with problems and warnings; each value has its source. The app of the environment wins over the app of the file with
//! the same id, one option at a time; the other apps of the file are as they are written there. Does not judge a value.
//!
//! Limit: none of its own; the lists grow with the files and the environment, which `load.rs` bounds. Cost: once at the
//! start and at each reload, one look-up for each option, source and app.

use super::laravel::LaravelConfig;
use super::options::{OptionId as Id, OptionSpec, Scope, boolean, of_scope};
use super::public_side;
use super::reverb_php::EffectiveValues;
use super::sources::{Files, Sources};
use super::sources::{app_options, set_from_environment, webhook_options, webhook_values};
use super::toml_file::{self, AppTexts, Texts};
use super::values::{Values, is_null, set_default};
use super::warnings::{
    disabled_app_warning, pusher_names_warning, unreadable_service_file_warning, without_effect,
};

/// The values of all sources, with their sources. Nothing is checked yet.
#[derive(Debug)]
pub struct Merged {
    pub server: Values,
    pub apps: Vec<Values>,
    /// App options that are given without an app: an app of development mode gets them.
    pub development: Values,
    /// Names of the sources of the apps, for the start message.
    pub source: String,
    /// Color is not forbidden: `NO_COLOR` is not set (no-color.org).
    pub color: bool,
    pub files: Files,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    /// Values of `config/reverb.php` that are not read. They concern the server, and not the commands that speak to it.
    pub migration_warnings: Vec<String>,
}

const CREDENTIALS: [Id; 3] = [Id::AppId, Id::AppKey, Id::AppSecret];

#[must_use]
pub fn merge(sources: &Sources) -> Merged {
    let mut problems = Vec::new();
    let (toml_server, toml_apps) =
        toml_file::flatten(&sources.toml, sources.toml_name(), &mut problems);
    let mut server = Values::default();
    for option in of_scope(Scope::Server) {
        set_server_value(&mut server, option, &toml_server, sources);
    }
    set_default_certificate(sources, &mut server);
    let mut warnings = Vec::new();
    public_side::normalize(&mut server, &mut warnings);
    warnings.extend(public_side::tls_on_plain_port_warning(&server));
    if server.get(Id::ScalingEnabled).and_then(|given| boolean(&given.value)) == Some(true) {
        public_side::replace_redis_port_url(&mut server, &mut warnings);
    }
    let env_app = app_of_environment(sources, &mut problems);
    let changeable = changeable_apps(sources, &mut problems);
    let mut files = vec![(sources.toml_name(), &toml_apps)];
    if let (Some((name, _)), false) = (&sources.apps_file, changeable.is_empty()) {
        files.push((name.as_str(), &changeable));
    }
    let (mut apps, mut source) = merge_apps(sources, &files, env_app.as_ref(), &mut problems);
    if let Some(laravel) = &sources.laravel {
        apps = merge_laravel(sources, laravel, apps, &mut problems);
        source.clone_from(&laravel.name);
        warnings.extend(laravel.warnings.iter().cloned());
    }
    let is_orphaned = sources.laravel.is_none() && env_app.is_none() && !apps.is_empty();
    let development = env_app.map_or_else(|| app_values(sources), |_| Values::default());
    warnings.extend(without_effect(sources, is_orphaned.then_some(&development)));
    if apps.is_empty() {
        warnings.extend(pusher_names_warning(sources));
        warnings.extend(disabled_app_warning(&development));
    }
    warnings.extend(apps.iter().filter_map(disabled_app_warning));
    warnings.extend(unreadable_service_file_warning(sources));
    let mut migration_warnings = Vec::new();
    if let Some(php) = &sources.reverb_php {
        let app = apps.first().unwrap_or(&development);
        let get = |name: &str| sources.environment.get(name).or_else(|| sources.dotenv.get(name));
        let env = |name: &str| get(name).cloned();
        migration_warnings.extend(php.warnings(&EffectiveValues {
            server: &server,
            app,
            apps: &apps,
            env: &env,
        }));
    }
    let color = sources.environment.get("NO_COLOR").is_none_or(String::is_empty);
    let files = sources.files.clone();
    Merged {
        server,
        apps,
        development,
        source,
        color,
        files,
        problems,
        warnings,
        migration_warnings,
    }
}

fn set_server_value(
    server: &mut Values,
    option: &'static OptionSpec,
    toml_server: &Texts,
    sources: &Sources,
) {
    set_default(server, option);
    if let Some(value) = toml_server.of(option) {
        server.set(option.id, value, format!("{}: server.{}", sources.toml_name(), option.key));
    }
    if let Some(laravel) = &sources.laravel
        && let Some(value) = laravel.server.of(option)
    {
        server.set(option.id, value, format!("{}: server.{}", laravel.name, option.key));
    }
    set_from_environment(server, option, sources);
    if let Some(value) = sources.flags.get(&option.id) {
        server.set(option.id, value, format!("--{}", option.key.replace('_', "-")));
    }
}

/// The path in `RINGVERB_APPS_FILE`, by the precedence of all options. The file is a source itself, so its path is
/// needed before the merge.
pub(super) fn apps_file_path(sources: &Sources) -> Option<String> {
    let (toml_server, _) = toml_file::flatten(&sources.toml, sources.toml_name(), &mut Vec::new());
    let mut server = Values::default();
    set_server_value(&mut server, Id::AppsFile.spec(), &toml_server, sources);
    server.get(Id::AppsFile).map(|given| given.value.clone())
}

/// The apps of the apps file. A `[server]` table in it is a problem.
fn changeable_apps(sources: &Sources, problems: &mut Vec<String>) -> Vec<AppTexts> {
    let Some((name, table)) = &sources.apps_file else { return Vec::new() };
    if table.contains_key("server") {
        problems.push(format!(
            "{name} has a [server] table, but the file of RINGVERB_APPS_FILE has apps only: move it to {}",
            sources.toml_name()
        ));
    }
    toml_file::flatten(table, name, problems).1
}

/// Sets a certificate where no option names one: as in Reverb that of `options.tls`, or else the one that Herd or Valet
/// has made for `REVERB_HOST`.
fn set_default_certificate(sources: &Sources, server: &mut Values) {
    if [Id::TlsCert, Id::TlsKey].iter().any(|id| server.get(*id).is_some()) {
        return;
    }
    let get = |name: &str| sources.environment.get(name).or_else(|| sources.dotenv.get(name));
    let env = |name: &str| get(name).cloned();
    let none = Values::default();
    let effective = EffectiveValues { server, app: &none, apps: &[], env: &env };
    let of_php = sources.reverb_php.as_ref().and_then(|php| php.certificate(&effective));
    let local = || sources.local_certificate.clone().map(|(files, source)| (files, source, None));
    let Some(([certificate, key], source, passphrase)) = of_php.or_else(local) else {
        return;
    };
    if let Some(passphrase) = passphrase.filter(|_| server.get(Id::TlsKeyPassphrase).is_none()) {
        server.set(Id::TlsKeyPassphrase, &passphrase, source.replace("local_cert", "passphrase"));
    }
    server.set(Id::TlsCert, &certificate, source.clone());
    server.set(Id::TlsKey, &key, source.replace("local_cert", "local_pk"));
}

/// The app options of the environment and `.env`, with one endpoint for each URL of `RINGVERB_WEBHOOK_URL`.
fn app_values(sources: &Sources) -> Values {
    let mut values = Values::default();
    for option in app_options() {
        set_default(&mut values, option);
        set_from_environment(&mut values, option, sources);
    }
    let all = webhook_values(sources);
    let urls = all.get(Id::WebhookUrl).cloned();
    for url in urls.iter().flat_map(|urls| urls.value.split(',')).filter(|url| !is_null(url.trim()))
    {
        let mut webhook = all.clone();
        webhook.set(
            Id::WebhookUrl,
            url,
            urls.as_ref().map(|urls| urls.source.clone()).unwrap_or_default(),
        );
        values.push_webhook(webhook);
    }
    values
}

/// The app of the environment or `.env`. `None` if none of its credentials is set; if only some are, the others are
/// problems.
fn app_of_environment(sources: &Sources, problems: &mut Vec<String>) -> Option<Values> {
    let values = app_values(sources);
    let missing = CREDENTIALS.into_iter().filter(|id| values.get(*id).is_none());
    let missing: Vec<Id> = missing.collect();
    if missing.len() == 3 {
        return None;
    }
    for id in missing {
        let name = id.spec().environment[0];
        problems.push(format!(
            "{name} is not set, but other credentials of the app are: an app needs REVERB_APP_ID, \
             REVERB_APP_KEY and REVERB_APP_SECRET"
        ));
    }
    Some(values)
}

fn merge_apps(
    sources: &Sources,
    files: &[(&str, &Vec<AppTexts>)],
    env_app: Option<&Values>,
    problems: &mut Vec<String>,
) -> (Vec<Values>, String) {
    let mut apps: Vec<Values> = Vec::new();
    for (file, tables) in files {
        apps.append(&mut texts_to_apps(tables, file, problems));
    }
    let named = files.iter().filter(|(_, tables)| !tables.is_empty()).map(|(file, _)| *file);
    let named = named.collect::<Vec<_>>().join(" and ");
    let mut source = if apps.is_empty() { "development mode" } else { &named }.to_owned();
    if let Some(env_app) = env_app {
        let from_dotenv =
            env_app.get(Id::AppKey).is_some_and(|key| key.is_from(sources.dotenv_name()));
        source = if from_dotenv { sources.dotenv_name() } else { "environment" }.to_owned();
        if !apps.is_empty() {
            source = format!("{source} and {named}");
        }
        // The environment wins over the file, one option at a time.
        let id = |values: &Values| values.get(Id::AppId).map(|id| id.value.clone());
        let mut first = env_app.clone();
        if let Some(at) = apps.iter().position(|app| id(app) == id(env_app)) {
            first = apps.remove(at);
            first.override_with(env_app);
        }
        apps.insert(0, first);
    }
    (apps, source)
}

fn texts_to_apps(tables: &[AppTexts], file: &str, problems: &mut Vec<String>) -> Vec<Values> {
    let mut apps: Vec<Values> = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let mut values = Values::default();
        for option in app_options() {
            set_default(&mut values, option);
            if let Some(value) = table.texts.of(option) {
                values.set(option.id, value, format!("{file}: apps[{index}].{}", option.key));
            }
        }
        for (at, texts) in table.webhooks.iter().enumerate() {
            let mut webhook = Values::default();
            for option in webhook_options() {
                let Some(value) = texts.of(option) else { continue };
                let source = format!("{file}: apps[{index}].webhooks[{at}].{}", option.key);
                webhook.set(option.id, value, source);
            }
            if webhook.get(Id::WebhookUrl).is_none() {
                let app = app_by_place_and_id(&values, index);
                problems.push(format!("{file}: webhooks[{at}] of {app} has no url"));
                continue;
            }
            values.push_webhook(webhook);
        }
        for id in CREDENTIALS.iter().filter(|id| values.get(**id).is_none()) {
            let key = id.spec().key;
            problems.push(format!("{file}: {} has no {key}", app_by_place_and_id(&values, index)));
        }
        apps.push(values);
    }
    apps
}

/// The apps of `--laravel-config` come first. They win over apps of `ringverb.toml` with the same id. The options that
/// only this server has, and the environment gives, are those of the app of `REVERB_APP_ID`, or of the first one.
fn merge_laravel(
    sources: &Sources,
    laravel: &LaravelConfig,
    mut others: Vec<Values>,
    problems: &mut Vec<String>,
) -> Vec<Values> {
    let id = |values: &Values| values.get(Id::AppId).map(|id| id.value.clone());
    let mut apps = texts_to_apps(&laravel.apps, &laravel.name, problems);
    for app in &mut apps {
        if let Some(at) = others.iter().position(|other| id(other) == id(app)) {
            let mut merged = others.remove(at);
            merged.override_with(app);
            *app = merged;
        }
    }
    let name = Id::AppId.spec().environment[0];
    let env_id = sources.environment.get(name).or_else(|| sources.dotenv.get(name));
    let place =
        env_id.and_then(|env_id| apps.iter().position(|app| id(app).as_ref() == Some(env_id)));
    if let Some(app) = apps.get_mut(place.unwrap_or(0)) {
        app.override_with(&app_values(sources));
    }
    apps.append(&mut others);
    apps
}

/// An app of a file as messages name it: by its place, and by its id if it has one.
fn app_by_place_and_id(values: &Values, index: usize) -> String {
    match values.get(Id::AppId) {
        Some(id) => format!("apps[{index}] (id {})", id.value),
        None => format!("apps[{index}]"),
    }
}
