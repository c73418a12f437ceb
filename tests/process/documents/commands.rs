//! The table of all commands in the blocks of the documents: how a test runs each, which script runs it, or why nothing
//! does. `blocks.rs` reads it.

/// What becomes of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Treatment {
    /// It runs and ends with one of these statuses.
    Ends(&'static [i32]),
    /// It runs until the end of its block, and first prints this.
    Serves(&'static str),
    /// This file of the repository runs it, and has this text.
    By(&'static str, &'static str),
    /// Nothing runs it, because of this.
    NotRun(&'static str),
}

use Treatment::{By, Ends, NotRun, Serves};

const GOOD: Treatment = Ends(&[0]);
const MINUTES: &str =
    "it builds, installs packages or measures for minutes; it is a test or a measurement itself";

/// The first words of a command, and its treatment. The longest row that fits counts.
pub(super) const COMMANDS: &[(&str, Treatment)] = &[
    // README
    ("cargo build --profile dist", GOOD),
    ("sudo install -m 755 target/dist/ringverb /usr/local/bin/", GOOD),
    ("cargo run --release", Serves("Server running")),
    ("ringverb listen news", Serves("listening to news")),
    ("ringverb publish news hello", GOOD),
    ("tests/run", NotRun("it runs this test")),
    // docs/OPERATIONS.md
    ("ringverb app add", GOOD),
    ("ringverb app list", GOOD),
    ("ringverb app set 482913", GOOD),
    ("ringverb app disable 482913", GOOD),
    ("ringverb app remove 482913", GOOD),
    ("ssh -L 9601:127.0.0.1:9601", NotRun("it needs another host with a server for SSH")),
    (
        "cargo build --profile dist && packaging/image",
        By("tests/container/run", "packaging/image ringverb-test"),
    ),
    ("podman run -d", By("tests/compose/run", "block_of docs/OPERATIONS.md 'podman run'")),
    // docs/laravel.md, docs/laravel-migration.md, laravel/README.md
    ("composer config repositories.ringverb", NotRun("it needs an application and its registry")),
    ("composer require ringverb/laravel:@dev", NotRun("it needs an application and its registry")),
    ("php artisan ringverb:install", By("laravel/tests/ReleaseTest.php", "InstallCommand")),
    ("php artisan reverb:start", By("laravel/tests/CommandsTest.php", "reverb:start")),
    // tuning/README.md. The first one looks at the host of the test, too, whose limits may be too low.
    ("tuning/check.sh --connections 100000", Ends(&[0, 1])),
    ("tuning/apply.sh --dry-run", GOOD),
    ("sudo tuning/apply.sh", GOOD),
    ("sudo tuning/revert.sh", GOOD),
    // packaging/README.md
    ("packaging/release", NotRun(MINUTES)),
    ("packaging/package", NotRun(MINUTES)),
    ("sh packaging/install.sh --from target/packages", GOOD),
    ("helm install", By("tests/helm/check.py", "of_helm(\"install\"")),
    ("docker compose up --detach", By("tests/compose/run", "compose -f compose.yaml up --detach")),
    (
        "docker compose -f cluster.yaml",
        By("tests/compose/run", "compose -f cluster.yaml up --detach"),
    ),
    // CONTRIBUTING.md
    ("cargo build", NotRun(MINUTES)),
    ("cargo check", NotRun(MINUTES)),
    ("cargo test", NotRun(MINUTES)),
    ("cargo install cargo-fuzz", NotRun(MINUTES)),
    ("RUSTC_BOOTSTRAP=1 cargo fuzz", NotRun(MINUTES)),
    ("RINGVERB_SEED=4711 cargo test", NotRun(MINUTES)),
    ("RINGVERB_SEEDS=1000 cargo test", NotRun(MINUTES)),
    ("RINGVERB_SECONDS=60 cargo test", NotRun(MINUTES)),
    (".ci/run", NotRun(MINUTES)),
    ("sudo tests/", NotRun(MINUTES)),
    ("sudo tests/container/run", By("tests/run", "section \"the image in containers")),
    ("sudo tests/compose/run", By("tests/run", "section \"the compose files")),
    ("tests/helm/run", By("tests/run", "section \"the Helm chart")),
    ("tests/shells/run", By("tests/run", "section \"completions")),
    ("tests/site/run", By("tests/run", "section \"the documents")),
    ("tests/tls/run", NotRun(MINUTES)),
    ("tests/simulator/planted.py", NotRun(MINUTES)),
    ("tests/simulator/planted.py --check", GOOD),
    // bench/README.md, bench/SCALE.md
    ("target/dist/ringverb-bench", NotRun(MINUTES)),
    ("cargo build --profile dist -p", NotRun(MINUTES)),
    ("bench/", NotRun(MINUTES)),
    ("SOCKUDO=yes bench/bars.sh", NotRun(MINUTES)),
    ("bench/tables.py FOLDER --write", By("tests/tidy_documents/figures.rs", "&[\"--write\"]")),
    ("bench=", NotRun(MINUTES)),
    ("eval $bench", NotRun(MINUTES)),
    ("export", NotRun(MINUTES)),
    ("cargo bench", NotRun(MINUTES)),
];

/// Programs that a test replaces, and why. Each has the text of a script for the shell.
pub(super) const STAND_INS: &[(&str, &str, &str)] = &[
    (
        "sudo",
        "a test changes no file of the host: paths below /usr are below $HERE",
        "for word do shift; case $word in /usr/*) word=$HERE$word; mkdir -p \"${word%/*}\" ;; esac; set \
         -- \"$@\" \"$word\"; done\nexec \"$@\"\n",
    ),
    (
        "cargo",
        "the server that was built for the tests takes the place of a release build, which takes minutes",
        "case $* in\n\
         'build --profile dist') mkdir -p target/dist && ln -sf \"$(command -v ringverb)\" target/dist/ringverb ;;\n\
         'run --release') exec ringverb ;;\n\
         *) echo \"no stand-in for cargo $*\" >&2; exit 1 ;;\n\
         esac\n",
    ),
];
