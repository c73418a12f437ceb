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
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder");
    let file = |cores: &str, figure: &str| {
        format!(
            r#"{{"servers": ["ringverb"], "rounds": 1, "machine": {{"cores": "{cores}", "CPU": "x", "memory": "1 GiB",
            "kernel": "6.1", "server": "commit: abc", "command": "--server ringverb=ws://127.0.0.1:1 x"}},
            "runs": [[{{"{figure}": 4.0, "violations": 0,
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

const RUN: &str = r#"{"server_CPU_per_cycle_us": 4.0, "cycles_1_per_s": 9.0, "server_busy_percent": 50,
    "client_busy_percent": 1.5, "violations": 0,
    "machine": {"date": "2026-01-01 00:00:00 UTC", "load_before": "0 0.5 0"}}"#;

/// A comparison of two servers in two rounds.
fn comparison() -> String {
    format!(
        r#"{{"servers": ["ringverb", "soketi"], "rounds": 2, "machine": {{"cores": "2", "CPU": "x",
        "memory": "1 GiB", "kernel": "6.1", "server": "commit: abcdef0",
        "command": "--server ringverb=ws://127.0.0.1:1 x --server soketi=ws://127.0.0.1:2 y"}},
        "runs": [[{RUN}, {RUN}], [{RUN}, {RUN}]]}}"#
    )
}

/// One run of bench/scale.py.
fn scale() -> String {
    let figures = [
        "RSS_fresh_KiB",
        "RSS_connected_KiB",
        "RSS_subscribed_KiB",
        "RSS_growth_per_connection_connected_B",
        "RSS_growth_per_connection_subscribed_B",
        "kernel_slab_growth_per_connection_both_ends_subscribed_B",
        "server_CPU_while_idle_ms",
        "connect_rate_1_per_s",
        "server_CPU_per_handshake_us",
        "server_CPU_per_subscription_us",
        "TCP_sockets_of_the_machine",
    ];
    let figures = figures.map(|name| format!(r#""{name}": 7"#)).join(", ");
    format!(
        r#"{{"connections": 5, "violations": 0, {figures}, "machine": {{"cores": "2", "CPU": "x",
        "memory": "1 GiB", "kernel": "6.1", "server": "commit: abcdef0", "command": "x",
        "date": "2026-01-01 00:00:00 UTC", "load_before": "0 0 0"}}}}"#
    )
}

