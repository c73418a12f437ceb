//! Comments of modules say what a module owns, what it leaves to others, what bounds it, and what a call costs.
//!
//! A rule finds keywords, so it cannot know whether a statement is true: reviewers do that. No file is exempt.

use super::report;
use super::source::{Source, has_word, sources, without_tests};

/// Types that grow with what is put into them.
pub(super) const GROWING: &[&str] = &[
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

/// With these a comment says what a module owns.
const OWNS: &[&str] =
    &["Owns", "owns", "Plain value", "Plain values", "plain value", "plain values"];
/// With these it says what the module does not know or do.
#[rustfmt::skip]
const ABSENCES: &[&str] = &[
    "PURE", "Does not", "does not", "Do not", "do not", "Knows no", "knows no", "Never", "never", "No I/O", "no I/O",
    "No clock", "No thread", "Nothing here", "nothing here", "cannot",
];
/// With these it says what bounds the module, or that nothing has to.
const BOUNDS: &[&str] = &["Limit:", "Limits:", "No limit:", "No limits:", "bounded by"];
const COSTS: &[&str] = &["Cost:", "Costs:"];
/// A cost is a number of these. A cost without them is an opinion ("cheap").
#[rustfmt::skip]
const UNITS: &[&str] = &[
    "allocation", "allocations", "atomic", "atomics", "byte", "bytes", "call", "calls", "comparison", "comparisons",
    "connection", "connections", "copies", "copy", "entry", "entries", "field", "fields", "file", "files", "hash",
    "hashes", "instructions", "line", "linear", "lines", "lock", "locks", "look-up", "look-ups", "message", "messages",
    "ms", "ns", "O(1)", "O(log n)", "O(n)", "option", "options", "read", "reads", "request", "requests", "step",
    "steps", "system call", "system calls", "thread", "threads", "\u{b5}s",
];
/// Words that follow a keyword, at least: the keyword alone is no statement.
const WORDS_MIN: usize = 2;

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

/// A reader who opens one file learns what is in it, what it leaves to others, within what bounds, and what a call of
/// it costs. Each is asked for by itself, so that one keyword does not stand for the others.
#[test]
fn comments_of_modules_state_what_they_own_and_leave_out_their_limits_and_costs() {
    let is_long = |source: &&Source| source.text.lines().count() >= SHORT_FILE;
    let files = sources("src").iter().filter(|source| !source.is_test()).filter(is_long);
    let lacking = files.filter_map(|source| {
        let lacks = lacks(&comment(source)).join(", ");
        let sentence = format!("{}: the module comment lacks: {lacks}", source.name);
        (!lacks.is_empty()).then_some(sentence)
    });
    report(&lacking.collect::<Vec<_>>());
}

/// What a comment does not state.
fn lacks(comment: &str) -> Vec<&'static str> {
    // A phrase may be cut by the end of a line.
    let text = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    let has_cost = COSTS.iter().any(|word| {
        let after = text.split_once(word).map_or("", |(_, after)| after);
        UNITS.iter().any(|unit| has_word(after, unit))
    });
    let checks = [
        ("owns", states(&text, OWNS)),
        ("does not", ABSENCES.iter().any(|phrase| has_word(&text, phrase))),
        ("limit", states(&text, BOUNDS)),
        ("cost", has_cost && states(&text, COSTS)),
    ];
    checks.into_iter().filter(|(_, is_stated)| !is_stated).map(|(name, _)| name).collect()
}

/// Whether one of the phrases is there, with words after it.
fn states(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| {
        let after = text.split_once(phrase).map_or("", |(_, after)| after);
        has_word(text, phrase) && after.split_whitespace().count() >= WORDS_MIN
    })
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
pub(super) fn name_of(words: &str) -> String {
    let names = words.split(|char: char| !char.is_alphanumeric() && char != '_');
    names
        .filter(|name| !matches!(*name, "struct" | "enum"))
        .find(|name| !name.is_empty())
        .unwrap_or_default()
        .to_owned()
}

/// The rules rest on this reading of comments and declarations.
#[test]
fn a_statement_is_a_keyword_with_words_after_it() {
    let all = " Frames. It owns\n no socket, and never\n reads. Limits: the tick's.\n Cost: one allocation for a \
               frame.";
    assert!(lacks(all).is_empty());
    assert_eq!(lacks(" It owns frames in order. PURE. Limit: 9 frames."), ["cost"]);
    assert_eq!(lacks(" Plain values of frames. Limit: 9 frames. Cost: one copy."), ["does not"]);
    assert_eq!(
        lacks(" They disown inputs. Cost: it is\n cheap."),
        ["owns", "does not", "limit", "cost"]
    );
    assert_eq!(lacks(" It does\n not send frames.\n Limits:"), ["owns", "limit", "cost"]);
}

#[test]
fn lists_are_found_in_declarations() {
    let code = "pub(super) struct Table<T> {\n    pub(crate) entries: Vec<T>,\n    count: usize,\n}\n\
                fn f() {\n    let list: Vec<u8> = g();\n}\npub struct Names(HashMap<u8, u8>);\n\
                enum Kind {\n    One(u8),\n    Many(VecDeque<u8>),\n}\n";
    assert_eq!(lists(code), ["entries", "Names", "Many"]);
    assert!(states_limits(" It owns.\n Limits: ten.") && !states_limits("No limits: it has none."));
}
