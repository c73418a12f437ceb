//! The command line: its definition, its options, and what it accepts.

use super::*;

#[test]
fn the_command_line_is_sound() {
    Arguments::command().debug_assert();
    let line = ["ringverb", "start", "--port", "9", "--debug", "--print-events", "json"];
    let flags = Arguments::parse_from(line).flags();
    let values = [OptionId::Port, OptionId::Debug, OptionId::PrintEvents];
    assert_eq!(values.map(|id| flags[&id].as_str()), ["9", "true", "json"]);
    assert_eq!(flags.len(), 3);
    assert!(Arguments::try_parse_from(["ringverb", "--print-events", "xml"]).is_err());
}

/// `php artisan reverb:start` has these options; options before the command still work.
#[test]
fn artisans_command_is_known_and_options_may_precede_any_command() {
    let line =
        "ringverb reverb:start --host=127.0.0.1 --port=9 --path=/ws --hostname=a.test --debug";
    let arguments = Arguments::parse_from(line.split(' '));
    assert!(matches!(arguments.command, Some(Command::Start(_))));
    let flags = arguments.flags();
    for (id, value) in [
        (OptionId::Host, "127.0.0.1"),
        (OptionId::Port, "9"),
        (OptionId::Path, "/ws"),
        (OptionId::Hostname, "a.test"),
        (OptionId::Debug, "true"),
    ] {
        assert_eq!(flags[&id], value);
    }
    let line = "ringverb --port 8 --env-file a --takeover start --port 9 --config b";
    let arguments = Arguments::parse_from(line.split(' '));
    assert_eq!(arguments.flags()[&OptionId::Port], "9");
    let files = arguments.files();
    assert_eq!((files.env_file, files.config), (Some("a".into()), Some("b".into())));
    assert_eq!(arguments.takeover(), Some(TakeOver::Connections));
    let line = "ringverb start --port 9 --stand-in-for=7";
    let arguments = Arguments::parse_from(line.split(' '));
    assert_eq!(arguments.role(), Role::StandIn(Pid::from_raw(7).unwrap()));
    assert_eq!(arguments.takeover(), Some(TakeOver::Connections));
    let line = "ringverb start --takeover=listeners --takeover";
    assert!(Arguments::try_parse_from(line.split(' ')).is_err());
}

#[test]
fn the_long_version_has_commit_and_features() {
    let version = Arguments::described().render_long_version();
    let parts = [env!("CARGO_PKG_VERSION"), "\ncommit: ", "\nfeatures: io_uring epoll"];
    for part in parts {
        assert!(version.contains(part), "{version}");
    }
    assert!(Arguments::described().render_version().lines().count() == 1);
}

#[test]
fn each_command_has_the_options_that_apply_to_it() {
    let mut command = Arguments::command();
    let names = ["--workers", "--debug", "--takeover", "--print-events", "--hostname", "--io"];
    for name in ["publish", "listen", "channels", "users", "health", "check", "doctor"] {
        let found = command.find_subcommand_mut(name).expect("a command");
        let help = found.render_long_help().to_string();
        let is_server = ["check", "doctor"].contains(&name);
        let own = if is_server { &names[1..4] } else { &names[..] };
        for option in own {
            assert!(!help.contains(option), "{name} {option}");
        }
        assert!(help.contains("--port") && help.contains("--env-file"), "{name}: {help}");
        assert_eq!(
            help.contains("--app"),
            !["health", "check", "doctor"].contains(&name),
            "{name}"
        );
    }
}
