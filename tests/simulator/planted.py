#!/usr/bin/env python3
"""Plants faults in a copy of the sources, one at a time, and shows that the simulator finds each.

    tests/simulator/planted.py [NAME...]
    tests/simulator/planted.py --check
    tests/simulator/planted.py --sample

Ends with 1 if a fault was not found, or if its place in the sources is not there any more. `--check` looks for the
places of all faults and builds nothing. `--sample` does that, too, and plants the faults of `SAMPLE`, in one program.
One thread shows no race: that a core looks once more before it sleeps is tested with two threads in src/mailbox.

A build costs more than a run, so most faults are compiled into one program, and RINGVERB_PLANTED selects one of them.
`switched` makes that form of a fault. A fault gets a build of its own if it has no such form, or if that form does not
compile. Faults that change the same text are built in turns.

No fault is part of the usual tests. `.ci/run` calls `--check` and `--sample`, which takes about a minute. The copy is a
package of another name, so it can share a folder of builds (CARGO_TARGET_DIR, or `target`) with the tree, and
dependencies are not built again.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds for the tests of one fault.
TIME = 900
# New seeds, for faults that the corpus does not show.
SEEDS = os.environ.get("RINGVERB_SEEDS", "2000")
NO_FAULT = 1_000_000
# The simulator uses none of these, and they take half of the time of a build.
UNUSED_MODULES = ["server", "worker", "webhook", "output", "debug_log"]
SWITCH = """
pub mod planted {
    static NUMBER: std::sync::LazyLock<u32> =
        std::sync::LazyLock::new(|| std::env::var("RINGVERB_PLANTED").unwrap().parse().unwrap());

