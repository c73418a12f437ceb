//! Apps of the apps file as tables: what the admin API changes in them, and how it shows an app.
//!
//! A table has what was given, as text, numbers, booleans, lists and tables of `ringverb.toml`. Names and values are
//! checked where the whole configuration is (`config`), so there is one set of rules. Secrets are shown once, in the
//! answer that creates them. Owns no state. Does not read or write the file (`apps_file.rs`).
//! Limits: those of a request of the admin listener; the file's size bounds the tables. Cost: linear in the number of
//! apps: an edit compares ids until it finds the app, and copies one table.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use super::credentials::{self, MASK};
use super::outcome::{ChangeOutcome, Edited};
use crate::app::Apps;
use crate::config::Values;
use crate::config::options::{OPTIONS, OptionId, OptionKind, Scope, boolean, of_scope};
use crate::config::webhook_url;
use crate::server::generated::generated_credentials;

pub(in crate::server) struct AppChange {
    /// `None`: a new app that gets an id.
    pub(in crate::server) id: Option<String>,
    pub(in crate::server) edit: AppEdit,
}

pub(in crate::server) enum AppEdit {
    Add(Map<String, Json>),
    /// A PUT: these options and no others. Key and secrets stay if they are not given, because answers mask them.
    Replace(Map<String, Json>),
    /// A PATCH: these options, and the others as they are; `null` removes one.
    Merge(Map<String, Json>),
    Enable(bool),
    Remove,
}

pub(super) fn id_of(values: &Values) -> &str {
    values.get(OptionId::AppId).map_or("", |id| id.value.as_str())
}

pub(super) fn is_named(table: &Table, id: &str) -> bool {
    match table.get("id") {
        Some(Value::String(found)) => found == id,
        // A person may write a number.
        Some(Value::Integer(found)) => found.to_string() == id,
        _ => false,
    }
}

pub(super) fn edit(
    tables: &mut Vec<Table>,
    change: AppChange,
) -> Result<Edited, Box<ChangeOutcome>> {
    let AppChange { id, edit } = change;
    if let AppEdit::Add(given) = edit {
        return add(tables, id, &given);
    }
    let id = id.unwrap_or_default();
    let Some(at) = tables.iter().position(|table| is_named(table, &id)) else {
        return Err(Box::new(ChangeOutcome::no_such_app(&id)));
    };
    let table = &mut tables[at];
    let before = table.clone();
    let mut is_removed = false;
    let what = match edit {
        AppEdit::Add(_) | AppEdit::Replace(_) => {
            let AppEdit::Replace(given) = edit else {
                return Err(Box::new(ChangeOutcome::no_such_app(&id)));
            };
            credentials::check_kinds(&given)?;
            let mut fresh = Table::new();
            merge_into(&mut fresh, &given)?;
            credentials::keep_masked_secrets(&mut fresh, &before);
            // A second secret that is not given is removed: that ends a change of secrets.
            for name in ["id", "key", "secret"] {
                if let (false, Some(value)) = (fresh.contains_key(name), before.get(name)) {
                    fresh.insert(name.to_owned(), value.clone());
                }
            }
            *table = fresh;
            "changed"
        }
        AppEdit::Merge(given) => {
            credentials::check_kinds(&given)?;
            merge_into(table, &given)?;
            credentials::keep_masked_secrets(table, &before);
            "changed"
        }
        AppEdit::Enable(enabled) => {
            table.insert("enabled".to_owned(), Value::Boolean(enabled));
            if enabled { "enabled" } else { "disabled" }
        }
        AppEdit::Remove => {
            tables.remove(at);
            is_removed = true;
            "removed"
        }
    };
    if !is_removed {
        let Some(table) = tables.iter_mut().find(|table| is_named(table, &id)) else {
            return Err(Box::new(ChangeOutcome::invalid(
                "the id of an app cannot be changed: add another app, and remove this one",
            )));
        };
        credentials::keep_urls(table, &before)?;
        credentials::check_no_mask(table)?;
    }
    Ok(Edited { id, what, is_new: false, is_removed, secret: None })
}

fn add(
    tables: &mut Vec<Table>,
    id: Option<String>,
    given: &Map<String, Json>,
) -> Result<Edited, Box<ChangeOutcome>> {
    credentials::check_kinds(given)?;
    let mut table = Table::new();
    merge_into(&mut table, given)?;
    credentials::check_no_mask(&table)?;
    let generated = generated_credentials();
    let credentials =
        [("id", id.unwrap_or(generated.id)), ("key", generated.key), ("secret", generated.secret)];
    for (name, value) in credentials {
        table.entry(name).or_insert(Value::String(value));
    }
    let text = |name: &str| match table.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (id, secret) = (text("id"), text("secret"));
    if tables.iter().any(|table| is_named(table, &id)) {
        return Err(Box::new(ChangeOutcome::app_exists(&id)));
    }
    tables.push(table);
    Ok(Edited { id, what: "added", is_new: true, is_removed: false, secret: Some(secret) })
}

