//! `ringverb check` as text. PURE.
//!
//! Owns the text. First the values that differ from the defaults with where each comes from, then all others if they
//! are asked for, then what a start would find (`doctor`). Secrets are masked by their kind in the table of options, so
//! a new secret cannot be shown by omission. Does not look for problems.
//! No limits: one line for each option and finding. Cost: once in a command, one allocation or two for a line.

use std::fmt::Write;

use super::doctor::{Finding, Verdict};
use crate::config::Config;
use crate::config::options::{OptionId, OptionSpec, Scope, of_scope};
use crate::config::validate::development_refusal;
use crate::config::{Merged, Values};

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const RED: &str = "\x1b[31m";
const GRAY: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) has_color: bool,
    /// `--all`: values that are defaults are shown, too.
    pub(super) shows_defaults: bool,
}

/// `config`: what the values make; `None` if they are wrong, so that `check` shows them all the same.
pub(super) fn render(merged: &Merged, config: Option<&Config>, style: Style) -> String {
    let mut report = CheckReport { text: String::new(), style, hidden_count: 0 };
    report.text.push_str("[server]\n");
    report.push_scope(Scope::Server, &merged.server, config.map(|config| config.path.as_str()));
    if merged.apps.is_empty() {
        let why = match development_refusal(&merged.server) {
            None => "development mode: id, key and secret are generated at each start",
            Some(_) => "no app is configured: id, key and secret are missing",
        };
        report.text.push_str(&format!("\n[[apps]]  # {why}\n"));
        report.push_app(&merged.development);
    }
    for app in &merged.apps {
        report.text.push_str("\n[[apps]]\n");
        report.push_app(app);
    }
    if report.hidden_count > 0 {
        let (gray, plain) = report.colored(GRAY);
        let hidden = report.hidden_count;
        report.text.push_str(&format!(
            "\n{gray}# {hidden} more values are defaults; --all shows them{plain}\n"
        ));
    }
    report.text
}

/// The findings follow the values, under a heading of their own.
pub(super) fn render_findings(findings: &[Finding], style: Style) -> String {
    let mut text = String::from("\nA start on this machine:\n");
    for Finding { verdict, what, text: sentence } in findings {
        let (word, paint) = match verdict {
            Verdict::Good => ("ok", GREEN),
            Verdict::Note => ("note", CYAN),
            Verdict::Warning => ("warning", YELLOW),
            Verdict::Problem => ("problem", RED),
        };
        let (paint, plain) = if style.has_color { (paint, PLAIN) } else { ("", "") };
        // Writing to a String cannot fail.
        writeln!(text, "  {paint}{word:<8}{plain} {what:<8} {sentence}").ok();
    }
    text
}

struct CheckReport {
    text: String,
    style: Style,
    /// The number of defaults that were left out, which the last line reports.
    hidden_count: usize,
}

impl CheckReport {
    fn colored(&self, paint: &'static str) -> (&'static str, &'static str) {
        if self.style.has_color { (paint, PLAIN) } else { ("", "") }
    }

    fn push_app(&mut self, app: &Values) {
        self.push_scope(Scope::App, app, None);
        for webhook in app.webhooks() {
            self.text.push_str("\n[[apps.webhooks]]\n");
            self.push_scope(Scope::Webhook, webhook, None);
        }
    }

