//! Commands that describe the command line. They read no configuration, so they work where it is wrong.

use crate::support::Setup;

#[test]
fn completions_and_the_version_need_no_valid_configuration() {
    let broken = || Setup::bare().env("REVERB_SERVER_PORT", "many");
    assert_eq!(broken().args(&["check", "--offline"]).run().code, Some(2), "the test's premise");
    for shell in ["bash", "zsh", "fish"] {
        let finished = broken().args(&["completions", shell]).run();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(finished.stdout.contains("publish"), "{shell}: {}", finished.stdout);
    }
    let version = broken().args(&["--version"]).run();
    assert_eq!(version.code, Some(0), "{version:?}");
    let lines: Vec<&str> = version.stdout.lines().collect();
    assert!(lines[0].starts_with("ringverb ") && lines[1].starts_with("commit: "), "{lines:?}");
    let other = broken().args(&["completions", "ksh"]).run();
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(other.stderr.contains("bash, zsh, fish"), "{}", other.stderr);
}

#[test]
fn manual_pages_that_cannot_be_written_are_a_failure_that_names_the_folder() {
    let finished = Setup::bare().args(&["manual-pages", "/nonexistent/pages"]).run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("/nonexistent/pages"), "{}", finished.stderr);
}
