//! Bugs of operation: changes while the server runs, take-overs, signals, commands, logs and supervisors.

/// As `STORIES`.
pub(super) const STORIES_OF_OPERATION: &[(&str, &str)] = &[
    (
        "a start after a crash gave up while the kernel still held the port",
        "a_start_waits_for_a_port_that_is_freed_soon",
    ),
    (
        "beside 60,000 open descriptors a start took 22 s to say that its port was in use",
        "the_process_that_listens_is_looked_for_twice_at_most",
    ),
    (
        "SIGHUP before the server had a handler for it ended the server",
        "sighup_before_the_server_listens_is_a_reload_and_does_not_end_it",
    ),
    (
        "an apps file that vanished with its disk closed all connections of its apps",
        "a_file_that_vanishes_is_refused_while_its_apps_are_in_use",
    ),
    (
        "each SIGHUP added a reload, so that a storm of them delayed SIGTERM",
        "signals_add_no_second_reload_to_one_that_waits",
    ),
    (
        "each of a storm of reloads over the admin API read all files again",
        "a_storm_of_reloads_over_the_api_is_answered_request_by_request",
    ),
    (
        "a reload left an admin listener that other hosts reach without a token",
        "a_reload_cannot_take_the_token_of_a_listener_that_other_hosts_reach",
    ),
    (
        "a request whose body was late at a take-over got no answer",
        "a_request_with_a_late_body_is_refused_at_a_take_over_and_can_be_sent_again",
    ),
    (
        "a key file with a costly derivation stopped the server at a reload",
        "an_encryption_that_would_stop_the_server_is_refused_before_its_key_is_derived",
    ),
    (
        "a reload with a corrected passphrase did not read the certificates again",
        "a_reload_reads_an_encrypted_key_with_its_corrected_passphrase",
    ),
    (
        "a request to the admin API was never answered if SIGUSR2 replaced the program at that moment",
        "requests_of_the_admin_api_are_answered_while_the_process_is_replaced",
    ),
    (
        "one slow client with a large send queue made each take-over fail",
        "a_batch_may_have_a_send_queue_of_the_largest_size",
    ),
    (
        "a take-over that took too long failed with a text of the kernel",
        "a_step_that_takes_too_long_is_named_with_its_limit",
    ),
    (
        "doctor reported the user's own server as a problem",
        "a_server_is_found_by_the_user_who_runs_it",
    ),
    (
        "doctor reported each of two servers of a user, and a renamed one, as a problem",
        "each_of_two_servers_of_a_user_is_found_at_its_own_port_under_any_name",
    ),
    (
        "doctor reported the service's own admin socket as in use by another server",
        "the_own_server_is_recognized_at_its_admin_socket_with_and_without_a_token",
    ),
    (
        "ringverb check beside an installed service was about a development app",
        "the_file_of_the_service_counts_only_where_nothing_else_names_a_configuration",
    ),
    (
        "ringverb check called a configuration valid with which the service did not start",
        "the_commands_of_the_unit_check_start_and_reload_a_server",
    ),
    (
        "ringverb top could not be ended while its server was silent",
        "top_ends_at_ctrl_c_while_the_server_does_not_answer",
    ),
    (
        "after a reload with a shorter RINGVERB_AUTHORIZE_WITHIN new clients kept the longer time",
        "a_lowered_authorize_within_closes_new_connections_in_time_and_a_removed_one_none",
    ),
    (
        "after a reload with a lower rate a client over it received no error until its window ended",
        "a_client_over_a_lowered_rate_receives_one_error_in_the_window",
    ),
    (
        "the first join after a take-over encoded the roster without asking the memory budget",
        "the_first_join_after_a_take_over_is_charged_for_the_roster_and_so_is_a_repeated_one",
    ),
    (
        "a monitor that polled the apps kept the main thread from its watchdog, so systemd killed the server",
        "orders_without_a_pause_do_not_keep_the_watchdog_from_its_notifications",
    ),
    (
        "the apps file was replaced, and the answer was that nothing had changed: its folder was not synchronized",
        "a_file_that_is_replaced_is_never_reported_as_unchanged",
    ),
    (
        "in a folder that cannot be read, the apps file was replaced by a change that was then refused",
        "a_folder_that_cannot_be_read_is_refused_before_the_file_is_replaced",
    ),
    (
        "after a change whose file could not be written, the next one gave an app another app's index",
        "without_a_file_for_apps_they_cannot_be_changed_and_a_write_that_fails_changes_nothing",
    ),
    (
        "a take-over on an overloaded host took longer than systemd waits, because its limits counted sleeps",
        "a_wait_ends_when_its_time_is_over_however_long_its_steps_take",
    ),
    (
        "a client over a rate received the error of one window again after a take-over",
        "an_error_for_a_rate_is_not_repeated_after_a_take_over",
    ),
    (
        "SIGTERM waited behind all changes that a failed take-over had held back",
        "a_signal_is_received_before_the_changes_of_a_failed_take_over",
    ),
    (
        "each addition of an app that the disk refused used up a row of the metrics",
        "an_addition_that_the_disk_refuses_uses_up_no_index",
    ),
    (
        "a browser that showed /up caused a warning in the log, because it asked for an icon",
        "the_icon_that_browsers_ask_for_is_404_and_no_refusal",
    ),
    (
        "the health check counted any program that answered 200 as this server",
        "a_stranger_is_no_reason_to_fall_over",
    ),
    (
        "a check by root did not notice that the user of the service could not read a file",
        "a_file_that_only_root_can_read_is_a_problem_for_the_user_of_the_service",
    ),
    (
        "systemctl reload reported success for a configuration that the server refused",
        "the_commands_of_the_unit_check_start_and_reload_a_server",
    ),
    (
        "a log file on a full disk was reported at the end of the server only",
        "a_loss_is_reported_to_the_other_stream_and_here_as_soon_as_that_is_possible",
    ),
    (
        "systemd did not learn that the replacement of the program had failed",
        "systemd_is_notified_of_a_replacement_that_fails_until_one_succeeds",
    ),
    (
        "the backend of an app that came at run time read the counts of all such apps",
        "an_app_without_a_row_of_its_own_reads_no_counts_of_others",
    ),
    (
        "each addition of an app whose file could not be replaced used up a row of the metrics",
        "an_addition_whose_file_cannot_be_replaced_uses_up_no_index",
    ),
    (
        "a check by root did not notice that the user of the service could not read the apps file",
        "the_apps_file_must_be_readable_and_its_folder_writable_for_the_user_of_the_service",
    ),
    (
        "a check by root called a configuration from a pipe unreadable, and waited for the writer of a FIFO",
        "a_pipe_is_not_opened_and_is_no_problem",
    ),
    (
        "a check by root called a file unreadable that a group of sssd or LDAP can read",
        "a_file_of_a_group_is_a_note_where_groups_have_sources_that_are_not_known",
    ),
    (
        "a webhook waited for a name server without a time limit where the system started no thread",
        "a_request_fails_at_once_if_the_system_starts_no_thread",
    ),
    (
        "systemd learned of a failed replacement only if the new program ended early, and not of exit code 0",
        "systemd_is_notified_of_a_replacement_that_fails_at_any_stage",
    ),
    (
        "a certificate that could not be used was another exit code of check with --offline than without it",
        "a_pair_that_cannot_be_used_is_refused_with_a_remedy",
    ),
];
