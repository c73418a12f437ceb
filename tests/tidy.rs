//! Rules of the house that no compiler holds: who may name whom, what the pure layers must not know, form of the files.
//!
//! A rule reads source text, not syntax: `Source` blanks comments and literals first, so that prose about a thing is
//! not taken for the thing. Each test lists all its violations at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module names only modules of lower rank, and never its neighbours. `src/lib.rs` says why; a test below compares.
const RANKS: &[(u8, &[&str])] = &[
    (7, &["server"]),
    (6, &["worker"]),
    (5, &["tick"]),
    (4, &["api", "webhook", "cluster"]),
    (3, &["admission", "live", "mailbox", "output"]),
    (2, &["shard"]),
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
    (0, &["app", "buffer", "clock", "counters", "limits", "listed", "text"]),
];

/// No clock, socket, thread, lock or file, and nothing that waits: input goes in as values, effects come out as values.
const PURE: &[&str] =
    &["ws", "http1", "pusher", "resp", "cause", "shard", "tick", "cluster", "tls", "proxy_header"];
#[rustfmt::skip]
const IMPURE_WORDS: &[&str] = &[
    "monoio", "io_uring", "socket2", "rustix", "libc", "std::net", "std::thread", "std::fs", "std::env", "std::os", "std::{",
    "Instant", "SystemTime", "Mutex", "RwLock", "async", "await", "getrandom",
];

/// The only files that may hold unsafe code.
const UNSAFE_ISLANDS: &[&str] = &["src/worker/kernel/uring.rs", "src/worker/sys.rs"];

/// What may panic outside of tests, by file: how often, and why nobody outside of the process reaches it. A panic ends
/// the process, so a new one needs a row here; ARCHITECTURE.md ("Panics") has the rest: indexes, and other crates.
#[rustfmt::skip]
const PANICS: &[(&str, usize, &str)] = &[
    ("src/app.rs", 2, "at the start: config refuses so many apps before; HMAC takes keys of any length"),
    ("src/pusher/socket_id.rs", 1, "both numbers are the worker's own"),
    ("src/server/client/socket.rs", 1, "a command, not the server: no random numbers"),
    ("src/server/mod.rs", 1, "at the start: no random numbers"),
    ("src/shard/slots.rs", 1, "2^32 channels take over 1 TB, and DESCRIPTORS_MAX is below 2^32 connections"),
    ("src/shard/mod.rs", 1, "the worker's own numbers"),
    ("src/worker/kernel/uring.rs", 2, "on purpose: the ring is broken, or has had no memory for a second"),
    ("src/worker/time.rs", 1, "on purpose: without random numbers socket ids could be guessed"),
];

const COLUMNS_MAX: usize = 120;
const LINES_MAX: usize = 600;

#[test]
fn modules_name_only_lower_ranks() {
    let mut violations = Vec::new();
    for source in sources("src") {
        let Some(module) = source.top_module() else { continue };
        for (line, name) in source.modules_named() {
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
fn files_are_declared() {
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
                "{}: no `mod {module};` above it, so nobody compiles it",
                source.name
            ));
        }
    }
    report(&violations);
}

#[test]
fn files_open_with_what_they_are() {
    let silent = |source: &Source| {
        let first = source.text.lines().next().unwrap_or_default();
        (!first.starts_with("//! ")).then(|| format!("{}: does not start with //!", source.name))
    };
    report(&sources("src").iter().chain(&tests()).filter_map(silent).collect::<Vec<_>>());
}

/// Literals do not count, so fixtures and tables of text may run on; code and comments may not.
#[test]
fn lines_fit() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(&tests()) {
        for (number, line) in source.prose.lines().enumerate() {
            let columns = line.trim_end().chars().filter(|char| *char != BLANK).count();
            if columns > COLUMNS_MAX {
                violations.push(format!("{}:{}: {columns} columns", source.name, number + 1));
            }
        }
    }
    report(&violations);
}

#[test]
fn files_are_short() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(&tests()) {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            violations.push(format!("{}: {lines} lines", source.name));
        }
    }
    report(&violations);
}

#[test]
fn nothing_is_left_over() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(&tests()) {
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
fn what_may_panic_is_listed_and_argued() {
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

/// A direct write waits for whoever reads, and panics when nobody does. Commands that end by themselves may.
#[test]
fn what_is_written_goes_through_the_output() {
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
fn unsafe_stays_on_its_islands_and_says_why() {
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
    let named: Vec<_> = source.modules_named();
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

fn rank(module: &str) -> u8 {
    let row = RANKS.iter().find(|(_, modules)| modules.contains(&module));
    row.unwrap_or_else(|| {
        panic!("module {module} has no rank: give it one in RANKS and in src/lib.rs")
    })
    .0
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder of the repository, sorted.
fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), true, &mut paths);
    read(paths)
}

/// The tests of the package: `tests/*.rs`, what they share, and the bodies of the fuzz targets.
fn tests() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join("tests"), false, &mut paths);
    for folder in [
        "tests/autobahn",
        "tests/kernels",
        "tests/loom",
        "tests/process",
        "tests/simulator",
        "tests/fuzz/bodies",
        "tests/fuzz/fuzz_targets",
    ] {
        let folder = root().join(folder);
        if folder.is_dir() {
            collect(&folder, true, &mut paths);
        }
    }
    read(paths)
}

