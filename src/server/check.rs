//! `ringverb check`: the effective configuration, with where each value comes from. Secrets are masked. PURE.

use std::fmt::Write;

use crate::config::Config;
use crate::config::load::{Merged, Values};
use crate::config::options::{BOOLEAN, OPTIONS, OptionSpec, Scope};
use crate::config::validate::boolean;
use crate::config::{redis_url, webhook_url};

/// The whole report.
pub(super) fn render(merged: &Merged, config: &Config) -> String {
    let mut text = String::from("[server]\n");
    write_scope(&mut text, Scope::Server, &merged.server, &config.path);
    if config.development {
        text.push_str(
            "\n[[apps]]  # development mode: id, key and secret are drawn at each start\n",
        );
        write_app(&mut text, &merged.development);
    }
    for app in &merged.apps {
        text.push_str("\n[[apps]]\n");
        write_app(&mut text, app);
    }
    text.push_str("\nThe configuration is good.\n");
    text
}

fn write_app(text: &mut String, app: &Values) {
    write_scope(text, Scope::App, app, "");
    for webhook in app.webhooks() {
        text.push_str("\n[[apps.webhooks]]\n");
        write_scope(text, Scope::Webhook, webhook, "");
    }
}

/// `path` is the one value that is served in another form than it was given in.
fn write_scope(text: &mut String, scope: Scope, values: &Values, path: &str) {
    for option in OPTIONS.iter().filter(|option| option.scope == scope) {
        let line = match values.get(option.key) {
            None => format!("# {} is not set", option.key),
            Some(given) => {
                let value = if option.key == "path" { path } else { &given.value };
                let value = shown(option, value);
                format!("{:<45} # {}", format!("{} = {value}", option.key), given.source)
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
}

fn shown(option: &OptionSpec, value: &str) -> String {
    if matches!(option.key, "secret" | "scaling.server.password") {
        return "\"********\"".to_owned();
    }
    // Credentials may be in there, too.
    if option.key == "url" {
        return format!("{:?}", webhook_url::shown(value));
    }
    match option.key {
        "scaling.server.url" => return format!("{:?}", redis_url::shown(value)),
        "scaling.server.host" => return format!("{:?}", redis_url::shown_host(value)),
        _ => {}
    }
    // Credentials are text, also when they look like numbers.
    if matches!(option.key, "id" | "key" | "scaling.server.username") {
        return format!("{value:?}");
    }
    if option.accepts == BOOLEAN
        && let Some(value) = boolean(value)
    {
        return value.to_string();
    }
    if value.parse::<u64>().is_ok() {
        return value.to_owned();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Sources, merge};
    use crate::config::validate::{DevelopmentApp, build};

    fn rendered(pairs: &[(&str, &str)]) -> String {
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let merged = merge(&Sources { environment, ..Sources::default() });
        let drawn = DevelopmentApp { id: String::new(), key: String::new(), secret: String::new() };
        render(&merged, &build(&merged, &drawn).unwrap())
    }

    #[test]
    fn redis_is_shown_without_its_credentials() {
        let text = rendered(&[
            ("REVERB_SCALING_ENABLED", "(true)"),
            ("REDIS_URL", "redis://u:hunter2@a.test:1/0"),
            ("REDIS_HOST", "tcp://u:hunter2@a.test"),
            ("REDIS_USERNAME", "0815"),
            ("REDIS_PASSWORD", "hunter2"),
        ]);
        for part in [
            "scaling.enabled = true ",
            "scaling.channel = \"reverb\" ",
            "scaling.server.url = \"redis://a.test:1/0\" ",
            "scaling.server.host = \"********\" ",
            "scaling.server.port = 6379 ",
            "scaling.server.username = \"0815\" ",
            "scaling.server.password = \"********\" ",
            "# environment: REDIS_PASSWORD",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        // Of a server without scaling nobody has looked at them.
        let text = rendered(&[("REDIS_URL", "redis://u:hunter2"), ("REDIS_PASSWORD", "hunter2")]);
        assert!(text.contains("scaling.enabled = false ") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn secrets_are_masked_and_sources_told() {
        let sources = Sources {
            environment: [
                ("REVERB_APP_ID", "1"),
                ("REVERB_APP_KEY", "k"),
                ("REVERB_APP_SECRET", "hunter2"),
                ("REVERB_SERVER_PATH", "ws/"),
                ("RINGVERB_DEBUG", "(true)"),
                ("RINGVERB_ALLOW_MISSING_ORIGIN", "0"),
                ("RINGVERB_WEBHOOK_URL", "https://u:hunter2@a.test/x?token=hunter2,http://b.test/"),
                ("RINGVERB_WEBHOOK_EVENTS", "channel_occupied, channel_vacated"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..Sources::default()
        };
        let merged = merge(&sources);
        let drawn = DevelopmentApp { id: String::new(), key: String::new(), secret: String::new() };
        let text = render(&merged, &build(&merged, &drawn).unwrap());
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("secret = \"********\"")
                && text.contains("# environment: REVERB_APP_KEY"),
            "{text}"
        );
        assert!(text.contains("port = 8080") && text.contains("# default"), "{text}");
        // As it is served, whatever the spelling was.
        for part in [
            "path = \"/ws\"",
            "debug = true",
            "allow_missing_origin = false",
            "id = \"1\"",
            "[[apps.webhooks]]\nurl = \"https://a.test/x\" ",
            "events = \"channel_occupied, channel_vacated\"",
            "webhook_timeout = 30 ",
            "# channel_prefixes is not set",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
        // What is shown can be used as ringverb.toml, but for the secret.
        let toml: String = text
            .lines()
            .filter(|line| !line.starts_with("The "))
            .fold(String::new(), |all, line| all + line + "\n");
        let again = merge(&Sources { toml: toml.parse().unwrap(), ..Sources::default() });
        let again = build(&again, &drawn).unwrap();
        assert_eq!(
            (again.path.as_str(), again.apps[0].key.as_str(), again.debug),
            ("/ws", "k", true)
        );
        let urls: Vec<&str> = again.apps[0].webhooks.iter().map(|hook| hook.url.as_str()).collect();
        assert_eq!(urls, ["https://a.test/x", "http://b.test/"]);
    }
}
