//! Names of code in backticks exist: in comments of `src` and `tests`, and in the documents about the code.
//!
//! A renaming changes code, not prose, so a name in prose can lead nowhere. `Type::name` must be a member of the type.
//! Any other identifier of a comment must be a word of the code or of a literal (options, metrics, texts of the wire).
//! Documents also name what clients send and operators write, so of them only calls, paths and names of several parts
//! are read. Spans with a space or of several lines are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::report;
use super::source::{BLANK, Source, is_word, root, sources, tests};

/// Documents about the code. Those for users of Laravel name classes and functions of Laravel.
const DOCUMENTS: &[&str] = &[
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "docs/CLUSTER.md",
    "docs/LOGS.md",
    "docs/METRICS.md",
    "docs/OPERATIONS.md",
    "docs/PROTOCOL.md",
    "docs/TLS.md",
];

/// Names of other programs, by what they are. Each is in some comment or document.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, &[&str])] = &[
    ("system calls and structures of Linux", &["epoll_wait", "sockaddr_un"]),
    ("a capability of Linux", &["CAP_NET_BIND_SERVICE"]),
    ("flags and calls of io_uring that are not used", &["CQE_SKIP_SUCCESS", "send_zc"]),
    ("functions of PHP", &["ctype_space", "explode", "getallheaders", "rawurldecode"]),
    ("classes and functions of Laravel and phpdotenv", &["ApplicationProvider", "ConfigurationUrlParser",
     "EntryParser", "toOthers"]),
    ("events of Reverb inside of Laravel", &["ChannelCreated", "ChannelRemoved", "ConnectionPruned", "MessageReceived",
     "MessageSent"]),
    ("a type of rustls that is not used", &["KernelConnection"]),
    ("words of protocols: TLS, HTTP, PROXY", &["Authorization", "Date", "LOCAL"]),
];

/// Crates whose paths are not looked up.
const CRATES: &[&str] = &["core", "libc", "std"];

#[test]
fn names_of_code_in_prose_exist() {
    // This file has names that are none.
    let tests = || tests().iter().filter(|source| source.name != "tests/tidy/mentions.rs");
    let vocabulary = Vocabulary::of(sources("src").iter().chain(sources("bench")).chain(tests()));
    let mut unknown = Vec::new();
    for source in sources("src").iter().chain(tests()) {
        // Code has no backtick, so what remains of its lines adds no span.
        let found = spans(&source.prose).filter(|(_, span)| !vocabulary.has(span, true));
        unknown
            .extend(found.map(|(line, span)| (format!("{}:{line}", source.name), span.to_owned())));
    }
    let mut read = 0;
    for name in documents() {
        let text = fs::read_to_string(root().join(&name)).expect("a document");
        read += spans(&text).count();
        let found = spans(&text).filter(|(_, span)| !vocabulary.has(span, false));
        unknown.extend(found.map(|(line, span)| (format!("{name}:{line}"), span.to_owned())));
    }
    assert!(read > 2_000 && vocabulary.members.len() > 500, "the readers find too little: {read}");
    let foreign: BTreeSet<&str> = ELSEWHERE.iter().flat_map(|(_, names)| *names).copied().collect();
    let mut missing = Vec::new();
    let mut unused = foreign.clone();
    for (place, span) in &unknown {
        let name = span.split('(').next().unwrap_or_default();
        if foreign.contains(name) {
            unused.remove(name);
        } else {
            missing.push(format!("{place}: `{span}` is no name of the code"));
        }
    }
    missing.extend(
        unused
            .iter()
            .map(|name| format!("ELSEWHERE: `{name}` is in no text, or is a name of the code")),
    );
    report(&missing);
}

fn documents() -> Vec<String> {
    let decisions = fs::read_dir(root().join("docs/decisions")).expect("a folder");
    let decisions = decisions.map(|entry| entry.expect("an entry").file_name());
    let decisions = decisions.map(|name| format!("docs/decisions/{}", name.to_string_lossy()));
    DOCUMENTS.iter().map(|name| (*name).to_owned()).chain(decisions).collect()
}