    /// `path` is the one value that is served in another form than it was given in.
    fn push_scope(&mut self, scope: Scope, values: &Values, path: Option<&str>) {
        let is_given =
            |option: &&OptionSpec| values.get(option.id).is_some_and(|given| !given.is_default());
        let options = || of_scope(scope);
        let (gray, plain) = self.colored(GRAY);
        let given = options().filter(is_given);
        let rest: Vec<&OptionSpec> = options().filter(|option| !is_given(option)).collect();
        let shown = if self.style.shows_defaults { rest.as_slice() } else { &[] };
        self.hidden_count += rest.len() - shown.len();
        for option in given.chain(shown.iter().copied()) {
            let line = match values.get(option.id) {
                None => format!("{gray}# {} is not set{plain}", option.key),
                Some(given) => {
                    let value =
                        path.filter(|_| option.id == OptionId::Path).unwrap_or(&given.value);
                    let value = option.accepts.kind.toml(value);
                    let value = format!("{} = {value}", option.key);
                    format!("{value:<45} {gray}# {}{plain}", given.source)
                }
            };
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validate::{DevelopmentApp, build_config};
    use crate::config::{Sources, merge};

    fn rendered(pairs: &[(&str, &str)]) -> String {
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let merged = merge(&Sources { environment, ..Sources::default() });
        let generated =
            DevelopmentApp { id: String::new(), key: String::new(), secret: String::new() };
        render(&merged, Some(&build_config(&merged, &generated).unwrap()), ALL)
    }

    const ALL: Style = Style { has_color: false, shows_defaults: true };

    #[test]
    fn changed_options_are_shown_first_and_the_others_on_request() {
        let environment = [("REVERB_SERVER_PORT", "9000"), ("RINGVERB_CACHE_TTL", "5")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let merged = merge(&Sources { environment: environment.into(), ..Sources::default() });
        let text = render(&merged, None, Style::default());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "[server]");
        assert!(lines[1].starts_with("port = 9000 "), "{text}");
        assert!(text.contains("cache_ttl = 5 ") && !text.contains("workers"), "{text}");
        assert!(text.contains("more values are defaults; --all shows them"), "{text}");
        assert!(lines.len() < 10, "{text}");
        let text = render(&merged, None, ALL);
        assert_eq!(text.lines().nth(1), Some(lines[1]), "{text}");
        assert!(text.contains("workers = 0 ") && !text.contains("--all"), "{text}");
        assert!(!text.contains('\x1b'));
        let text = render(&merged, None, Style { has_color: true, shows_defaults: false });
        assert!(text.contains("\x1b[90m# environment: REVERB_SERVER_PORT\x1b[0m"), "{text}");
    }

    #[test]
    fn development_mode_is_named_unless_it_is_forbidden() {
        for (value, is_allowed) in [(None, true), (Some("true"), true), (Some("false"), false)] {
            let environment =
                value.map(|value| ("RINGVERB_DEVELOPMENT".to_owned(), value.to_owned()));
            let environment = environment.into_iter().collect();
            let merged = merge(&Sources { environment, ..Sources::default() });
            let text = render(&merged, None, Style::default());
            assert_eq!(text.contains("development mode"), is_allowed, "{value:?}: {text}");
            assert_ne!(text.contains("no app is configured"), is_allowed, "{value:?}: {text}");
        }
    }

    #[test]
    fn findings_are_one_line_each() {
        let finding =
            |verdict, text: &str| Finding { verdict, what: "port", text: text.to_owned() };
        let findings = [
            finding(Verdict::Good, "free"),
            finding(Verdict::Note, "hidden"),
            finding(Verdict::Problem, "taken"),
        ];
        let text = render_findings(&findings, Style::default());
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            ["  ok       port     free", "  note     port     hidden", "  problem  port     taken"]
        );
        let text = render_findings(&findings, Style { has_color: true, shows_defaults: false });
        assert!(text.contains("\x1b[31mproblem \x1b[0m"), "{text}");
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
        // Of a server without scaling no probe has looked at them.
        let text = rendered(&[("REDIS_URL", "redis://u:hunter2"), ("REDIS_PASSWORD", "hunter2")]);
        assert!(text.contains("scaling.enabled = false ") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn secrets_are_masked_and_sources_are_shown() {
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
        let generated =
            DevelopmentApp { id: String::new(), key: String::new(), secret: String::new() };
        let text = render(&merged, Some(&build_config(&merged, &generated).unwrap()), ALL);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("secret = \"********\"")
                && text.contains("# environment: REVERB_APP_KEY"),
            "{text}"
        );
        assert!(text.contains("port = 8080") && text.contains("# default"), "{text}");
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
        // What is shown can be used as ringverb.toml once the secret is filled in. The mask is refused as a secret.
        let read = |text: &str| {
            let sources = Sources { toml: text.parse().unwrap(), ..Sources::default() };
            build_config(&merge(&sources), &generated)
        };
        assert!(read(&text).unwrap_err()[0].contains("only asterisks"));
        let again = read(&text.replace("********", "hunter2")).unwrap();
        assert_eq!(
            (again.path.as_str(), again.apps[0].key.as_str(), again.debug),
            ("/ws", "k", true)
        );
        let urls: Vec<&str> = again.apps[0].webhooks.iter().map(|hook| hook.url.as_str()).collect();
        assert_eq!(urls, ["https://a.test/x", "http://b.test/"]);
    }
}
