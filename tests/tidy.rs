//! Rules of the house that no compiler holds: who may name whom, what the pure layers must not know, form of the files.
//!
//! A rule reads source text, not syntax: `Source` blanks comments and literals first, so that prose about a thing is
//! not taken for the thing. Each test lists all its violations at once.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/limits.rs"]
mod limits;
#[path = "tidy/lists.rs"]
mod lists;
#[path = "tidy/mentions.rs"]
mod mentions;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/reading_list.rs"]
mod reading_list;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source::{Source, has_word, root, sources, tests, without_tests, words};

/// A module names only modules of lower rank, and never its neighbors. `src/lib.rs` says why; a test below compares.
const RANKS: &[(u8, &[&str])] = &[
    (7, &["server"]),
    (6, &["worker"]),
    (5, &["tick"]),
    (4, &["api", "webhook", "cluster", "debug_log", "operator_requests"]),
    (3, &["admission", "event_log", "mailbox", "output"]),
    (2, &["running_configuration", "shard"]),
    (
        1,
        &[
            "ws",
            "http1",
            "pusher",
            "resp",
            "config",
            "cause",
            "wheel",
            "metrics",
            "tls",
            "proxy_header",
        ],
    ),
    (
        0,
        &[
            "app",
            "buffer",
            "clock",
            "counters",
            "latest_value",
            "limits",
            "listed_enum",
            "phase",
            "slot",
            "text",
        ],
    ),
];

/// No clock, socket, thread, lock or file, and nothing that waits: input goes in as values, effects come out as values.
const PURE: &[&str] =
    &["ws", "http1", "pusher", "resp", "cause", "shard", "tick", "cluster", "tls", "proxy_header"];
#[rustfmt::skip]
const IMPURE_WORDS: &[&str] = &[
    "monoio", "io_uring", "socket2", "rustix", "libc", "std::net", "std::thread", "std::fs", "std::env", "std::os",
    "std::{", "Instant", "SystemTime", "Mutex", "RwLock", "async", "await", "getrandom",
];

/// The only files that may hold unsafe code.
const UNSAFE_ISLANDS: &[&str] = &["src/worker/kernel/uring.rs", "src/worker/sys.rs"];

/// What may panic outside of tests, by file: how often, and why no peer of the process reaches it. A panic ends
/// the process, so a new one needs a row here; ARCHITECTURE.md ("Panics") has the rest: indexes, and other crates.
#[rustfmt::skip]
const PANICS: &[(&str, usize, &str)] = &[
    ("src/app.rs", 1, "at the start: config refuses so many apps before"),
    ("src/app/secret.rs", 1, "HMAC takes keys of any length"),
    ("src/pusher/socket_id.rs", 1, "both numbers are the worker's own"),
    ("src/server/client/socket.rs", 1, "a command, not the server: no random numbers"),
    ("src/server/generated.rs", 1, "at the start: no random numbers"),
    ("src/slot.rs", 1, "2^32 channels take over 1 TB, and DESCRIPTORS_MAX is below 2^32 connections"),
    ("src/shard/mod.rs", 1, "the worker's own numbers"),
    ("src/worker/kernel/uring.rs", 2, "on purpose: the ring is broken, or has had no memory for a second"),
    ("src/worker/time.rs", 1, "on purpose: without random numbers socket ids could be guessed"),
];

const COLUMNS_MAX: usize = 120;
const LINES_MAX: usize = 500;

#[test]
fn modules_name_only_lower_ranks() {
    let mut violations = Vec::new();
    for source in sources("src") {
        let Some(module) = source.top_module() else { continue };
        for (line, name) in source.modules_named(is_module) {
            let allowed = name == module || rank(&name) < rank(&module);
            if !allowed {
                violations.push(format!("{}:{line}: {module} names {name}", source.name));
            }
        }
    }
    report(&violations);
}

#[test]
fn the_map_in_lib_rs_agrees() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut mapped = BTreeMap::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = row.split('|');
        let (Some(rank), Some(names)) = (cells.next(), cells.next()) else { continue };
        let Ok(rank) = rank.trim().parse::<u8>() else { continue };
        for name in names.split('`').skip(1).step_by(2).filter(|name| *name != "main.rs") {
            mapped.insert(name.to_owned(), rank);
        }
    }
    let modules: BTreeSet<_> = sources("src").iter().filter_map(Source::top_module).collect();
    let ranked: BTreeMap<_, _> =
        modules.into_iter().map(|name| (name.clone(), rank(&name))).collect();
    assert_eq!(mapped, ranked, "the rank table of src/lib.rs and the modules of src differ");
}

