//! Merges the sources into one value per option: flags > environment > `.env` > `ringverb.toml` > defaults.
//!
//! Values stay text here and remember where they came from; `validate` reads them. `Sources::gather` is the
//! only part of the configuration that touches the world.

use std::collections::HashMap;
use std::path::Path;

use super::options::{OPTIONS, OptionSpec, Scope};

/// Raw material, as found. Tests fill it by hand.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By option key of the server scope.
    pub flags: HashMap<String, String>,
    pub environment: HashMap<String, String>,
    pub dotenv: HashMap<String, String>,
    pub toml: toml::Table,
}

/// A value and its source, for messages.
#[derive(Clone, Debug)]
pub struct Sourced {
    pub value: String,
    pub source: String,
}

/// All values of one scope by option key; unset options without a default are absent.
#[derive(Clone, Debug, Default)]
pub struct Values(HashMap<&'static str, Sourced>);

/// What the sources say, not checked yet.
#[derive(Debug)]
pub struct Merged {
    pub server: Values,
    pub apps: Vec<Values>,
    /// App options without an app: what an app of development mode gets.
    pub development: Values,
    /// Where the apps came from, for the start message.
    pub source: String,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
}

impl Sources {
    /// Reads the files and the process environment. A file that was named must be there; a default one need not.
    ///
    /// # Errors
    /// One sentence per file that cannot be read.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn gather(
        flags: HashMap<String, String>,
        toml_file: Option<&Path>,
        env_file: Option<&Path>,
    ) -> Result<Self, Vec<String>> {
        match (read_toml(toml_file), read_dotenv(env_file)) {
            (Ok(toml), Ok(dotenv)) => {
                Ok(Self { flags, environment: std::env::vars().collect(), dotenv, toml })
            }
            (toml, dotenv) => Err(toml.err().into_iter().chain(dotenv.err()).collect()),
        }
    }
}

fn read_toml(file: Option<&Path>) -> Result<toml::Table, String> {
    let path = file.unwrap_or(Path::new("ringverb.toml"));
    match std::fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
            Ok(toml::Table::new())
        }
        Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
    }
}

/// Laravel's format: quotes, comments, `${NAME}`. The process environment is not changed.
fn read_dotenv(file: Option<&Path>) -> Result<HashMap<String, String>, String> {
    let path = file.unwrap_or(Path::new(".env"));
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
            return Ok(HashMap::new());
        }
        Err(error) => return Err(format!("{}: cannot be read: {error}", path.display())),
    };
    parse_dotenv(&text).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// Reads the text of a `.env` file.
///
/// # Errors
/// A sentence that names the line.
pub fn parse_dotenv(text: &[u8]) -> Result<HashMap<String, String>, String> {
    let mut values = HashMap::new();
    for item in dotenvy::from_read_iter(text) {
        let (name, value) = item.map_err(|error| match error {
            dotenvy::Error::LineParse(part, _) => {
                // The line may hold a secret, so only its number and name are shown.
                let text = String::from_utf8_lossy(text);
                let line = text.lines().enumerate().find(|(_, line)| line.contains(part.trim()));
                let (number, line) = line.unwrap_or_default();
                let name = line.split_once('=').map_or("", |(name, _)| name.trim());
                format!(
                    "line {} ({name}) is malformed; values with spaces or # want quotes",
                    number + 1
                )
            }
            other => other.to_string(),
        })?;
        values.insert(name, value);
    }
    Ok(values)
}

/// Laravel's `env()` reads these as nothing.
fn is_null(value: &str) -> bool {
    matches!(value.trim().to_lowercase().as_str(), "" | "null" | "(null)" | "empty" | "(empty)")
}

impl Values {
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Sourced> {
        self.0.get(key)
    }

    fn set(&mut self, key: &'static str, value: &str, source: String) {
        if !is_null(value) {
            self.0.insert(key, Sourced { value: value.trim().to_owned(), source });
        }
    }
}

/// Merges the sources.
#[must_use]
pub fn merge(sources: &Sources) -> Merged {
    let mut problems = Vec::new();
    let (toml_server, toml_apps) = flatten_toml(&sources.toml, &mut problems);
    let mut server = Values::default();
    for option in OPTIONS.iter().filter(|option| option.scope == Scope::Server) {
        defaults(&mut server, option);
        if let Some(value) = toml_server.get(option.key) {
            server.set(option.key, value, format!("ringverb.toml: {}", option.key));
        }
        from_environment(&mut server, option, sources);
        if let Some(value) = sources.flags.get(option.key) {
            server.set(option.key, value, format!("--{}", option.key));
        }
    }
    let own = own_app(sources, &mut problems);
    let (apps, source) = merge_apps(sources, &toml_apps, own.as_ref());
    let development = own.map_or_else(|| app_values(sources), |_| Values::default());
    Merged { server, apps, development, source, problems, warnings: warnings(sources) }
}

fn app_options() -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(|option| option.scope == Scope::App)
}

/// The app options of the environment and `.env`.
fn app_values(sources: &Sources) -> Values {
    let mut values = Values::default();
    for option in app_options() {
        defaults(&mut values, option);
        from_environment(&mut values, option, sources);
    }
    values
}

