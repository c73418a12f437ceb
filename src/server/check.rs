//! `ringverb check`: the effective configuration, with where each value comes from. Secrets are masked. PURE.

use std::fmt::Write;

use crate::config::Config;
use crate::config::load::{Merged, Values};
use crate::config::options::{OPTIONS, OptionSpec, Scope};

/// The whole report.
pub(super) fn render(merged: &Merged, config: &Config) -> String {
    let mut text = String::from("[server]\n");
    write_scope(&mut text, Scope::Server, &merged.server);
    if config.development {
        text.push_str(
            "\n[[apps]]  # development mode: id, key and secret are drawn at each start\n",
        );
        write_scope(&mut text, Scope::App, &merged.development);
    }
    for app in &merged.apps {
        text.push_str("\n[[apps]]\n");
        write_scope(&mut text, Scope::App, app);
    }
    text.push_str("\nThe configuration is good.\n");
    text
}

fn write_scope(text: &mut String, scope: Scope, values: &Values) {
    for option in OPTIONS.iter().filter(|option| option.scope == scope) {
        let line = match values.get(option.key) {
            None => format!("# {} is not set", option.key),
            Some(given) => {
                let value = shown(option, &given.value);
                format!("{:<45} # {}", format!("{} = {value}", option.key), given.source)
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
}

fn shown(option: &OptionSpec, value: &str) -> String {
    if option.key == "secret" {
        return "\"********\"".to_owned();
    }
    if value.parse::<u64>().is_ok() || matches!(value, "true" | "false") {
        return value.to_owned();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Sources, merge};
    use crate::config::validate::{DevelopmentApp, build};

    #[test]
    fn secrets_are_masked_and_sources_told() {
        let sources = Sources {
            environment: [
                ("REVERB_APP_ID", "1"),
                ("REVERB_APP_KEY", "k"),
                ("REVERB_APP_SECRET", "hunter2"),
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
    }
}
