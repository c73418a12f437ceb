//! Commands and options that the documents name: the real program knows each command line of `ringverb`, and the table
//! of options has each name. `blocks` runs the blocks for the shell; `commands` says what becomes of each command.
//!
//! Not run: commands of other programs within a sentence; scripts that a sentence names, of which only the place is
//! checked.

mod blocks;
mod commands;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Finished, Server, Setup};

/// Names that tests and the package for Laravel read, and those of Reverb's own: not of this server.
const OF_OTHERS: &[&str] = &[
    "RINGVERB_BIN",
    "RINGVERB_BINARY",
    "RINGVERB_CHURN_SECONDS",
    "RINGVERB_CONSOLE_PATH",
    "RINGVERB_SEED",
    "RINGVERB_SEEDS",
    "RINGVERB_SECONDS",
    "RINGVERB_STATE",
    "RINGVERB_TEST_AUTOLOAD",
    "REVERB_ENCRYPTION_KEY",
    "REVERB_SERVER",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names and texts of the documents.
fn documents() -> Vec<(String, String)> {
    let folders = ["", "docs", "docs/decisions", "tuning", "packaging", "bench", "laravel"];
    let files = folders.iter().flat_map(|folder| {
        let entries = fs::read_dir(root().join(folder)).expect("a folder of documents");
        entries.map(|entry| entry.expect("an entry").path())
    });
    let documents: Vec<PathBuf> =
        files.filter(|path| path.extension() == Some("md".as_ref())).collect();
    let named = documents.iter().map(|path| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, fs::read_to_string(path).expect("a document"))
    });
    named.collect()
}

