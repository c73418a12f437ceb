//! Merges the sources into one value per option: flags > environment > `.env` > `ringverb.toml` > defaults.
//!
//! Values stay text here and remember where they came from; `validate` reads them. `Sources::gather` reads the files
//! and the environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::options::{OptionId as Id, OptionSpec, Scope, boolean, of_scope};
use super::reverb_php::{Effective, ReverbPhp};
use super::toml_file::{self, AppTexts};
use super::warnings::{disabled, former_keys, names_of_pusher, without_effect};
use super::{dotenv, names, public_side};

/// The sources as they were found. Tests fill it by hand.
/// No `Debug`: the environment has other programs' secrets, too.
#[derive(Clone, Default)]
pub struct Sources {
    pub flags: HashMap<Id, String>,
    pub environment: HashMap<String, String>,
    pub dotenv: HashMap<String, String>,
    pub toml: toml::Table,
    /// Names of the files in messages, if they are not the default ones.
    pub toml_name: Option<String>,
    pub dotenv_name: Option<String>,
    /// `config/reverb.php` beside `.env`. Nothing of it counts; what is written there by hand causes warnings.
    pub reverb_php: Option<ReverbPhp>,
    pub files: Files,
}

/// Where the configuration was looked for, for the start message.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The working directory.
    pub folder: String,
    /// The files that were read, as they were named.
    pub read: Vec<String>,
}

/// A value and its source, for messages.
#[derive(Clone)]
pub struct Sourced {
    pub value: String,
    pub source: String,
}

/// Without the value, which may be a secret.
impl fmt::Debug for Sourced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sourced({})", self.source)
    }
}

/// All values of one scope; unset options without a default are absent.
#[derive(Clone, Debug, Default)]
pub struct Values {
    given: HashMap<Id, Sourced>,
    /// Of an app: one for each endpoint.
    webhooks: Vec<Values>,
}

/// The values of all sources, not checked yet.
#[derive(Debug)]
pub struct Merged {
    pub server: Values,
    pub apps: Vec<Values>,
    /// App options without an app: what an app of development mode gets.
    pub development: Values,
    /// Where the apps came from, for the start message.
    pub source: String,
    /// `NO_COLOR` is not set (no-color.org).
    pub color: bool,
    pub files: Files,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    /// Values of `config/reverb.php` that are not read. They concern the server, and not the commands that speak to it.
    pub migration_warnings: Vec<String>,
}

impl Sources {
    /// Reads the files and the process environment. A file that was named must be there; a default one need not.
    /// `laravel_env` is artisan's `--env`.
    ///
    /// # Errors
    /// One sentence per mistake in a file.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn gather(
        flags: HashMap<Id, String>,
        toml_file: Option<&Path>,
        env_file: Option<&Path>,
        laravel_env: Option<&str>,
    ) -> Result<Self, Vec<String>> {
        // Text that is no UTF-8 is somebody else's, or a wrong value that is reported as one.
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let environment: HashMap<String, String> =
            std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let mut files = Files::here();
        let toml = files.read(toml_file, TOML_FILE).and_then(|bytes| {
            toml_file::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|problem| vec![format!("{}: {problem}", name_of(toml_file, TOML_FILE))])
        });
        let own = environment_file(env_file, laravel_env, environment.get("APP_ENV"));
        let env_file = env_file.or(own.as_deref());
        let reverb_php = ReverbPhp::beside(env_file.unwrap_or(Path::new(ENV_FILE)));
        let dotenv = files.read(env_file, ENV_FILE).and_then(|bytes| {
            let name = name_of(env_file, ENV_FILE);
            let named = |problem| format!("{name}: {problem}");
            dotenv::parse(&bytes, &environment)
                .map_err(|problems| problems.into_iter().map(named).collect())
        });
        match (toml, dotenv) {
            (Ok(toml), Ok(dotenv)) => Ok(Self {
                flags,
                environment,
                dotenv,
                toml,
                toml_name: toml_file.map(|path| path.display().to_string()),
                dotenv_name: env_file.map(|path| path.display().to_string()),
                reverb_php,
                files,
            }),
            (toml, dotenv) => Err(toml.err().into_iter().chain(dotenv.err()).flatten().collect()),
        }
    }

    pub(super) fn toml_name(&self) -> &str {
        self.toml_name.as_deref().unwrap_or(TOML_FILE)
    }

    pub(super) fn dotenv_name(&self) -> &str {
        self.dotenv_name.as_deref().unwrap_or(ENV_FILE)
    }
}

