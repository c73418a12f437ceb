//! The reading list of ARCHITECTURE.md for the hot path: each function is where the list says, and as long.
//!
//! A reader can follow a publish to the socket only while the way is short, so files and lines have a bound. A function
//! that moves or grows fails the test, and its row is written again. Owns no list: the document has it.

use std::collections::BTreeSet;
use std::fs;

use super::report;
use super::source::{root, sources};

const HEADING: &str = "#### The shortest reading: one core";
const FILES_MAX: usize = 6;
const LINES_MAX: usize = 300;

/// One row of the list.
struct Row<'a> {
    function: &'a str,
    file: &'a str,
    lines: usize,
}

#[test]
fn the_reading_list_of_the_hot_path_is_exact_and_short() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = rows(&text);
    assert!(rows.len() > 10, "the list has {} rows", rows.len());
    let mut violations = Vec::new();
    for Row { function, file, lines } in &rows {
        let name = format!("src/{file}");
        let source = sources("src").iter().find(|source| source.name == name);
        let found = source.and_then(|source| lines_of(&source.text, function));
        if found != Some(*lines) {
            violations
                .push(format!("{name}: {function} has {found:?} lines, the list says {lines}"));
        }
    }
    report(&violations);
    let files: BTreeSet<&str> = rows.iter().map(|row| row.file).collect();
    let lines: usize = rows.iter().map(|row| row.lines).sum();
    assert!(
        files.len() <= FILES_MAX && lines <= LINES_MAX,
        "{lines} lines in {} files",
        files.len()
    );
    let sum = format!("{lines} lines in {} files", files.len());
    let prose = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(prose.contains(&sum), "the list is {sum}, and its introduction says otherwise");
}

/// The rows of the table below the heading.
fn rows(text: &str) -> Vec<Row<'_>> {
    let section = text.split_once(HEADING).expect("the heading of the list").1;
    let table = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
        let mut next = || cells.next().expect("four cells");
        let (function, file) = (next(), next());
        Row { function, file, lines: next().parse().expect("a number of lines") }
    })
    .collect()
}

/// Lines of a function from its `fn` to its closing brace; `None` if the text has no such function.
fn lines_of(text: &str, function: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| {
        let (_, rest) = line.split_once("fn ").unwrap_or_default();
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        name == function && !line.trim_start().starts_with("//")
    })?;
    let indent = lines[start].len() - lines[start].trim_start().len();
    let end = format!("{}}}", " ".repeat(indent));
    let length = lines[start..].iter().position(|line| *line == end)?;
    Some(length + 1)
}

#[test]
fn lines_of_functions_are_counted_to_the_closing_brace() {
    let text = "impl A {\n    fn b<T>(\n        c: T,\n    ) {\n        {\n        }\n    }\n}\nfn d() {\n}\n";
    assert_eq!(
        (lines_of(text, "b"), lines_of(text, "d"), lines_of(text, "e")),
        (Some(6), Some(2), None)
    );
}
