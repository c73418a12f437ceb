//! The file of `--laravel-config`: a Laravel application's effective `config('reverb')` and its apps, as the package
//! `ringverb/laravel` writes them before each start. PURE: `load.rs` reads the file and checks its mode.
//!
//! Owns which keys of PHP stand for which option. Input: JSON with `server`, which is
//! `config('reverb.servers.reverb')`, and `apps`, a list of apps as Reverb's `ApplicationProvider` has them. Output:
//! flat texts by option key. PHP has read the `REVERB_*` and `REDIS_*` names already, so with this file they are not
//! read from the environment (`is_read_by_php`). Unknown keys cause a warning, because a new version of Reverb may add
//! some. Messages never contain a value.
//!
//! Limits: `DEPTH_MAX` levels, and the size of the file in `load.rs`. Cost: once at the start and at each reload, a few
//! allocations for each key.

use simd_json::{OwnedValue, StaticNode};

use super::options::{OptionId as Id, OptionSpec, Scope};
use super::toml_file::{AppTexts, Texts};

/// Levels of objects below `server` and below an app. Reverb has three.
const DEPTH_MAX: usize = 8;

/// The file, flattened. No `Debug`, because it contains secrets.
#[derive(Clone)]
pub struct LaravelConfig {
    pub(super) name: String,
    pub(super) server: Texts,
    pub(super) apps: Vec<AppTexts>,
    pub(super) warnings: Vec<String>,
}

/// Whether `config/reverb.php` reads this name. The origins are literal there, and the others concern the start message
/// only.
pub(super) fn is_read_by_php(option: &OptionSpec, name: &str) -> bool {
    let is_of_reverb = name.starts_with("REVERB_") || name.starts_with("REDIS_");
    is_of_reverb && !matches!(option.id, Id::AllowedOrigins | Id::PublicPort | Id::Scheme)
}

impl LaravelConfig {
    /// Reads the bytes of the file. `name` is its name in messages.
    ///
    /// # Errors
    /// One sentence for each fault, with its place.
    pub(super) fn parse(mut bytes: Vec<u8>, name: String) -> Result<Self, Vec<String>> {
        let root = simd_json::to_owned_value(&mut bytes).map_err(|error| {
            vec![format!(
                "{name}: the file is not valid JSON near byte {}: `php artisan reverb:start` writes it",
                error.index()
            )]
        })?;
        let OwnedValue::Object(root) = root else {
            return Err(vec![format!(
                "{name}: the file is JSON, but not an object with `server` and `apps`: `php artisan reverb:start` \
                 writes it"
            )]);
        };
        let mut reader = JsonReader { file: &name, warnings: Vec::new(), problems: Vec::new() };
        let mut server = Texts::default();
        if let Some(value) = root.get("server") {
            server = reader.table(value, "server", Scope::Server);
            complete_tls(&mut server);
        }
        let apps = reader.apps(root.get("apps"));
        let JsonReader { warnings, problems, .. } = reader;
        if problems.is_empty() { Ok(Self { name, server, apps, warnings }) } else { Err(problems) }
    }
}