/// Laravel reads `.env.NAME` instead of `.env` where there is such a file, for `--env=NAME` or for `APP_ENV` in the
/// real environment.
fn environment_file(
    named: Option<&Path>,
    laravel_env: Option<&str>,
    app_env: Option<&String>,
) -> Option<PathBuf> {
    let app_env = app_env.map(|name| dotenv::env(name));
    // What PHP takes for true.
    let app_env = app_env.as_deref().filter(|name| !matches!(*name, "" | "0" | "false"));
    // PHP writes true as "1".
    let app_env = app_env.map(|name| if name == "true" { "1" } else { name });
    let names = laravel_env.into_iter().chain(app_env).filter(|_| named.is_none());
    let mut files = names.map(|name| PathBuf::from(format!("{ENV_FILE}.{name}")));
    files.find(|file| file.is_file())
}

const TOML_FILE: &str = "ringverb.toml";
const ENV_FILE: &str = ".env";
/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;

fn name_of(named: Option<&Path>, default: &str) -> String {
    named.map_or_else(|| default.to_owned(), |path| path.display().to_string())
}

impl Files {
    fn here() -> Self {
        let folder = std::env::current_dir().map(|folder| folder.display().to_string());
        Self { folder: folder.unwrap_or_default(), read: Vec::new() }
    }

    fn read(&mut self, named: Option<&Path>, default: &str) -> Result<Vec<u8>, Vec<String>> {
        match read_bounded(named.unwrap_or(Path::new(default)), named.is_some()) {
            Ok(bytes) => {
                self.read.push(name_of(named, default));
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => Ok(Vec::new()),
            Err(error) => Err(vec![format!("cannot read {}: {error}", name_of(named, default))]),
        }
    }
}

/// Reads a file up to `FILE_BYTES_MAX`. Only a file that was named may be a pipe, as a shell makes for `<(command)`,
/// or a device: a pipe that lies there would hold up the start until somebody writes to it.
fn read_bounded(path: &Path, is_named: bool) -> io::Result<Vec<u8>> {
    if !is_named && !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Laravel's `env()` reads these as nothing.
pub(super) fn is_null(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "" | "null" | "(null)" | "empty" | "(empty)")
}

const CREDENTIALS: [Id; 3] = [Id::AppId, Id::AppKey, Id::AppSecret];
/// Source of a value that is not given.
const DEFAULT: &str = "default";

impl Sourced {
    /// The value is not given.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.source == DEFAULT
    }

    /// The option as it was set, for messages: the name in the environment or in a file, or the flag.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.rsplit_once(": ").map_or(self.source.as_str(), |(_, name)| name)
    }

    /// Where it was set, in brackets, to be read after the value; nothing for a flag.
    #[must_use]
    pub fn place(&self) -> String {
        self.source.rsplit_once(": ").map_or_else(String::new, |(place, _)| format!(" ({place})"))
    }

    fn is_from(&self, file: &str) -> bool {
        self.source.strip_prefix(file).is_some_and(|rest| rest.starts_with(':'))
    }
}

impl Values {
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Sourced> {
        self.given.get(&id)
    }

    /// The values of an app's webhooks; each has a `url`.
    #[must_use]
    pub fn webhooks(&self) -> &[Self] {
        &self.webhooks
    }

