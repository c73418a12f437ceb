//! `ringverb.toml` as flat lists of texts by option key: one for `[server]`, one for each of `[[apps]]` and of their
//! `[[apps.webhooks]]`. PURE.
//!
//! Owns the shape of the file. A name that is not in the table of options is a problem, with the name that is probably
//! meant. Messages name places, never values: one of them may be a secret. Does not judge a value.
//!
//! Limit: none of its own; `load.rs` bounds the file, and `validate.rs` the number of apps and endpoints. Cost: once at
//! the start and at each reload, a few allocations for each key.

use std::collections::HashMap;

use toml::{Table, Value};

use super::names::edit_distance;
use super::options::{OptionSpec, Scope, of_scope};

/// Texts by key; a dot leads into an inline table. No `Debug`: one of them may be a secret.
#[derive(Clone, Default)]
pub(super) struct Texts(HashMap<String, String>);

impl Texts {
    pub(super) fn of(&self, option: &OptionSpec) -> Option<&String> {
        self.0.get(option.key)
    }

    pub(super) fn insert(&mut self, key: String, text: String) {
        self.0.insert(key, text);
    }
}

#[derive(Clone)]
pub(super) struct AppTexts {
    pub(super) texts: Texts,
    pub(super) webhooks: Vec<Texts>,
}

/// Parses the text of the file.
///
/// # Errors
/// A sentence that names the line. The parser's own message would quote the line, with a secret that may be in it.
pub fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })
}

/// Turns tables into dotted keys and values into text. `file` is the file's name in messages.
pub(super) fn flatten(
    table: &Table,
    file: &str,
    problems: &mut Vec<String>,
) -> (Texts, Vec<AppTexts>) {
    let mut reader = TomlReader { file, problems };
    let mut server = Texts::default();
    let mut apps = Vec::new();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("server", Value::Table(table)) => {
                server = reader.server(table);
            }
            ("apps", Value::Array(list)) => {
                let tables = reader.tables(list, "apps");
                apps = tables.map(|(place, table)| reader.app(table, &place)).collect();
            }
            ("apps", _) => {
                reader.add_problem("apps is a list of tables: write [[apps]] above each")
            }
            _ => reader.add_problem(&format!(
                "{key} is not known here; the file has a [server] table and [[apps]]"
            )),
        }
    }
    (server, apps)
}

struct TomlReader<'a> {
    file: &'a str,
    problems: &'a mut Vec<String>,
}

impl TomlReader<'_> {
    fn add_problem(&mut self, sentence: &str) {
        self.problems.push(format!("{}: {sentence}", self.file));
    }

    /// The tables of a list, each with its place for messages. Other elements are problems.
    fn tables<'t>(
        &mut self,
        list: &'t [Value],
        place: &str,
    ) -> std::vec::IntoIter<(String, &'t Table)> {
        let mut tables = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let place = format!("{place}[{index}]");
            match item {
                Value::Table(table) => tables.push((place, table)),
                _ => self.add_problem(&format!("{place} is not a table")),
            }
        }
        tables.into_iter()
    }

    /// `[[server.tls]]` has one pair of files each: they become the lists `tls_cert` and `tls_key`.
    fn server(&mut self, table: &Table) -> Texts {
        let mut table = table.clone();
        let Some(pairs) = table.remove("tls") else {
            return self.table(&table, "server", Scope::Server);
        };
        let Value::Array(list) = &pairs else {
            self.add_problem("server.tls is a list of tables: write [[server.tls]] above each");
            return self.table(&table, "server", Scope::Server);
        };
        let mut lists = [Vec::new(), Vec::new()];
        for (place, pair) in self.tables(list, "server.tls") {
            for (name, list) in ["cert", "key"].into_iter().zip(&mut lists) {
                match pair.get(name).and_then(Value::as_str).map(str::trim) {
                    Some(path) if !path.is_empty() && !path.contains(',') => {
                        list.push(path.to_owned())
                    }
                    Some(_) => self.add_problem(&format!(
                        "{place}.{name} is no name of a file without a comma"
                    )),
                    None => self.add_problem(&format!(
                        "{place} has no {name}: it needs cert and key, two PEM files"
                    )),
                }
            }
            for key in pair.keys().filter(|key| !["cert", "key"].contains(&key.as_str())) {
                self.add_problem(&format!("{place}.{key} is not known; a table has cert and key"));
            }
        }
        for (key, list) in ["tls_cert", "tls_key"].into_iter().zip(lists) {
            if table.insert(key.to_owned(), Value::String(list.join(","))).is_some() {
                self.add_problem(&format!(
                    "server.{key} is set beside [[server.tls]]: name all files in one of them"
                ));
            }
        }
        self.table(&table, "server", Scope::Server)
    }

    fn app(&mut self, table: &Table, place: &str) -> AppTexts {
        let mut table = table.clone();
        let webhooks = match table.remove("webhooks") {
            None => Vec::new(),
            Some(Value::Array(list)) => self
                .tables(&list, &format!("{place}.webhooks"))
                .map(|(place, table)| self.table(table, &place, Scope::Webhook))
                .collect(),
            Some(_) => {
                self.add_problem(&format!(
                    "{place}.webhooks is a list of tables: write [[apps.webhooks]] above each"
                ));
                Vec::new()
            }
        };
        AppTexts { texts: self.table(&table, place, Scope::App), webhooks }
    }

    fn table(&mut self, table: &Table, place: &str, scope: Scope) -> Texts {
        let mut texts = Texts::default();
        self.inner_table(table, place, "", &mut texts);
        self.check_names(&texts, place, scope);
        texts
    }

    fn inner_table(&mut self, table: &Table, place: &str, prefix: &str, texts: &mut Texts) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            let text = match value {
                Value::Table(table) => {
                    self.inner_table(table, place, &key, texts);
                    continue;
                }
                Value::String(text) => text.clone(),
                Value::Integer(_) | Value::Boolean(_) => value.to_string(),
                Value::Array(list) => {
                    let items: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                    if items.len() < list.len() || items.iter().all(|item| item.trim().is_empty()) {
                        // Without the key the option would have its default, for origins the opposite of an empty list.
                        self.add_problem(&format!(
                            "{place}.{key} must be a list of at least one text"
                        ));
                        continue;
                    }
                    items.join(",")
                }
                Value::Float(_) | Value::Datetime(_) => {
                    self.add_problem(&format!(
                        "{place}.{key} must be a text, a whole number, true, false or a list of texts"
                    ));
                    continue;
                }
            };
            texts.0.insert(key, text);
        }
    }

    fn check_names(&mut self, texts: &Texts, place: &str, scope: Scope) {
        let is_known = |key: &str| {
            OptionSpec::by_key(scope, key)
                .or_else(|| OptionSpec::by_key(Scope::Unused, key))
                .is_some()
        };
        let mut unknown: Vec<&String> = texts.0.keys().filter(|key| !is_known(key)).collect();
        unknown.sort();
        for key in unknown {
            let end = match nearest_key(key, scope) {
                Some(near) => format!("is {near} meant?"),
                None => "`ringverb --help` lists the options".to_owned(),
            };
            self.add_problem(&format!("{place}.{key} is not known; {end}"));
        }
    }
}