/// File, a text of it, what replaces that at its last place (in churn.json: round 2 of soketi), and the problem.
fn damages() -> Vec<(&'static str, String, String, &'static str)> {
    let one = |from: &str, to: &str, problem| ("churn.json", from.into(), to.into(), problem);
    let idle = |from: &str, to: &str, problem| ("idle-5.json", from.into(), to.into(), problem);
    let whole = |to: &str, problem| ("churn.json", comparison(), to.into(), problem);
    let half = comparison().split_at(comparison().len() / 2).0.to_owned();
    let two = format!("[{RUN}, {RUN}]");
    let cpu = r#""server_CPU_per_cycle_us": 4.0"#;
    let cpu_is =
        |value: &str, problem| one(cpu, &format!(r#""server_CPU_per_cycle_us": {value}"#), problem);
    vec![
        whole("[]", "is no JSON object"),
        whole("null", "is no JSON object"),
        whole("{}", "machine is missing"),
        whole("", "is no JSON"),
        whole(&half, "is no JSON"),
        whole(&"[".repeat(200_000), "is no JSON"),
        one(
            r#""violations": 0"#,
            r#""violation": 0"#,
            "run 2 of soketi has no count of violations",
        ),
        one(r#""violations": 0"#, r#""violations": true"#, "run 2 of soketi has no count of"),
        one(&two, &format!("[{RUN}]"), "not a list of 2 runs of soketi"),
        one(&two, "null", "not a list of 2 runs of soketi"),
        one(&two, "[1, 2]", "run 1 of soketi is no JSON object"),
        one(&format!("{two}, {two}"), &two, "runs is not a list of 2 lists"),
        one(&format!("{two}, {two}"), "[], []", "not a list of 2 runs of ringverb"),
        one(&format!("[{two}, {two}]"), "[]", "runs is not a list of 2 lists"),
        one(&format!("[{two}, {two}]"), "null", "runs is not a list of 2 lists"),
        one(r#"["ringverb", "soketi"]"#, r#"["soketi", "ringverb"]"#, "but the command"),
        one(r#"["ringverb", "soketi"]"#, "null", "but the command"),
        one("soketi=", "ringverb=", "but the command"),
        whole(&comparison().replace("soketi", "ringverb"), "with a name twice"),
        one(r#""rounds": 2"#, r#""rounds": 99"#, "rounds is 99"),
        one(r#""rounds": 2"#, r#""rounds": 0"#, "rounds is 0, not a number from 1 on"),
        one(r#""rounds": 2"#, r#""rounds": 2.0"#, "rounds is 2.0, not a number from 1 on"),
        one(r#""cores": "2""#, r#""cores": 2"#, "machine has 2 as cores"),
        one("00:00:00 UTC", "noon", "as date"),
        one("0 0.5 0", "", "as load_before"),
        one("commit: abcdef0\"", "\", \"servers\": [1]", "servers of machine is no list of texts"),
        one(r#""cycles_1_per_s": 9.0"#, r#""x": -1"#, "run 2 of soketi has -1 as x"),
        one(r#""cycles_1_per_s""#, r#""x""#, "a run of soketi has no figure cycles_1_per_s"),
        cpu_is("0", "run 2 of soketi has 0 as server_CPU_per_cycle_us"),
        cpu_is("-1", "run 2 of soketi has -1 as server_CPU_per_cycle_us"),
        cpu_is("NaN", "run 2 of soketi has nan as server_CPU_per_cycle_us"),
        cpu_is("Infinity", "run 2 of soketi has inf as server_CPU_per_cycle_us"),
        cpu_is("true", "run 2 of soketi has True as server_CPU_per_cycle_us"),
        cpu_is(r#""4.0""#, "run 2 of soketi has '4.0' as server_CPU_per_cycle_us"),
        one("commit: abcdef0", "commit: abcdef1", "commits abcdef0 and abcdef1"),
        idle(r#""connections": 5"#, r#""connections": 6"#, "the run has 6 connections"),
        idle("us\": 7", "us\": 0", "has 0 as server_CPU_per_subscription_us"),
        idle("server_CPU_per_handshake_us", "x", "has None as server_CPU_per_handshake_us"),
        ("commit.txt", "abcdef0".into(), "abcdef1".into(), "commits abcdef0 and abcdef1"),
        ("commit.txt", "abcdef0".into(), "| abcdef0".into(), "which is no commit"),
        ("commit.txt", "abcdef0".into(), "abc".into(), "which is no commit"),
        ("commit.txt", "abcdef0".into(), String::new(), "which is no commit"),
        ("instructions.txt", "# commit ".into(), "# ".into(), "no first line with the commit"),
        ("instructions.txt", "handshake ".into(), "# ".into(), "not one line each of handshake"),
        ("instructions.txt", "handshake ".into(), "unknown ".into(), "add the case"),
        ("instructions.txt", "handshake ".into(), "handshake x".into(), "is not a case"),
        ("instructions.txt", "\n".into(), " ".into(), "ends within a line"),
    ]
}

/// A caller can tell damaged data, exit code 2, from documents that differ, exit code 1.
#[test]
fn damaged_raw_data_are_refused_with_a_sentence_that_names_the_file() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("damaged");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder");
    let document = fs::read_to_string(root().join(RESULTS)).expect(RESULTS);
    let (_, rest) = document.split_once(BEGIN).expect("a mark");
    let (newest, _) = rest.split_once(" -->\n").expect("the folder of a series");
    let counts = root().join(newest).join("instructions.txt");
    let counts = fs::read_to_string(counts).expect("counts of instructions");
    let other = comparison().replace("soketi", "another");
    let files = [
        ("churn.json", comparison()),
        ("other.json", other),
        ("idle-5.json", scale()),
        ("commit.txt", "abcdef0\n".to_owned()),
        ("instructions.txt", counts),
    ];
    let path = folder.to_str().expect("a path");
    let refused = |name: &str, problem: &str, arguments: &[&str]| {
        let printed = tables(arguments, root());
        let problems = text(&printed.stderr);
        assert_eq!(printed.status.code(), Some(2), "{name}: {problem}: {problems}");
        assert!(
            problems.contains(problem) && problems.lines().count() == 1,
            "{problem}: {problems}"
        );
        assert!(problems.starts_with("tables.py: ") && problems.contains(name), "{problems}");
    };
    let restore = || {
        files.iter().for_each(|(name, content)| {
            fs::write(folder.join(name), content).expect("a file");
        })
    };
    restore();
    let complete = tables(&[path], root());
    assert!(complete.status.success(), "{}", text(&complete.stderr));
    for (name, from, to, problem) in damages() {
        let content = &files.iter().find(|(file, _)| *file == name).expect("a file").1;
        let at = content.rfind(&from).unwrap_or_else(|| panic!("{name} has no {from}"));
        let damaged = format!("{}{to}{}", &content[..at], &content[at + from.len()..]);
        fs::write(folder.join(name), damaged).expect("a file");
        // The sentence about different builds names the folder.
        refused(if problem.starts_with("commits ") { "damaged" } else { name }, problem, &[path]);
        restore();
    }
    for (name, _) in &files {
        fs::write(folder.join(name), b"\xff\xfe\x00").expect("a file");
        refused(name, "cannot be read", &[path]);
        fs::remove_file(folder.join(name)).expect("the file");
        fs::create_dir(folder.join(name)).expect("a folder");
        refused(name, "cannot be read", &[path]);
        fs::remove_dir(folder.join(name)).expect("the folder");
        restore();
    }
    // Whether a server that printed no commit is of the same build, only `commit.txt` can say.
    let silent = comparison().replace("commit: abcdef0", "no server");
    fs::write(folder.join("churn.json"), silent).expect("a file");
    assert!(tables(&[path], root()).status.success());
    fs::remove_file(folder.join("commit.txt")).expect("the file");
    refused("damaged", "but none in churn.json", &[path]);
    restore();
    fs::write(folder.join("churn.json"), "{").expect("a file");
    refused("churn.json", "is no JSON", &[path, "--strip"]);
    fs::remove_dir_all(&folder).expect("the folder");
    refused("damaged", "no JSON file of a comparison", &[path, "--strip"]);
}