/// Spans in backticks with the numbers of their lines, outside of blocks of code.
fn spans(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_block = false;
    let lines = text.lines().zip(1..).filter(move |(line, _)| {
        let line = line.trim_start().trim_start_matches(['/', '!', ' ']);
        let is_fence = line.starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    });
    lines.flat_map(|(line, number)| {
        line.split('`').skip(1).step_by(2).map(move |span| (number, span))
    })
}

/// The parts of a path in a span, and whether it is a call. `None` for a span that is no name.
fn mention(span: &str) -> Option<(Vec<&str>, bool)> {
    let name = span.split_once('(').filter(|_| span.ends_with(')')).map(|(name, _)| name);
    let parts: Vec<&str> = name.unwrap_or(span).trim_end_matches('!').split("::").collect();
    let is_identifier = |part: &&str| {
        part.chars().all(is_word) && part.starts_with(|char: char| char.is_alphabetic())
    };
    parts.iter().all(is_identifier).then_some((parts, name.is_some()))
}

/// `a_b`, `A_B` and `AaBb`, which prose uses for code only. A single word may be a value or a command.
fn has_several_parts(name: &str) -> bool {
    let humps = name
        .as_bytes()
        .windows(2)
        .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    name.trim_matches('_').contains('_')
        || (name.starts_with(char::is_uppercase) && humps.count() > 0)
}

/// What the sources declare and name.
#[derive(Default)]
struct Vocabulary {
    /// Words of code and of literals.
    words: BTreeSet<String>,
    /// Words of code that a parenthesis follows, and functions.
    calls: BTreeSet<String>,
    /// By type: what its declaration and its implementations name, and what code finds through it.
    members: BTreeMap<String, BTreeSet<String>>,
}

impl Vocabulary {
    fn of<'a>(sources: impl Iterator<Item = &'a Source>) -> Self {
        let mut vocabulary = Self::default();
        for source in sources {
            vocabulary.add(source);
        }
        vocabulary
    }

    fn add(&mut self, source: &Source) {
        let literals = source.text.chars().zip(source.prose.chars());
        let literals: String =
            literals.map(|(char, kept)| if kept == BLANK { char } else { '\n' }).collect();
        for literal in literals.lines() {
            // Of sentences only what looks like a name: their other words would hide a name that is gone.
            let words = literal.split(|char| !is_word(char)).filter(|word| !word.is_empty());
            let words = words.filter(|word| !literal.contains(' ') || has_several_parts(word));
            self.words.extend(words.map(str::to_owned));
        }
        let tokens = tokens(&source.code);
        self.words.extend(
            tokens.iter().filter(|token| token.starts_with(is_word)).map(|word| (*word).to_owned()),
        );
        for (at, token) in tokens.iter().enumerate() {
            let before = at.checked_sub(1).map_or("}", |before| tokens[before]);
            let here = &tokens[at..];
            if token.starts_with(is_word) && (before == "fn" || here.get(1) == Some(&"(")) {
                self.calls.insert((*token).to_owned());
            }
            match *token {
                "struct" | "enum" | "trait" | "union" if here.len() > 1 => {
                    let words =
                        item(here).iter().skip(2).filter(|token| token.starts_with(is_word));
                    self.members_of(here[1]).extend(words.map(|word| (*word).to_owned()));
                }
                "impl" if ["}", ";", "]", "{", "unsafe", ")"].contains(&before) => {
                    self.add_implementation(item(here))
                }
                "::" if here.len() > 1 && before.starts_with(char::is_uppercase) => {
                    self.members_of(before).insert(here[1].to_owned());
                }
                _ => {}
            }
        }
    }

    fn add_implementation(&mut self, item: &[&str]) {
        let end = item.iter().position(|token| *token == "{").unwrap_or(item.len());
        let (head, body) = item.split_at(end);
        let names: Vec<&str> = body
            .windows(2)
            .filter(|pair| ["fn", "const", "type"].contains(&pair[0]))
            .map(|pair| pair[1])
            .collect();
        for name in head.iter().filter(|name| name.starts_with(char::is_uppercase)) {
            self.members_of(name).extend(names.iter().map(|name| (*name).to_owned()));
        }
    }

    fn members_of(&mut self, name: &str) -> &mut BTreeSet<String> {
        self.members.entry(name.to_owned()).or_default()
    }

    /// Whether a span is no name of code, or one that exists.
    fn has(&self, span: &str, is_comment: bool) -> bool {
        let Some((parts, is_call)) = mention(span) else { return true };
        let (Some(first), Some(name)) = (parts.first(), parts.last()) else { return true };
        // A field of a variant is one of the words of its enumeration.
        let owner =
            parts[..parts.len() - 1].iter().find(|part| part.starts_with(char::is_uppercase));
        match owner.filter(|owner| **owner != "Self") {
            _ if CRATES.contains(first) => true,
            Some(owner) => self.members.get(*owner).is_some_and(|members| members.contains(*name)),
            None if parts.len() > 1 => self.words.contains(*name),
            None if is_call => self.calls.contains(*name),
            None if !is_comment && !has_several_parts(name) => true,
            // Tests in Python: tests/tidy_documents.rs finds them.
            None if name.starts_with("test_") => true,
            _ => {
                // Metrics have no prefix where they are declared.
                let bare = name.strip_prefix("ringverb_").unwrap_or(name);
                self.words.contains(*name) || self.words.contains(bare)
            }
        }
    }
}