/// The app of the environment or `.env`, if there is one.
fn own_app(sources: &Sources, problems: &mut Vec<String>) -> Option<Values> {
    let values = app_values(sources);
    let missing = ["id", "key", "secret"].into_iter().filter(|key| values.get(key).is_none());
    let missing: Vec<&str> = missing.collect();
    if missing.len() == 3 {
        return None;
    }
    for key in missing {
        let name = super::options::find(Scope::App, key).environment[0];
        problems.push(format!(
            "{name} is not set, but the app's other names are: an app needs REVERB_APP_ID, \
             REVERB_APP_KEY and REVERB_APP_SECRET"
        ));
    }
    Some(values)
}

fn merge_apps(
    sources: &Sources,
    toml_apps: &[HashMap<String, String>],
    own: Option<&Values>,
) -> (Vec<Values>, String) {
    let mut apps: Vec<Values> = Vec::new();
    for (index, table) in toml_apps.iter().enumerate() {
        let mut values = Values::default();
        for option in app_options() {
            defaults(&mut values, option);
            if let Some(value) = table.get(option.key) {
                values.set(
                    option.key,
                    value,
                    format!("ringverb.toml: apps[{index}].{}", option.key),
                );
            }
        }
        apps.push(values);
    }
    let mut source = if apps.is_empty() { "development mode" } else { "ringverb.toml" };
    if let Some(own) = own {
        let in_environment = sources.environment.contains_key("REVERB_APP_KEY");
        source = if in_environment { "environment" } else { ".env" };
        let id = |values: &Values| values.get("id").map(|id| id.value.clone());
        apps.retain(|app| id(app) != id(own));
        apps.insert(0, own.clone());
    }
    (apps, source.to_owned())
}

fn defaults(values: &mut Values, option: &OptionSpec) {
    values.set(option.key, option.default, "default".to_owned());
}

fn from_environment(values: &mut Values, option: &OptionSpec, sources: &Sources) {
    // The first name wins, so the aliases are tried before it.
    for name in option.environment.iter().rev() {
        if let Some(value) = sources.dotenv.get(*name) {
            values.set(option.key, value, format!(".env: {name}"));
        }
    }
    for name in option.environment.iter().rev() {
        if let Some(value) = sources.environment.get(*name) {
            values.set(option.key, value, format!("environment: {name}"));
        }
    }
}

/// A mistyped `RINGVERB_` name would be ignored in silence otherwise.
fn warnings(sources: &Sources) -> Vec<String> {
    let known = |name: &str| OPTIONS.iter().any(|option| option.environment.contains(&name));
    let names = sources.environment.keys().chain(sources.dotenv.keys());
    let mut unknown: Vec<&String> =
        names.filter(|name| name.starts_with("RINGVERB_") && !known(name)).collect();
    unknown.sort();
    unknown.into_iter().map(|name| format!("{name} is no option of ringverb; see --help")).collect()
}

/// Tables to dotted keys, values to text; unknown keys are problems.
fn flatten_toml(
    table: &toml::Table,
    problems: &mut Vec<String>,
) -> (HashMap<String, String>, Vec<HashMap<String, String>>) {
    let mut server = HashMap::new();
    let mut apps = Vec::new();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("server", toml::Value::Table(table)) => {
                flatten(table, "", &mut server, problems);
                check_names(&server, Scope::Server, "server", problems);
            }
            ("apps", toml::Value::Array(list)) => {
                for (index, item) in list.iter().enumerate() {
                    let mut app = HashMap::new();
                    match item {
                        toml::Value::Table(table) => flatten(table, "", &mut app, problems),
                        _ => problems.push(format!("ringverb.toml: apps[{index}] is not a table")),
                    }
                    check_names(&app, Scope::App, &format!("apps[{index}]"), problems);
                    apps.push(app);
                }
            }
            _ => problems.push(format!(
                "ringverb.toml: {key} is not known here; it has a [server] table and [[apps]]"
            )),
        }
    }
    (server, apps)
}

fn flatten(
    table: &toml::Table,
    prefix: &str,
    out: &mut HashMap<String, String>,
    problems: &mut Vec<String>,
) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let text = match value {
            toml::Value::Table(table) => {
                flatten(table, &key, out, problems);
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(list) if list.iter().all(toml::Value::is_str) => {
                let list: Vec<&str> = list.iter().filter_map(toml::Value::as_str).collect();
                list.join(",")
            }
            toml::Value::Integer(_) | toml::Value::Boolean(_) => value.to_string(),
            _ => {
                problems.push(format!(
                    "ringverb.toml: {key} is neither text, number, boolean nor list of texts"
                ));
                continue;
            }
        };
        out.insert(key, text);
    }
}

fn check_names(
    found: &HashMap<String, String>,
    scope: Scope,
    place: &str,
    problems: &mut Vec<String>,
) {
    let mut unknown: Vec<&String> = found
        .keys()
        .filter(|key| {
            let is = |option: &&OptionSpec| option.key == key.as_str();
            !OPTIONS.iter().any(|option| {
                is(&option) && matches!(option.scope, Scope::Unused)
                    || is(&option) && option.scope == scope
            })
        })
        .collect();
    unknown.sort();
    for key in unknown {
        let near = OPTIONS
            .iter()
            .filter(|option| option.scope == scope)
            .min_by_key(|option| distance(option.key, key))
            .map_or("", |option| option.key);
        problems.push(format!("ringverb.toml: {place}.{key} is not known; is {near} meant?"));
    }
}

/// Edit distance, for "is … meant?". Quadratic in short names.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (at, b) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}
