//! `config/reverb.php` of a Laravel application: what was written there by hand, and this server does not read.
//!
//! Owns the comparison of the file with what the server does. Nothing of the file takes effect but the certificate of
//! `options.tls`. Reverb reads it, so a migration would lose what is in it without a word: origins (which opens the
//! server to every page), apps, sizes. Each such value causes a warning that says where it belongs; the file as `php
//! artisan reverb:install` writes it causes none. Does not parse PHP (`php.rs` does), and never fails.
//!
//! Limits: `WARNINGS_MAX` warnings, `VALUE_CHARS_MAX` of a value in one. Cost: once at the start and at each reload,
//! one file read and one look-up for each option.

use std::io::Read;
use std::path::Path;

use super::options::{OptionId as Id, OptionSpec, Scope, boolean, of_scope};
use super::php::{self, EnvCall, PhpValue};
use super::values::Values;
use super::{dotenv, origins, sizes};
use crate::text::shown;

#[cfg(test)]
mod tests;

/// Values that are reported one by one. The rest are one number.
const WARNINGS_MAX: usize = 20;
/// Longest part of a value in a message, in characters.
const VALUE_CHARS_MAX: usize = 100;

#[derive(Clone, Debug)]
pub struct ReverbPhp {
    name: String,
    text: String,
}

/// What the server uses, whatever the source: the file is compared with it.
pub(super) struct EffectiveValues<'a> {
    pub(super) server: &'a Values,
    /// The app of the environment, or else the first one.
    pub(super) app: &'a Values,
    pub(super) apps: &'a [Values],
    /// Looks up a variable in the environment, and then in `.env`.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

/// Files of certificate and key, the place in the file that names them, and the passphrase of the key.
type CertificateOfPhp = ([String; 2], String, Option<String>);

impl ReverbPhp {
    /// The file in the folder `config` beside `.env`. `None` if it does not exist or cannot be read.
    pub(super) fn beside(env_file: &Path) -> Option<Self> {
        let path = env_file.parent()?.join("config/reverb.php");
        // To open a FIFO would block the start.
        if !std::fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let most = u64::try_from(php::BYTES_MAX).unwrap_or(u64::MAX) + 1;
        std::fs::File::open(&path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(Self { name: path.display().to_string(), text })
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self { name: "config/reverb.php".to_owned(), text: text.to_owned() }
    }

    /// The files of `options.tls`, with the place of the first in the file, and the passphrase.
    pub(super) fn certificate(&self, effective: &EffectiveValues<'_>) -> Option<CertificateOfPhp> {
        let root = php::parse_returned_array(&self.text)?;
        let comparison = Comparison { file: &self.name, effective, warnings: Vec::new() };
        let (files, passphrase) = comparison.certificate(comparison.chosen_server(&root)?)?;
        Some((files, format!("{}: options.tls.local_cert", self.name), passphrase))
    }

    /// One sentence for each value that differs from the one that the server uses.
    pub(super) fn warnings(&self, effective: &EffectiveValues<'_>) -> Vec<String> {
        let Some(root) = php::parse_returned_array(&self.text) else {
            return vec![format!(
                "{} is not read, and it is no plain array that could be compared: values in it belong in .env or \
                 ringverb.toml",
                self.name
            )];
        };
        let mut comparison = Comparison { file: &self.name, effective, warnings: Vec::new() };
        comparison.server(&root);
        comparison.apps(&root);
        let mut warnings = comparison.warnings;
        let unlisted = warnings.len().saturating_sub(WARNINGS_MAX);
        warnings.truncate(WARNINGS_MAX);
        if unlisted > 0 {
            warnings.push(format!("{} has {unlisted} more values that are not read", self.name));
        }
        warnings
    }
}

/// The value at a path of keys joined by dots.
fn value_at<'v>(value: &'v PhpValue, keys: &str) -> Option<&'v PhpValue> {
    keys.split('.').try_fold(value, |value, key| {
        let PhpValue::Array(elements) = value else { return None };
        // PHP keeps the last one of equal keys.
        let mut found = elements.iter().rev().filter(|(given, _)| given.as_deref() == Some(key));
        found.next().map(|(_, value)| value)
    })
}

struct Comparison<'a> {
    file: &'a str,
    effective: &'a EffectiveValues<'a>,
    warnings: Vec<String>,
}

