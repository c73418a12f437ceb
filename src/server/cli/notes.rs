//! Examples and notes below the help of each command.
//!
//! Owns no state: constants only, apart from `cli.rs` so that its structure can be read. Does not have the help of
//! options, which is in `config/options`.
//! Limit: lines of 100 columns. Cost: static bytes of the program.

pub(super) const EXAMPLES: &str = "Examples:
  ringverb                        serve the app of ./.env, or a development app if there is none
  ringverb --port 9000 --debug    another port, and a line per message
  ringverb check                  what differs from the defaults, and what a start would find
  ringverb --env-file /srv/app/.env --config /etc/ringverb.toml

  ringverb listen private-orders.1                                 in one terminal,
  ringverb publish private-orders.1 order.shipped '{\"id\":1}'       in another
";

pub(super) const CHECK_NOTES: &str =
    "Exit status: 0 if a start would succeed, 1 if something is in its way or does not \
answer,
2 for a wrong configuration. Nothing is published, subscribed to or changed.
";

pub(super) const DOCTOR_NOTES: &str =
    "Each finding has a verdict, a reason, and a command that shows or changes it. Exit status: 0 if
nothing is wrong, 1 for warnings only, 2 if something keeps the server from working, or the host
from serving so many connections. Nothing is changed. A Redis is asked for each right of a node.

Examples:
  ringverb doctor --connections 100000
  ringverb doctor --json | jq '.findings[] | select(.verdict != \"good\")'
";

pub(super) const PUBLISH_EXAMPLES: &str = "Examples:
  ringverb publish news hello '{\"message\":\"hi\"}'
  ringverb publish private-orders.1 'App\\Events\\OrderShipped' '{\"id\":1}' --socket-id 1.2
  ringverb publish news hello 'no JSON at all' --text
";

pub(super) const CHANNELS_EXAMPLES: &str = "Examples:
  ringverb channels
  ringverb channels presence- --app 1001
";

pub(super) const USERS_EXAMPLES: &str = "Examples:
  ringverb users presence-room
";

pub(super) const LISTEN_EXAMPLES: &str =
    "Private and presence channels are joined with the app's own secret, \
'#server-to-user-7' after signing in as user 7.

Examples:
  ringverb listen news private-orders.1
  ringverb listen presence-room --user 7
  ringverb listen '#server-to-user-7'
  ringverb listen news --json --count 1 | jq .data
";

pub(super) const DISCONNECT_EXAMPLES: &str = "Examples:
  ringverb disconnect --user 7
  ringverb disconnect --socket-id 1234.5678 --reconnect
";

pub(super) const UNSUBSCRIBE_EXAMPLES: &str = "Examples:
  ringverb unsubscribe private-orders.1 --user 7
  ringverb unsubscribe presence-room --socket-id 1234.5678
";

pub(super) const RELOAD_NOTES: &str =
    "Asks the admin listener. Without one, it sends SIGHUP to the server that has the port,
and the log has the outcome. Exit status: 0 if the configuration is in use, 1 if it or a certificate
was refused or no server was found, 2 for a wrong configuration.
";

pub(super) const APP_EXAMPLES: &str =
    "The server keeps them in the file of RINGVERB_APPS_FILE. Names are those of docs/OPTIONS.md.
NAME:=JSON gives lists and objects. NAME=@FILE and NAME=- (standard input) keep a secret out of the
list of processes.

Examples:
  ringverb app list
  ringverb app add id=1002 max_connections=500 allowed_origins=shop.test
  ringverb app set 1002 secret=@new second_secret=@old      both files' secrets are valid
  ringverb app set 1002 second_secret=                      only the new one is
  ringverb app set 1002 webhooks:='[{\"url\":\"https://shop.test/hook\"}]'
  ringverb app disable 1002
";

pub(super) const HEALTH_NOTES: &str =
    "Exit status: 0 if /up answers as ringverb does, 1 otherwise \
(during RINGVERB_SHUTDOWN_DELAY, too),
2 for a wrong configuration. It needs no app.
";

pub(super) const TOP_NOTES: &str = "Keys: q, Esc or Ctrl-C end it.
The token of RINGVERB_ADMIN_TOKEN comes from the same configuration.

Examples:
  ringverb top
  ringverb top --admin unix:/run/ringverb/admin.sock
  ringverb top --once | grep connections
";

pub(super) const COMPLETIONS_EXAMPLES: &str = "Examples:
  ringverb completions bash > ~/.local/share/bash-completion/completions/ringverb
  ringverb completions fish > ~/.config/fish/completions/ringverb.fish
  ringverb completions zsh > a file _ringverb in a folder of $fpath
";

pub(super) const LONG: &str = "
Every option can be given in the environment, in .env and in ringverb.toml. A flag wins over the
environment, the environment over .env, .env over ringverb.toml. Where the working directory has
neither of the two files and the environment has no app, /etc/ringverb/ringverb.toml is read, which
packages install. Exit status: 0 after a clean end, 1 if the server fails, refuses or cannot be
reached, 2 for a wrong command line or configuration.
";