    #[must_use]
    pub fn is(number: u32) -> bool {
        *NUMBER == number
    }
}
"""

# One of each kind that a few seeds show. They change different texts, so one program has them all.
SAMPLE = [
    "a dropped wake: mail does not ring",
    "no wait for room after a short send",
    "a leave is not sent to the home",
    "mail that waits is overtaken",
    "the sender of a client event receives it",
    "transfer: unsent frames are lost",
    "users: a sign-out is not sent to watchers",
    "nodes: a node processes its own messages",
    "nodes: members of a dead node stay",
    "backends: each node tells of its own first and last",
    "attack: every ping has a pong",
    "http: answers in the wrong order",
]
# Name, file, what stands there, what is planted.
FAULTS = [
    ("a dropped wake: the doorbell is not rung for mail that waited for room", "src/mailbox/mod.rs",
     "*overflowed -= 1;\n                    self.doorbells_due[to] = true;", "*overflowed -= 1;"),
    ("a dropped wake: mail does not ring", "src/mailbox/mod.rs",
     "if std::mem::take(rung) {", "if std::mem::take(rung) && core != 1 {"),
    ("a missed re-arm of a watch that ended", "src/tick/reactor.rs",
     "if !event.more {\n                    // A watch ends", "if false {\n                    // A watch ends"),
    ("a doorbell without a watch", "src/tick/mod.rs",
     "if std::mem::take(&mut reactor.doorbell_watch_ended) {", "if false {"),
    ("the end that came with the last bytes is not read", "src/tick/reactor.rs",
     "if event.end { Queued::ToTheEnd }", "if false { Queued::ToTheEnd }"),
    ("no wait for room after a short send", "src/tick/flush.rs",
     "if blocked {\n                reactor.wait_writable(key);", "if false {\n                reactor.wait_writable(key);"),
    ("room that came is not used", "src/shard/local/delivery.rs",
     "connection.blocked = false;\n            if !connection.send_queue.is_empty() {",
     "connection.blocked = false;\n            if false {"),
    ("a watch outlives its socket", "src/tick/reactor/end.rs",
     "self.kernel.unwatch(&descriptor, Watched::Connection(key), is_blocked);", "let _ = is_blocked;"),
    ("the generation of a completion is ignored", "src/shard/local/mod.rs",
     ".filter(|found| found.generation == key.generation)", ".filter(|found| found.generation == key.generation || true)"),
    ("acknowledged before the home has answered", "src/shard/local/subscribe.rs",
     "self.send_subscribe(context, out, key, index, ticket, join);\n    }\n\n    /// Subscribing twice",
     "self.send_subscribe(context, out, key, index, ticket, join);\n        self.send_succeeded(context, out, key.slot, index);\n    }\n\n    /// Subscribing twice"),
    ("the ticket of an answer is ignored", "src/shard/local/subscribe.rs",
     "SubscriptionState::Pending { ticket: asked } if *asked == ticket => {",
     "SubscriptionState::Pending { ticket: asked } if *asked == ticket || true => {"),
    ("a leave is not sent to the home", "src/shard/local/unsubscribe.rs",
     "self.send_leave(context, out, left.channel, *member);", "drop(member);"),
    ("mail to a home in the order of the rings", "src/mailbox/mod.rs",
     "self.held_until_due.sort_by_key(|(stamp, _)| *stamp);", "self.held_until_due.reverse();"),
    ("mail that waits is overtaken", "src/mailbox/mod.rs",
     "if !outgoing.overflow.is_empty() {\n            self.overflow_or_discard", "if false {\n            self.overflow_or_discard"),
    ("the sender of a client event receives it", "src/shard/local/delivery.rs",
     "if except == Some(connection.socket_id) {", "if except.is_some() && false {"),
    ("an application ping is not answered", "src/shard/local/mod.rs",
     "Ok(Inbound::Ping) => {\n                self.enqueue(context, out, key.slot, &self.frames.pong_event.clone())\n            }", "Ok(Inbound::Ping) => {}"),
    ("a flush counts bytes that came after it", "src/tick/flush.rs",
     "if short <= item.bytes => (short, true),", "if short <= item.bytes => (short + usize::from(short < item.bytes), true),"),
    ("silent connections stay", "src/shard/local/liveness.rs",
     "self.deny_and_close(\n                context,\n                out,\n                key.slot,\n                &Denial::new(error_code::NO_PONG, Cause::NoPong, values),\n            );", "let _ = values;"),
    ("interest ends too early", "src/shard/local/unsubscribe.rs",
     "if !local.subscribers.is_empty() || local.pending > 0 {", "if local.subscribers.len() > 1 || local.pending > 0 {"),
    ("two cores wait for each other's mail", "src/tick/site.rs",
     "if self.mailbox.is_from_home_congested() {", "if self.mailbox.has_overflow() {"),
    ("transfer: unsent frames are lost", "src/shard/local/export.rs",
     "SendQueue::restored(&state.begun_frame, state.unsent);", "SendQueue::restored(&state.begun_frame, Vec::new());"),
    ("moved: a frame that had begun is dropped", "src/shard/local/export.rs",
     "SendQueue::restored(&state.begun_frame, state.unsent);", "SendQueue::restored(&Vec::new(), state.unsent);"),
    ("moved: what was not sent is sent only with what follows", "src/shard/local/export.rs",
     "if !connection.send_queue.is_empty() {", "if false {"),
    ("transfer: an incomplete frame is lost", "src/tick/reactor.rs",
     "socket.partial.as_ref().map_or_else(Vec::new", "socket.partial.as_ref().filter(|_| false).map_or_else(Vec::new"),
    ("transfer: a home receives no interests", "src/shard/home/mod.rs",
     "self.channels.restore_interest(&channel, core, counts.then_some(count));", "drop((channel, core, count, counts));"),
    ("moved: a home forgets its members", "src/shard/home/table.rs",
     "if !state.members.is_empty() {\n            let roster", "if false {\n            let roster"),
    ("transfer: the user of a member is lost", "src/shard/local/export.rs",
     "(SubscriptionState::Active { position, asks_again: false }, member.map(Box::new));",
     "(SubscriptionState::Active { position, asks_again: false }, member.map(Box::new).filter(|_| false));"),
    ("moved: a connection that is closing is open again", "src/shard/local/export.rs",
     "(connection.closing, connection.app_place) = (state.closing, AppPlace::Ended);",
     "(connection.closing, connection.app_place) = (false, AppPlace::Ended);"),
    ("moved: the clock of silence does not run", "src/shard/local/export.rs",
     "self.watch_again(context, key, state.authorize_by_seconds);", "let _ = state.authorize_by_seconds;"),
    ("moved: sent on while it is given away", "src/tick/mod.rs",
     "if !paused {\n            self.flush();", "if true {\n            self.flush();"),
    ("moved: read on while it is given away", "src/tick/reactor.rs",
     "self.take_reports(site);\n        if paused {", "self.take_reports(site);\n        if false {"),
    ("moved: input that came meanwhile is never read", "src/tick/reactor.rs",
     "self.take_reports(site);\n        if paused {",
     "if paused {\n            self.kernel.reap(&mut self.events);\n            self.events.clear();\n            return;\n        }\n"
     "        self.take_reports(site);\n        if paused {"),
    ("transfer: a home receives no sign-ins", "src/shard/home/mod.rs",
     "self.users.restore(user, core, signed_in, watching);", "drop((user, core, signed_in, watching));"),
    ("transfer: the watchlist of a connection is lost", "src/shard/local/export.rs",
     "extras.watched.push(key);", "drop(key);"),
    ("users: a sign-out is not sent to watchers", "src/shard/home/users.rs",
     ".filter(|_| online != was_online)", ".filter(|_| online != was_online && online)"),
    ("users: a closed connection stays signed in", "src/shard/local/users.rs",
     "local.connections.saturating_sub(1);\n        if local.connections > 0 {",
     "local.connections.saturating_sub(1);\n        if local.connections < 9 {"),
    ("nodes: acknowledged before Redis has confirmed", "src/shard/cluster/mod.rs",
     "waiting.mails.push(mail);\n                self.mail_held += 1;\n                None", "let _ = waiting;\n                Some(mail)"),
    ("nodes: the first subscriber does not wait for the others' members", "src/shard/cluster/session_events.rs",
     "self.note_answers(here, channel, ticket, i64::from(receivers.saturating_sub(1)));", "self.note_answers(here, channel, ticket, i64::from(receivers.min(0)));"),
    ("nodes: a node processes its own messages", "src/cluster/session/inbound.rs", "if from.node == self.own.node {", "if false {"),
    ("nodes: a received message is processed again", "src/cluster/session/inbound.rs",
     "let is_new = number > sender.number;", "let is_new = number > sender.number || true;"),
    ("nodes: unconfirmed messages are not retransmitted", "src/cluster/session/mod.rs",
     "self.backlog.push_front(kept);", "drop(kept);"),
    ("nodes: kept messages are sent in the wrong order", "src/cluster/session/mod.rs",
     "self.backlog.push_front(kept);", "self.backlog.push_back(kept);"),
    ("nodes: topics are not subscribed to on a new connection", "src/shard/cluster/session_events.rs",
     "self.unannounced = self.topics.keys().cloned().collect();\n        // Nothing was", "// Nothing was"),
    ("nodes: missed events are not replayed", "src/cluster/session/replay.rs",
     "self.recent.since(received, since)", "self.recent.since(received | u64::MAX, since)"),
    ("nodes: what is new overtakes what was missed", "src/cluster/session/inbound.rs",
     "message if self.catch_up.waits_for(from) => {", "message if self.catch_up.waits_for(from) && false => {"),
    ("nodes: members of a dead node stay", "src/shard/cluster/session_events.rs",
     "let is_silent = |seen: &u32| seen + LEASE_SECONDS < lease_second;",
     "let is_silent = |seen: &u32| seen + LEASE_SECONDS < lease_second && false;"),
    ("nodes: a node believed dead is not asked for its state", "src/shard/cluster/remote.rs",
     "here.out\n                .cluster\n                .push(ToCluster::SendToAll { message: SessionMessage::Revive { node } });", "let _ = SessionMessage::Revive { node };"),
    ("nodes: a topic that was released while the session was down stays", "src/shard/cluster/remote.rs",
     "self.sweeps.push_back((self.lease_second + LEASE_SECONDS, Some(came_up)));", "let _ = came_up;"),
    ("nodes: snapshots from before a lost session stay", "src/shard/cluster/session_events.rs",
     "self.sweeps.push_back((self.lease_second + LEASE_SECONDS, None));", ""),
    ("nodes: a user who leaves one node is removed from all", "src/shard/home/roster.rs",
     "if member.nodes == 0 {\n            self.remove_member", "if true {\n            self.remove_member"),
    ("nodes: a user who leaves another node stays", "src/shard/home/roster.rs",
     "if member.nodes == 0 && member.connections == 0 {", "if member.nodes > 9 {"),
    ("nodes: sign-ins are not published", "src/shard/home/users.rs",
     "out.change(context, user, || Change::Online(is_here));", "let _ = is_here;"),
    ("nodes: an end of watching overtakes its beginning", "src/shard/cluster/mod.rs",
     "Mail::Unwatch { user, .. } => user.clone(),", "Mail::Unwatch { .. } => return Some(mail),"),
    ("nodes: an older stored event takes the place of a newer one", "src/shard/cluster/mod.rs",
     "&& !self.unstored.contains_key(channel)", ""),
    # The fake Redis stands in for the script.
    ("nodes: a stored event is stored twice", "tests/simulator/redis/mod.rs", "if before >= digits(turn) {", "if false && before >= digits(turn) {"),
    ("nodes: nobody restores what Redis has forgotten", "src/shard/cluster/session_events.rs",
     "(Some(Fetch::Again), None) => self.restore_stored(here, channel),", "(Some(Fetch::Again), None) => {}"),
    ("nodes: a session that was down at the same time is not asked", "src/cluster/session/replay.rs",
     "if self.catch_up.must_ask_sender(from, is_new) {", "if false && self.catch_up.must_ask_sender(from, is_new) {"),
    ("nodes: an event that a subscriber was greeted with comes again", "src/shard/cluster/topic_state.rs",
     "*session == from && number <= *newest", "*session == from && number <= *newest && false"),
    ("nodes: the event of a greeting is delivered again by a replay", "src/cluster/session/replay.rs",
     "self.catch_up.waits_for(from) && newest < number", "self.catch_up.waits_for(from) && newest < number && false"),
    ("nodes: a restored event is not announced", "src/shard/cluster/session_events.rs",
     "self.send_to_nodes(here, channel, || ChannelMessage::Restored);", ""),
    ("backends: each node tells of its own first and last", "src/shard/cluster/transitions.rs",
     "is_clusters_first_or_last = !topic.is_on_other_node(&who);", "is_clusters_first_or_last = true;"),
    ("backends: a webhook is sent before Redis has ordered the transition", "src/shard/cluster/transitions.rs",
     "match self.topics.get_mut(channel).filter(|_| self.is_up && !is_full) {", "match self.topics.get_mut(channel).filter(|_| self.is_up && false) {"),
    ("backends: pending leaves are not published", "src/shard/cluster/transitions.rs",
     "topic.peer(received_at).pending_leaves.insert(who);", "drop(who);\n            let _ = (topic, received_at);"),
    ("backends: an old snapshot overrides an ordered message", "src/shard/cluster/topic_state.rs",
     "there(None) || there(Some(node))", "let _ = (there, node);\n        false"),
    ("backends: a leaving is over before all know", "src/shard/cluster/transitions.rs",
     "*found = PendingLeave::Ending;\n                over.push(who.clone());\n            }",
     "*found = PendingLeave::Ending;\n                over.push(who.clone());\n            }\n            self.transitions.pending_leaves.remove(&channel);"),
    ("backends: a rejoin on another node cancels nothing", "src/shard/cluster/transitions.rs",
     "if self.transitions.end_pending_leave(channel, who) {", "if self.transitions.end_pending_leave(channel, who) && false {"),
    ("nodes: a question of another node gets no answer", "src/tick/gather.rs",
     "out.push(ToCluster::Reply { to: *session, message: message.into() });", "drop((session, message));"),
    ("nodes: an unneeded topic stays subscribed", "src/shard/home/mod.rs",
     "note_occupied(context, out, channel, false);\n            out.change(context, channel, || Change::Unneeded);", "note_occupied(context, out, channel, false);"),
    ("nodes: a demoted Redis is not noticed", "src/cluster/session/partition.rs",
     "        Some(b\"master\") => Ok(()),", "        Some(b\"master\" | b\"replica\") => Ok(()),"),
    ("nodes: a partition in one direction is not noticed", "src/cluster/session/partition.rs",
     "if since < undelivered { Err(Lost::OneWay) } else { Ok(()) }", "let _ = since;\n        Ok(())"),
    ("nodes: a withdrawn subscription is not answered", "src/shard/cluster/topics.rs",
     "here.out\n            .send_from_home(core, Mail::Full", "let _ = (core, Mail::Full"),
    ("a connection that had to wait is never read again", "src/tick/reactor/read.rs",
     "if is_there && !must_wait {", "if is_there && !must_wait && false {"),
    ("attack: what is left is still charged", "src/shard/local/unsubscribe.rs", "self.discharge(slot, left.charge);", ""),
    ("attack: a socket is queued by every report", "src/tick/reactor/read.rs", "if before != Queued::No {", "if false {"),
    ("attack: a socket is queued for a tick in which it was read", "src/tick/reactor/read.rs",
     "let was_read = socket.read_in_tick == self.tick;", "let was_read = false;"),
    ("attack: reading goes on when its time is up", "src/tick/reactor/read.rs",
     "if *bytes >= limits::READ_BYTES_PER_CLOCK {", "if *bytes >= limits::READ_BYTES_PER_CLOCK && false {"),
    ("attack: every ping has a pong", "src/shard/local/rate.rs",
     "if is_within_rate && is_flushed && unsent < limits::PONGS_PER_FLUSH_MAX {",
     "if is_within_rate && (is_flushed || unsent < u16::MAX) {"),
    ("attack: a repeated request is asked every time", "src/shard/local/subscribe.rs",
     "if std::mem::replace(asks_again, true) {", "if std::mem::replace(asks_again, true) && false {"),
    ("attack: the headroom is ignored", "src/shard/local/memory.rs",
     "if !self.account.has_room(charge.into()) {", "if false {"),
    ("attack: incomplete input is not noted", "src/tick/reactor/read.rs", "if kept != kept_before {", "if false {"),
    ("attack: a connection may keep more than its share", "src/shard/local/memory.rs",
     "if connection.charged_bytes as usize + charge as usize > most {", "if false {"),
    ("attack: half a message does not count when memory is shed", "src/shard/local/shed.rs",
     "found.send_queue.memory_bytes() + input_bytes(slot)", "found.send_queue.memory_bytes() + input_bytes(slot).min(0)"),
    ("an answer of another core is lost", "src/tick/gather.rs",
     "gather.answers.push(answer);\n                    gather.missing",
     "drop(answer);\n                    gather.missing"),
    ("a slot that is listed twice is sent twice", "src/shard/sending.rs",
     "let was_dirty = std::mem::take(&mut connection.dirty);",
     "let was_dirty = std::mem::replace(&mut connection.dirty, false) || true;"),
    ("http: answers in the wrong order", "src/tick/http/session.rs",
     "response.write(&mut work.output, keep_alive, request.method() == \"HEAD\");",
     "let mut first = Vec::new();\n            response.write(&mut first, keep_alive, request.method() == \"HEAD\");\n"
     "            first.append(&mut work.output);\n            work.output = first;"),
    ("http: an answer is lost at a close with unread input", "src/tick/http/session.rs",
     "self.work = None;\n                After::ShutDown", "self.work = None;\n                After::Close"),
    ("http: an answer of a server that drains is lost at a close with unread input", "src/tick/http/session.rs",
     "let in_order = !request.keep_alive();", "let in_order = true;"),
    ("http: time is up ahead of reading", "src/tick/sessions/mod.rs",
     "if entry.read_in_tick != self.tick && entry.wants_bytes() =>", "if false && entry.wants_bytes() =>"),
    ("http: a deadline outlives its request", "src/tick/sessions/mod.rs",
     "if entry.session.timer == Timer::None || seconds.is_some() {", "if seconds.is_some() {"),
    ("http: a deadline is never looked at", "src/tick/sessions/table.rs",
     "if at < entry.wheel_entry_seconds {", "if false && at < entry.wheel_entry_seconds {"),
    ("http: a later deadline is never looked at", "src/tick/sessions/mod.rs",
     "} else if deadline != NEVER {", "} else if deadline != NEVER && false {"),
    ("http: a client that reads no answer stays", "src/tick/http/session/bounds.rs", "_ if is_blocked => Timer::Answer,", "_ if is_blocked => Timer::None,"),
    ("http: half an empty line begins the time again", "src/tick/http/session/bounds.rs", " || self.timer == Timer::Request =>", " =>"),
    ("http: not woken when the cores have answered", "src/tick/gather.rs",
     "Asker::Session(key) => self.complete.push_back((*key, id)),", "Asker::Session(key) => { let _ = key; }"),
    ("http: not woken when the cores have answered in the wake of a deadline", "src/tick/mod.rs",
     "|| self.gathers.has_complete_sessions()", ""),
    ("http: not woken when its mail is posted", "src/tick/sessions/mod.rs",
     "while !site.mailbox.has_overflow()\n", "while false\n"),
    ("http: not woken when there is room in the mailboxes", "src/tick/sessions/mod.rs",
     "while !site.mailbox.is_congested()\n", "while false\n"),
    ("http: answered before its mail is posted", "src/tick/http/answer.rs",
     "if site.mailbox.has_overflow() {", "if false {"),
    ("http: not woken when its socket has room", "src/tick/sessions/mod.rs",
     "&& std::mem::take(&mut entry.is_blocked)\n", "&& std::mem::take(&mut entry.is_blocked)\n            && false\n"),
    ("http: a watch of a session is not armed anew", "src/tick/sessions/mod.rs",
     "} else if !more {\n            self.kernel.watch_readable", "} else if false {\n            self.kernel.watch_readable"),
    ("http: a watch that ends with its report is not armed again", "src/tick/sessions/mod.rs",
     "            entry.is_watched = false;\n        } else if !more {", "        } else if !more {"),
    ("http: a watch of a listener is not armed anew", "src/tick/sessions/accept.rs",
     "if !more {\n                self.kernel.watch_listener", "if false {\n                self.kernel.watch_listener"),
    ("http: accepting does not go on", "src/tick/mod.rs",
     "paced.into_iter().chain(accepts).min()", "paced.into_iter().chain(accepts.filter(|_| false)).min()"),
    ("http: a session is not read when it has answered", "src/tick/sessions/mod.rs",
     "if entry.is_deferred && entry.wants_bytes() && !is_transferring {", "if false && !is_transferring {"),
    ("http: an upgrade loses the bytes after it", "src/tick/sessions/mod.rs",
     "entry.socket, &mut leftover);", "entry.socket, leftover.get_mut(..0).unwrap_or_default());"),
    ("http: an upgrade loses the answers ahead of it", "src/tick/http/session.rs",
     "output.drain(..work.sent);", "output.clear();"),
    ("http: the watch of a session outlives its upgrade", "src/tick/sessions/mod.rs",
     "let Some(mut entry) = self.sessions.remove(key) else { return };\n        if entry.is_watched || entry.is_blocked {",
     "let Some(mut entry) = self.sessions.remove(key) else { return };\n        if false {"),
    ("http: a session is read while it stands aside", "src/tick/sessions/mod.rs",
     " || (site.http.is_transferring && entry.may_move())", ""),
    ("tls: what a socket did not take is lost", "src/tls/socket.rs",
     "waiting.output.extend_from_slice(&newer);", "waiting.output = newer;"),
    ("tls: the beginning of a record is lost", "src/tls/socket.rs",
     "waiting.input = left.to_vec();", "waiting.input.clear();"),
    ("tls: an owed answer wakes nobody", "src/tick/reactor/secure.rs",
     "shard.wake(key.slot);", "let _ = &shard;"),
    ("tls: sealed bytes are forgotten when a socket has room again", "src/tick/reactor.rs",
     "site.shard.unblock(key.slot);\n                self.wake_secure(site.shard, key);", "site.shard.unblock(key.slot);"),
    ("tls: a connection ends before its last bytes are out", "src/tick/flush.rs",
     "AfterSend::Finish if blocked => AfterSend::Nothing", "AfterSend::Finish if false => AfterSend::Nothing"),
    ("tls: an upgrade loses its channel", "src/tick/sessions/mod.rs",
     "self.keep_secure(connection, secure);", "drop(secure);"),
    ("tls: a transfer loses sealed bytes", "src/tls/socket.rs",
     "[waiting.input.clone(), waiting.output.clone()]", "[waiting.input.clone(), Vec::new()]"),
    ("http: a session that waited during a transfer is not woken", "src/tick/transfer.rs",
     "reactor.wake_sessions(&mut site);", "let _ = (&mut site, reactor);"),
    ("http: half a request gets no answer at a take-over", "src/tick/transfer.rs",
     "reactor.refuse_unfinished(&mut site);", "let _ = (&mut site, reactor);"),
    ("http: an incomplete request is lost", "src/tick/http/session.rs",
     "work.input.extend_from_slice(input);", "let _ = &mut work;"),
    ("http: requests ahead of the client's end are dropped", "src/tick/sessions/mod.rs",
     "if !entry.session.input().is_empty() {\n            self.serve(site, key);", "if false {\n            self.serve(site, key);"),
    ("http: a session with an answer makes room", "src/tick/sessions/table.rs", "&& !entry.has_answer;", ";"),
    ("http: no session is closed for a new one", "src/tick/sessions/accept.rs",
     "&& let Some(key) = self.sessions.longest_waiting()\n", "&& let Some(key) = self.sessions.longest_waiting().filter(|_| false)\n"),
    ("http: empty lines count for the next client", "src/tick/http/session/work.rs",
     "work.reader = reader;\n                work", "let _ = reader;\n                work"),
    ("http: memory is not given back", "src/tick/http/session.rs",
     "site.shard.note_http(self.charged_bytes as usize, 0);", ""),
    ("http: the place of an address is not given back", "src/tick/http/session.rs",
     "admission.release_socket(std::mem::replace(&mut self.address_slot, AddressSlot::NONE));",
     "let _ = std::mem::replace(&mut self.address_slot, AddressSlot::NONE);"),
    ("http: the place of a proxy's client is not given back", "src/tick/http/upgrade.rs",
     "admission.release_socket(std::mem::replace(&mut self.address_slot, AddressSlot::NONE));", ""),
    ("http: the place of a WebSocket is not given back", "src/tick/reactor/end.rs",
     "self.accounts.push(AddressChange::Ended(key.slot));", ""),
]


def is_balanced(text):
    return all(text.count(one) == text.count(other) for one, other in ["()", "[]", "{}"])


def is_statement(text):
    text = text.strip()
    return is_balanced(text) and text.endswith((";", "}")) and not text.startswith("let ")


def difference(old, new):
    """What both begin with, what differs, and what both end with, by whole words."""
    one, other = (re.findall(r"\w+|\s|.", text, re.DOTALL) for text in (old, new))
    most = min(len(one), len(other))
    first = next((at for at in range(most) if one[at] != other[at]), most)
    last = next((at for at in range(most - first) if one[-1 - at] != other[-1 - at]), most - first)
    join = "".join
    return (join(one[:first]), join(one[first:len(one) - last]), join(other[first:len(other) - last]),
            join(one[len(one) - last:]))


def switched_addition(before, added, after, on):
    known = {"&& false": f"&& !{on}", "false &&": f"!{on} &&", "|| true": f"|| {on}",
             ".filter(|_| false)": f".filter(|_| !{on})", "filter(|_| false).": f"filter(|_| !{on})."}
    text = added.strip()
    if text in known:
        return before + added.replace(text, known[text]) + after
    if text.startswith("&& "):
        return f"{before}&& (!{on} || {text[3:]}) {after}"
    return f"{before}if {on} {{ {text} }}{after}" if is_statement(text) else None


def switched_removal(before, removed, after, on):
    text = removed.strip()
    if text.startswith("&& "):
        return f"{before}&& ({on} || {text[3:]}) {after}"
    if text.startswith("|| "):
        return f"{before}|| (!{on} && {text[3:]}) {after}"
    if text.endswith(" ||"):
        return f"{before}(!{on} && {text[:-3]}) || {after}"
    return f"{before}\nif !{on} {{ {text} }}{after}" if is_statement(text) else None


def switched_condition(old, new, start, end, on):
    """`start` and `end`: where the difference is in `old`."""
    begin = max((found.end() for found in re.finditer(r"\b(?:if|while) ", old[:start])), default=None)
    if begin is None or re.search(r"[{};]", old[begin:start]):
        return None
    found = re.compile(r" \{| =>|\n").search(old, end)
    if not found:
        return None
    condition, planted = old[begin:found.start()], new[begin:len(new) - (len(old) - found.start())]
    if "let " in condition or not is_balanced(condition) or not is_balanced(planted):
        return None
    return f"{old[:begin]}(if {on} {{ {planted} }} else {{ {condition} }}){old[found.start():]}"


def switched(old, new, on, is_at_line_start):
    """Text that does what `new` does where `on` is true, and else what `old` does. None: there is no such form."""
    before, one, other, after = difference(old, new)
    if not one.strip() and (form := switched_addition(before, other, after, on)):
        return form
    if not other.strip() and (form := switched_removal(before, one, after, on)):
        return form
    bound, again = (re.fullmatch(r"let (\w+) = (.*);", text, re.DOTALL) for text in (old, new))
    if bound and again and bound[1] == again[1]:
        return f"let {bound[1]} = if {on} {{ {again[2]} }} else {{ {bound[2]} }};"
    if form := switched_condition(old, new, len(before), len(old) - len(after), on):
        return form
    # An arm of a match.
    if before.endswith("=> ") and one.endswith(",") and other.startswith("{"):
        return f"{before}if {on} {other} else {{ {one[:-1]}; }},{after}"
    # Whole statements, or the value of a block.
    is_whole = is_at_line_start and is_balanced(old) and is_balanced(new)
    if is_whole and not re.match(r"let |\.|&&|\|\|", old) and " => " not in old:
        return f"if {on} {{ {new} }} else {{ {old} }}"
    # An operand, with the path that it ends.
    path = re.search(r"[\w.:]*$", before).start()
    before, one, other = before[:path], before[path:] + one, before[path:] + other
    is_operand = re.search(r"(?:[(&]|, |= |=> )$", before) and re.match(r"[),;]", after)
    if is_operand and is_balanced(one) and is_balanced(other):
        return f"{before}if {on} {{ {other} }} else {{ {one} }}{after}"
    return None


def write(path, text):
    path.write_text(text)
    # Newer than any build, even if the clock was set back: Cargo goes by it.
    soon = time.time() + 60
    os.utime(path, (soon, soon))


class Fault:
    """One row of `FAULTS`, and where it is in the sources."""

    def __init__(self, number, row, tree):
        self.number = number
        self.name, self.file, self.old, self.new = row
        text = (tree / self.file).read_text()
        self.places = text.count(self.old)
        self.start = text.find(self.old)
        self.end = self.start + len(self.old)
        crate = "crate" if self.file.startswith("src/") else "ringverb"
        is_at_line_start = not text[:self.start].rpartition("\n")[2].strip()
        self.switched = switched(self.old, self.new, f"{crate}::planted::is({number})", is_at_line_start)
        # Lines that it has where it is planted.
        self.lines = range(0)

    def overlaps(self, other):
        return self.file == other.file and self.start < other.end and other.start < self.end

    def tests(self):
        """Other simulations may find some of these too. The simulation of what the fault concerns must find them."""
        if self.name.startswith("attack: "):
            return ["attackers"]
        if self.name.startswith("http: "):
            return ["backends", "deadline", "congestion", "unfinished"]
        if self.name.startswith(("nodes: ", "backends: ")):
            return ["nodes_agree", "the_fuzzers_corpus", "new_seeds"]
        return []


class Tree:
    """The copy of the sources."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "tree"
        ignore = shutil.ignore_patterns("target", ".git", "node_modules", ".venv")
        shutil.copytree(ROOT, self.path, ignore=ignore)
        manifest = self.path / "Cargo.toml"
        text = re.sub(r"\[\[bin\]\]\n(?:[^\[\n].*\n)+", "", manifest.read_text())
        text = text.replace('default-run = "ringverb"\n', "autobins = false\n")
        # Cargo would take a package of the same name for the tree's, and overwrite what it has built.
        text = text.replace('name = "ringverb"\n', 'name = "ringverb-planted"\n', 1)
        text = text.replace("[lib]\n", '[lib]\nname = "ringverb"\n').replace('members = ["bench"]', "members = []")
        # Dependencies as they are built for other tests, or Cargo would build them again. The crate itself is built
        # once and runs for long.
        profile = re.search(r"\[profile\.dev\]\n(?:#.*\n)*debug = (.+)\n", text)
        debug = os.environ.get("CARGO_PROFILE_DEV_DEBUG", profile.group(1).strip('"'))
        debug = debug if debug.isdigit() or debug in ("true", "false") else f'"{debug}"'
        text = text.replace(profile.group(0), f'[profile.dev.package."*"]\ndebug = {debug}\nopt-level = 0\n\n'
                                              "[profile.dev]\ndebug = 0\nopt-level = 1\n")
        manifest.write_text(text)
        library = self.path / "src/lib.rs"
        text = library.read_text()
        for module in UNUSED_MODULES:
            text = re.sub(rf"(?:pub )?mod {module};\n(?:pub use {module}::.*;\n)?", "", text)
        library.write_text(text + SWITCH)
        self.environment = {**os.environ, "RINGVERB_SEEDS": SEEDS}
        self.environment.setdefault("CARGO_TARGET_DIR", str(ROOT / "target"))
        # Cargo.lock names the packages of the tree: Cargo renames and removes them, and asks no registry.
        self.environment["CARGO_NET_OFFLINE"] = "true"

    def build(self, faults, are_switched):
        """Plants these, builds, and takes them out again: the test program, or errors as file, line and text."""
        originals = {file: (self.path / file).read_text() for file in {fault.file for fault in faults}}
        for file, text in originals.items():
            for fault in sorted((fault for fault in faults if fault.file == file), key=lambda fault: -fault.start):
                planted = fault.switched if are_switched else fault.new
                text = text[:fault.start] + planted + text[fault.end:]
            write(self.path / file, text)
            shift = 0
            for fault in sorted((fault for fault in faults if fault.file == file), key=lambda fault: fault.start):
                planted = fault.switched if are_switched else fault.new
                first = 1 + text.count("\n", 0, fault.start + shift)
                fault.lines = range(first, first + planted.count("\n") + 1)
                shift += len(planted) - len(fault.old)
        command = ["cargo", "test", "--test", "simulator", "--no-run", "--message-format=json"]
        build = subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True)
        for file, text in originals.items():
            write(self.path / file, text)
        messages = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
        if build.returncode == 0:
            return next(message["executable"] for message in messages if message.get("executable")), []
        errors = [message["message"] for message in messages if message["reason"] == "compiler-message"]
        places = [(span["file_name"], span["line_start"], error["message"])
                  for error in errors if error["level"] == "error" for span in error["spans"]]
        return None, places or [("", 0, build.stderr)]

    def run(self, program, number, tests):
        """What becomes of a fault, and what shows it."""
        start = time.monotonic()
        environment = {**self.environment, "RINGVERB_PLANTED": str(number), "RUST_BACKTRACE": "0"}
        try:
            run = subprocess.run([program, *tests], cwd=self.path, env=environment, capture_output=True, text=True,
                                 timeout=TIME)
        except subprocess.TimeoutExpired:
            # Nothing has failed, so nothing has shown the fault.
            return "NO END", f"{TIME} s"
        seconds = f"{time.monotonic() - start:.0f} s"
        if run.returncode == 0:
            return "MISSED", seconds
        failed = re.findall(r"^    (\S+)$", run.stdout, re.MULTILINE)
        seeds = re.findall(r"^seed \d+ fails", run.stdout, re.MULTILINE)
        return "found", ", ".join([seconds, *sorted({*failed, *seeds})[:4]])


