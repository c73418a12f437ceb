//! One option at a time, from text to a value: numbers, choices, addresses, lists, secrets. PURE.
//!
//! Owns the problems that were found. Every problem is kept in `problems`, and a default takes the place of the value,
//! so that all problems are reported at once. Ranges and units come from the table of options. Does not know where a
//! text came from, beyond the name in `Sourced`.
//!
//! Limits: `CREDENTIAL_BYTES_MAX` for an id, key or secret; a problem for each option and app at most. Cost: one
//! look-up for an option, and one allocation for each text.

use std::net::IpAddr;

use crate::app::Secret;
use crate::config::network::Network;
use crate::config::options::{OptionId as Id, boolean};
use crate::config::values::{Sourced, Values};
use crate::text::shown;

pub(in crate::config) struct OptionReader {
    pub(in crate::config) problems: Vec<String>,
}

impl OptionReader {
    /// An id or key, which becomes a part of URLs.
    pub(super) fn url_credential(&mut self, values: &Values, id: Id) -> String {
        let Some(given) = values.get(id) else { return String::new() };
        if let Some(why) = credential_problem(&given.value, id == Id::AppKey) {
            let shown = shown(&given.value);
            self.problems.push(format!(
                "{} is {shown}{}, but {why}",
                given.name(),
                given.source_in_brackets()
            ));
        }
        given.value.clone()
    }

    /// A secret of an app. Programs write asterisks where they hide one, and such a text may have been copied.
    pub(super) fn secret(&mut self, values: &Values, id: Id) -> Option<Secret> {
        let given = values.get(id)?;
        let text = given.value.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte == b'*') {
            let (name, place) = (given.name(), given.source_in_brackets());
            self.problems.push(format!(
                "{name} has only asterisks{place}, but they stand for a secret that is hidden: give the secret itself"
            ));
        }
        Some(Secret::new(given.value.clone()))
    }

    /// Starts of channel names. A wildcard in one is a problem, because it would match nothing.
    pub(super) fn prefixes(&mut self, values: &Values, id: Id) -> Vec<String> {
        let prefixes = self.list(values, id);
        if let Some(prefix) = prefixes.iter().find(|prefix| prefix.contains('*')) {
            let name = values.get(id).map_or(id.spec().key, Sourced::name);
            self.problems.push(format!(
                "{name} has the entry {}, but entries are starts of channel names without a wildcard: write {}",
                shown(prefix),
                shown(prefix.split('*').next().unwrap_or_default())
            ));
        }
        prefixes
    }

    pub(super) fn add_problem(&mut self, id: Id, given: &Sourced) {
        let accepts = &id.spec().accepts;
        self.problems.push(format!(
            "{} is \"{}\"{}, but it takes {}",
            given.name(),
            accepts.kind.shown(&given.value),
            given.source_in_brackets(),
            accepts.sentence()
        ));
    }

    pub(super) fn number<T: TryFrom<u64> + Default>(&mut self, values: &Values, id: Id) -> T {
        self.optional_number(values, id).unwrap_or_default()
    }

    /// A number in the range of its option. `None` if none is given, or it is a problem.
    pub(in crate::config) fn optional_number<T: TryFrom<u64>>(
        &mut self,
        values: &Values,
        id: Id,
    ) -> Option<T> {
        let given = values.get(id)?;
        let number = id.spec().accepts.kind.number(&given.value);
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.add_problem(id, given);
        }
        number
    }

    pub(super) fn networks(&mut self, values: &Values, id: Id) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in self.list(values, id) {
            match Network::parse(&text) {
                Some(network) => networks.push(network),
                None => self.problems.push(format!(
                    "{} names \"{text}\", which is neither an address nor a network such as 10.0.0.0/8",
                    values.get(id).map_or(id.spec().key, Sourced::name)
                )),
            }
        }
        networks
    }

    /// The index of the given word among those of its option; 0 if none is given.
    pub(in crate::config) fn choice(&mut self, values: &Values, id: Id) -> usize {
        let Some(given) = values.get(id) else { return 0 };
        id.spec().accepts.kind.index_of_word(&given.value).unwrap_or_else(|| {
            self.add_problem(id, given);
            0
        })
    }

    /// Whether the one word of an option without a default is given.
    pub(super) fn is_given(&mut self, values: &Values, id: Id) -> bool {
        self.choice(values, id);
        values.get(id).is_some()
    }

    pub(super) fn boolean(&mut self, values: &Values, id: Id) -> bool {
        let Some(given) = values.get(id) else { return false };
        boolean(&given.value).unwrap_or_else(|| {
            self.add_problem(id, given);
            false
        })
    }

    pub(in crate::config) fn list(&mut self, values: &Values, id: Id) -> Vec<String> {
        let Some(given) = values.get(id) else { return Vec::new() };
        let items = given.value.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Vec<String> = items.map(str::to_owned).collect();
        if items.is_empty() {
            self.add_problem(id, given);
        }
        items
    }

    pub(super) fn address(&mut self, values: &Values, id: Id) -> IpAddr {
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        let Some(given) = values.get(id) else { return unspecified };
        let text = if given.value == "localhost" { "127.0.0.1" } else { &given.value };
        match text.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => address,
            Err(_) => {
                self.add_problem(id, given);
                unspecified
            }
        }
    }
}

/// A free text; empty if unset. `merge.rs` has reported missing credentials of apps already.
pub(super) fn credential(values: &Values, id: Id) -> String {
    values.get(id).map(|given| given.value.clone()).unwrap_or_default()
}

/// Longest id or key of an app in bytes. Those that `reverb:install` writes have 6 and 20.
const CREDENTIAL_BYTES_MAX: usize = 200;

/// Why no request can name an app by this id or key, and what to do. `None`: it can.
fn credential_problem(text: &str, is_key: bool) -> Option<String> {
    let what = if is_key { "key" } else { "id" };
    if text.len() > CREDENTIAL_BYTES_MAX {
        return Some(format!("the {what} of an app has at most {CREDENTIAL_BYTES_MAX} bytes"));
    }
    if matches!(text, "." | "..") {
        return Some(format!("clients remove this from a URL: choose another {what}"));
    }
    let is_bad = |char: &char| !char.is_ascii_graphic() || "/\\?#%:\"<>".contains(*char);
    let bad = text.chars().find(is_bad)?;
    let bad = match bad {
        ' ' => "a space".to_owned(),
        bad => shown(bad.encode_utf8(&mut [0; 4])).to_string(),
    };
    Some(format!(
        "it contains {bad}, and the {what} is a part of URLs: use letters, digits and signs such as - and _"
    ))
}