struct JsonReader<'a> {
    file: &'a str,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl JsonReader<'_> {
    fn add_problem(&mut self, sentence: &str) {
        self.problems.push(format!("{}: {sentence}", self.file));
    }

    fn apps(&mut self, list: Option<&OwnedValue>) -> Vec<AppTexts> {
        let apps: &[OwnedValue] = match list {
            Some(OwnedValue::Array(apps)) => apps,
            _ => &[],
        };
        if apps.is_empty() {
            self.add_problem(
                "it has no app: set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET in .env, or name an app in \
                 config/reverb.php",
            );
        }
        let numbered = apps.iter().enumerate();
        numbered.map(|(index, app)| self.app(app, &format!("apps[{index}]"))).collect()
    }

    fn app(&mut self, app: &OwnedValue, place: &str) -> AppTexts {
        let mut webhooks = Vec::new();
        if let OwnedValue::Object(members) = app
            && let Some(OwnedValue::Array(list)) = members.get("webhooks")
        {
            let numbered = list.iter().enumerate();
            let table = |(index, webhook)| {
                self.table(webhook, &format!("{place}.webhooks[{index}]"), Scope::Webhook)
            };
            webhooks = numbered.map(table).collect();
        }
        AppTexts { texts: self.table(app, place, Scope::App), webhooks }
    }

    fn table(&mut self, value: &OwnedValue, place: &str, scope: Scope) -> Texts {
        let mut texts = Texts::default();
        if !matches!(value, OwnedValue::Object(_)) {
            self.add_problem(&format!("{place} must be an object"));
        }
        self.member(value, place, "", scope, &mut texts);
        texts
    }

    fn member(
        &mut self,
        value: &OwnedValue,
        place: &str,
        key: &str,
        scope: Scope,
        texts: &mut Texts,
    ) {
        if let OwnedValue::Object(members) = value {
            if key.matches('.').count() >= DEPTH_MAX {
                self.add_problem(&format!("{place}.{key} has more than {DEPTH_MAX} levels"));
                return;
            }
            for (name, value) in members.iter() {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                self.member(value, place, &key, scope, texts);
            }
            return;
        }
        let option_key = match (scope, key) {
            (Scope::App, "app_id") => "id",
            (Scope::App, "webhooks") => return,
            // Reverb has the key in the file of the certificate if `local_pk` is missing.
            (Scope::Server, "options.tls.local_cert") => "tls_cert",
            (Scope::Server, "options.tls.local_pk") => "tls_key",
            (Scope::Server, "options.tls.passphrase") => "tls_key_passphrase",
            // The options of an app are for PHP, which publishes. The others are of PHP's own sockets.
            (Scope::App | Scope::Server, key)
                if key == "options" || key.starts_with("options.") =>
            {
                return;
            }
            (_, key) => key,
        };
        if OptionSpec::by_key(Scope::Unused, option_key).is_some() {
            return;
        }
        let Some(option) = OptionSpec::by_key(scope, option_key) else {
            if !is_empty(value) {
                let file = self.file;
                self.warnings.push(format!(
                    "{file}: {place}.{key} has no effect, because this server has no such option: docs/OPTIONS.md \
                     lists the keys"
                ));
            }
            return;
        };
        if let Some(text) = self.text(option, value, &format!("{place}.{key}")) {
            texts.insert(option_key.to_owned(), text);
        }
    }

    /// A value as text. `None` for PHP's null, which means the option's default, and for a value that is a problem.
    fn text(&mut self, option: &OptionSpec, value: &OwnedValue, place: &str) -> Option<String> {
        match value {
            OwnedValue::String(text) => Some(text.clone()),
            OwnedValue::Static(StaticNode::Null) => None,
            OwnedValue::Static(StaticNode::F64(number)) if number.fract() == 0.0 => {
                Some(format!("{number:.0}"))
            }
            OwnedValue::Static(StaticNode::F64(_)) => {
                self.add_problem(&format!("{place} is a fraction, but must be a whole number"));
                None
            }
            OwnedValue::Static(number) => Some(number.to_string()),
            OwnedValue::Array(items) => {
                let texts: Vec<&str> = items
                    .iter()
                    .filter_map(|item| match item {
                        OwnedValue::String(text) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect();
                let is_blank = texts.iter().all(|text| text.trim().is_empty());
                if texts.len() < items.len() {
                    self.add_problem(&format!("{place} must be a list of texts"));
                    return None;
                }
                // The default of the origins is the opposite of an empty list.
                if is_blank && option.id == Id::AllowedOrigins {
                    self.add_problem(&format!(
                        "{place} is an empty list, which refuses every page: name hosts, or '*' for all"
                    ));
                    return None;
                }
                (!is_blank).then(|| texts.join(","))
            }
            OwnedValue::Object(_) => None,
        }
    }
}

/// Completes a certificate without a key, or a key without a certificate: PHP accepts one file that contains both.
fn complete_tls(server: &mut Texts) {
    let text =
        |server: &Texts, id: Id| server.of(id.spec()).filter(|text| !text.is_empty()).cloned();
    let files = (text(server, Id::TlsCert), text(server, Id::TlsKey));
    let (id, file) = match files {
        (Some(certificate), None) => (Id::TlsKey, certificate),
        (None, Some(key)) => (Id::TlsCert, key),
        _ => return,
    };
    server.insert(id.spec().key.to_owned(), file);
}

fn is_empty(value: &OwnedValue) -> bool {
    match value {
        OwnedValue::Static(StaticNode::Null) => true,
        OwnedValue::String(text) => text.is_empty(),
        OwnedValue::Array(items) => items.is_empty(),
        OwnedValue::Object(members) => members.is_empty(),
        OwnedValue::Static(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::validate::{DevelopmentApp, build_config};
    use super::super::{Config, MaskedText, Sources, merge};
    use super::*;
    use std::collections::HashMap;

    const FILE: &str = r#"{
        "server": {"host": "127.0.0.1", "port": 9000, "path": "ws", "hostname": null, "max_request_size": 20000.0,
            "options": {"tls": {"verify_peer": false}}, "pulse_ingest_interval": 15,
            "scaling": {"enabled": false, "server": {"password": null}}},
        "apps": [
            {"app_id": "1", "key": "k1", "secret": "hunter2", "ping_interval": 50, "max_connections": null,
                "allowed_origins": ["a.test", "b.test"], "options": {"host": "x", "port": 443},
                "rate_limiting": {"enabled": true, "max_attempts": 7}},
            {"app_id": "2", "key": "k2", "secret": "hunter2", "allowed_origins": ["*"],
                "webhooks": [{"url": "https://b.test/hook", "events": ["client_event"]}]}
        ]}"#;

    fn sources(text: &str, environment: &[(&str, &str)]) -> Sources {
        let environment: HashMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let laravel = LaravelConfig::parse(text.into(), "r.json".to_owned());
        let laravel = laravel.unwrap_or_else(|problems| panic!("{problems:?}"));
        Sources { environment, laravel: Some(laravel), ..Sources::default() }
    }

    fn load(sources: &Sources) -> Config {
        let unused = DevelopmentApp { id: "0".into(), key: "k".repeat(20), secret: "s".repeat(20) };
        build_config(&merge(sources), &unused).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn problems_of(text: &str) -> Vec<String> {
        LaravelConfig::parse(text.into(), "r.json".to_owned()).err().unwrap_or_default()
    }

    #[test]
    fn values_of_the_file_count() {
        let config = load(&sources(FILE, &[]));
        assert_eq!((config.host.to_string().as_str(), config.port), ("127.0.0.1", 9000));
        assert_eq!((config.path.as_str(), config.request_size_max), ("/ws", 20_000));
        assert!(!config.development && config.source == "r.json");
        let [first, second] = &config.apps[..] else { panic!("two apps") };
        assert_eq!((first.id.as_str(), first.key.as_str()), ("1", "k1"));
        assert_eq!(first.secret.reveal(), "hunter2");
        assert_eq!((first.ping_interval_seconds, first.connections_max), (50, None));
        assert_eq!(first.rate_limit.map(|limit| limit.attempts_max), Some(7));
        assert_eq!(first.allowed_origins, ["a.test", "b.test"]);
        assert_eq!(second.webhooks.len(), 1);
        assert!(merge(&sources(FILE, &[])).warnings.is_empty());
    }

    #[test]
    fn names_that_php_has_read_do_not_count_and_the_own_ones_are_stronger() {
        let environment = [
            ("REVERB_SERVER_PORT", "1"),
            ("REVERB_APP_ID", "2"),
            ("REVERB_APP_KEY", "stale"),
            ("REVERB_APP_PING_INTERVAL", "9"),
            ("RINGVERB_CACHE_TTL", "77"),
            ("RINGVERB_SHUTDOWN_GRACE", "3"),
            ("REVERB_ALLOWED_ORIGINS", "c.test"),
        ];
        let mut sources = sources(FILE, &environment);
        let config = load(&sources);
        assert_eq!((config.port, config.shutdown_grace_seconds), (9000, 3));
        let [first, second] = &config.apps[..] else { panic!("two apps") };
        assert_eq!((first.ping_interval_seconds, first.cache_ttl_seconds), (50, 1_800));
        assert_eq!(first.allowed_origins, ["a.test", "b.test"]);
        assert_eq!((second.key.as_str(), second.cache_ttl_seconds), ("k2", 77));
        assert_eq!(second.allowed_origins, ["c.test"]);
        sources.flags = [(Id::Port, "4".to_owned())].into();
        assert_eq!(load(&sources).port, 4);
    }

    #[test]
    fn apps_of_the_toml_file_stay_and_fill_missing_values() {
        let toml = "[server]\nport = 5\nworkers = 3\n[[apps]]\nid = \"1\"\nkey = \"old\"\nsecret = \"s\"\n\
            cache_ttl = 9\n\
            [[apps]]\nid = \"7\"\nkey = \"k7\"\nsecret = \"s\"\n";
        let sources = Sources { toml: toml.parse().unwrap(), ..sources(FILE, &[]) };
        let config = load(&sources);
        assert_eq!((config.port, config.workers), (9000, 3));
        let apps: Vec<_> =
            config.apps.iter().map(|app| (app.key.as_str(), app.cache_ttl_seconds)).collect();
        assert_eq!(apps, [("k1", 9), ("k2", 1_800), ("k7", 1_800)]);
    }

    #[test]
    fn a_certificate_with_its_key_is_one_file() {
        let file = r#"{"server": {"options": {"tls": {"local_cert": "/a.pem", "passphrase": "hunter2"}}},
            "apps": [{"app_id": "1", "key": "k", "secret": "s"}]}"#;
        let tls = load(&sources(file, &[])).tls.expect("a certificate");
        assert_eq!(
            (tls.pairs[0].certificate.as_str(), tls.pairs[0].key.as_str()),
            ("/a.pem", "/a.pem")
        );
        assert_eq!(tls.passphrase, Some(MaskedText("hunter2".to_owned())));
        assert!(!format!("{tls:?}").contains("hunter2"));
    }

    #[test]
    fn unknown_keys_cause_warnings_and_wrong_values_problems_without_values() {
        let file = r#"{"server": {"new": 1, "empty": null}, "apps": [{"app_id": "1", "key": "k", "secret": "s"}]}"#;
        assert_eq!(merge(&sources(file, &[])).warnings.len(), 1);
        for (text, part) in [
            ("{", "not valid JSON"),
            ("[]", "not an object"),
            ("{}", "it has no app"),
            (r#"{"apps": []}"#, "it has no app"),
            (r#"{"apps": ["hunter2"]}"#, "apps[0] must be an object"),
            (r#"{"apps": [{"ping_interval": 1.5}]}"#, "apps[0].ping_interval is a fraction"),
            (r#"{"apps": [{"allowed_origins": []}]}"#, "apps[0].allowed_origins is an empty list"),
            (r#"{"apps": [{"allowed_origins": [1]}]}"#, "must be a list of texts"),
            (
                r#"{"apps": [{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}}}]}"#,
                "more than 8 levels",
            ),
        ] {
            let problems = problems_of(text);
            let joined = problems.join("; ");
            assert!(joined.contains(part) && !joined.contains("hunter2"), "{text}: {joined}");
        }
    }

    #[test]
    fn an_app_without_credentials_is_a_problem() {
        let merged = merge(&sources(r#"{"apps": [{"app_id": "1"}]}"#, &[]));
        assert_eq!(
            merged.problems,
            ["r.json: apps[0] (id 1) has no key", "r.json: apps[0] (id 1) has no secret"]
        );
    }
}
