//! Documents and sources agree: cited files, rules and decisions exist, links lead somewhere, and each rule of
//! docs/PROTOCOL.md names tests that exist.
//!
//! Everything is read as text. Each test lists all its violations at once. `tidy_documents/readers.rs` feeds
//! the readers of this file with faults.

#[path = "tidy_documents/claims.rs"]
mod claims;
#[path = "tidy_documents/figures.rs"]
mod figures;
#[path = "tidy_documents/readers.rs"]
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders with sources whose comments may cite a document.
const SOURCES: &[&str] = &[".ci", "bench", "packaging", "src", "tests", "tuning"];
/// Folders with generated or foreign files.
const SKIPPED: &[&str] =
    &["target", "node_modules", ".venv", "corpus", "artifacts", "coverage", "fixtures", "results"];
/// Tables, code and headings may be longer.
const COLUMNS_MAX: usize = 120;
const NOT_IMPLEMENTED: &str = "not implemented, because ";

#[test]
fn cited_rules_and_documents_exist() {
    let book = RuleBook::read(&protocol());
    let decisions = decisions();
    let mut violations = Vec::new();
    let mut rules = 0;
    for path in files(&["rs", "py", "sh", "mjs", "toml", "run", ""]) {
        let text = comments(&fs::read_to_string(&path).unwrap_or_default());
        rules += book.citations(&text).len();
        let mut found = book.missing(&text);
        found.extend(missing_decisions(&text, &decisions));
        let folder = path.parent().expect("a folder");
        let missing = cited_files(&text).into_iter();
        found.extend(
            missing
                .filter(|name| !exists(name, folder))
                .map(|name| format!("{name}: no such file")),
        );
        violations.extend(found.iter().map(|problem| format!("{}: {problem}", shown(&path))));
    }
    report(&violations);
    assert!(rules > 100, "only {rules} citations were found: is the reader of citations right?");
}

#[test]
fn each_rule_names_tests_that_exist() {
    let text = protocol();
    let book = RuleBook::read(&text);
    report(&rules_without_tests(&book, &text, &tests()));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut violations = Vec::new();
    for path in documents() {
        let folder = path.parent().expect("a folder");
        let text = fs::read_to_string(&path).expect("a document");
        for link in links(&text) {
            if let Some(problem) = broken(&link, &path, folder) {
                violations.push(format!("{}: ({link}) {problem}", shown(&path)));
            }
        }
    }
    report(&violations);
}

#[test]
fn each_document_is_a_page_of_the_site() {
    let summary = fs::read_to_string(root().join("packaging/site/summary.txt")).expect("a list");
    // Not `links`, which takes the inner lists of the summary for code. The site's own test reads laravel/, too.
    let targets = summary.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let pages = targets.filter(|page| !page.starts_with("laravel/")).map(str::to_owned);
    let pages: BTreeSet<String> = pages.collect();
    let documents: BTreeSet<String> = documents().iter().map(|path| shown(path)).collect();
    let differing: Vec<String> = pages.symmetric_difference(&documents).cloned().collect();
    report(&differing);
}

/// Metrics that documents name are in the generated docs/METRICS.md, and each gauge of a peak is in a document with the
/// queue that it belongs to.
#[test]
fn documents_name_metrics_that_exist() {
    let table = fs::read_to_string(root().join("docs/METRICS.md")).expect("docs/METRICS.md");
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        words.filter(|word| word.starts_with("ringverb_")).map(str::to_owned).collect()
    };
    let known = names(&table);
    assert!(known.len() > 80, "{} metrics", known.len());
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let named = names(&architecture);
    let unknown = named.difference(&known).map(|name| format!("ARCHITECTURE.md: {name}"));
    let peaks = known.iter().filter(|name| name.contains("_peak") && !named.contains(*name));
    let peaks = peaks.map(|name| format!("{name}: no queue of ARCHITECTURE.md has it"));
    report(&unknown.chain(peaks).collect::<Vec<_>>());
}

#[test]
fn lines_of_documents_fit() {
    let mut violations = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        // The lines of docs/OPTIONS.md are those of the table of options.
        let text = if text.contains("This file is generated") { "" } else { text.as_str() };
        for (number, columns) in long_lines(text) {
            violations.push(format!("{}:{number}: {columns} columns", shown(&path)));
        }
    }
    report(&violations);
}