/// Lines of blocks for the shell, and code within lines, in the order of the text.
fn code(text: &str) -> Vec<&str> {
    let (mut found, mut fence, mut is_block) = (Vec::new(), None, false);
    let mut before = "";
    for line in text.lines() {
        // Behind text, an indented line continues a list.
        is_block = line.starts_with("    ") && (is_block || before.is_empty());
        before = line;
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language) };
        } else if let Some(language) = fence {
            if matches!(language, "" | "sh" | "bash") {
                found.push(line.trim());
            }
        } else if is_block {
            found.push(line.trim());
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// The words of a command as the shell would have them, without a comment and what follows `&&`.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for char in line.chars() {
        match (char, quote) {
            ('\'' | '"', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (_, Some(open)) if char == open => quote = None,
            (' ', None) => words.extend(word.take()),
            ('#', None) if word.is_none() => break,
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    let end = words.iter().position(|word| word == "&&").unwrap_or(words.len());
    words.truncate(end);
    if words.first().is_some_and(|word| word == "sudo") {
        words.remove(0);
    }
    words
}

/// Arguments of `ringverb` in this text.
fn command_lines(text: &str) -> BTreeSet<Vec<String>> {
    let commands = code(text).into_iter().map(words);
    let ours = commands.filter(|words| words.len() > 1 && words[0] == "ringverb");
    ours.map(|words| words[1..].to_vec()).collect()
}

fn run(setup: Setup, arguments: &[String], more: &[&str]) -> Finished {
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    setup.args(&arguments).run()
}

/// With `--help` behind it, the program reads a command line and does not carry it out.
fn unknown(arguments: &[String]) -> Option<String> {
    let Finished { code, stderr, .. } = run(Setup::bare(), arguments, &["--help"]);
    (code != Some(0)).then(|| format!("ringverb {}: {stderr}", arguments.join(" ")))
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn each_command_line_of_the_documents_is_one_of_the_server() {
    let (mut problems, mut all) = (Vec::new(), BTreeSet::new());
    for (name, text) in documents() {
        let lines = command_lines(&text);
        problems
            .extend(lines.iter().filter_map(|line| Some(format!("{name}: {}", unknown(line)?))));
        all.extend(lines);
    }
    none(&problems);
    assert!(all.len() >= 10, "only {} command lines were found: {all:?}", all.len());
    for wrong in ["ringverb publish --loud", "ringverb pubish", "ringverb start --prot 1"] {
        assert!(unknown(&words(wrong)[1..]).is_some(), "{wrong} should be refused");
    }
}

/// Commands that end by themselves.
#[test]
fn commands_of_the_documents_that_answer_do_so() {
    let all: BTreeSet<Vec<String>> =
        documents().iter().flat_map(|(_, text)| command_lines(text)).collect();
    let server = Server::start();
    let mut ran = BTreeSet::new();
    for line in &all {
        let is_placeholder =
            |word: &String| word.len() > 1 && word.chars().all(|char| char.is_ascii_uppercase());
        let (may_fail, is_whole) = match line[0].as_str() {
            // The port is taken by the server of this test.
            "check" => (true, true),
            "channels" | "completions" | "health" | "--version" | "-V" => (false, true),
            "users" => (false, line.len() > 1),
            "publish" => (false, line.len() > 3),
            _ => continue,
        };
        if !is_whole || line.iter().any(is_placeholder) {
            continue;
        }
        let finished = run(Setup::client_of(&server), line, &[]);
        let is_good = finished.code == Some(0) || may_fail && finished.code == Some(1);
        assert!(is_good, "ringverb {}: {finished:?}", line.join(" "));
        ran.insert(line[0].as_str());
    }
    for command in ["check", "completions", "health", "publish"] {
        assert!(ran.contains(command), "no document has a {command} that can run: {ran:?}");
    }
}

#[test]
fn scripts_that_the_documents_call_exist_and_are_programs() {
    let (mut problems, mut count) = (Vec::new(), 0);
    for (name, text) in documents() {
        for line in code(&text) {
            let words = words(line);
            let is_script = |word: &&String| {
                let folder = word.split('/').next().unwrap_or_default();
                matches!(folder, "packaging" | "tuning" | "tests" | "bench" | ".ci")
                    && !word.contains('*')
            };
            // Only calls: a file in prose has no arguments, and links are checked by tests/tidy_documents.rs.
            let Some(script) = words.first().filter(is_script) else { continue };
            count += 1;
            let file = fs::metadata(root().join(script));
            let is_program =
                |file: &fs::Metadata| file.is_dir() || file.permissions().mode() & 0o111 != 0;
            let is_data = Path::new(script)
                .extension()
                .is_some_and(|it| !["sh", "py"].iter().any(|end| it == *end));
            match file {
                Err(error) => problems.push(format!("{name}: {script}: {error}")),
                Ok(file) if !is_data && words.len() > 1 && !is_program(&file) => {
                    problems.push(format!("{name}: {script} is not a program"));
                }
                Ok(_) => {}
            }
        }
    }
    none(&problems);
    assert!(count > 20, "only {count} scripts were found");
}

#[test]
fn options_that_the_documents_name_are_in_the_table() {
    let table = fs::read_to_string(root().join("docs/OPTIONS.md")).expect("docs/OPTIONS.md");
    let names = |text: &str| -> BTreeSet<String> {
        let is_name =
            |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
        let words = text.split(|char| !is_name(char));
        // A group of names, such as REDIS_*, ends with the dash.
        let ours = words.filter(|word| {
            ["REVERB_", "RINGVERB_", "REDIS_"].iter().any(|it| word.starts_with(it))
        });
        ours.filter(|word| !word.ends_with('_')).map(str::to_owned).collect()
    };
    let known = names(&table);
    assert!(known.len() > 50, "only {} names were found", known.len());
    let mut problems = Vec::new();
    for (document, text) in documents() {
        let unknown = names(&text).into_iter().filter(|name| !known.contains(name));
        let unknown = unknown.filter(|name| !OF_OTHERS.contains(&name.as_str()));
        problems.extend(unknown.map(|name| format!("{document}: {name} is no option")));
    }
    none(&problems);
}
