//! What ARCHITECTURE.md claims has tests: each invariant and each queue names some, and they exist. Its counts of
//! instructions are those of the raw data.

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

/// The walks cite a count with its case, as in `stale_instruction_counts_are_found`. Each count is that of the raw data
/// to which the document links, so a figure of an earlier build is found.
#[test]
fn instruction_counts_are_those_of_the_raw_data() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let link = text.split("](").find_map(|rest| rest.split_once(')')?.0.strip_suffix(".txt"));
    let raw = format!("{}.txt", link.expect("a link to the raw data"));
    let raw = fs::read_to_string(root().join(raw)).expect("the raw data");
    let cited = instruction_counts(&text);
    assert!(cited.len() >= 8, "{cited:?}");
    report(&cited.iter().filter_map(|count| stale_count(count, &raw)).collect::<Vec<_>>());
}

/// Counts with their cases, in the order of the text.
fn instruction_counts(text: &str) -> Vec<(u64, &str)> {
    let marks = text.match_indices(" instructions (`");
    let cited = marks.filter_map(|(at, mark)| {
        let count = text[..at].rsplit(char::is_whitespace).next()?.replace(',', "");
        let (case, _) = text[at + mark.len()..].split_once('`')?;
        Some((count.parse().ok()?, case))
    });
    cited.collect()
}

fn stale_count((count, case): &(u64, &str), raw: &str) -> Option<String> {
    let mut rows = raw.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(case));
    let measured: Option<f64> = row.and_then(|row| row.get(1)?.parse().ok());
    let is_right = measured.is_some_and(|measured| format!("{measured:.0}") == count.to_string());
    (!is_right).then(|| format!("{case}: the document has {count}, the raw data {measured:?}"))
}

#[test]
fn stale_instruction_counts_are_found() {
    let text = "| 1,142 instructions (`look_up`) | 84 instructions (`fan_out`) a subscriber |";
    let cited = instruction_counts(text);
    assert_eq!(cited, [(1142, "look_up"), (84, "fan_out")]);
    let raw = "case instructions allocations\nlook_up 1140.9 2.00\nfan_out 84.1 0.00\n";
    let stale: Vec<String> = cited.iter().filter_map(|count| stale_count(count, raw)).collect();
    assert_eq!(stale, ["look_up: the document has 1142, the raw data Some(1140.9)"]);
    assert!(stale_count(&(84, "gone"), raw).is_some());
}
