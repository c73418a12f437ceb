//! Each list of `src` has a place in ARCHITECTURE.md: a row of "Queues", which has its limit, gauges and tests, or a
//! kind of "Lists that need no gauge", which says why none is needed. `lists.txt` has the place of each.
//!
//! A rule finds fields, so it cannot know whether a list is of the kind that it is entered as: reviewers do that. It
//! finds a new list that is in no row.

use std::collections::BTreeSet;
use std::fs;

use super::limits::{GROWING, name_of};
use super::report;
use super::source::{Source, has_word, root, sources, without_tests};

/// Types that only this rule counts as growing: ends of channels and rings, tables of our own, and links of a list.
#[rustfmt::skip]
const ALSO_GROWING: &[&str] = &[
    "Consumer<", "FastMap<", "OnceLock<Arc<Self>>", "Producer<", "Sender<", "SyncSender<", "Wheel<",
];

/// A heading of `lists.txt` and what is entered below it.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    /// It is a row of "Queues".
    is_queue: bool,
    name: &'a str,
    /// Names of lists, or a folder or file of `src` whose lists are all of this kind.
    entries: Vec<&'a str>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct List {
    file: String,
    /// The type, two colons and the field; the type alone where the field has no name.
    name: String,
}

#[test]
fn each_list_is_in_a_row_of_queues_or_of_a_kind_that_needs_no_gauge() {
    let text = fs::read_to_string(root().join("tests/tidy/lists.txt")).expect("lists.txt");
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let files = sources("src").iter().filter(|source| !source.is_test());
    let lists: BTreeSet<List> = files.flat_map(lists_of).collect();
    assert!(lists.len() > 250, "the reader of fields finds {} lists only", lists.len());
    report(&problems(&lists, &places(&text), &architecture));
}

fn problems(lists: &BTreeSet<List>, places: &[Place<'_>], architecture: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let all: Vec<&str> = places.iter().flat_map(|place| &place.entries).copied().collect();
    for list in lists {
        let count = all.iter().filter(|entry| is_of(list, entry)).count();
        if count != 1 {
            let List { file, name } = list;
            problems.push(format!(
                "{file}: tests/tidy/lists.txt has {name} {count} times: enter it once, below its row of \
                 ARCHITECTURE.md \"Queues\" or below its kind of \"Lists that need no gauge\""
            ));
        }
    }
    for entry in all.iter().filter(|entry| !lists.iter().any(|list| is_of(list, entry))) {
        problems.push(format!("tests/tidy/lists.txt: there is no list {entry}"));
    }
    for (heading, is_queue) in [("Queues", true), ("Lists that need no gauge", false)] {
        let rows = rows(architecture, heading);
        let of_kind = || places.iter().filter(|place| place.is_queue == is_queue);
        for place in of_kind().filter(|place| !rows.iter().any(|row| row.starts_with(place.name))) {
            problems.push(format!("ARCHITECTURE.md \"{heading}\" has no row: {}", place.name));
        }
        for row in rows.iter().filter(|row| !of_kind().any(|place| row.starts_with(place.name))) {
            problems.push(format!("tests/tidy/lists.txt has no list of \"{heading}\": {row}"));
        }
    }
    problems
}

fn is_of(list: &List, entry: &str) -> bool {
    match entry.strip_prefix("src/") {
        None => list.name == entry,
        Some(_) => {
            let rest = list.file.strip_prefix(entry);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

/// Headings are `queue: NAME` and `kind: NAME`; entries are indented.
fn places(text: &str) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let heading = [("queue: ", true), ("kind: ", false)];
        let heading = heading
            .into_iter()
            .find_map(|(word, is_queue)| Some((line.strip_prefix(word)?, is_queue)));
        match (heading, places.last_mut()) {
            (Some((name, is_queue)), _) => {
                places.push(Place { is_queue, name, entries: Vec::new() })
            }
            (None, Some(place)) => place.entries.extend(line.split_whitespace()),
            (None, None) => panic!("lists.txt: an entry without a heading: {line}"),
        }
    }
    places
}

/// The first cells of the table below a heading.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let section = text.split_once(&format!("\n## {heading}\n")).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.filter_map(|row| row.trim_start_matches('|').split('|').next()).map(str::trim).collect()
}

fn lists_of(source: &Source) -> Vec<List> {
    let code = without_tests(&source.code);
    fields(&code).into_iter().map(|name| List { file: source.name.clone(), name }).collect()
}

/// The names of the fields and variants of code that grow.
fn fields(code: &str) -> Vec<String> {
    let aliases = aliases(code);
    let grows = |line: &str| {
        GROWING.iter().chain(ALSO_GROWING).any(|name| has_word(line, name))
            || aliases.iter().any(|name| has_word(line, name))
    };
    let mut found = Vec::new();
    let mut of_type: Option<String> = None;
    let mut begun_field: Option<String> = None;
    for line in code.lines() {
        let words = without_visibility(line);
        let is_field = line.starts_with("    ") && !line.starts_with("     ");
        if !line.starts_with(' ') && ["struct ", "enum "].iter().any(|kind| words.starts_with(kind))
        {
            let name = name_of(words);
            if line.ends_with(';') && grows(line) {
                found.push(name);
            } else if line.ends_with('{') {
                of_type = Some(name);
            }
        } else if line.starts_with('}') {
            of_type = None;
        } else if let Some(of_type) = &of_type {
            let begun = begun_field.take();
            if is_field && grows(line) {
                found.push(format!("{of_type}::{}", name_of(words)));
            } else if is_field && line.trim_end().ends_with(':') {
                begun_field = Some(name_of(words));
            } else if let Some(field) = begun.filter(|_| grows(line)) {
                found.push(format!("{of_type}::{field}"));
            }
        }
    }
    found
}

/// The names of types that are other names of ones that grow, through any number of aliases.
fn aliases(code: &str) -> Vec<String> {
    let mut rest: Vec<(String, &str)> = declared_aliases(code);
    let mut found: Vec<String> = Vec::new();
    loop {
        let grows = |of: &str| {
            GROWING.iter().chain(ALSO_GROWING).any(|name| has_word(of, name))
                || found.iter().any(|name| has_word(of, name))
        };
        let (growing, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, of)| grows(of));
        if growing.is_empty() {
            return found;
        }
        found.extend(growing.into_iter().map(|(name, _)| name));
        rest = others;
    }
}