/// The option that is probably meant: close by letters, or the end of what was written (`app_id`).
fn nearest_key(key: &str, scope: Scope) -> Option<&'static str> {
    let keys = || of_scope(scope).map(|option| option.key);
    let close = keys().min_by_key(|name| edit_distance(name, key));
    close
        .filter(|name| edit_distance(name, key) * 2 <= key.len())
        .or_else(|| keys().find(|name| key.ends_with(&format!("_{name}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_names_the_line_and_quotes_nothing() {
        for text in ["[[apps]]\nid = \"1\"\nsecret = \"hunter2\n", "\n\nsecret = hunter2\n"] {
            let problem = parse(text).unwrap_err();
            assert!(problem.starts_with("line 3: ") && !problem.contains("hunter2"), "{problem}");
        }
        assert!(parse("a = 1\na = 2\n").unwrap_err().starts_with("line 2: "));
    }

    #[test]
    fn pairs_of_certificates_become_two_lists() {
        let text =
            "[[server.tls]]\ncert = \"a\"\nkey = \"b\"\n[[server.tls]]\nkey = \"d\"\ncert = \"c\"";
        let mut problems = Vec::new();
        let (server, _) = flatten(&parse(text).unwrap(), "x.toml", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let lists = ["tls_cert", "tls_key"].map(|key| server.0[key].as_str());
        assert_eq!(lists, ["a,c", "b,d"]);
    }

    #[test]
    fn wrong_shapes_and_unknown_names_are_refused() {
        for (text, problem) in [
            (
                "[server]\ntls = 1",
                "server.tls is a list of tables: write [[server.tls]] above each",
            ),
            (
                "[[server.tls]]\ncert = \"a\"",
                "server.tls[0] has no key: it needs cert and key, two PEM files",
            ),
            (
                "[[server.tls]]\ncert = \"a\"\nkey = \"b,c\"",
                "server.tls[0].key is no name of a file without a comma",
            ),
            (
                "[[server.tls]]\ncert = \"a\"\nkey = \"b\"\nname = \"c\"",
                "server.tls[0].name is not known; a table has cert and key",
            ),
            (
                "[server]\ntls_key = \"c\"\n[[server.tls]]\ncert = \"a\"\nkey = \"b\"",
                "server.tls_key is set beside [[server.tls]]: name all files in one of them",
            ),
            ("apps = 1", "apps is a list of tables: write [[apps]] above each"),
            ("[apps]\nid = \"1\"", "apps is a list of tables: write [[apps]] above each"),
            ("apps = [1]", "apps[0] is not a table"),
            ("[[apps]]\napp_id = \"1\"", "apps[0].app_id is not known; is id meant?"),
            (
                "[[apps]]\nhooks = \"1\"",
                "apps[0].hooks is not known; `ringverb --help` lists the options",
            ),
            (
                "[[apps]]\nwebhooks = \"1\"",
                "apps[0].webhooks is a list of tables: write [[apps.webhooks]] above each",
            ),
            ("[[apps]]\nwebhooks = [1]", "apps[0].webhooks[0] is not a table"),
            (
                "[[apps]]\n[[apps.webhooks]]\nevent = \"x\"",
                "apps[0].webhooks[0].event is not known; is events meant?",
            ),
            (
                "[[apps]]\n[[apps.webhooks]]\nevents = []",
                "apps[0].webhooks[0].events must be a list of at least one text",
            ),
            (
                "[[apps]]\nallowed_origins = []",
                "apps[0].allowed_origins must be a list of at least one text",
            ),
            (
                "[[apps]]\nallowed_origins = [\"\"]",
                "apps[0].allowed_origins must be a list of at least one text",
            ),
            (
                "[[apps]]\nallowed_origins = [1]",
                "apps[0].allowed_origins must be a list of at least one text",
            ),
        ] {
            let mut problems = Vec::new();
            flatten(&parse(text).unwrap(), "x.toml", &mut problems);
            assert_eq!(problems, [format!("x.toml: {problem}")], "{text}");
        }
    }
}