/// docs/CODE_MAP.md has a row for each source file that is no test, and no other.
#[test]
fn the_code_map_names_each_file() {
    let text = fs::read_to_string(root().join("docs/CODE_MAP.md")).expect("docs/CODE_MAP.md");
    let listed: BTreeSet<String> = code_map(&text).into_iter().collect();
    let mut paths = Vec::new();
    collect(&root().join("src"), &mut paths);
    let names = paths.iter().map(|path| shown(path).trim_start_matches("src/").to_owned());
    let is_test = |name: &String| name.ends_with("tests.rs") || name.contains("/tests/");
    let found: BTreeSet<String> =
        names.filter(|name| name.ends_with(".rs") && !is_test(name)).collect();
    let missing = found.difference(&listed).map(|name| format!("no row for src/{name}"));
    let gone =
        listed.difference(&found).map(|name| format!("a row for src/{name}, which does not exist"));
    report(&missing.chain(gone).collect::<Vec<_>>());
}

/// Paths in backticks, such as `src/ws/mask.rs` or `ws/mask.rs`, exist.
#[test]
fn source_files_that_documents_name_exist() {
    let mut violations = Vec::new();
    for path in documents() {
        let folder = path.parent().expect("a folder");
        let text = fs::read_to_string(&path).expect("a document");
        for name in named_sources(&text) {
            let places = [root().join(&name), root().join("src").join(&name), folder.join(&name)];
            if !places.iter().any(|place| place.is_file()) {
                violations.push(format!("{}: `{name}` does not exist", shown(&path)));
            }
        }
    }
    report(&violations);
}

/// Rules and sections of docs/PROTOCOL.md.
struct RuleBook {
    rules: BTreeSet<u32>,
    sections: BTreeSet<String>,
}

impl RuleBook {
    fn read(text: &str) -> Self {
        let headings =
            text.lines().filter_map(|line| line.trim_start_matches('#').trim().split_once(". "));
        let headings =
            headings.filter(|(name, _)| is_section(name)).map(|(name, _)| name.to_owned());
        let rules: BTreeSet<u32> = text.lines().filter_map(rule_of).collect();
        let complete = (1..).zip(&rules).all(|(number, rule)| number == *rule);
        assert!(complete, "rules are numbered from 1 on without a gap");
        Self { rules, sections: headings.collect() }
    }

    /// What a comment cites of it: numbers of rules, names of sections.
    fn citations(&self, text: &str) -> Vec<String> {
        let marks = text.match_indices("PROTOCOL.md").map(|(at, mark)| at + mark.len());
        marks.flat_map(|at| cited(&text[at..])).chain(bare_rules(text)).collect()
    }

    fn missing(&self, text: &str) -> Vec<String> {
        let is_known = |name: &str| match name.parse::<u32>() {
            Ok(rule) => self.rules.contains(&rule),
            Err(_) => self.sections.contains(name),
        };
        let missing = self.citations(text).into_iter().filter(|name| !is_known(name));
        missing.map(|name| format!("docs/PROTOCOL.md has no {name}")).collect()
    }
}

/// The number of a rule's first line.
fn rule_of(line: &str) -> Option<u32> {
    line.split_once(". ").and_then(|(number, _)| number.parse().ok())
}

/// `A`, `C`, `C13`: no other words begin a citation.
fn is_section(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| "ABCD".contains(first))
        && chars.all(|char| char.is_ascii_digit())
}

/// The words behind a document's name that cite: `rules 62 to 65, C13` has six rules and a section.
fn cited(tail: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_range = false;
    for word in tail.split_ascii_whitespace() {
        let name = word.trim_matches(|char: char| !char.is_alphanumeric());
        match name {
            "rule" | "rules" | "section" | "and" | "" => {}
            "to" => is_range = true,
            _ if name.parse::<u32>().is_ok() || is_section(name) => {
                let first = found.last().and_then(|last| last.parse::<u32>().ok());
                if let (true, Some(first), Ok(last)) = (is_range, first, name.parse::<u32>()) {
                    found.extend((first + 1..last).map(|rule| rule.to_string()));
                }
                is_range = false;
                found.push(name.to_owned());
            }
            _ => break,
        }
        if word.ends_with([')', '.', ';', ':']) && !matches!(word, ";" | ":") {
            // A semicolon may separate two documents: what follows belongs to the next one.
            break;
        }
    }
    found
}