class Planting:
    def __init__(self, tree, is_sample):
        self.tree = tree
        # The simulator has just passed without a fault, and a fault without a switch would need a build of its own.
        self.is_sample = is_sample
        self.missed = 0

    def note(self, fault, verdict, why):
        self.missed += verdict != "found"
        print(f"{verdict:9} {fault.name} ({why})", flush=True)

    def try_together(self, faults):
        """Builds these into one program and tries each. Returns those that do not compile so."""
        alone = []
        while True:
            program, errors = self.tree.build(faults, True)
            if program:
                break
            bad = [fault for fault in faults
                   if any(file == fault.file and line in fault.lines for file, line, _ in errors)]
            if not bad:
                raise SystemExit(f"the sources do not compile: {errors[0]}")
            alone += bad
            faults = [fault for fault in faults if fault not in bad]
        if not self.is_sample:
            verdict, why = self.tree.run(program, NO_FAULT, [])
            if verdict != "MISSED":
                raise SystemExit(f"the simulator fails without a fault: {why}")
        for fault in faults:
            self.note(fault, *self.tree.run(program, fault.number, fault.tests()))
        return alone

    def try_alone(self, fault):
        """Builds one as it is written and tries it."""
        program, errors = self.tree.build([fault], False)
        if program:
            self.note(fault, *self.tree.run(program, fault.number, fault.tests()))
        else:
            self.note(fault, "NO BUILD", errors[0][2])