fn read(mut paths: Vec<PathBuf>) -> Vec<Source> {
    assert!(!paths.is_empty());
    paths.sort();
    let source = |path: PathBuf| {
        let name =
            path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Source::new(&name, fs::read_to_string(&path).expect("a source file"))
    };
    paths.into_iter().map(source).collect()
}

fn collect(folder: &Path, deep: bool, paths: &mut Vec<PathBuf>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            if deep {
                collect(&path, deep, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// What a character of a literal or comment is replaced with; lines stay where they were.
const BLANK: char = '\u{1}';

struct Source {
    /// Path from the root.
    name: String,
    text: String,
    /// Without literals and comments.
    code: String,
    /// Without literals, with comments.
    prose: String,
}

impl Source {
    fn new(name: &str, text: String) -> Self {
        let (mut code, mut prose) = (String::new(), String::new());
        let mut rest = text.as_str();
        let mut previous = ' ';
        while let Some(first) = rest.chars().next() {
            let (length, kind) = next_token(rest, previous);
            let (token, after) = rest.split_at(length);
            let blanked: String =
                token.chars().map(|char| if char == '\n' { char } else { BLANK }).collect();
            code.push_str(if kind == Token::Code { token } else { &blanked });
            prose.push_str(if kind == Token::Literal { &blanked } else { token });
            previous = first;
            rest = after;
        }
        Self { name: name.to_owned(), text, code, prose }
    }

    /// The module below the root that the file belongs to; `main.rs` counts as server, `lib.rs` is the root itself.
    fn top_module(&self) -> Option<String> {
        let path = self.name.strip_prefix("src/")?;
        let first = path.split('/').next()?.trim_end_matches(".rs");
        match first {
            "lib" => None,
            "main" => Some("server".to_owned()),
            module => Some(module.to_owned()),
        }
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    /// Modules below the root that are named through `crate::`, or through enough `super::` to reach the root, by line.
    fn modules_named(&self) -> Vec<(usize, String)> {
        let depth = self.name.trim_end_matches("/mod.rs").matches('/').count();
        let mut named = Vec::new();
        let mut line = 1;
        let mut at = 0;
        while let Some(char) = self.code[at..].chars().next() {
            let starts = !self.code[..at].ends_with(is_word);
            let here = &self.code[at..];
            if starts && here.starts_with("crate::") {
                named.extend(heads(&here["crate::".len()..]).into_iter().map(|name| (line, name)));
            } else if starts && here.starts_with("super::") && !self.code[..at].ends_with("super::")
            {
                let climbed =
                    here.split("super::").skip(1).take_while(|between| between.is_empty()).count()
                        + 1;
                let target = heads(&here["super::".len() * climbed..]);
                let is_module = |name: &String| {
                    RANKS.iter().any(|(_, modules)| modules.contains(&name.as_str()))
                };
                if climbed >= depth {
                    named.extend(target.into_iter().filter(is_module).map(|name| (line, name)));
                }
            }
            line += usize::from(char == '\n');
            at += char.len_utf8();
        }
        named
    }
}

/// The first word of a path, or of each path of a group in braces.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|char| is_word(*char)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut depth = 1;
    let mut names = vec![word(group.trim_start())];
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(word(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    words(line, word) > 0
}

fn words(line: &str, word: &str) -> usize {
    let whole = |at: usize| {
        let begins = !line[..at].ends_with(is_word);
        let ends = !word.ends_with(is_word) || !line[at + word.len()..].starts_with(is_word);
        begins && ends
    };
    line.match_indices(word).filter(|(at, _)| whole(*at)).count()
}

/// Code (without comments and literals) less the items under `#[cfg(test)]`; lines stay where they were.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(at, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && matches!(char, '}' | ';')).then_some(at + 1)
        });
        let (item, after) = rest.split_at(end.unwrap_or(rest.len()));
        kept.extend(item.chars().filter(|char| *char == '\n'));
        rest = after;
    }
    kept + rest
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Code,
    Literal,
    Comment,
}

/// Length and kind of what starts here: a whole literal or comment, or one character of code.
fn next_token(rest: &str, previous: char) -> (usize, Token) {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Token::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Token::Comment);
    }
    if rest.starts_with('"') {
        return (closing(rest, '"'), Token::Literal);
    }
    if rest.starts_with('\'') && is_char_literal(rest) {
        return (closing(rest, '\''), Token::Literal);
    }
    if let Some(raw) = rest.strip_prefix('r').filter(|_| !is_word(previous) || previous == 'b') {
        let hashes = raw.chars().take_while(|char| *char == '#').count();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = 1 + hashes + 1;
            let end = rest[start..].find(&close).map_or(rest.len(), |at| start + at + close.len());
            return (end, Token::Literal);
        }
    }
    (first, Token::Code)
}

/// A quote opens a character if one closes it behind one character or an escape; otherwise it is a lifetime.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

fn closing(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        if !escaped && char == quote {
            return at + 1;
        }
        escaped = !escaped && char == '\\';
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}
