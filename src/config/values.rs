//! Values as text, each with where it came from. PURE data; `load.rs` and `merge.rs` fill it, `validate.rs` reads it.
//!
//! Owns one value for each option of a scope. A value that was not given is the option's default and says so. Does not
//! judge a value. No `Debug` text contains a value, because it may be a secret.
//!
//! Limit: one value for each option of the table; `validate.rs` bounds the endpoints of all apps. Cost: one look-up by
//! id; two allocations for a value that is set.

use std::collections::HashMap;
use std::fmt;

use super::dotenv;
use super::options::{OPTIONS, OptionId as Id, OptionSpec};

/// A value as text. `source` is the file and the name in it, "environment" and the name, or the flag.
#[derive(Clone)]
pub struct Sourced {
    pub value: String,
    pub source: String,
}

/// Leaves the value out, which may be a secret.
impl fmt::Debug for Sourced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sourced({})", self.source)
    }
}

/// All values of one scope; unset options without a default are absent.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set_values: HashMap<Id, Sourced>,
    /// One for each endpoint of an app; empty for other scopes.
    webhooks: Vec<Values>,
}

/// What stands in place of a source in a value that was not given.
const DEFAULT_SOURCE: &str = "default";

impl Sourced {
    /// Whether the value is the option's default, because none was given.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.source == DEFAULT_SOURCE
    }

    /// The option as it was set, for messages: the name in the environment or in a file, or the flag.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.rsplit_once(": ").map_or(self.source.as_str(), |(_, name)| name)
    }

    /// Where it was set, in brackets, to be read after the value; nothing for a flag.
    #[must_use]
    pub fn source_in_brackets(&self) -> String {
        self.source.rsplit_once(": ").map_or_else(String::new, |(place, _)| format!(" ({place})"))
    }

    pub(super) fn is_from(&self, file: &str) -> bool {
        self.source.strip_prefix(file).is_some_and(|rest| rest.starts_with(':'))
    }
}

impl Values {
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Sourced> {
        self.set_values.get(&id)
    }

    /// The options whose values differ. Their sources may differ, too, and are not compared.
    #[must_use]
    pub fn differing_options(&self, other: &Self) -> Vec<Id> {
        let value = |values: &Self, id: Id| values.get(id).map(|given| given.value.clone());
        let ids = OPTIONS.iter().map(|option| option.id);
        ids.filter(|id| value(self, *id) != value(other, *id)).collect()
    }

    /// Makes these options the same as in `other`, set or not.
    pub fn copy_options(&mut self, other: &Self, ids: &[Id]) {
        for id in ids {
            match other.set_values.get(id) {
                Some(given) => {
                    self.set_values.insert(*id, given.clone());
                }
                None => {
                    self.set_values.remove(id);
                }
            }
        }
    }

    /// Whether these are the values of the same app with the same options and webhooks.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let webhooks = || self.webhooks.iter().zip(&other.webhooks);
        self.differing_options(other).is_empty()
            && self.webhooks.len() == other.webhooks.len()
            && webhooks().all(|(one, other)| one.is_same(other))
    }

    /// The values of an app's webhooks; each has a `url`.
    #[must_use]
    pub fn webhooks(&self) -> &[Self] {
        &self.webhooks
    }

    pub(super) fn push_webhook(&mut self, webhook: Self) {
        self.webhooks.push(webhook);
    }

    /// Puts another form of the value in its place, with the same source; `None` puts the default there.
    pub(super) fn replace(&mut self, id: Id, value: Option<String>) {
        match (value, self.set_values.get_mut(&id)) {
            (Some(value), Some(given)) => given.value = value,
            (Some(_), None) => {}
            (None, _) => {
                self.set_values.remove(&id);
                set_default(self, id.spec());
            }
        }
    }

    pub(super) fn set(&mut self, id: Id, value: &str, source: String) {
        // Blanks are part of a secret, and of nothing else.
        let value = if id.spec().accepts.kind.is_exact() { value } else { value.trim() };
        if !is_null(value) {
            self.set_values.insert(id, Sourced { value: value.to_owned(), source });
        }
    }

    /// A value as Laravel's `env()` reads it. A word that it reads as a boolean is one in text, too: PHP writes `true`
    /// as "1" and `false` as "".
    pub(super) fn set_env(&mut self, id: Id, value: &str, source: String) {
        let value = dotenv::laravel_env_value(value);
        match (&*value, id.spec().accepts.kind.is_exact()) {
            ("true", true) => self.set(id, "1", source),
            ("false", true) => {}
            (value, _) => self.set(id, value, source),
        }
    }

    /// Replaces every value that `stronger` has from a source, and the endpoints if it has some.
    pub(super) fn override_with(&mut self, stronger: &Self) {
        let given = stronger.set_values.iter().filter(|(_, given)| !given.is_default());
        self.set_values.extend(given.map(|(key, given)| (*key, given.clone())));
        if !stronger.webhooks.is_empty() {
            self.webhooks.clone_from(&stronger.webhooks);
        }
    }
}

/// Whether Laravel's `env()` reads a text as null or as an empty text.
pub(super) fn is_null(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "" | "null" | "(null)" | "empty" | "(empty)")
}

pub(super) fn set_default(values: &mut Values, option: &OptionSpec) {
    values.set(option.id, option.default, DEFAULT_SOURCE.to_owned());
}