impl Comparison<'_> {
    fn server(&mut self, root: &PhpValue) {
        let Some(server) = self.chosen_server(root) else { return };
        let is_on = |text: &str| boolean(text) == Some(true);
        let here = self.effective.server.get(Id::ScalingEnabled);
        let there = value_at(server, "scaling.enabled").and_then(|value| self.text(value));
        let scales =
            here.is_some_and(|given| is_on(&given.value)) || there.is_some_and(|text| is_on(&text));
        let of_redis = |option: &&OptionSpec| option.key.starts_with("scaling.server.");
        for option in of_scope(Scope::Server).filter(|option| scales || !of_redis(option)) {
            if let Some(value) = value_at(server, option.key) {
                self.option(option, option.key, value, Some(self.effective.server));
            }
        }
    }

    /// The server of the file that Reverb would start: the one that `default` names, or else the first.
    fn chosen_server<'v>(&self, root: &'v PhpValue) -> Option<&'v PhpValue> {
        let Some(PhpValue::Array(servers)) = value_at(root, "servers") else { return None };
        let chosen = value_at(root, "default").and_then(|value| self.text(value));
        let chosen = chosen.unwrap_or_else(|| "reverb".to_owned());
        let named = servers.iter().find(|(name, _)| name.as_deref() == Some(chosen.as_str()));
        named.or_else(|| servers.first()).map(|(_, server)| server)
    }

    /// Reverb takes its certificate from here. `local_pk` may be missing: then `local_cert` has the key, too.
    fn certificate(&self, server: &PhpValue) -> Option<([String; 2], Option<String>)> {
        let text = |name: &str| {
            let value = value_at(server, &format!("options.tls.{name}"))?;
            self.text(value).filter(|text| !text.is_empty())
        };
        let (certificate, key) = (text("local_cert"), text("local_pk"));
        let certificate = certificate.or_else(|| key.clone())?;
        let key = key.unwrap_or_else(|| certificate.clone());
        Some(([certificate, key], text("passphrase")))
    }

    fn apps(&mut self, root: &PhpValue) {
        if let Some(provider) = value_at(root, "apps.provider").and_then(|value| self.text(value))
            && provider != "config"
        {
            self.warnings.push(format!(
                "{} takes its apps from the provider {}, which only PHP knows: apps belong in ringverb.toml, one \
                 [[apps]] each",
                self.file,
                shown(&provider)
            ));
        }
        let apps = match value_at(root, "apps.apps") {
            Some(PhpValue::Array(apps)) => apps,
            Some(PhpValue::Code(_)) => {
                self.warnings.push(format!(
                    "{} computes its apps, and is not read: apps belong in ringverb.toml, one [[apps]] each",
                    self.file
                ));
                return;
            }
            _ => return,
        };
        for (index, (_, app)) in apps.iter().enumerate() {
            self.app(app, index);
        }
    }

    fn app(&mut self, app: &PhpValue, index: usize) {
        let text = |name: &str| {
            value_at(app, name).and_then(|value| self.text(value)).filter(|text| !text.is_empty())
        };
        let (id, key) = (text("app_id"), text("key"));
        let is_equal = |values: &Values, option: Id, given: &Option<String>| {
            given.is_none() || values.get(option).map(|given| &given.value) == given.as_ref()
        };
        let is_named = id.is_some() || key.is_some();
        let mut all = self.effective.apps.iter().filter(|_| is_named);
        let served =
            all.find(|app| is_equal(app, Id::AppId, &id) && is_equal(app, Id::AppKey, &key));
        let is_hand_written = ["app_id", "key", "secret"]
            .iter()
            .any(|name| matches!(value_at(app, name), Some(PhpValue::Scalar(_))));
        let place = format!("apps[{index}]");
        if served.is_none() && (is_hand_written || (index > 0 && id.is_some())) {
            let named = id.map(|id| format!(" with the id {}", shown(&id))).unwrap_or_default();
            let where_to = if index == 0 {
                "set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET in .env"
            } else {
                "it belongs in ringverb.toml, in an [[apps]] of its own"
            };
            self.warnings.push(format!(
                "{} has the app {place}{named}, which is not read and not served: {where_to}",
                self.file
            ));
        }
        // The other values of an app that is not served belong into the same table.
        if served.is_none() && index > 0 {
            return;
        }
        let values = served.or((index == 0).then_some(self.effective.app));
        for option in of_scope(Scope::App) {
            if matches!(option.id, Id::AppId | Id::AppKey | Id::AppSecret) {
                continue;
            }
            if let Some(value) = value_at(app, option.key) {
                let name = if index == 0 {
                    option.key.to_owned()
                } else {
                    format!("{place}.{}", option.key)
                };
                self.option(option, &name, value, values);
            }
        }
    }

    /// Compares one value. `values` is what counts; `None` for an app that is not served.
    fn option(
        &mut self,
        option: &OptionSpec,
        name: &str,
        value: &PhpValue,
        values: Option<&Values>,
    ) {
        let given = values.and_then(|values| values.get(option.id));
        if given.is_some_and(|given| !given.is_default()) {
            return;
        }
        let used = given.map(|given| given.value.as_str()).unwrap_or_default();
        let computed = match value {
            PhpValue::Code(calls) => self.computed_from(option, calls),
            _ => None,
        };
        let written = self.text(value).or(computed);
        let destination = match name.contains('[') {
            true => format!("{} of an [[apps]] in ringverb.toml", option.key),
            false => format!("{} of .env", option.environment[0]),
        };
        let uses = match used {
            "" => "this server uses no value".to_owned(),
            used => format!("this server uses {used}"),
        };
        // The danger comes first: Reverb refuses pages that this server accepts.
        let opens =
            option.id == Id::AllowedOrigins && used.split(',').any(|entry| entry.trim() == "*");
        let Some(written) = written else {
            if is_computed(value) && opens {
                self.warnings.push(format!(
                    "every origin is accepted, although {} (which is not read) computes {name}: set {destination}",
                    self.file
                ));
            } else if is_computed(value) {
                self.warnings.push(format!(
                    "{} computes {name}, and is not read: {uses}. The value belongs in {destination}",
                    self.file
                ));
            }
            return;
        };
        if is_same(option, &written, used) {
            return;
        }
        if opens && !written.trim().is_empty() {
            let shown: String =
                written.chars().take(VALUE_CHARS_MAX).flat_map(char::escape_debug).collect();
            let remedy = match name.contains('[') {
                true => format!("set {destination}"),
                false => format!("set {}={shown} in .env", option.environment[0]),
            };
            self.warnings.push(format!(
                "every origin is accepted, although {} (which is not read) allows only {shown}: {remedy}",
                self.file
            ));
            return;
        }
        let is_secret = option.accepts.kind.is_confidential() || option.id == Id::RedisUsername;
        let shown: String =
            written.chars().take(VALUE_CHARS_MAX).flat_map(char::escape_debug).collect();
        let value = if is_secret { String::new() } else { format!(" = {shown}") };
        self.warnings.push(format!(
            "{} has {name}{value}, and is not read: {uses}. The value belongs in {destination}",
            self.file
        ));
    }

    /// What PHP would have as this value, if that can be known: lists joined by commas, nothing for null.
    fn text(&self, value: &PhpValue) -> Option<String> {
        match value {
            PhpValue::Scalar(text) => Some(text.clone()),
            PhpValue::Null => Some(String::new()),
            PhpValue::Array(elements) => {
                let items: Option<Vec<String>> =
                    elements.iter().map(|(_, value)| self.text(value)).collect();
                items.map(|items| items.join(","))
            }
            PhpValue::Env(env) => self.value_of_env(env),
            PhpValue::Code(_) => None,
        }
    }

    fn value_of_env(&self, env: &EnvCall) -> Option<String> {
        match (self.effective.env)(&env.name) {
            Some(value) => Some(dotenv::laravel_env_value(&value).into_owned()),
            None => self.text(&env.default),
        }
    }

    /// The value of code such as `explode(',', env('NAME', '*'))`: what `env()` gives, if all of its calls are known.
    /// A list of texts that goes through functions is still about these texts.
    fn computed_from(&self, option: &OptionSpec, calls: &[EnvCall]) -> Option<String> {
        let [first, ..] = calls else { return None };
        // The option's own variable counts here, too: then the value is known, and compared.
        let is_own = |env: &&EnvCall| option.environment.contains(&env.name.as_str());
        let env = calls.iter().find(is_own).unwrap_or(first);
        let later = calls.iter().skip_while(|call| call.name != env.name).skip(1);
        self.value_of_env(env)
            .or_else(|| later.map(|call| self.value_of_env(call)).find(Option::is_some).flatten())
    }
}

