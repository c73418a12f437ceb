//! What ARCHITECTURE.md claims has tests: each invariant and each queue names some, and they exist.

use std::collections::BTreeSet;
use std::fs;

use super::{report, root, tests};

/// An invariant has this before its tests.
const CHECKED: &str = "Checked ";

#[test]
fn invariants_and_queues_name_tests_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let tests = tests();
    let (invariants, queues) = (invariants(&text), queues(&text));
    assert!(invariants.len() >= 8 && queues.len() >= 15, "{invariants:?} {queues:?}");
    let unchecked = invariants.into_iter().chain(queues);
    report(&unchecked.filter_map(|claim| problem(&claim, &tests)).collect::<Vec<_>>());
}

/// A claim of the document, and the text that has the names of its tests.
type Claim<'a> = (&'a str, &'a str);

fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let rest = text.split_once(heading).map_or("", |(_, rest)| rest);
    rest.split("\n## ").next().unwrap_or_default()
}

fn invariants(text: &str) -> Vec<Claim<'_>> {
    let section = section(text, "\n## Invariants\n").split("\nWhat is absent").next();
    let bullets = section.unwrap_or_default().split("\n- **").skip(1);
    bullets
        .map(|bullet| {
            let bullet = bullet.split("\n\n").next().unwrap_or_default();
            let claim = bullet.split("**").next().unwrap_or_default();
            (claim, bullet.split_once(CHECKED).map_or("", |(_, names)| names))
        })
        .collect()
}

fn queues(text: &str) -> Vec<Claim<'_>> {
    let rows = section(text, "\n## Queues\n").lines().filter(|line| line.starts_with('|')).skip(2);
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        Some((*cells.first()?, *cells.last()?))
    })
    .collect()
}

fn problem((claim, names): &Claim<'_>, tests: &BTreeSet<String>) -> Option<String> {
    // Words in backticks that are no path.
    let names: Vec<&str> =
        names.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')).collect();
    if names.is_empty() {
        return Some(format!("{claim}: no test is named"));
    }
    let unknown = names.into_iter().find(|name| !tests.contains(*name))?;
    Some(format!("{claim}: there is no test `{unknown}`"))
}

#[test]
fn claims_without_tests_are_found() {
    let text = "\n## Queues\n\n| queue | tests |\n|---|---|\n| a | `one` |\n| b | |\n\n## Invariants\n\n\
        - **Good.** Why. Checked by `one`\n  and `two` (`tests/x.rs`).\n- **Bare.** Why.\n\
        - **Wrong.** Checked by `three`.\n\nWhat is absent:\n\n- **no**\n## Next\n";
    let tests = BTreeSet::from(["one", "two"].map(str::to_owned));
    let claims = queues(text).into_iter().chain(invariants(text));
    let found: Vec<String> = claims.filter_map(|claim| problem(&claim, &tests)).collect();
    assert_eq!(
        found,
        ["b: no test is named", "Bare.: no test is named", "Wrong.: there is no test `three`"]
    );
}
