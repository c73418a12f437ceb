//! Credentials in a change of an app: an answer of the admin API can be sent back as a request.
//!
//! Owns the mask. Answers mask secrets (`MASK`) and shorten the URLs of webhooks. In a request, the mask keeps the
//! secret of the same option, and a shortened URL keeps the URL of the app that has this form. A mask that keeps
//! nothing is refused, because as a secret every reader of this source would know it. Input and output: tables of the
//! apps file. Does not read or write the file.
//! No limits: the tables are those of one request. Cost: one copy of each URL of one app.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use super::outcome::ChangeOutcome;
use crate::config::webhook_url;

/// What a secret looks like in an answer. Sent back, it leaves the secret as it is.
pub(super) const MASK: &str = "********";

const SECRETS: [&str; 2] = ["secret", "second_secret"];
/// They are text. A number would lose zeros at its start.
const CREDENTIALS: [&str; 4] = ["id", "key", "secret", "second_secret"];

/// Called before anything is merged. TOML would keep a number, and a secret of digits would lose its leading zeros.
pub(super) fn check_kinds(given: &Map<String, Json>) -> Result<(), Box<ChangeOutcome>> {
    let is_wrong = |name: &&&str| {
        given.get(**name).is_some_and(|value| !value.is_string() && !value.is_null())
    };
    match CREDENTIALS.iter().find(is_wrong) {
        None => Ok(()),
        Some(name) => Err(Box::new(ChangeOutcome::invalid(&format!(
            "{name} is no JSON string, but credentials are strings: put the value in quotes"
        )))),
    }
}

pub(super) fn keep_masked_secrets(table: &mut Table, before: &Table) {
    for name in SECRETS {
        let is_masked = table.get(name).and_then(Value::as_str) == Some(MASK);
        if let (true, Some(value)) = (is_masked, before.get(name)) {
            table.insert(name.to_owned(), value.clone());
        }
    }
}

/// Puts the URLs of the app in the place of their shown forms.
pub(super) fn keep_urls(table: &mut Table, before: &Table) -> Result<(), Box<ChangeOutcome>> {
    let (given, existing) = (urls(table), urls(before));
    let Some(Value::Array(webhooks)) = table.get_mut("webhooks") else { return Ok(()) };
    // By shown form, in their order. A URL that was sent whole is not meant by a shown form.
    let mut candidates: HashMap<String, Vec<&String>> = HashMap::new();
    for url in &existing {
        let form = webhook_url::shown(url);
        if form == *url || !given.contains(url) {
            candidates.entry(form).or_default().push(url);
        }
    }
    for (form, urls) in candidates {
        let mut slots: Vec<&mut String> = webhooks
            .iter_mut()
            .filter_map(|webhook| match webhook.get_mut("url") {
                Some(Value::String(url)) if *url == form => Some(url),
                _ => None,
            })
            .collect();
        if !slots.is_empty() && slots.len() < urls.len() {
            return Err(Box::new(ChangeOutcome::invalid(&format!(
                "{form} is the shown form of {} webhooks of this app, so it is unclear which of them is meant: send \
                 the whole URL, with its query and credentials",
                urls.len()
            ))));
        }
        for (slot, url) in slots.iter_mut().zip(urls) {
            slot.clone_from(url);
        }
    }
    Ok(())
}

fn urls(table: &Table) -> Vec<String> {
    let webhooks = table.get("webhooks").and_then(Value::as_array);
    let url = |webhook: &Value| webhook.get("url").and_then(Value::as_str).map(str::to_owned);
    webhooks.into_iter().flatten().filter_map(url).collect()
}

/// Called last: every mask that stood for a secret has been replaced by then.
pub(super) fn check_no_mask(table: &Table) -> Result<(), Box<ChangeOutcome>> {
    match table.iter().find(|(_, value)| has_mask(value)) {
        None => Ok(()),
        Some((name, _)) => Err(Box::new(ChangeOutcome::invalid(&format!(
            "{name} has {MASK}, which stands for a secret in answers and keeps only an existing secret of the same \
             option: send the real value, or leave the option out"
        )))),
    }
}

