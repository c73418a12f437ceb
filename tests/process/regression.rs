//! Bugs that were found in review or in use: what happened, and the test that fails if it happens again.
//!
//! Most of these tests stand with the others of their topic, in this program or elsewhere; the table has their names.

use std::path::Path;

use crate::support::rust_text_below;

/// What happened, and the test that would find it.
const STORIES: &[(&str, &str)] = &[
    (
        "a handshake whose last byte came as its deadline expired ended the process",
        "a_handshake_that_arrives_as_its_deadline_expires_does_not_end_the_server",
    ),
    (
        "one connection that sent without a pause kept its worker from all others",
        "a_flood_of_small_messages_does_not_starve_others",
    ),
    (
        "one anonymous connection could make the server keep any amount of memory",
        "one_anonymous_connection_keeps_no_more_than_its_limit",
    ),
    (
        "the memory limit did not count subscriptions and the names of their channels",
        "subscriptions_do_not_exceed_the_memory_limit",
    ),
    (
        "a server over its memory limit kept what it had freed, and refused everybody for ever",
        "over_the_memory_limit_connections_are_refused_and_far_over_it_publishes",
    ),
    (
        "a client that subscribed and unsubscribed without a pause cut its node off from the cluster",
        "a_client_that_comes_and_goes_in_many_channels_takes_no_node_out_of_its_cluster",
    ),
    (
        "a Redis that had become a replica took publishes and passed them to nobody",
        "a_master_that_becomes_a_replica_is_noticed_by_all_its_nodes",
    ),
    (
        "silent sockets took the descriptors that WebSockets needed",
        "silent_connections_do_not_keep_others_out",
    ),
    (
        "occupied and vacated of public channels displaced webhooks of members",
        "a_client_that_comes_and_goes_displaces_no_event_of_members",
    ),
    (
        "another user could take the place at which a new process looks for the old one",
        "another_user_cannot_occupy_the_place",
    ),
    ("a closed pipe at standard output ended the server", "a_closed_pipe_blocks_no_client"),
    (
        "a reader of the log that stopped reading made a worker wait",
        "a_reader_that_never_reads_blocks_no_client",
    ),
    (
        "text of a peer could steer the terminal that showed the log",
        "no_text_of_a_peer_makes_a_line_long_or_steers_a_terminal",
    ),
    (
        "two signals 20 ms apart skipped the drain",
        "signals_at_once_count_as_one_and_the_end_is_logged",
    ),
    (
        "one client that did not answer its close frame delayed the exit",
        "the_exit_waits_neither_for_a_client_that_does_not_answer_nor_for_one_that_does_not_read",
    ),
    (
        "a start after a crash gave up while the kernel still held the port",
        "a_start_waits_for_a_port_that_is_freed_soon",
    ),
    (
        "beside 60,000 open descriptors a start took 22 s to say that its port was in use",
        "the_process_that_listens_is_looked_for_twice_at_most",
    ),
    (
        "one batch of webhooks that its backend refused held back all others",
        "a_channel_that_is_always_refused_delays_no_other_and_is_named_when_given_up",
    ),
    (
        "REVERB_ALLOWED_ORIGINS had no effect, so the server was open to all origins",
        "allowed_origins_count_by_the_names_that_projects_on_reverb_use",
    ),
    (
        "a request that came on a kept connection at the end of its time got no answer",
        "a_request_that_is_complete_at_its_deadline_is_answered",
    ),
    (
        "the answer before a refusal was lost, because the socket was closed with unread input",
        "an_answer_before_a_refusal_is_not_lost",
    ),
    (
        "a publisher on another connection could overtake an event that was answered before",
        "publishes_that_were_answered_are_not_overtaken",
    ),
];

#[test]
fn each_story_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = rust_text_below(&root.join("tests")) + &rust_text_below(&root.join("src"));
    let missing: Vec<_> = STORIES.iter().filter(|(_, test)| !has_test(&text, test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

/// Whether the sources have a function of this name that is run as a test: `#[test]` stands above it, with nothing but
/// other attributes and comments between, and nothing switches it off.
fn has_test(sources: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut attributes = Vec::new();
    for line in sources.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if line.starts_with(&head) {
            if attributes.contains(&"#[test]")
                && !attributes.iter().any(|one| one.starts_with("#[ignore"))
            {
                return true;
            }
            attributes.clear();
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    false
}

#[test]
fn a_function_is_a_test_only_with_its_attribute() {
    assert!(has_test("#[test]\n/// Why.\n#[expect(x)]\n    fn a() {\n", "a"));
    assert!(has_test("fn a() {\n}\n#[test]\nfn a() {\n", "a"));
    assert!(!has_test("fn a() {\n", "a"));
    assert!(!has_test("#[test]\nfn b() {\n}\nfn a() {\n", "a"));
    assert!(!has_test("#[test]\n#[ignore = \"slow\"]\nfn a() {\n", "a"));
    assert!(!has_test("#[test]\nfn ab() {\n", "a"));
}
