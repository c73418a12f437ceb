//! Names of options that no reader has: misspelled ones, with the name that is probably meant. PURE.
//!
//! Owns the rules of what is near enough, and the list of names that other programs read. Input are the names in the
//! environment and in `.env`; values are looked at only where Kubernetes put them. Does not change a value, and
//! messages never contain one.
//!
//! Limits: `WARNINGS_MAX` names are reported; names longer than `NAME_BYTES_MAX` are compared with nothing. Cost: once
//! at the start and at each reload, linear in the number of names, with one comparison for each option and unknown
//! name.

use super::options::OPTIONS;

/// Least length of an option's name, without its prefix, that may be found as the start of a longer word. Shorter
/// names, such as KEY and HOST, begin too many others.
const SPECIFIC_BYTES: usize = 6;
/// Unknown names that are reported one by one. The rest are one number.
const WARNINGS_MAX: usize = 20;
/// Longer names are cut in messages and compared with no option: the longest option has 46 bytes.
const NAME_BYTES_MAX: usize = 80;

/// Names that Laravel, Reverb, the package in `laravel/` or the tools around them read, and this server has no use for.
const READ_BY_OTHERS: [&str; 7] = [
    "REVERB_SERVER",
    "REVERB_PULSE_INGEST_INTERVAL",
    "REVERB_TELESCOPE_INGEST_INTERVAL",
    "RINGVERB_BINARY",
    "RINGVERB_STATE",
    "RINGVERB_CONSOLE_PATH",
    "RINGVERB_WEBHOOK_PATH",
];

/// What people write for an option whose name has few letters in common with it.
const SYNONYMS: &[(&str, &str)] = &[
    ("ORIGIN", "RINGVERB_ALLOWED_ORIGINS"),
    ("ORIGINS", "RINGVERB_ALLOWED_ORIGINS"),
    ("CORS_ORIGINS", "RINGVERB_ALLOWED_ORIGINS"),
    ("CORS_ALLOWED_ORIGINS", "RINGVERB_ALLOWED_ORIGINS"),
    ("ALLOWED_HOSTS", "RINGVERB_ALLOWED_ORIGINS"),
    ("ID", "REVERB_APP_ID"),
    ("KEY", "REVERB_APP_KEY"),
    ("SECRET", "REVERB_APP_SECRET"),
    ("PREFIX", "REVERB_SERVER_PATH"),
    ("THREADS", "RINGVERB_WORKERS"),
    ("MAX_MESSAGE_SIZE", "REVERB_APP_MAX_MESSAGE_SIZE"),
    ("MAX_CONNECTIONS", "REVERB_APP_MAX_CONNECTIONS"),
    ("MEMORY_LIMIT", "RINGVERB_MEMORY_MAX"),
];

/// A name with its value. `source` is the file's name or "environment".
pub(super) struct NamedValue<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) source: &'a str,
}

/// One sentence for each name that looks like an option and is none, sorted by name.
pub(super) fn warnings<'a>(given: impl Iterator<Item = NamedValue<'a>>) -> Vec<String> {
    let mut unknown: Vec<NamedValue<'a>> =
        given.filter(|given| is_unknown(given.name, given.value)).collect();
    unknown.sort_by_key(|given| (given.name, given.source));
    unknown.dedup_by_key(|given| given.name);
    let unlisted = unknown.len().saturating_sub(WARNINGS_MAX);
    let mut warnings: Vec<String> =
        unknown.iter().take(WARNINGS_MAX).map(|given| sentence(given.name, given.source)).collect();
    if unlisted > 0 {
        warnings.push(format!("{unlisted} more unknown options are ignored"));
    }
    warnings
}

fn sentence(name: &str, source: &str) -> String {
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    match nearest_name(name) {
        Some(near) => format!("unknown option {shown} ({source}) is ignored; did you mean {near}?"),
        None => format!(
            "unknown option {shown} ({source}) is ignored; `ringverb --help` lists the options"
        ),
    }
}

/// Whether the name is meant for this server or for Reverb, and neither reads it.
fn is_unknown(name: &str, value: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let is_read =
        |name: &str| known_names().any(|known| known == name) || READ_BY_OTHERS.contains(&name);
    if name.len() <= NAME_BYTES_MAX && is_read(name) || is_from_kubernetes(name, value) {
        return false;
    }
    if upper.starts_with("REVERB_") || upper.starts_with("RINGVERB_") {
        return true;
    }
    // A slip in the first word itself. Other words are other programs' names, so the whole has to be near.
    let first = upper.split('_').next().unwrap_or_default();
    let is_slip = |word: &str| {
        first.len().abs_diff(word.len()) <= 2 && (1..=2).contains(&edit_distance(first, word))
    };
    (is_slip("REVERB") || is_slip("RINGVERB"))
        && name.len() <= NAME_BYTES_MAX
        && known_names().any(|known| has_server_prefix(known) && edit_distance(known, &upper) <= 2)
}