fn has_mask(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim() == MASK,
        Value::Array(items) => items.iter().any(has_mask),
        Value::Table(table) => table.iter().any(|(_, value)| has_mask(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::urls as urls_of;
    use super::*;
    use crate::server::change::app_table::{AppChange, AppEdit, edit};

    const APP: &str = "id = \"1\"\nkey = \"k\"\nsecret = \"s\"\n\
        [[webhooks]]\nurl = \"http://u:p@a/x?t=1\"\n[[webhooks]]\nurl = \"http://a/x\"\n\
        [[webhooks]]\nurl = \"http://b/?t=2\"\n";

    /// The app after an edit, or the status of the refusal.
    fn edited(how: fn(Map<String, Json>) -> AppEdit, given: Json) -> Result<Table, u16> {
        let Json::Object(given) = given else { panic!("an object") };
        let mut tables = vec![APP.parse().unwrap()];
        let edit_of = how(given);
        let id = (!matches!(edit_of, AppEdit::Add(_))).then(|| "1".to_owned());
        match edit(&mut tables, AppChange { id, edit: edit_of }) {
            Ok(_) => Ok(tables.pop().unwrap()),
            Err(outcome) => Err(outcome.status),
        }
    }

    #[test]
    fn a_mask_keeps_the_secret_of_its_option_and_never_becomes_one() {
        for how in [AppEdit::Replace, AppEdit::Merge] {
            let table = edited(how, json!({"secret": MASK, "max_connections": 5})).unwrap();
            assert_eq!(table["secret"].as_str(), Some("s"));
            assert_eq!(edited(how, json!({"second_secret": MASK})), Err(422), "there is none");
            assert_eq!(edited(how, json!({"key": MASK})), Err(422), "it is never masked");
            assert_eq!(edited(how, json!({"secret": format!(" {MASK}")})), Err(422));
        }
        for how in [AppEdit::Add, AppEdit::Replace, AppEdit::Merge] {
            for given in [
                json!({"allowed_origins": ["a.test", MASK]}),
                json!({"webhooks": [{"url": MASK}]}),
                json!({"webhooks": [{"url": "http://a/", "channel_prefixes": [MASK]}]}),
                json!({"options": {"secret": MASK}}),
            ] {
                assert_eq!(edited(how, given.clone()), Err(422), "{given}");
            }
        }
        assert_eq!(edited(AppEdit::Add, json!({"secret": MASK})), Err(422));
    }

    #[test]
    fn a_credential_that_is_no_string_is_refused() {
        for how in [AppEdit::Add, AppEdit::Replace, AppEdit::Merge] {
            for name in CREDENTIALS {
                for value in [json!(7), json!(true), json!([MASK]), json!({"a": "b"})] {
                    let given = Map::from_iter([(name.to_owned(), value)]);
                    assert_eq!(edited(how, Json::Object(given)), Err(422), "{name}");
                }
            }
        }
        let table = edited(AppEdit::Add, json!({"id": "2", "key": "7", "secret": "0"})).unwrap();
        assert_eq!(table["secret"].as_str(), Some("0"));
    }

    #[test]
    fn a_shown_url_keeps_the_url_that_has_this_form() {
        let kept = |urls: &[&str]| {
            let list: Vec<Json> = urls.iter().map(|url| json!({"url": url})).collect();
            let replaced = edited(AppEdit::Replace, json!({"webhooks": list}));
            assert_eq!(replaced, edited(AppEdit::Merge, json!({"webhooks": list})));
            replaced.map(|table| urls_of(&table))
        };
        let all = ["http://u:p@a/x?t=1", "http://a/x", "http://b/?t=2"];
        assert_eq!(
            kept(&["http://a/x", "http://a/x", "http://b/"]),
            Ok(all.map(str::to_owned).to_vec())
        );
        assert_eq!(kept(&all), Ok(all.map(str::to_owned).to_vec()));
        assert_eq!(kept(&["http://b/"]), Ok(vec!["http://b/?t=2".to_owned()]));
        assert_eq!(kept(&["http://a/x"]), Err(422), "two have this form");
        let whole = ["http://u:p@a/x?t=1", "http://a/x"];
        assert_eq!(kept(&whole), Ok(whole.map(str::to_owned).to_vec()));
        let new = ["http://c/", "http://b/?t=3"];
        assert_eq!(kept(&new), Ok(new.map(str::to_owned).to_vec()));
        let disabled = edited(|_| AppEdit::Enable(false), json!({})).unwrap();
        assert_eq!(urls_of(&disabled), all);
    }
}
