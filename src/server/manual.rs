//! Completions for shells and manual pages, both made from the definition of the command line.
//!
//! Owns no state. Reads no configuration, starts nothing and does not create a folder. `packaging/release` puts the
//! output into the archives and packages. Input: the definition in `cli.rs`. Output: standard output, or files in a
//! folder that exists.
//! No limits: the command line is constant. Cost: once in a command, one file for each page.

use std::io;
use std::path::Path;

use clap::Command;

use super::cli::Shell;

const NAME: &str = "ringverb";

/// A script that the shell loads.
pub(super) fn completions(command: &Command, shell: Shell) -> String {
    let mut script = Vec::new();
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(generator, &mut visible(command), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// `ringverb.1`, and a page for each command, such as `ringverb-publish.1`.
pub(super) fn write_pages(command: Command, folder: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
}

/// The same command without what is hidden: bash would complete it.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let described = Command::new(command.get_name().to_owned())
        .args(arguments.cloned())
        .subcommands(commands.map(visible))
        .visible_aliases(command.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>());
    match command.get_about() {
        Some(about) => described.about(about.clone()),
        None => described,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::cli::Arguments;
    use super::*;
    use crate::server::tests::TestFolder;

    #[test]
    fn completions_know_each_command_and_no_hidden_option() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(&Arguments::command(), shell);
            for word in ["publish", "listen", "takeover", "env-file"] {
                assert!(script.contains(word), "{shell:?} does not complete {word}");
            }
            assert!(!script.contains("stand-in-for"), "{shell:?} shows what only the server uses");
        }
    }

    #[test]
    fn each_command_has_a_page() {
        let folder = TestFolder::new();
        write_pages(Arguments::described(), &folder).unwrap();
        let page = std::fs::read_to_string(folder.join("ringverb.1")).unwrap();
        assert!(page.contains("REVERB_SERVER_PORT"), "the names in the environment are missing");
        for command in ["start", "check", "publish", "channels", "users", "listen", "health"] {
            let page = std::fs::read_to_string(folder.join(format!("ringverb-{command}.1")));
            assert!(page.unwrap().contains("SYNOPSIS"), "{command}");
        }
    }
}