/// `rule 27` and `rules 49, 51` without a document's name, in parentheses, as later comments of a file have them.
fn bare_rules(text: &str) -> Vec<String> {
    let starts = text.match_indices("(rule").map(|(at, _)| at + 1);
    starts.flat_map(|at| cited(&text[at..])).collect()
}

/// `docs/decisions/0004` where there is no file of that number.
fn missing_decisions(text: &str, decisions: &BTreeSet<u32>) -> Vec<String> {
    let tails = text.match_indices("docs/decisions/").map(|(at, mark)| &text[at + mark.len()..]);
    let numbers = tails.filter_map(|tail| {
        let digits = tail.chars().take_while(char::is_ascii_digit).collect::<String>();
        digits.parse::<u32>().ok()
    });
    let missing = numbers.filter(|number| !decisions.contains(number));
    missing.map(|number| format!("docs/decisions has no number {number}")).collect()
}

/// Names of Markdown files in a text. `FOLDER/` stands for a folder that the caller of a script names.
fn cited_files(text: &str) -> Vec<String> {
    let is_path = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
    let words = text.split(|char| !is_path(char));
    let words = words.map(|word| word.trim_end_matches('.').trim_start_matches("./"));
    words
        .filter(|word| word.len() > 3 && word.ends_with(".md") && !word.starts_with("FOLDER/"))
        .map(str::to_owned)
        .collect()
}

fn exists(name: &str, folder: &Path) -> bool {
    root().join(name).is_file() || folder.join(name).is_file()
}

/// Rules whose row of the table has neither a test that exists nor a reason.
fn rules_without_tests(book: &RuleBook, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut rows: BTreeMap<u32, &str> = BTreeMap::new();
    let mut violations = Vec::new();
    let table = text.split_once("## Tests").map_or("", |(_, table)| table);
    for line in table.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((number, cell)) = line.split_once(" | ") else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        if rows.insert(number, cell).is_some() {
            violations.push(format!("rule {number} has two rows"));
        }
    }
    for rule in book.rules.iter().filter(|rule| !rows.contains_key(rule)) {
        violations.push(format!("rule {rule} has no row in the table of tests"));
    }
    for (rule, cell) in &rows {
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        for name in named.iter().filter(|name| !tests.contains(**name)) {
            violations.push(format!("rule {rule}: there is no test `{name}`"));
        }
        let reason = cell.strip_prefix(NOT_IMPLEMENTED).unwrap_or_default();
        if named.is_empty() && reason.trim_end_matches('|').trim().is_empty() {
            violations
                .push(format!("rule {rule} names no test, and no reason: `{NOT_IMPLEMENTED}...`"));
        }
        if !book.rules.contains(rule) {
            violations.push(format!("the table has a row for rule {rule}, which does not exist"));
        }
    }
    violations
}

/// Functions under `#[test]`, titles of `test(...)` in JavaScript, functions `test_...` in Python.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in files(&["rs", "mjs", "py"]) {
        let text = fs::read_to_string(&path).expect("a source file");
        let extension = path.extension().unwrap_or_default();
        names.extend(match extension.to_str() {
            Some("rs") => tests_of_rust(&text),
            Some("py") => tests_of_python(&text),
            _ => titles_of_javascript(&text),
        });
    }
    names
}

fn tests_of_rust(text: &str) -> Vec<String> {
    let mut is_test = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if std::mem::take(&mut is_test) {
                names.push(
                    rest.chars()
                        .take_while(|char| char.is_alphanumeric() || *char == '_')
                        .collect(),
                );
            }
        } else if !(line.starts_with("#[") || line.starts_with("//")) {
            is_test = false;
        }
    }
    names
}

fn tests_of_python(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("def ")?.split_once('('));
    names.filter(|(name, _)| name.starts_with("test_")).map(|(name, _)| name.to_owned()).collect()
}

