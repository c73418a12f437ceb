//! Feeds the readers of documents with faults, so that a reader that finds nothing is noticed.

use std::collections::BTreeSet;

use super::{
    RuleBook, anchors, cited_files, code_map, comments, links, long_lines, missing_decisions,
    named_sources, rules_without_tests, tests_of_python, tests_of_rust, titles_of_javascript,
};

const SAMPLE: &str = "## A. Configuration\n### C13. Differences\n1. One.\n2. Two.\n3. Three.\n\
    ## Tests\n| rule | tests |\n| 1 | `one_test`, `a title` |\n| 2 | not implemented, because of a reason |\n| 3 | \
    `gone` |\n";

#[test]
fn citations_are_read_across_lines_and_missing_ones_are_found() {
    let book = RuleBook::read(SAMPLE);
    let good = "//! Reads (docs/PROTOCOL.md rules\n//! 1 to 3, C13).\n/// As before (rule 2).\nfn f() {}\n";
    assert_eq!(book.citations(&comments(good)), ["1", "2", "3", "C13", "2"]);
    assert!(book.missing(&comments(good)).is_empty());
    let bad = "// (docs/PROTOCOL.md rule 4, section B; other.md 9). 7\n// (rules 1, 5)\n";
    assert_eq!(
        book.missing(&comments(bad)),
        ["4", "B", "5"].map(|name| format!("docs/PROTOCOL.md has no {name}"))
    );
    let known = BTreeSet::from([1, 2]);
    assert_eq!(
        missing_decisions(
            "(docs/decisions/0002) as docs/decisions/0007 says, docs/decisions/",
            &known
        ),
        ["docs/decisions has no number 7"]
    );
    assert_eq!(cited_files("see docs/PROTOCOL.md. Or X.md, a.mdx"), ["docs/PROTOCOL.md", "X.md"]);
}

#[test]
fn rules_without_a_test_are_found() {
    let book = RuleBook::read(SAMPLE);
    let tests = BTreeSet::from(["one_test", "a title"].map(str::to_owned));
    assert_eq!(rules_without_tests(&book, SAMPLE, &tests), ["rule 3: there is no test `gone`"]);
    let bare = SAMPLE.replace("| 3 | `gone` |", "| 3 | not implemented, because  |");
    assert_eq!(rules_without_tests(&book, &bare, &tests).len(), 1);
    let missing = SAMPLE.replace("| 3 | `gone` |\n", "");
    assert_eq!(
        rules_without_tests(&book, &missing, &tests),
        ["rule 3 has no row in the table of tests"]
    );
    assert_eq!(
        tests_of_rust("#[test]\n/// Why.\n#[ignore]\nfn a_b(x: u8) {}\nfn c() {}\n"),
        ["a_b"]
    );
    assert_eq!(tests_of_python("    def test_x(self):\ndef other():\n"), ["test_x"]);
    assert_eq!(titles_of_javascript("test(\"a (b)\", x); test(\n  'c', y)"), ["a (b)", "c"]);
}

#[test]
fn links_and_long_lines_are_found() {
    let text = "# A b, c!\n[x](#a-b-c) [y](gone.md) `z`\n```\n[no](link)\n```\n| a table |\n";
    assert_eq!(links(text), ["#a-b-c", "gone.md"]);
    assert!(anchors(text).contains("a-b-c"));
    assert_eq!(code_map("`a/b.rs`\n## Code map\n| `c.rs` | `d.rs` |\n| file |\n"), ["c.rs"]);
    assert_eq!(named_sources("`a/b.rs` and `c.rs`, `cat d/e.rs`"), ["a/b.rs"]);
    let long = format!("{}\n| {} |\n", "x".repeat(121), "y".repeat(200));
    assert_eq!(long_lines(&long), [(1, 121)]);
}