/// A JSON merge patch (RFC 7396): `null` removes an option, and objects are merged.
fn merge_into(table: &mut Table, given: &Map<String, Json>) -> Result<(), Box<ChangeOutcome>> {
    for (name, value) in given {
        if value.is_null() {
            table.remove(name);
            continue;
        }
        if let (Json::Object(inner), Some(Value::Table(before))) = (value, table.get_mut(name)) {
            merge_into(before, inner)?;
            continue;
        }
        table.insert(name.clone(), to_toml(name, value)?);
    }
    Ok(())
}

fn to_toml(name: &str, value: &Json) -> Result<Value, Box<ChangeOutcome>> {
    let unfit = |what: &str| {
        let text = format!(
            "{name} is {what}, but options are texts, whole numbers, true, false, lists and objects"
        );
        Box::new(ChangeOutcome::invalid(&text))
    };
    Ok(match value {
        Json::Bool(value) => Value::Boolean(*value),
        Json::String(text) => Value::String(text.clone()),
        Json::Number(number) => {
            Value::Integer(number.as_i64().ok_or_else(|| unfit("a number that is not whole"))?)
        }
        Json::Array(items) => {
            let items = items.iter().map(|item| to_toml(name, item));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Json::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(key, value)| Ok((key.clone(), to_toml(key, value)?)));
            Value::Table(members.collect::<Result<_, Box<ChangeOutcome>>>()?)
        }
        Json::Null => return Err(unfit("null within a list")),
    })
}

/// An app for an answer: what was given, with secrets masked.
pub(super) fn app_as_json(values: &Values, apps: &Apps, apps_file: Option<&str>) -> Json {
    let mut app = Map::new();
    for option in of_scope(Scope::App) {
        let Some(given) = values.get(option.id) else { continue };
        let is_shown = !given.is_default() || option.id == OptionId::AppEnabled;
        if is_shown {
            insert_at_path(&mut app, option.key, value_as_json(option.id, &given.value));
        }
    }
    let webhooks = values.webhooks().iter().map(|webhook| {
        let mut shown_webhook = Map::new();
        for option in of_scope(Scope::Webhook) {
            let Some(given) = webhook.get(option.id).filter(|given| !given.is_default()) else {
                continue;
            };
            let value = match option.id {
                OptionId::WebhookUrl => Json::String(webhook_url::shown(&given.value)),
                id => value_as_json(id, &given.value),
            };
            insert_at_path(&mut shown_webhook, option.key, value);
        }
        Json::Object(shown_webhook)
    });
    let webhooks: Vec<Json> = webhooks.collect();
    if !webhooks.is_empty() {
        app.insert("webhooks".to_owned(), Json::Array(webhooks));
    }
    let source = values.get(OptionId::AppId).map_or("", |id| id.source.as_str());
    let source = source.split(": ").next().unwrap_or_default();
    let open = apps.by_id(id_of(values)).map(|index| apps.get(index));
    let open = open.map_or(0, |app| app.connections_open.load(Ordering::Relaxed));
    app.insert("connections".to_owned(), open.into());
    app.insert("source".to_owned(), source.into());
    app.insert("can_change".to_owned(), (apps_file == Some(source)).into());
    Json::Object(app)
}

/// A key with a dot names a member of an object.
fn insert_at_path(object: &mut Map<String, Json>, key: &str, value: Json) {
    match key.split_once('.') {
        None => {
            object.insert(key.to_owned(), value);
        }
        Some((outer, inner)) => {
            let entry = object.entry(outer).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(entry) = entry {
                insert_at_path(entry, inner, value);
            }
        }
    }
}

/// A value in the type that it has in a request.
fn value_as_json(id: OptionId, value: &str) -> Json {
    let kind = &OPTIONS[id as usize].accepts.kind;
    match kind {
        OptionKind::Secret(_) => MASK.into(),
        OptionKind::Bool => boolean(value).map_or_else(|| value.into(), Json::Bool),
        OptionKind::List(_) => {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            Json::Array(items.map(Into::into).collect())
        }
        OptionKind::Number { .. } | OptionKind::Size { .. } => {
            value.parse::<u64>().map_or_else(|_| value.into(), Into::into)
        }
        _ => value.into(),
    }
}