fn titles_of_javascript(text: &str) -> Vec<String> {
    let mut titles = Vec::new();
    for (at, mark) in text.match_indices("test(") {
        let rest = text[at + mark.len()..].trim_start();
        let Some(quote) = rest.chars().next().filter(|char| "\"'`".contains(*char)) else {
            continue;
        };
        titles.extend(rest[1..].split_once(quote).map(|(title, _)| title.to_owned()));
    }
    titles
}

/// Targets of inline links.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text).map(|(_, line)| line) {
        for (at, mark) in line.match_indices("](") {
            let target = line[at + mark.len()..].split_once(')');
            found.extend(target.map(|(target, _)| target.to_owned()));
        }
    }
    found
}

fn broken(link: &str, document: &Path, folder: &Path) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (name, anchor) =
        link.split_once('#').map_or((link, None), |(name, anchor)| (name, Some(anchor)));
    let target = if name.is_empty() { document.to_owned() } else { folder.join(name) };
    if !target.exists() {
        return Some("does not exist".to_owned());
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&target).unwrap_or_default();
    (!anchors(&text).contains(anchor)).then(|| "has no such heading".to_owned())
}

/// The anchors that renderers give to headings: lower case, without punctuation, blanks as dashes.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
            kept.map(|char| if char == ' ' { '-' } else { char }).collect()
        })
        .collect()
}

/// Lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence && !line.starts_with("    ")).then_some((index + 1, line))
    })
}

/// Numbers and columns of lines that are too long and are no table.
fn long_lines(text: &str) -> Vec<(usize, usize)> {
    let lines = prose(text).filter(|(_, line)| !line.starts_with('|'));
    let counted = lines.map(|(number, line)| (number, line.chars().count()));
    counted.filter(|(_, columns)| *columns > COLUMNS_MAX).collect()
}

/// The first cells of the rows that begin with a code span.
fn code_map(text: &str) -> Vec<String> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(name, _)| name.to_owned()).collect()
}

/// Code spans that are the path of a Rust file, with a folder.
fn named_sources(text: &str) -> Vec<String> {
    let spans = prose(text).flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
    let is_path = |span: &&str| span.ends_with(".rs") && span.contains('/') && !span.contains(' ');
    spans.filter(is_path).map(str::to_owned).collect()
}

/// The text of comments, in one line. A file without comment marks on its lines is not read as one.
fn comments(text: &str) -> String {
    let mut joined = String::new();
    for line in text.lines().map(str::trim_start) {
        let comment = ["//!", "///", "//", "#"].iter().find_map(|mark| line.strip_prefix(mark));
        let comment = comment.or_else(|| line.split_once(" // ").map(|(_, comment)| comment));
        match comment {
            Some(comment) => joined.push_str(comment),
            None => joined.push_str(" |"),
        }
        joined.push(' ');
    }
    joined
}

fn protocol() -> String {
    fs::read_to_string(root().join("docs/PROTOCOL.md")).expect("docs/PROTOCOL.md")
}

fn decisions() -> BTreeSet<u32> {
    let mut paths = Vec::new();
    collect(&root().join("docs/decisions"), &mut paths);
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str()?.split_once('-'));
    names.filter_map(|(number, _)| number.parse().ok()).collect()
}

/// All files of the source folders with one of these extensions.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for folder in SOURCES {
        collect(&root().join(folder), &mut paths);
    }
    let extension = |path: &PathBuf| {
        path.extension().map_or("", |text| text.to_str().unwrap_or("-")).to_owned()
    };
    paths.retain(|path| extensions.contains(&extension(path).as_str()));
    // This file's own examples are no citations.
    paths.retain(|path| !path.ends_with("tests/tidy_documents.rs"));
    paths.retain(|path| !path.ends_with("tests/tidy_documents/readers.rs"));
    paths.retain(|path| !path.ends_with("tests/tidy_documents/claims.rs"));
    paths.retain(|path| !path.ends_with("tests/tidy_documents/figures.rs"));
    assert!(!paths.is_empty());
    paths.sort();
    paths
}

fn documents() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root())
        .expect("the root")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| path.is_file());
    for folder in SOURCES.iter().chain(&["docs"]) {
        collect(&root().join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("a folder entry").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                collect(&path, paths);
            }
        } else {
            paths.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}
