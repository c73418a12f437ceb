//! Words that prose of this repository does not use: British spelling, and subjects that hide who acts.

use super::report;
use super::source::{has_word, root, sources, tests};

/// Parts of words in British spelling, with the American one.
#[rustfmt::skip]
const BRITISH: &[(&str, &str)] = &[
    ("analyse", "analyze"), ("artefact", "artifact"), ("behaviour", "behavior"), ("cancelled", "canceled"),
    ("cancelling", "canceling"), ("catalogue", "catalog"), ("colour", "color"), ("defence", "defense"),
    ("favour", "favor"), ("grey", "gray"), ("honour", "honor"), ("initialised", "initialized"),
    ("labelled", "labeled"), ("licence", "license"), ("misspelt", "misspelled"), ("neighbour", "neighbor"),
    ("normalise", "normalize"), ("optimise", "optimize"), ("organise", "organize"), ("recognise", "recognize"),
    ("serialise", "serialize"), ("synchronise", "synchronize"), ("travelled", "traveled"), ("whilst", "while"),
];

/// Subjects that name no part of the system: a node, worker, client, process, operator acts.
const ACTORS: &[&str] =
    &["whoever", "Whoever", "nobody", "Nobody", "somebody", "Somebody", "someone", "Someone"];
/// Verbs of people. Parts of the system send, publish and receive.
const VERBS: &[&str] = &["told", "hears", "heard"];
/// Words that leave out when something happens: during what, after what.
const TIMES: &[&str] = &["meanwhile", "Meanwhile", "anew"];

#[test]
fn the_spelling_of_prose_is_american() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(sources("bench")) {
        look_for_british(&source.name, &source.text, &mut violations);
    }
    for (name, text) in documents() {
        look_for_british(&name, &text, &mut violations);
    }
    report(&violations);
}

fn look_for_british(name: &str, text: &str, violations: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (_, american) in BRITISH.iter().filter(|(british, _)| lower.contains(british)) {
            violations.push(format!("{name}:{}: {american}", number + 1));
        }
    }
}

/// Comments of `src` and `tests`, and the documents that newcomers read first.
#[test]
fn sentences_name_who_acts() {
    let mut violations = Vec::new();
    for source in sources("src").iter().chain(tests()) {
        for (number, line) in source.prose.lines().enumerate() {
            let Some(at) = line.find("//") else { continue };
            look_for_actors(
                &format!("{}:{}", source.name, number + 1),
                &line[at..],
                &mut violations,
            );
        }
    }
    for (name, text) in documents() {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('|')) {
            look_for_actors(&format!("{name}:{}", number + 1), line, &mut violations);
        }
    }
    report(&violations);
}

fn look_for_actors(place: &str, line: &str, violations: &mut Vec<String>) {
    let found = ACTORS.iter().chain(VERBS).chain(TIMES).filter(|word| has_word(line, word));
    violations.extend(found.map(|word| format!("{place}: {word}")));
}

fn documents() -> Vec<(String, String)> {
    let names = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/CLUSTER.md",
        "docs/PROTOCOL.md",
    ];
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect("a document");
    names.iter().map(|name| ((*name).to_owned(), read(name))).collect()
}

#[test]
fn british_spelling_and_hidden_actors_are_found() {
    let mut violations = Vec::new();
    look_for_british("x", "a grey line\na gray one", &mut violations);
    look_for_actors("y", "// Nobody waits.", &mut violations);
    look_for_actors("z", "// The core is told.", &mut violations);
    look_for_actors("t", "// Others wait meanwhile.", &mut violations);
    assert_eq!(violations, ["x:1: gray", "y: Nobody", "z: told", "t: meanwhile"]);
}