    /// Another form of the value from the same source; `None` puts the default there.
    pub(super) fn replace(&mut self, id: Id, value: Option<String>) {
        match (value, self.given.get_mut(&id)) {
            (Some(value), Some(given)) => given.value = value,
            (Some(_), None) => {}
            (None, _) => {
                self.given.remove(&id);
                defaults(self, id.spec());
            }
        }
    }

    fn set(&mut self, id: Id, value: &str, source: String) {
        // Blanks are part of a secret, and of nothing else.
        let value = if id.spec().accepts.kind.is_exact() { value } else { value.trim() };
        if !is_null(value) {
            self.given.insert(id, Sourced { value: value.to_owned(), source });
        }
    }

    /// A value as Laravel's `env()` reads it. A word that it reads as a boolean is one in text, too: PHP writes `true`
    /// as "1" and `false` as "".
    fn set_env(&mut self, id: Id, value: &str, source: String) {
        let value = dotenv::env(value);
        match (&*value, id.spec().accepts.kind.is_exact()) {
            ("true", true) => self.set(id, "1", source),
            ("false", true) => {}
            (value, _) => self.set(id, value, source),
        }
    }

    /// Takes every value that somebody gave in `stronger`.
    fn overlay(&mut self, stronger: &Self) {
        let given = stronger.given.iter().filter(|(_, given)| !given.is_default());
        self.given.extend(given.map(|(key, given)| (*key, given.clone())));
        if !stronger.webhooks.is_empty() {
            self.webhooks.clone_from(&stronger.webhooks);
        }
    }
}