/// Words, `::`, and other characters one by one.
fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if is_word(first) => rest.find(|char| !is_word(char)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() && first != BLANK {
            found.push(token);
        }
        rest = after;
    }
    found
}

/// The tokens of an item, to its semicolon or the end of its braces.
fn item<'a, 'b>(tokens: &'b [&'a str]) -> &'b [&'a str] {
    let mut depth = 0;
    let end = tokens.iter().position(|token| {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth < 0 || (depth == 0 && matches!(*token, "}" | ";"))
    });
    &tokens[..end.map_or(tokens.len(), |end| end + 1)]
}

#[test]
fn names_that_lead_nowhere_are_found() {
    let code = "pub struct Ring { size: u8 }\n#[inline]\nimpl Ring {\n  pub const fn push_one(&self) {}\n}\n\
        enum Way { Up(u8), Down }\nfn f(word: u8, x: impl Fn()) { Other::made(\"wire_name\", \"a sentence\"); }\n";
    let vocabulary = Vocabulary::of([Source::new("src/x.rs", code.to_owned())].iter());
    for good in [
        "Ring::size",
        "Ring::push_one()",
        "Way::Down",
        "Other::made",
        "x::push_one",
        "std::fs::gone",
        "wire_name",
        "ringverb_wire_name",
        "Self::push_one",
        "two words",
        "a-b",
        "size",
        "word",
        "f()",
    ] {
        assert!(vocabulary.has(good, true), "{good}");
    }
    for bad in [
        "Ring::Down",
        "Ring::push",
        "Way::size",
        "Gone::size",
        "x::gone",
        "gone()",
        "word()",
        "gone_name",
        "gone",
        "sentence",
        "GoneType",
    ] {
        assert!(!vocabulary.has(bad, true), "{bad}");
    }
    assert!(vocabulary.has("gone", false) && vocabulary.has("Gone", false));
    for bad in ["gone()", "gone_name", "GoneType", "GONE_NAME", "Ring::push"] {
        assert!(!vocabulary.has(bad, false), "{bad}");
    }
    let text = "a `b` c `d`\n```\n`e`\n```\n/// ```text\n/// `f`\n/// ```\n// `g::h`\n";
    assert_eq!(spans(text).collect::<Vec<_>>(), [(1, "b"), (1, "d"), (8, "g::h")]);
}
