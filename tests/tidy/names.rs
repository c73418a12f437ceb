//! Names: types are declared once, and the tables of names are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{report, root, sources, without_tests};

/// One name, one concept: a reader who searches for a type finds it.
#[test]
fn a_type_name_is_declared_once_in_src() {
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        for (number, line) in without_tests(&source.code).lines().enumerate() {
            if let Some(name) = declared_type(line) {
                let place = format!("{}:{}", source.name, number + 1);
                declared.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    assert!(declared.len() > 500, "the reader of declarations finds {} only", declared.len());
    let twice = declared.iter().filter(|(_, places)| places.len() > 1);
    report(
        &twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect::<Vec<_>>(),
    );
}

/// The name of the type that a line declares, outside of functions and implementations.
fn declared_type(line: &str) -> Option<&str> {
    let rest = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    rest.split(|char: char| !char.is_alphanumeric() && char != '_').next()
}

#[test]
fn declarations_of_types_are_read_right() {
    assert_eq!(declared_type("pub(in crate::server) struct Gate<'a> {"), Some("Gate"));
    assert_eq!(declared_type("pub enum End;"), Some("End"));
    assert_eq!(declared_type("type Queue = Vec<u8>;"), Some("Queue"));
    assert_eq!(declared_type("    type Error = ();"), None);
    assert_eq!(declared_type("publish struct X"), None);
}

/// The table of tests/process/main.rs has a row for each of its modules, and no other.
#[test]
fn the_table_of_the_process_tests_names_each_module() {
    let text = fs::read_to_string(root().join("tests/process/main.rs")).expect("main.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    let declared = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let rows: BTreeSet<&str> = rows.collect();
    let declared: BTreeSet<&str> = declared.filter(|module| *module != "support").collect();
    assert_eq!(rows, declared, "rows (left) and modules (right)");
}