def places_are_there():
    """Whether each fault's text is in its file, once."""
    found = True
    for name, file, old, _ in FAULTS:
        path = ROOT / file
        places = path.read_text().count(old) if path.exists() else 0
        if places != 1:
            found = False
            print(f"NO PLACE  {name} ({file} has {places} of it)")
    names = {name for name, *_ in FAULTS}
    for name in SAMPLE:
        if name not in names:
            found = False
            print(f"NO FAULT  {name} (of SAMPLE)")
    return found


def main():
    wanted = sys.argv[1:]
    if {"-h", "--help"} & set(wanted):
        print(__doc__)
        return
    if wanted in (["--check"], ["--sample"]):
        if not places_are_there():
            sys.exit(1)
        if wanted == ["--check"]:
            return
        wanted = SAMPLE
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Tree(folder)
        planting = Planting(tree, wanted is SAMPLE)
        turns, alone = [], []
        for number, row in enumerate(FAULTS):
            if wanted and not any(word in row[0] for word in wanted):
                continue
            fault = Fault(number, row, tree.path)
            if fault.places != 1:
                planting.note(fault, "NO PLACE", f"{fault.file} has {fault.places} of it")
            elif fault.switched is None:
                alone.append(fault)
            else:
                free = (turn for turn in turns if not any(fault.overlaps(other) for other in turn))
                turn = next(free, None)
                if turn is None:
                    turn = []
                    turns.append(turn)
                turn.append(fault)
        for turn in turns:
            alone += planting.try_together(turn)
        for fault in alone:
            planting.try_alone(fault)
    sys.exit(1 if planting.missed else 0)


if __name__ == "__main__":
    main()