#[test]
fn pure_layers_know_no_world() {
    let mut violations = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        if !source.top_module().is_some_and(|module| PURE.contains(&module.as_str())) {
            continue;
        }
        for (number, line) in without_tests(&source.code).lines().enumerate() {
            for word in IMPURE_WORDS.iter().filter(|word| has_word(line, word)) {
                violations.push(format!("{}:{}: {word}", source.name, number + 1));
            }
        }
    }
    report(&violations);
}

/// Client sockets belong to the workers' own loops. The runtime is for the control thread (src/server/control.rs).
#[test]
fn only_the_server_names_the_runtime() {
    let mut violations = Vec::new();
    for source in sources("src") {
        if source.top_module().as_deref() == Some("server") {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            if has_word(line, "monoio") {
                violations.push(format!("{}:{}: monoio", source.name, number + 1));
            }
        }
    }
    report(&violations);
}

#[test]
fn each_source_file_is_declared_as_a_module() {
    let sources = sources("src");
    let mut violations = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !matches!(source.name.as_str(), "src/lib.rs" | "src/main.rs"))
    {
        let path = source.name.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let (parent, module) = path.rsplit_once('/').expect("a file below src");
        let candidates =
            [format!("{parent}.rs"), format!("{parent}/mod.rs"), format!("{parent}/lib.rs")];
        let declared = sources.iter().filter(|source| candidates.contains(&source.name));
        let mut declared = declared.flat_map(|source| source.code.lines());
        if !declared.any(|line| line.trim_end().ends_with(&format!("mod {module};"))) {
            violations.push(format!(
                "{}: no `mod {module};` above it, so it is not compiled",
                source.name
            ));
        }
    }
    report(&violations);
}

#[test]
fn files_begin_with_a_module_comment() {
    let silent = |source: &Source| {
        let first = source.text.lines().next().unwrap_or_default();
        (!first.starts_with("//! ")).then(|| format!("{}: does not start with //!", source.name))
    };
    report(&sources("src").iter().chain(tests()).filter_map(silent).collect::<Vec<_>>());
}

/// Only a line with a raw literal may be longer: a break would be a part of the text.
#[test]
fn lines_are_within_the_column_limit() {
    let mut violations = Vec::new();
    let mut check = |name: &str, text: &str| {
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            let is_raw = name.ends_with(".rs") && (line.contains("r#\"") || line.contains("r\""));
            if columns > COLUMNS_MAX && !is_raw {
                violations.push(format!("{name}:{}: {columns} columns", number + 1));
            }
        }
    };
    for source in sources("src").iter().chain(tests()).chain(sources("bench")) {
        check(&source.name, &source.text);
    }
    for_each_script(check);
    report(&violations);
}

#[test]
fn files_are_within_the_line_limit() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(tests()).chain(sources("bench")) {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            violations.push(format!("{}: {lines} lines", source.name));
        }
    }
    report(&violations);
}

#[test]
fn scripts_are_within_the_line_limit() {
    let mut violations = Vec::new();
    for_each_script(|name, text| {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            violations.push(format!("{name}: {lines} lines"));
        }
    });
    report(&violations);
}

/// Programs in other languages: JavaScript, Python, PHP and the shell.
fn for_each_script(mut see: impl FnMut(&str, &str)) {
    let mut scripts = 0;
    for folder in ["src", "tests", "bench", "packaging", "tuning", "laravel"] {
        source::visit(&root().join(folder), &mut |path| {
            let is_script = path
                .extension()
                .is_some_and(|end| ["js", "mjs", "py", "php", "sh"].iter().any(|one| end == *one));
            let Ok(text) = fs::read_to_string(path) else { return };
            if is_script || text.starts_with("#!") {
                scripts += 1;
                see(&path.strip_prefix(root()).unwrap_or(path).to_string_lossy(), &text);
            }
        });
    }
    assert!(scripts > 100, "{scripts} scripts");
}

#[test]
fn nothing_is_left_over() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(tests()) {
        for (number, line) in source.prose.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX", "dbg!", "todo!", "unimplemented!"] {
                if has_word(line, word) {
                    violations.push(format!("{}:{}: {word}", source.name, number + 1));
                }
            }
        }
    }
    report(&violations);
}

#[test]
fn possible_panics_are_listed_with_their_reasons() {
    let mut found = BTreeMap::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        let count = without_tests(&source.code).lines().map(panics).sum::<usize>();
        if count > 0 {
            found.insert(source.name.clone(), count);
        }
    }
    let listed: BTreeMap<_, _> =
        PANICS.iter().map(|(name, count, _)| ((*name).to_owned(), *count)).collect();
    assert_eq!(found, listed, "what may panic (left) and what PANICS lists (right) differ");
    assert!(PANICS.iter().all(|(_, _, reason)| !reason.is_empty()));
}

