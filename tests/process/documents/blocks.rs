//! Runs the commands of the blocks in the documents, each block in a folder of its own in which the shell finds the
//! server, the scripts of the tree, and an app. `commands.rs` has the table of what becomes of each command.
//!
//! A block whose language is `sh` is for the shell. Each command in it needs a row of the table, and each row needs a
//! command. Blocks of the other languages are not run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::commands::{COMMANDS, STAND_INS, Treatment};
use super::{documents, none, root};
use crate::support::{
    APP_ID, APP_KEY, APP_SECRET, Content, Finished, Server, Setup, free_port, make_program,
};
use crate::{install, tuning};

/// Languages of blocks that are not for the shell.
const OTHER_LANGUAGES: &[&str] =
    &["dotenv", "ini", "js", "json", "jsx", "mermaid", "nginx", "php", "text", "toml", "yaml"];

/// A block for the shell.
#[derive(Debug)]
struct Block {
    /// Document and line.
    place: String,
    commands: Vec<String>,
}

/// Blocks for the shell, and a problem for each block that does not say what it is.
fn blocks(name: &str, text: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut problems) = (Vec::new(), Vec::new());
    let (mut open, mut before, mut is_list) = (None::<(bool, Block)>, "", false);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => {
                blocks
                    .extend(open.take().filter(|(is_shell, _)| *is_shell).map(|(_, block)| block));
            }
            (Some(language), None) => {
                if language != "sh" && !OTHER_LANGUAGES.contains(&language) {
                    problems.push(format!(
                        "{place}: a block has the language {language:?}: sh for commands, or one of {OTHER_LANGUAGES:?}"
                    ));
                }
                open = Some((language == "sh", Block { place, commands: Vec::new() }));
            }
            (None, Some((_, block))) => add_line(&mut block.commands, line.trim()),
            (None, None) => {
                is_list = line.starts_with(['-', '*', '1'])
                    || is_list && (line.is_empty() || line.starts_with(' '));
                if line.starts_with("    ") && before.is_empty() && !is_list {
                    problems.push(format!("{place}: an indented block says no language: use ```"));
                }
            }
        }
        before = line;
    }
    (blocks, problems)
}

/// A line of a block: a command, the rest of the one before it, or a comment.
fn add_line(commands: &mut Vec<String>, line: &str) {
    match commands.last_mut() {
        Some(last) if last.ends_with('\\') => {
            last.pop();
            last.push_str(line);
        }
        _ if line.is_empty() || line.starts_with('#') => {}
        _ => commands.push(line.to_owned()),
    }
}

/// The row of a command: its number and treatment.
fn row_of(command: &str) -> Option<(usize, Treatment)> {
    let fits = |start: &str| {
        let rest = command.strip_prefix(start);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(' ') || start.ends_with(['/', '='])
        })
    };
    let rows = COMMANDS.iter().enumerate().filter(|(_, (start, _))| fits(start));
    let longest = rows.max_by_key(|(_, (start, _))| start.len());
    longest.map(|(number, (_, treatment))| (number, *treatment))
}

/// The folder of a block: a tree with the scripts of this one, where a server has been built.
struct Place {
    folder: PathBuf,
    port: String,
    /// Owns the folder.
    _setup: Setup,
}