/// Each alias with what it stands for. A declaration may go on in the next lines.
fn declared_aliases(code: &str) -> Vec<(String, &str)> {
    let starts = code.match_indices("type ").map(|(at, _)| at).filter(|at| {
        let line = code[..*at].rsplit('\n').next().unwrap_or_default();
        without_visibility(&format!("{line}type")) == "type"
    });
    let declared = starts.filter_map(|at| {
        let (name, of) = code[at + "type ".len()..].split_once(';')?.0.split_once('=')?;
        Some((name_of(name), of))
    });
    declared.collect()
}

fn without_visibility(line: &str) -> &str {
    let words = line.trim_start();
    let restricted = words.strip_prefix("pub(").and_then(|rest| rest.split_once(") "));
    restricted.map_or_else(|| words.strip_prefix("pub ").unwrap_or(words), |(_, rest)| rest)
}

#[test]
fn lists_without_a_place_and_places_without_a_list_are_found() {
    let code = "type Shared = Arc<Locked>;\npub(crate) type Locked =\n    Mutex<Names>;\ntype Names = \
                HashSet<u8>;\ntype Number = u8;\npub(super) struct Table<T> {\n    pub(crate) entries: Vec<T>,\n    \
                count: usize,\n    names: Names,\n    number: Number,\n    shared: Shared,\n    by_age:\n        \
                VecDeque<T>,\n}\nfn f() {\n    let list: Vec<u8> = g();\n}\npub struct Bytes(Vec<u8>);\nenum Kind \
                {\n    One(u8),\n    Many(Sender<u8>),\n}\n";
    let names =
        ["Table::entries", "Table::names", "Table::shared", "Table::by_age", "Bytes", "Kind::Many"];
    assert_eq!(fields(code), names);
    let list = |file: &str, name: &str| List { file: file.to_owned(), name: name.to_owned() };
    let lists: BTreeSet<List> = names.iter().map(|name| list("src/a/b.rs", name)).collect();
    let text = "# x\nqueue: a queue\n    Table::entries\nkind: one\n    Table::names Table::shared Bytes\n    \
                Kind::Many Gone::x\nkind: two\n    src/a/c.rs\n";
    let architecture = "\n## Queues\n\n| q | x |\n|---|---|\n| a queue (`a`) | 1 |\n| another | 2 |\n\n\
                        ## Lists that need no gauge\n\n| kind | why |\n|---|---|\n| one | 1 |\n";
    let found = problems(&lists, &places(text), architecture);
    let expected = [
        "Table::by_age 0 times",
        "no list Gone::x",
        "no list src/a/c.rs",
        "no list of \"Queues\": another",
        "\"Lists that need no gauge\" has no row: two",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, part) in found.iter().zip(expected) {
        assert!(problem.contains(part), "{problem}: {part}");
    }
    let whole = BTreeSet::from([list("src/a/c.rs", "X::y"), list("src/a/c/d.rs", "Z::y")]);
    let of_folder = whole.iter().filter(|list| is_of(list, "src/a")).count();
    assert_eq!((of_folder, whole.iter().filter(|list| is_of(list, "src/a/c.rs")).count()), (2, 1));
}
