//! Comments of modules say what bounds what the module keeps, and more than a name.

use super::report;
use super::source::{Source, has_word, sources, without_tests};

/// Types that grow with what is put into them.
const GROWING: &[&str] = &[
    "BTreeMap<",
    "BTreeSet<",
    "BinaryHeap<",
    "HashMap<",
    "HashSet<",
    "HashTable<",
    "IndexMap<",
    "IndexSet<",
    "KeyedSlots<",
    "Receiver<",
    "Slab<",
    "Slots<",
    "SmallVec<",
    "Vec<",
    "VecDeque<",
];

/// A file of fewer lines may be explained by fewer words.
const SHORT_FILE: usize = 30;
const COMMENT_LINES_MIN: usize = 3;

/// With these a comment says what a module owns, what it leaves to others, or what bounds it.
#[rustfmt::skip]
const SCOPES: &[&str] = &[
    "Owns", "owns", "Input:", "Output:", "PURE", "Plain value", "Plain values", "plain value", "Does not", "does not",
    "Knows no", "Knows nothing", "Limit:", "Limits:", "No limits", "bounded by",
];

/// A type that keeps a queue, table or list has its bound, or who bounds it, after "Limit:" or "Limits:" in the comment
/// of its file. A reader who looks for what one peer can make the server keep reads these lines only.
#[test]
fn files_that_keep_lists_state_their_limits() {
    let kept: Vec<(&Source, Vec<String>)> = sources("src")
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source, lists(&without_tests(&source.code))))
        .filter(|(_, lists)| !lists.is_empty())
        .collect();
    assert!(kept.len() > 100, "the reader of fields finds lists in {} files only", kept.len());
    let silent = kept.iter().filter(|(source, _)| !states_limits(&comment(source)));
    let sentence = |(source, lists): &(&Source, Vec<String>)| {
        format!("{}: the module comment has no \"Limit:\" for {}", source.name, lists.join(", "))
    };
    report(&silent.map(sentence).collect::<Vec<_>>());
}

#[test]
fn comments_of_modules_say_more_than_a_name() {
    let lines = |source: &Source| comment(source).lines().count();
    let is_long = |source: &&Source| source.text.lines().count() >= SHORT_FILE;
    let short = sources("src").iter().filter(|source| !source.is_test()).filter(is_long);
    let short = short.filter(|source| lines(source) < COMMENT_LINES_MIN);
    let sentence = |source: &Source| {
        format!(
            "{}: {} lines of module comment: what does it own, why, within what?",
            source.name,
            lines(source)
        )
    };
    report(&short.map(sentence).collect::<Vec<_>>());
}

/// A reader who opens one file learns what is not in it, too.
#[test]
fn comments_of_modules_say_what_a_module_owns_or_leaves_to_others() {
    let is_long = |source: &&Source| source.text.lines().count() >= SHORT_FILE;
    let files = sources("src").iter().filter(|source| !source.is_test()).filter(is_long);
    let without = files.filter(|source| !states_scope(&comment(source)));
    let sentence = |source: &Source| {
        format!("{}: what does it own, what does it not do or know, what bounds it?", source.name)
    };
    report(&without.map(sentence).collect::<Vec<_>>());
}

fn states_scope(comment: &str) -> bool {
    // A phrase may be cut by the end of a line.
    let text = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    SCOPES.iter().any(|phrase| has_word(&text, phrase))
}

/// The lines of the module comment.
fn comment(source: &Source) -> String {
    let lines = source.text.lines().take_while(|line| line.starts_with("//!"));
    lines.map(|line| format!("{}\n", line.trim_start_matches("//!"))).collect()
}

fn states_limits(comment: &str) -> bool {
    ["Limit:", "Limits:"].iter().any(|word| has_word(comment, word))
}

/// Names of the fields and types of code that are lists.
fn lists(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_in_type = false;
    for line in code.lines() {
        let words = line.trim_start().trim_start_matches("pub").trim_start();
        let words = words
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(") "))
            .map_or(words, |(_, rest)| rest);
        let is_outer = !line.starts_with(' ');
        let grows = GROWING.iter().any(|name| has_word(line, name));
        if is_outer && ["struct ", "enum "].iter().any(|kind| words.starts_with(kind)) {
            is_in_type = line.ends_with('{');
            if grows && line.ends_with(';') {
                found.push(name_of(words));
            }
        } else if is_outer && line.starts_with('}') {
            is_in_type = false;
        } else if is_in_type && grows && line.starts_with("    ") && !line.starts_with("     ") {
            found.push(name_of(words));
        }
    }
    found
}

/// The first name that is no keyword.
fn name_of(words: &str) -> String {
    let names = words.split(|char: char| !char.is_alphanumeric() && char != '_');
    names
        .filter(|name| !matches!(*name, "struct" | "enum"))
        .find(|name| !name.is_empty())
        .unwrap_or_default()
        .to_owned()
}

/// The rules rest on this reading of declarations.
#[test]
fn scopes_are_found_in_comments() {
    assert!(states_scope(" Frames. It owns\n nothing."));
    assert!(states_scope(" Frames. It does\n not send."));
    assert!(!states_scope(" Frames, sent in order.\n They disown inputs."));
}

#[test]
fn lists_are_found_in_declarations() {
    let code = "pub(super) struct Table<T> {\n    pub(crate) entries: Vec<T>,\n    count: usize,\n}\n\
                fn f() {\n    let list: Vec<u8> = g();\n}\npub struct Names(HashMap<u8, u8>);\n\
                enum Kind {\n    One(u8),\n    Many(VecDeque<u8>),\n}\n";
    assert_eq!(lists(code), ["entries", "Names", "Many"]);
    assert!(states_limits(" It owns.\n Limits: ten.") && !states_limits("No limits: it has none."));
}