/// Calls and macros in a line that may panic. Assertions that the compiler or debug builds alone check do not count.
fn panics(line: &str) -> usize {
    let macros = ["panic!", "unreachable!", "assert!", "assert_eq!", "assert_ne!"];
    let is_constant = line.trim_start().starts_with("const _: () =");
    let macros = macros.iter().map(|word| words(line, word)).sum::<usize>();
    let calls = [".unwrap(", ".expect(", ".unwrap_err(", ".expect_err("];
    let calls = calls.iter().map(|call| line.matches(call).count()).sum::<usize>();
    calls + if is_constant { 0 } else { macros }
}

/// A direct write waits for its reader, and panics without one. Commands that end by themselves may.
#[test]
fn writes_go_through_the_output() {
    const WRITES: &[&str] =
        &["print!", "println!", "eprint!", "eprintln!", "stdout()", "stderr()", "process::exit"];
    let mut violations = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        if source.name.starts_with("src/output/") || source.name.starts_with("src/server/client/") {
            continue;
        }
        for (number, line) in without_tests(&source.code).lines().enumerate() {
            for word in WRITES.iter().filter(|word| has_word(line, word)) {
                violations.push(format!("{}:{}: {word}", source.name, number + 1));
            }
        }
    }
    report(&violations);
}

#[test]
fn unsafe_code_is_in_its_files_with_a_reason() {
    let mut violations = Vec::new();
    for source in sources("src") {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code.lines().enumerate() {
            if !has_word(line, "unsafe") {
                continue;
            }
            if !UNSAFE_ISLANDS.contains(&source.name.as_str()) {
                violations.push(format!(
                    "{}:{}: unsafe outside its islands",
                    source.name,
                    number + 1
                ));
            }
            let above = lines[..number].iter().rev().map(|line| line.trim_start());
            let explained = above
                .take_while(|line| line.starts_with("//") || line.starts_with("#["))
                .any(|line| line.contains("SAFETY: ") || line.contains("# Safety"));
            if !explained {
                violations.push(format!("{}:{}: unsafe without SAFETY", source.name, number + 1));
            }
        }
    }
    report(&violations);
}

/// The rules rest on this reading of source text.
#[test]
fn source_text_is_read_right() {
    let source = Source::new(
        "src/ws/sample.rs",
        concat!(
            "//! crate::worker\nuse crate::{app::App, ws::{mask, utf8}, shard as s};\n",
            "fn f<'a>(x: &'a str) -> char { let _ = r#\"crate::api \"quoted\"\"#; '\"' }\n",
            "/* crate::api /* nested */ crate::api */ use crate::pusher::json; // crate::api\n",
            "pub(crate) fn g() { let _ = \"\\\" crate::api\"; super::super::server::h('\\'', b'\"') }\n",
            "#[cfg(test)]\nmod tests { fn t() { crate::mailbox::m() } }\nfn after() {}\n",
        )
        .to_owned(),
    );
    let named: Vec<_> = source.modules_named(is_module);
    let expected =
        [(2, "app"), (2, "ws"), (2, "shard"), (4, "pusher"), (5, "server"), (7, "mailbox")];
    assert_eq!(named, expected.map(|(line, name)| (line, name.to_owned())));
    let rest = without_tests(&source.code);
    assert!(!rest.contains("mailbox") && rest.contains("fn after"));
    assert_eq!(rest.lines().count(), source.text.lines().count());
    assert_eq!(panics("x.unwrap(); y.expect(z.unwrap()); assert!(a); assert!(b); panic!()"), 6);
    assert_eq!(panics("x.unwrap_or(1); debug_assert!(a); fn expect() {}"), 0);
    assert_eq!(panics("const _: () = assert!(A > 1);"), 0);
    assert!(has_word("use std::net::X;", "std::net") && !has_word("std::network", "std::net"));
    assert!(source.prose.contains("nested") && !source.prose.contains("quoted"));
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

fn is_module(name: &str) -> bool {
    RANKS.iter().any(|(_, modules)| modules.contains(&name))
}

fn rank(module: &str) -> u8 {
    let row = RANKS.iter().find(|(_, modules)| modules.contains(&module));
    row.unwrap_or_else(|| {
        panic!("module {module} has no rank: give it one in RANKS and in src/lib.rs")
    })
    .0
}