impl Place {
    fn new(port: u16) -> Self {
        let setup = Setup::bare();
        let folder = setup.path("");
        for name in ["tuning", "packaging", "tests"] {
            symlink(root().join(name), folder.join(name)).expect("a link");
        }
        fs::create_dir_all(folder.join("bin")).expect("a folder for programs");
        symlink(env!("CARGO_BIN_EXE_ringverb"), folder.join("bin/ringverb")).expect("a link");
        for (name, _, script) in STAND_INS {
            let script = format!("#!/bin/bash\n{script}");
            make_program(&folder.join("bin").join(name), Content::Script(&script));
        }
        tuning::write_settings(&folder.join("sys"), tuning::FOUND);
        install::release_archive(&folder.join("target/packages"));
        Self { folder, port: port.to_string(), _setup: setup }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// In the shell, with this folder as its own.
    fn shell(&self, script: &str) -> Setup {
        let setup = Setup::bare().program(Path::new("/bin/bash"));
        let setup = setup.args(&["-c", &format!("cd \"$HERE\" && {script}")]);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.file("bin"));
        let environment = [
            ("PATH", path),
            ("HERE", self.file("")),
            ("HOME", self.file("")),
            ("XDG_RUNTIME_DIR", self.file("")),
            ("SYSCTL_ROOT", self.file("sys")),
            ("STATE_FILE", self.file("old-values")),
            ("INSTALLED", self.file("99-ringverb.conf")),
            ("REVERB_SERVER_HOST", "127.0.0.1".to_owned()),
            ("REVERB_SERVER_PORT", self.port.clone()),
            ("RINGVERB_ADMIN", format!("unix:{}", self.file("admin"))),
        ];
        environment.iter().fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    /// The server that the commands of a block speak to, if the block does not start one.
    fn server(&self) -> Server {
        let app = format!(
            "REVERB_APP_ID={APP_ID}\nREVERB_APP_KEY={APP_KEY}\nREVERB_APP_SECRET={APP_SECRET}\n"
        );
        let apps = "[[apps]]\nid = \"482913\"\nkey = \"other-key\"\nsecret = \"other-secret\"\n";
        fs::write(self.file("apps.toml"), apps).expect("an apps file");
        let dotenv = format!("{app}RINGVERB_APPS_FILE={}\n", self.file("apps.toml"));
        fs::write(self.file(".env"), dotenv).expect("a .env");
        self.shell("exec ringverb start").spawned("Server running")
    }
}

/// Runs a block as far as the table says.
fn run(block: &Block) -> Result<(), String> {
    let treatments =
        block.commands.iter().filter_map(|command| Some((command, row_of(command)?.1)));
    let treatments: Vec<_> = treatments.collect();
    let runs =
        |treatment: &Treatment| matches!(treatment, Treatment::Ends(_) | Treatment::Serves(_));
    if !treatments.iter().any(|(_, treatment)| runs(treatment)) {
        return Ok(());
    }
    let place = Place::new(free_port());
    let starts_server = block.commands.iter().any(|command| command.starts_with("cargo run"));
    let calls_server = block.commands.iter().any(|command| command.starts_with("ringverb "));
    let server = (calls_server && !starts_server).then(|| place.server());
    let mut running = Vec::new();
    for (command, treatment) in treatments {
        match treatment {
            Treatment::Ends(statuses) => {
                let Finished { code, stdout, stderr } = place.shell(command).run();
                if !code.is_some_and(|code| statuses.contains(&code)) {
                    let text = format!("{}: {command}: {code:?} {stdout}{stderr}", block.place);
                    return Err(text);
                }
            }
            Treatment::Serves(until) => {
                let setup = place.shell(&format!("exec {command}"));
                let is_server = command.starts_with("cargo run");
                running.push(if is_server { setup.spawned(until) } else { setup.launch(until) });
            }
            Treatment::By(..) | Treatment::NotRun(_) => {}
        }
    }
    // The last one first: clients before their server.
    for process in running.into_iter().rev() {
        process.signal(Signal::INT);
        let finished = process.finish();
        if finished.code != Some(0) {
            return Err(format!("{}: a command that runs on: {finished:?}", block.place));
        }
    }
    if let Some(server) = server {
        server.stop();
    }
    Ok(())
}

fn all() -> Vec<Block> {
    documents().iter().flat_map(|(name, text)| blocks(name, text).0).collect()
}

#[test]
fn each_block_of_the_documents_has_a_language() {
    let problems: Vec<String> =
        documents().iter().flat_map(|(name, text)| blocks(name, text).1).collect();
    none(&problems);
    for (text, count) in [
        ("```\nringverb\n```", 1),
        ("```bash\nringverb\n```", 1),
        ("Text.\n\n    ringverb\n", 1),
        ("```sh\nringverb\n\n    --help\n```\n- a\n\n    b", 0),
    ] {
        assert_eq!(blocks("a", text).1.len(), count, "{text}");
    }
}

#[test]
fn each_command_of_a_block_has_a_row_and_each_row_a_command() {
    let (mut problems, mut used) = (Vec::new(), BTreeSet::new());
    for block in all() {
        for command in &block.commands {
            match row_of(command) {
                Some((number, _)) => drop(used.insert(number)),
                None => problems.push(format!(
                    "{}: {command:?} has no row: add how a test runs it, or why none does, to \
                     tests/process/documents/commands.rs",
                    block.place
                )),
            }
        }
    }
    for (number, (start, treatment)) in COMMANDS.iter().enumerate() {
        if !used.contains(&number) {
            problems.push(format!("no document has the command {start:?}: delete its row"));
        }
        match treatment {
            Treatment::By(file, text) => {
                let script = fs::read_to_string(root().join(file)).unwrap_or_default();
                if !script.contains(text) {
                    problems.push(format!("{start}: {file} does not have {text:?}"));
                }
            }
            Treatment::NotRun(why) if why.len() < 10 => {
                problems.push(format!("{start}: {why:?} is no reason"));
            }
            _ => {}
        }
    }
    none(&problems);
    assert!(row_of("ringverb pubish news").is_none() && row_of("tests/runs").is_none());
}

#[test]
fn commands_of_the_blocks_run() {
    let problems: Vec<String> = all().iter().filter_map(|block| run(block).err()).collect();
    none(&problems);
}

#[test]
fn a_command_of_a_block_that_fails_is_noticed() {
    let commands = ["tuning/apply.sh --dry-run", "sudo tuning/revert.sh --no-such-option"];
    let commands = commands.map(str::to_owned).to_vec();
    let failed = run(&Block { place: "a:1".to_owned(), commands });
    assert!(failed.is_err_and(|text| text.contains("usage: revert.sh")));
}