fn is_computed(value: &PhpValue) -> bool {
    match value {
        PhpValue::Code(_) => true,
        PhpValue::Array(elements) => elements.iter().any(|(_, value)| is_computed(value)),
        PhpValue::Env(env) => is_computed(&env.default),
        PhpValue::Scalar(_) | PhpValue::Null => false,
    }
}

/// Whether both texts mean the same to the option, so that no warning is due.
fn is_same(option: &OptionSpec, written: &str, used: &str) -> bool {
    if option.id == Id::AllowedOrigins {
        let normal = |text: &str| -> Vec<String> {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            let mut entries: Vec<String> = entries
                .map(|entry| origins::normalize(entry).unwrap_or_else(|_| entry.to_owned()))
                .collect();
            entries.sort();
            entries
        };
        let (written, used) = (normal(written), normal(used));
        // One wildcard opens everything.
        return written == used
            || (written.contains(&"*".to_owned()) && used.contains(&"*".to_owned()));
    }
    let number = |text: &str| sizes::parse(text.trim());
    let boolean = |text: &str| boolean(text.trim());
    if option.id == Id::Path {
        return written.trim_matches('/') == used.trim_matches('/');
    }
    // PHP's null, false and "" of an option that is off.
    let is_nothing = |text: &str| matches!(text, "" | "null");
    written == used
        || (is_nothing(written) && (is_nothing(used) || option.id == Id::Hostname))
        || (is_nothing(written) && boolean(used) == Some(false))
        || (number(written).is_some() && number(written) == number(used))
        || (boolean(written).is_some() && boolean(written) == boolean(used))
}