/// Merges the sources.
#[must_use]
pub fn merge(sources: &Sources) -> Merged {
    let mut problems = Vec::new();
    let (toml_server, toml_apps) =
        toml_file::flatten(&sources.toml, sources.toml_name(), &mut problems);
    let mut server = Values::default();
    for option in of_scope(Scope::Server) {
        defaults(&mut server, option);
        if let Some((key, value)) = toml_server.of(option) {
            let source = format!("{}: server.{key}", sources.toml_name());
            server.set(option.id, value, source);
        }
        from_environment(&mut server, option, sources);
        if let Some(value) = sources.flags.get(&option.id) {
            server.set(option.id, value, format!("--{}", option.key.replace('_', "-")));
        }
    }
    let mut warnings = Vec::new();
    public_side::normalize(&mut server, &mut warnings);
    warnings.extend(public_side::tls_on_the_plain_port(&server));
    if server.get(Id::ScalingEnabled).and_then(|given| boolean(&given.value)) == Some(true) {
        public_side::redis_port(&mut server, &mut warnings);
    }
    let own = own_app(sources, &mut problems);
    let (apps, source) = merge_apps(sources, &toml_apps, own.as_ref(), &mut problems);
    let is_orphaned = own.is_none() && !apps.is_empty();
    let development = own.map_or_else(|| app_values(sources), |_| Values::default());
    warnings.extend(without_effect(sources, is_orphaned.then_some(&development)));
    if apps.is_empty() {
        warnings.extend(names_of_pusher(sources));
        warnings.extend(disabled(&development));
    }
    warnings.extend(apps.iter().filter_map(disabled));
    warnings.extend([&server, &development].into_iter().chain(&apps).flat_map(former_keys));
    let mut migration_warnings = Vec::new();
    if let Some(php) = &sources.reverb_php {
        let app = apps.first().unwrap_or(&development);
        let get = |name: &str| sources.environment.get(name).or_else(|| sources.dotenv.get(name));
        let env = |name: &str| get(name).cloned();
        migration_warnings.extend(php.warnings(&Effective {
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

pub(super) fn app_options() -> impl Iterator<Item = &'static OptionSpec> {
    of_scope(Scope::App)
}

pub(super) fn webhook_options() -> impl Iterator<Item = &'static OptionSpec> {
    of_scope(Scope::Webhook)
}

/// The app options of the environment and `.env`.
fn app_values(sources: &Sources) -> Values {
    let mut values = Values::default();
    for option in app_options() {
        defaults(&mut values, option);
        from_environment(&mut values, option, sources);
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
        values.webhooks.push(webhook);
    }
    values
}

/// The webhook options of the environment and `.env`: they hold for each of the URLs.
pub(super) fn webhook_values(sources: &Sources) -> Values {
    let mut values = Values::default();
    for option in webhook_options() {
        from_environment(&mut values, option, sources);
    }
    values
}

/// The app of the environment or `.env`, if there is one.
fn own_app(sources: &Sources, problems: &mut Vec<String>) -> Option<Values> {
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
    tables: &[AppTexts],
    own: Option<&Values>,
    problems: &mut Vec<String>,
) -> (Vec<Values>, String) {
    let file = sources.toml_name();
    let mut apps: Vec<Values> = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let mut values = Values::default();
        for option in app_options() {
            defaults(&mut values, option);
            if let Some((key, value)) = table.texts.of(option) {
                values.set(option.id, value, format!("{file}: apps[{index}].{key}"));
            }
        }
        for (at, texts) in table.webhooks.iter().enumerate() {
            let mut webhook = Values::default();
            for option in webhook_options() {
                let Some((key, value)) = texts.of(option) else { continue };
                let source = format!("{file}: apps[{index}].webhooks[{at}].{key}");
                webhook.set(option.id, value, source);
            }
            if webhook.get(Id::WebhookUrl).is_none() {
                let app = described(&values, index);
                problems.push(format!("{file}: webhooks[{at}] of {app} has no url"));
                continue;
            }
            values.webhooks.push(webhook);
        }
        for id in CREDENTIALS.iter().filter(|id| values.get(**id).is_none()) {
            let key = id.spec().key;
            problems.push(format!("{file}: {} has no {key}", described(&values, index)));
        }
        apps.push(values);
    }
    let mut source = if apps.is_empty() { "development mode" } else { file }.to_owned();
    if let Some(own) = own {
        let from_dotenv = own.get(Id::AppKey).is_some_and(|key| key.is_from(sources.dotenv_name()));
        source = if from_dotenv { sources.dotenv_name() } else { "environment" }.to_owned();
        if !apps.is_empty() {
            source = format!("{source} and {file}");
        }
        // The environment wins over the file, one option at a time.
        let id = |values: &Values| values.get(Id::AppId).map(|id| id.value.clone());
        let mut first = own.clone();
        if let Some(at) = apps.iter().position(|app| id(app) == id(own)) {
            first = apps.remove(at);
            first.overlay(own);
        }
        apps.insert(0, first);
    }
    (apps, source)
}

/// An app of the file, by its place and its id.
fn described(values: &Values, index: usize) -> String {
    match values.get(Id::AppId) {
        Some(id) => format!("apps[{index}] (id {})", id.value),
        None => format!("apps[{index}]"),
    }
}

fn defaults(values: &mut Values, option: &OptionSpec) {
    values.set(option.id, option.default, DEFAULT.to_owned());
}

fn from_environment(values: &mut Values, option: &OptionSpec, sources: &Sources) {
    let maps = [
        (&sources.dotenv, sources.dotenv_name()),
        // The stronger one last.
        (&sources.environment, ENVIRONMENT),
    ];
    for (map, source) in maps {
        // The first name wins, so the aliases are tried before it.
        for name in option.environment.iter().rev() {
            if let Some(value) = map.get(*name)
                && !is_from_kubernetes(option, value)
            {
                values.set_env(option.id, value, format!("{source}: {name}"));
            }
        }
    }
}

pub(super) const ENVIRONMENT: &str = "environment";

/// Kubernetes sets `REVERB_SERVER_PORT=tcp://...` in the pods of a namespace with a service named `reverb-server`. That
/// is the service's port, and not the one to listen on.
pub(super) fn is_from_kubernetes(option: &OptionSpec, value: &str) -> bool {
    option.id == Id::Port && names::service_port(value).is_some()
}
