//! The sources of the configuration as values, and what environment and `.env` have of an option. PURE.
//!
//! Owns the values of all sources. `load.rs` fills `Sources` from files and the environment, and tests fill it by hand.
//! `merge.rs` makes one value per option of it, and `warnings.rs` looks for what has no effect. Does not read a file.
//!
//! Limit: none of its own; `load.rs` bounds what it reads. Cost: one look-up for each name of an option; once at the
//! start and at each reload.

use std::collections::HashMap;
use std::path::Path;

use super::laravel::{LaravelConfig, is_read_by_php};
use super::names;
use super::options::{OptionId as Id, OptionSpec, Scope, of_scope};
use super::reverb_php::ReverbPhp;
use super::values::Values;

/// The sources as they were found. No `Debug`, because the environment contains other programs' secrets, too.
#[derive(Clone, Default)]
pub struct Sources {
    pub flags: HashMap<Id, String>,
    pub environment: HashMap<String, String>,
    pub dotenv: HashMap<String, String>,
    pub toml: toml::Table,
    /// The file of `RINGVERB_APPS_FILE`, if one is named: its path and its apps.
    pub apps_file: Option<(String, toml::Table)>,
    /// The apps file is named and does not exist yet.
    pub apps_file_is_missing: bool,
    /// Names of the files in messages, if they are not the default ones.
    pub toml_name: Option<String>,
    pub dotenv_name: Option<String>,
    /// The configuration file is the one of the host's service, because nothing else named one.
    pub is_service_file: bool,
    /// `config/reverb.php` beside `.env`. Only its certificate counts; what is written there by hand causes warnings.
    pub reverb_php: Option<ReverbPhp>,
    /// The file of `--laravel-config`. `REVERB_*` names of the environment do not count with it.
    pub laravel: Option<LaravelConfig>,
    /// Certificate and key that Herd or Valet has made for `REVERB_HOST`, and a text that says where they are.
    pub local_certificate: Option<([String; 2], String)>,
    pub files: Files,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigurationFiles<'a> {
    /// `--config` and `--env-file`; `None`: the default names in the working directory.
    pub toml_file: Option<&'a Path>,
    pub env_file: Option<&'a Path>,
    /// `--env` of artisan: the `.env.NAME` to read instead of `.env`.
    pub laravel_env: Option<&'a str>,
    /// The file of the host's service (`SERVICE_FILE`), which counts only where nothing else names a configuration.
    pub service_file: Option<&'a Path>,
    pub reader: FileReader,
}

/// Who reads the files: the remedy in an error text differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileReader {
    #[default]
    Server,
    Command,
}

/// Which files were read, for the start message: an operator sees from it that a file was missed.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub folder: String,
    /// The files that were read, as they were named.
    pub read: Vec<String>,
    /// The file of the host's service, if it would count and cannot be read: its path, and why.
    pub unreadable: Option<(String, Unreadable)>,
    pub reader: FileReader,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Denied,
    /// A directory, a FIFO or another kind of file: to read it could block.
    NotRegular,
    /// A link to it leads nowhere or in a circle, or the disk fails: the error.
    Broken(String),
}

pub(super) fn app_options() -> impl Iterator<Item = &'static OptionSpec> {
    of_scope(Scope::App)
}

pub(super) fn webhook_options() -> impl Iterator<Item = &'static OptionSpec> {
    of_scope(Scope::Webhook)
}

/// The webhook options of the environment and `.env`. They apply to each URL of `RINGVERB_WEBHOOK_URL`.
pub(super) fn webhook_values(sources: &Sources) -> Values {
    let mut values = Values::default();
    for option in webhook_options() {
        set_from_environment(&mut values, option, sources);
    }
    values
}

/// Sets an option to its value in the environment, or else in `.env`.
pub(super) fn set_from_environment(values: &mut Values, option: &OptionSpec, sources: &Sources) {
    let maps =
        [(&sources.dotenv, sources.dotenv_name()), (&sources.environment, ENVIRONMENT_SOURCE)];
    for (map, source) in maps {
        // The first name wins, so the aliases are tried before it.
        for name in option.environment.iter().rev() {
            if let Some(value) = map.get(*name)
                && !is_from_kubernetes(option, value)
                && !(sources.laravel.is_some() && is_read_by_php(option, name))
            {
                values.set_env(option.id, value, format!("{source}: {name}"));
            }
        }
    }
}

pub(super) const ENVIRONMENT_SOURCE: &str = "environment";

/// Kubernetes sets `REVERB_SERVER_PORT=tcp://...` in the pods of a namespace with a service named `reverb-server`. That
/// is the service's port, and not the one to listen on.
pub(super) fn is_from_kubernetes(option: &OptionSpec, value: &str) -> bool {
    option.id == Id::Port && names::service_port(value).is_some()
}
