//! Bugs that were found in review or in use: what happened, and the test that fails if it happens again.
//!
//! Most of these tests stand with the others of their topic: in this program, in `src`, in the simulator or in the
//! package for Laravel. Two tables have their names, in the order in which the bugs were mended.
//! `each_story_has_its_test` looks them up.

mod names;
mod operation;

use std::path::Path;

use crate::support::rust_text_below;
use names::{has_php_test, has_test, php_text_in};
use operation::STORIES_OF_OPERATION;

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
    (
        "the mask of a secret, sent back over the admin API, became the secret",
        "a_mask_keeps_the_secret_of_its_option_and_never_becomes_one",
    ),
    (
        "32 silent connections to the admin listener made the probes of an orchestrator fail",
        "a_full_listener_ends_the_connection_that_has_waited_longest_for_its_request",
    ),
    (
        "a page of another site could make a browser ask the workers through the admin API",
        "a_page_of_another_origin_changes_nothing_and_reads_nothing",
    ),
    (
        "a viewer of the event log could make the server keep megabytes",
        "the_bytes_that_wait_for_a_viewer_are_limited",
    ),
    (
        "an event of an app that was just added ended the process while a console was open",
        "an_event_of_an_app_that_the_list_does_not_have_yet_is_shown_without_its_id",
    ),
    (
        "a core that sent nothing kept the stamp of an event, and a metric showed seconds for microseconds",
        "the_stamp_of_an_event_ends_with_its_tick_on_a_core_that_sends_nothing",
    ),
    (
        "nodes remembered different last events of a cache channel after Redis had lost its data",
        "an_event_that_redis_stores_twice_is_read_again",
    ),
    (
        "an old process removed the file that its successor had just put in its place",
        "a_file_that_is_put_there_during_the_removal_survives",
    ),
    (
        "a close for a full send queue discarded the answers to pipelined requests and the handshake's",
        "a_close_for_a_full_send_queue_keeps_the_answers_before_the_handshake",
    ),
    (
        "a client that sent half an empty line every few seconds kept its HTTP connection for ever",
        "empty_lines_in_pieces_do_not_prolong_the_time_of_a_request",
    ),
    (
        "a slot that changed hands within a tick was flushed twice",
        "a_slot_that_changes_hands_within_a_tick_is_sent_once",
    ),
    (
        "a watch of epoll that failed over and over took the whole processor",
        "a_watch_that_is_tried_again_and_again_leaves_the_processor_to_others",
    ),
    (
        "an endpoint that refused every webhook used up the time of a stop",
        "the_end_waits_for_an_endpoint_that_works_and_not_for_one_that_fails",
    ),
    (
        "a stand-in whose process had ended took over from another server",
        "a_stand_in_that_starts_after_its_process_has_ended_does_not_take_over",
    ),
    (
        "a .env whose values double with each line took all memory",
        "values_that_double_with_each_line_are_reported",
    ),
    (
        "a change of the phase during a tick was noticed a second later",
        "a_word_that_is_set_before_a_ring_is_not_slept_through",
    ),
    (
        "memory grew 10 % over its limit between two measurements",
        "headroom_ends_at_the_target_below_the_limit",
    ),
    (
        "a host whose app was missing served a development app that no client knew",
        "a_host_that_forbids_a_development_app_does_not_get_one",
    ),
    (
        "memory that handshakes had freed was not returned to the kernel",
        "memory_is_returned_once_in_the_first_quiet_second_after_work",
    ),
    (
        "a publish of the home could come before publishes that were answered, with full rings",
        "all_mail_in_the_rings_is_received_at_once_in_the_order_of_its_stamps",
    ),
    (
        "a client could send sealed records without content for ever during its handshake",
        "a_sealed_record_without_content_ends_the_handshake",
    ),
    (
        "a client with early data for another server was refused",
        "early_data_of_another_servers_ticket_is_skipped_with_every_suite_and_in_pieces_of_any_size",
    ),
    (
        "a handshake message without its key was skipped as early data",
        "a_handshake_message_without_its_key_ends_the_handshake",
    ),
    (
        "the error for a handshake without an app counted as a message of the first app",
        "a_recount_after_churn_agrees_with_every_value",
    ),
    (
        "a change of the configuration made first subscribers of a topic wait for their time limit",
        "a_topic_waits_for_what_was_sent_after_a_change_of_the_configuration",
    ),
    (
        "a topic that was idle, needed and idle again was listed as idle twice",
        "an_idle_topic_in_doubt_is_needed_again_and_is_idle_once",
    ),
    (
        "a mass disconnect was processed in one tick, far beyond its time",
        "connections_that_end_at_once_are_closed_in_several_ticks_of_bounded_time",
    ),
    (
        "the webhook dispatcher slept up to an hour with removed endpoints",
        "a_change_of_endpoints_before_the_sleep_is_announced_is_applied_at_once",
    ),
    (
        "a webhook was lost whose repetition arrived while its first request was handled",
        "test_a_repetition_waits_for_the_first_request_and_is_handled_if_its_process_was_lost",
    ),
    (
        "reverb:restart removed the claim of a server in another container",
        "test_a_server_of_another_container_with_the_same_folder_is_neither_ours_nor_forgotten",
    ),
    (
        "a worker took a small ring without a log line, and the start message named the large one",
        "a_server_without_room_for_large_rings_takes_small_ones_and_the_log_and_the_start_message_say_so",
    ),
    (
        "64 new connections were read and served in one tick without a look at the clock",
        "accepting_and_the_first_reads_end_with_their_time_and_go_on_in_the_next_tick",
    ),
    (
        "a listener with connections without end kept the core from accepting those of others",
        "a_listener_is_accepted_from_although_another_one_always_has_connections",
    ),
    (
        "an operator's action was carried out after the operator was answered without this node",
        "an_order_whose_asker_no_longer_waits_is_not_carried_out",
    ),
    (
        "the members of one large channel were looked at in one tick for a question",
        "the_members_of_a_channel_are_a_slice_of_their_own",
    ),
    (
        "the admin listener carried out a request that it had answered 503",
        "a_request_that_is_answered_503_for_want_of_a_slot_is_not_carried_out",
    ),
    (
        "a worker kept the room of the largest batch of a transfer",
        "a_receiver_does_not_keep_the_room_of_a_large_batch",
    ),
    (
        "a number of subscribers that came before them ended a new process of a debug build",
        "a_transferred_number_waits_for_its_subscribers_and_leaves_no_entry_without_them",
    ),
    (
        "two deploys at the same time took the end of each other's stand-in for a failure",
        "test_restarts_at_the_same_time_succeed_and_keep_the_connection",
    ),
    (
        "reverb:restart by another user left files that the server could not read",
        "test_a_restart_by_another_user_changes_nothing_and_names_the_user",
    ),
    (
        "a deploy that had waited for another one installed its older configuration",
        "test_a_restart_that_waited_does_not_put_its_older_configuration_in_place",
    ),
    (
        "artisan ended with a TypeError in an application without credentials",
        "test_missing_credentials_become_empty_ones_and_others_stay",
    ),
    (
        "each frame that a slow consumer was refused added it to a list again",
        "a_slow_consumer_is_in_the_list_once_however_many_frames_it_is_refused",
    ),
    (
        "connections that ended at once were accepted, 64 in one tick, without a look at the clock",
        "accepting_connections_that_end_at_once_ends_with_its_time",
    ),
    (
        "the API gave some cores of a node as the whole node, if an answer of another core found no room",
        "a_node_of_which_one_core_has_no_room_counts_as_one_that_did_not_answer",
    ),
    (
        "details of a connection were counted as discarded, and kept over their limit",
        "the_details_of_a_connection_without_room_are_discarded_and_the_core_counts_as_busy",
    ),
    (
        "answers of other nodes could exceed the memory limit of a small container",
        "answers_of_nodes_take_no_more_than_the_memory_budget_has",
    ),
    (
        "an action of an operator that had been delayed on its way to another node was still carried out",
        "an_action_that_arrives_after_its_deadline_is_not_carried_out",
    ),
    (
        "an operator read that an action had failed, although one of the workers had carried it out",
        "a_request_to_all_workers_is_queued_for_none_if_one_has_no_room",
    ),
    (
        "a node lost what other nodes had, if they answered while an app was removed or not yet served by all cores: \
         users of theirs looked offline until the next reconnect to Redis",
        "a_snapshot_of_an_app_that_is_removed_here_counts_when_the_app_returns",
    ),
    (
        "a node on which an app was removed, or ceased to want numbers, left its subscribers in the numbers of others",
        "a_node_with_our_snapshot_is_sent_quit_although_the_app_is_removed_or_counts_no_longer",
    ),
    (
        "after an outage of a webhook's endpoint one 4xx discarded a whole request of up to 500 events",
        "one_final_refusal_after_an_outage_discards_one_event",
    ),
    (
        "a node over its limit answered a question with nothing, and the sums of the asking node were too low",
        "a_question_of_another_node_over_the_limit_is_not_answered_so_that_it_counts_as_incomplete",
    ),
    (
        "attempts that did not reach an endpoint counted as refusals, so that it got more requests when it was back",
        "an_outage_does_not_use_up_the_attempts_of_events_of_one_channel",
    ),
    (
        "an operator's shortened answers of other nodes were not charged to the memory budget",
        "a_shortened_answer_is_charged_to_the_memory_budget",
    ),
    (
        "with a watchdog shorter than 3 s, workers that ran were reported as stalled",
        "a_worker_that_runs_has_not_stalled_however_often_the_watchdog_looks",
    ),
    (
        "an anonymous client could send events to any user's own channel, as if they came from the backend",
        "no_client_event_reaches_the_channel_of_a_user",
    ),
    (
        "a publish was not answered while other clients of its core kept mail waiting for room",
        "publishers_are_answered_when_their_own_mail_is_in_the_rings_although_later_mail_waits",
    ),
    (
        "an operator's event was acknowledged while its mail waited for room, so a later publish could overtake it",
        "a_publish_of_an_operator_is_answered_when_its_mail_is_in_a_ring",
    ),
    (
        "a webhook whose host name was not resolved waited longer than its timeout",
        "a_request_whose_name_server_does_not_answer_ends_in_its_own_time",
    ),
    (
        "after a reload that began to count, the subscribers of one worker were missing in the numbers",
        "numbers_of_subscribers_are_whole_in_whichever_order_the_cores_begin_to_count",
    ),
    (
        "after a reload that began webhooks, a node that died took users with it who were on this node, too",
        "webhooks_that_begin_take_the_users_on_this_node_as_they_are",
    ),
    (
        "a node sent no Quit for an app that counts no longer if its memory for other nodes was full",
        "quit_is_sent_also_if_there_was_no_room_for_the_snapshot_of_the_other_node",
    ),
];

#[test]
fn each_story_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = rust_text_below(&root.join("tests")) + &rust_text_below(&root.join("src"));
    let of_laravel = php_text_in(&root.join("laravel/tests"));
    let has_test = |name: &str| has_test(&text, name) || has_php_test(&of_laravel, name);
    let missing: Vec<_> =
        STORIES.iter().chain(STORIES_OF_OPERATION).filter(|(_, test)| !has_test(test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