fn known_names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().flat_map(|option| option.environment.iter().copied())
}

fn has_server_prefix(name: &str) -> bool {
    name.starts_with("REVERB_") || name.starts_with("RINGVERB_")
}

/// What Kubernetes and Docker links set for a service named `reverb`, `reverb-server` or `ringverb`: addresses of the
/// service, which are no options.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
    {
        return true;
    }
    if name.ends_with("_PORT") && service_port(value).is_some() {
        return true;
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.match_indices("_PORT_").any(|(at, word)| {
        let mut words = name[at + word.len()..].split('_');
        words.next().is_some_and(is_number)
            && words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"))
    })
}

/// The port of an address that Kubernetes and Docker links set, such as `tcp://10.96.0.13:8080`.
pub(super) fn service_port(value: &str) -> Option<u16> {
    let (scheme, rest) = value.split_once("://")?;
    if !matches!(scheme, "tcp" | "udp" | "sctp") {
        return None;
    }
    let port = rest.trim_end_matches('/').rsplit_once(':')?.1;
    port.parse().ok().filter(|port| *port > 0)
}

/// The option that is probably meant; `None` if none is near.
fn nearest_name(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    // Of two that are equally near, the one with another prefix only.
    let is_other = |known: &str| without_prefix(known) != without_prefix(&upper);
    let near = known_names()
        .filter(|known| has_server_prefix(known))
        .min_by_key(|known| (edit_distance(known, &upper), is_other(known)))?;
    // Two slips, or a fifth of the letters of a long name.
    if edit_distance(near, &upper) <= (upper.len() / 5).max(2) {
        return Some(near);
    }
    let rest = without_prefix(&upper);
    let other = SYNONYMS.iter().find(|(written, _)| *written == rest).map(|(_, meant)| *meant);
    // The right words in another order, or below the wrong prefix.
    let words = |name: &str| {
        let mut words: Vec<String> = name.split('_').map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    let reordered = known_names()
        .find(|known| has_server_prefix(known) && words(without_prefix(known)) == words(rest));
    if reordered.is_some() {
        return reordered;
    }
    // One word too many.
    let longer = known_names()
        .filter(|known| has_server_prefix(known) && without_prefix(known).len() >= SPECIFIC_BYTES);
    let begins = longer.filter(|known| {
        rest.strip_prefix(without_prefix(known)).is_some_and(|more| more.starts_with('_'))
    });
    if let Some(longest) = begins.max_by_key(|known| known.len()) {
        return Some(longest);
    }
    let close = || {
        known_names()
            .filter(|known| has_server_prefix(known))
            .min_by_key(|known| edit_distance(without_prefix(known), rest))
    };
    other.or_else(|| {
        close().filter(|near| edit_distance(without_prefix(near), rest) <= rest.len() / 5)
    })
}

fn without_prefix(name: &str) -> &str {
    let rest =
        name.strip_prefix("REVERB_").or_else(|| name.strip_prefix("RINGVERB_")).unwrap_or(name);
    rest.strip_prefix("APP_").or_else(|| rest.strip_prefix("SERVER_")).unwrap_or(rest)
}

/// Edit distance in which two neighbors that changed places are one slip. Quadratic in short names.
pub(super) fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.iter().enumerate() {
        let mut next = vec![index + 1; right.len() + 1];
        for (at, b) in right.iter().enumerate() {
            let changed = row[at] + usize::from(a != b);
            let mut best = changed.min(row[at + 1] + 1).min(next[at] + 1);
            let is_swap = index > 0 && at > 0 && *a == right[at - 1] && left[index - 1] == *b;
            if is_swap {
                best = best.min(before[at - 1] + 1);
            }
            next[at + 1] = best;
        }
        before = std::mem::replace(&mut row, next);
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings_for(name: &str, value: &str) -> Vec<String> {
        warnings([NamedValue { name, value, source: ".env" }].into_iter())
    }

    #[test]
    fn a_slip_is_answered_with_the_name_that_is_meant() {
        for (name, meant) in [
            ("REVERB_SERVER_PROT", "REVERB_SERVER_PORT"),
            ("REVERB_APP_MAX_CONECTIONS", "REVERB_APP_MAX_CONNECTIONS"),
            ("REVERB_APP_MAX_CONNECTION", "REVERB_APP_MAX_CONNECTIONS"),
            ("REVERB_APP_SECRETS", "REVERB_APP_SECRET"),
            ("REVERB_APPKEY", "REVERB_APP_KEY"),
            ("REVERB_KEY", "REVERB_APP_KEY"),
            ("REVERB_SCALING_ENABLE", "REVERB_SCALING_ENABLED"),
            ("REVERB_MAX_MESSAGE_SIZE", "REVERB_APP_MAX_MESSAGE_SIZE"),
            ("REVERB_CORS_ORIGINS", "RINGVERB_ALLOWED_ORIGINS"),
            ("RINGVERB_WORKRES", "RINGVERB_WORKERS"),
            ("RINGVERB_WORKER", "RINGVERB_WORKERS"),
            ("RINGVERB_ALLOWED_ORIGIN", "RINGVERB_ALLOWED_ORIGINS"),
            ("RINGVERB_MAX_MEMORY", "RINGVERB_MEMORY_MAX"),
            ("RINGVERB_SHUTDOWN_GRACE_PERIOD", "RINGVERB_SHUTDOWN_GRACE"),
            ("RINGVERB_APP_KEY", "REVERB_APP_KEY"),
            ("RINGVERB_PORT", "REVERB_SERVER_PORT"),
            ("REVERB_WORKERS", "RINGVERB_WORKERS"),
            ("REVERB_TRUSTED_PROXIES", "RINGVERB_TRUSTED_PROXIES"),
            ("REVEB_APP_KEY", "REVERB_APP_KEY"),
            ("RINGVREB_WORKERS", "RINGVERB_WORKERS"),
            ("reverb_app_key", "REVERB_APP_KEY"),
        ] {
            let expected =
                format!("unknown option {name} (.env) is ignored; did you mean {meant}?");
            assert_eq!(warnings_for(name, "hunter2"), [expected]);
        }
        let far = warnings_for("RINGVERB_FRIENDLINESS", "hunter2");
        assert_eq!(
            far,
            [
                "unknown option RINGVERB_FRIENDLINESS (.env) is ignored; `ringverb --help` lists the options"
            ]
        );
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for (name, value) in [
            ("REVERB_HOST", "a"),
            ("REVERB_SERVER", "reverb"),
            ("REVERB_SCALING_ENABLED", "true"),
            ("REVERB_PULSE_INGEST_INTERVAL", "15"),
            ("RINGVERB_CONSOLE_PATH", "ringverb"),
            ("REVERB_APP_RATE_LIMITING_MAX_ATTEMPTS", "1"),
            ("REVERB_ALLOWED_ORIGINS", "a"),
            ("VITE_REVERB_APP_KEY", "a"),
            ("MIX_REVERB_APP_KEY", "a"),
            ("REVERB_SERVICE_HOST", "10.0.0.1"),
            ("REVERB_SERVICE_PORT", "8080"),
            ("REVERB_SERVICE_PORT_HTTP", "8080"),
            ("REVERB_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("REVERB_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("REVERB_PORT_8080_TCP_PROTO", "tcp"),
            ("REVERB_PORT_9_UDP", "udp://10.0.0.1:9"),
            ("RINGVERB_SERVICE_HOST", "10.0.0.1"),
            ("RINGVERB_PORT", "tcp://10.0.0.1:80"),
            ("RINGVERB_BLUE_PORT_80_TCP_PORT", "80"),
            ("REVERB_BACKEND_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "x"),
            ("REVERSE_PROXY_HOST", "x"),
            ("SERVER_PORT", "x"),
            ("RINGBEARER", "frodo"),
            ("REDIS_HOTS", "x"),
        ] {
            assert!(
                warnings_for(name, value).is_empty(),
                "{name}: {:?}",
                warnings_for(name, value)
            );
        }
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..1_000).map(|number| format!("REVERB_X{number:03}")).collect();
        let given = names.iter().map(|name| NamedValue { name, value: "", source: ".env" });
        let warnings = warnings(given);
        assert_eq!(warnings.len(), WARNINGS_MAX + 1);
        assert_eq!(warnings[WARNINGS_MAX], "980 more unknown options are ignored");
        let long = format!("REVERB_{}", "X".repeat(100_000));
        assert!(warnings_for(&long, "")[0].len() < 250);
    }

    #[test]
    fn neighbors_that_changed_places_are_one_slip() {
        for (left, right, slips) in
            [("PORT", "PROT", 1), ("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3)]
        {
            assert_eq!((edit_distance(left, right), edit_distance(right, left)), (slips, slips));
        }
    }
}
