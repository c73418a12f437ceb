//! The figures of the newest series of measurements are those of its raw data, in bench/RESULTS.md and in all sentences
//! of bench/cited.txt: `bench/tables.py` computes them again.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::root;

const RESULTS: &str = "bench/RESULTS.md";
const BEGIN: &str = "<!-- begin: bench/tables.py ";
const END: &str = "<!-- end: bench/tables.py -->";

fn tables(arguments: &[&str], documents: &Path) -> Output {
    let mut command = Command::new("python3");
    command.arg(root().join("bench/tables.py")).args(arguments).arg("--documents").arg(documents);
    command.current_dir(root()).output().expect("python3")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_tables_of_results_are_what_the_script_prints_for_their_folder() {
    let document = fs::read_to_string(root().join(RESULTS)).expect(RESULTS);
    let (_, rest) = document.split_once(BEGIN).expect("a mark");
    let (folder, rest) = rest.split_once(" -->\n").expect("the folder of a series");
    let (written, _) = rest.split_once(END).expect("the second mark");
    let printed = tables(&[folder], root());
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    assert!(printed.stdout.len() > 5_000, "{} bytes", printed.stdout.len());
    let printed = text(&printed.stdout);
    let differing =
        written.trim().lines().zip(printed.trim().lines()).find(|(one, two)| one != two);
    assert_eq!(differing, None, "edit no figure by hand: bench/tables.py {folder} --write");
    assert_eq!(written.trim().lines().count(), printed.trim().lines().count());
}

#[test]
fn figures_that_documents_cite_are_those_of_the_newest_series() {
    let checked = tables(&["--check"], root());
    assert!(checked.status.success(), "bench/tables.py --check:\n{}", text(&checked.stderr));
}

/// A copy of the cited documents, in which each edit is found, and undone by `--write`.
#[test]
fn a_figure_that_was_edited_by_hand_is_found_and_written_again() {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    let cited = fs::read_to_string(root().join("bench/cited.txt")).expect("bench/cited.txt");
    let cited = cited
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "));
    let mut names: Vec<&str> = cited.map(|(name, _)| name).collect();
    names.extend([RESULTS, "src/ws/reader.rs", "src/shard/local/subscribe.rs"]);
    for name in &names {
        fs::create_dir_all(copy.join(name).parent().expect("a folder")).expect("a folder");
        fs::copy(root().join(name), copy.join(name)).expect("a copy");
    }
    let edits = [
        (RESULTS, "| rounds | 3 |", "| rounds | 5 |"),
        (RESULTS, "**not met**", "met"),
        ("README.md", " bytes of user memory each; ", "0 bytes of user memory each; "),
        (
            "ARCHITECTURE.md",
            " instructions (`fan_out_to_1000`)",
            "1 instructions (`fan_out_to_1000`)",
        ),
        (
            "bench/SCALE.md",
            "| user memory per connection, subscribed |",
            "| user memory per connection |",
        ),
        ("src/ws/reader.rs", " instructions (`frame_read", "0 instructions (`frame_read"),
    ];
    for (name, from, to) in edits {
        let before = fs::read_to_string(root().join(name)).expect("a document");
        let after = before.replacen(from, to, 1);
        assert_ne!(before, after, "{name} has no {from}");
        fs::write(copy.join(name), after).expect("a document");
        let checked = tables(&["--check"], &copy);
        let problems = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(1), "{from}: {problems}");
        assert!(problems.lines().all(|line| line.starts_with(name)), "{from}: {problems}");
        assert!(tables(&["--write"], &copy).status.success());
        assert!(
            fs::read_to_string(copy.join(name)).expect("a document") == before,
            "{name}: {from}"
        );
    }
}

/// Neither raw data of another machine or build, nor a missing file of a bar, nor a missing figure passes unnoticed.
#[test]
fn raw_data_that_do_not_belong_together_are_refused() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("series");
    fs::create_dir_all(&folder).expect("a folder");
    let file = |cores: &str, figure: &str| {
        format!(
            r#"{{"servers": ["ringverb"], "rounds": 1, "machine": {{"cores": "{cores}", "CPU": "x", "memory": "1 GiB",
            "kernel": "6.1", "server": "commit: abc"}}, "runs": [[{{"{figure}": 4.0, "violations": 0,
            "machine": {{"date": "2026-01-01 00:00:00 UTC", "load_before": "0 0 0"}}}}]]}}"#
        )
    };
    let printed = || tables(&[folder.to_str().expect("a path")], root());
    fs::write(folder.join("workers.json"), file("2", "x")).expect("a file");
    fs::write(folder.join("new-connections.json"), file("2", "x")).expect("a file");
    let complete = printed();
    assert!(complete.status.success(), "{}", text(&complete.stderr));
    assert!(text(&complete.stdout).contains("| at most 512 B | not in this series |"));
    for (name, content, problem) in [
        ("new-connections.json", file("4", "x"), "different machines"),
        ("new-connections.json", file("2", "x").replace("abc", "def"), "different builds"),
        ("new-connections.json", "{".to_owned(), "new-connections.json"),
        ("rooms.json", file("2", "x"), "rooms.json: a run of ringverb has no figure"),
    ] {
        fs::write(folder.join(name), content).expect("a file");
        let refused = printed();
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stdout));
        assert!(text(&refused.stderr).contains(problem), "{}", text(&refused.stderr));
        fs::write(folder.join("new-connections.json"), file("2", "x")).expect("a file");
    }
    fs::remove_dir_all(&folder).expect("the folder");
}
