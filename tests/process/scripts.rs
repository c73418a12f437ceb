//! `--help` of the scripts of the tree: it ends with 0, begins with what the script does, and does nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that other scripts and package managers call, and no person does. Scripts of `bench/` pass their options to
/// a server or to the load generator.
const NOT_FOR_PEOPLE: &[&str] = &[
    "packaging/debian/postinst",
    "packaging/debian/postrm",
    "tests/autobahn/fuzz.py",
    "tests/container/outside.py",
    "tests/programs.py",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder that begin with `#!`.
fn scripts(folder: &Path) -> Vec<PathBuf> {
    const SKIPPED: &[&str] = &["node_modules", "target", ".venv", "corpus"];
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                found.extend(scripts(&path));
            }
        } else if fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"#!")) {
            found.push(path);
        }
    }
    found
}

#[test]
fn each_script_explains_itself_and_does_nothing_else() {
    let folders = ["packaging", "tuning", "tests", ".ci", "laravel/tests"];
    let mut problems = Vec::new();
    let mut count = 0;
    for path in folders.iter().flat_map(|folder| scripts(&root().join(folder))) {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        if NOT_FOR_PEOPLE.contains(&name.as_str()) {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).expect("a script");
        // A script that does not know it would start its work.
        if !text.contains("--help") {
            problems.push(format!("{name} does not know --help"));
            continue;
        }
        let output = Command::new(&path).arg("--help").output();
        let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
        let shown = String::from_utf8_lossy(&output.stdout);
        let first = shown.lines().next().unwrap_or_default();
        // The text of the head, or of a function.
        let explains = first.len() > 20 && text.contains(first);
        if output.status.code() != Some(0) || !explains || !output.stderr.is_empty() {
            problems.push(format!("{name} --help: {output:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count > 20, "only {count} scripts were found");
}
