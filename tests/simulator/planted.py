#!/usr/bin/env python3
"""Plants faults in a copy of the sources, one at a time, and shows that the simulator finds each.

    tests/simulator/planted.py [NAME...]

Not part of the usual tests: each fault is a build. Ends with 1 if a fault was not found, or if its place in the
sources is not there any more. One thread shows no race: that a core looks once more before it sleeps is tested with two
threads in src/mailbox. CARGO_TARGET_DIR, if set, must be one for this alone.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Name, file, what stands there, what is planted.
FAULTS = [
    ("a dropped wake: the doorbell is not rung for mail that waited for room", "src/mailbox/mod.rs",
     "*overflowed -= 1;\n                    self.to_ring[to] = true;", "*overflowed -= 1;"),
    ("a dropped wake: mail does not ring", "src/mailbox/mod.rs",
     "if std::mem::take(rung) {", "if std::mem::take(rung) && core != 1 {"),
    ("a missed re-arm of a watch that ended", "src/tick/reactor.rs",
     "if !event.more {\n                    // A multishot", "if false {\n                    // A multishot"),
    ("a doorbell that nobody watches any more", "src/tick/mod.rs",
     "if std::mem::take(&mut self.reactor.doorbell_is_deaf) {", "if false {"),
    ("the end that came with the last bytes is not read", "src/tick/reactor.rs", "if event.end {", "if false {"),
    ("no wait for room after a short send", "src/tick/flush.rs",
     "if blocked {\n                reactor.wait_writable(key);", "if false {\n                reactor.wait_writable(key);"),
    ("room that came is not used", "src/shard/delivery.rs",
     "connection.blocked = false;\n            if !connection.send_queue.is_empty() {",
     "connection.blocked = false;\n            if false {"),
    ("a watch outlives its socket", "src/tick/reactor.rs", "self.kernel.unwatch(key, is_blocked);", "let _ = is_blocked;"),
    ("the generation of a completion is ignored", "src/shard/mod.rs",
     ".filter(|found| found.generation == key.generation)", ".filter(|_| true)"),
    ("acknowledged before the home has answered", "src/shard/subscribe.rs",
     "self.ask_home(key, index, ticket, join);\n    }\n\n    /// Subscribing twice",
     "self.ask_home(key, index, ticket, join);\n        self.send_succeeded(key.slot, index);\n    }\n\n    /// Subscribing twice"),
    ("the ticket of an answer is ignored", "src/shard/subscribe.rs",
     "Standing::Pending { ticket: asked } if asked == ticket => {",
     "Standing::Pending { ticket: _ } => {"),
    ("a leave is not told to the home", "src/shard/subscribe.rs",
     "self.tell_leave(left.channel, *member);", "drop(member);"),
    ("mail to a home in the order of the rings", "src/mailbox/mod.rs",
     "self.held.sort_by_key(|(stamp, _)| *stamp);", "self.held.reverse();"),
    ("mail that waits is overtaken", "src/mailbox/mod.rs",
     "if !outgoing.overflow.is_empty() {\n            outgoing", "if false {\n            outgoing"),
    ("the sender of a client event hears it", "src/shard/delivery.rs",
     "if except == Some(connection.socket_id) {", "if except.is_some() && false {"),
    ("an application ping is not answered", "src/shard/mod.rs",
     "Ok(Inbound::Ping) => self.enqueue(key.slot, &self.frames.pong_event.clone()),", "Ok(Inbound::Ping) => {}"),
    ("a flush counts bytes that came after it", "src/tick/flush.rs",
     "Sent::Part(short) => (short, true),", "Sent::Part(short) => (short + 1, true),"),
    ("silent connections stay", "src/shard/liveness.rs",
     "self.close_with_error(key.slot, error_code::NO_PONG);", "let _ = error_code::NO_PONG;"),
    ("interest ends too early", "src/shard/subscribe.rs",
     "if !local.subscribers.is_empty() || local.pending > 0 {", "if local.subscribers.len() > 1 || local.pending > 0 {"),
    ("two cores wait for each other's mail", "src/tick/mod.rs",
     "if self.mailbox.owes_too_much() {", "if self.mailbox.has_overflow() {"),
    ("moved: what was not sent stays behind", "src/shard/export.rs",
     "SendQueue::restored(&state.begun, state.unsent);", "SendQueue::restored(&state.begun, Vec::new());"),
    ("moved: a frame that had begun is dropped", "src/shard/export.rs",
     "SendQueue::restored(&state.begun, state.unsent);", "SendQueue::restored(&[], state.unsent);"),
    ("moved: what was not sent is sent only with what follows", "src/shard/export.rs",
     "if !connection.send_queue.is_empty() {", "if false {"),
    ("moved: half a frame stays behind", "src/tick/reactor.rs",
     "map_or_else(Vec::new, |partial| partial.to_wire())", "map_or_else(Vec::new, |_| Vec::new())"),
    ("moved: a home does not hear who is interested", "src/shard/export.rs",
     "self.homes.restore_interest(&channel, core, counts.then_some(count));", "drop((channel, core, count, counts));"),
    ("moved: a home forgets its members", "src/shard/home.rs",
     "if !state.members.is_empty() {\n            let roster", "if false {\n            let roster"),
    ("moved: who a member is stays behind", "src/shard/export.rs",
     "let (standing, member) = (Standing::Active { position }, member.map(Box::new));",
     "let (standing, member) = (Standing::Active { position }, member.map(Box::new).filter(|_| false));"),
    ("moved: a connection that is closing is open again", "src/shard/export.rs",
     "(connection.closing, connection.counted) = (state.closing, false);",
     "(connection.closing, connection.counted) = (false, false);"),
    ("moved: the clock of silence does not run", "src/shard/export.rs",
     "self.watch_again(key, state.authorize_by_seconds);", "let _ = state.authorize_by_seconds;"),
    ("moved: sent on while it is given away", "src/tick/mod.rs",
     "if !self.paused {\n            self.flush.run", "if true {\n            self.flush.run"),
    ("moved: read on while it is given away", "src/tick/mod.rs",
     "self.paused || self.mailbox.is_congested()", "self.mailbox.is_congested()"),
    ("moved: input that came meanwhile is never read", "src/tick/moving.rs",
     "self.reactor.kernel.request_again();", ""),
    ("moved: a home does not hear who is signed in", "src/shard/export.rs",
     "self.users.restore(user, core, signed_in, watching);", "drop((user, core, signed_in, watching));"),
    ("moved: whom a connection watches stays behind", "src/shard/export.rs",
     "extras.watched.push(key);", "drop(key);"),
    ("users: who leaves is not told of", "src/shard/users.rs",
     "if online != was_online {", "if online && !was_online {"),
    ("users: who leaves at an end stays signed in", "src/shard/users.rs",
     "local.connections -= 1;\n        if local.connections > 0 {", "local.connections -= 1;\n        if local.connections < 9 {"),
    ("an answer of another core is lost", "src/tick/gather.rs", "gather.answers.push(answer);", "drop(answer);"),
]


def main():
    wanted = sys.argv[1:]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = pathlib.Path(folder) / "tree"
        ignore = shutil.ignore_patterns("target", ".git", "node_modules", ".venv")
        shutil.copytree(ROOT, copy, ignore=ignore)
        environment = {**os.environ, "RINGVERB_SEEDS": "2000"}
        environment.setdefault("CARGO_TARGET_DIR", str(pathlib.Path(folder) / "target"))
        for name, file, old, new in FAULTS:
            if wanted and not any(word in name for word in wanted):
                continue
            path = copy / file
            text = path.read_text()
            if text.count(old) != 1:
                print(f"NO PLACE  {name}: {file} has {text.count(old)} of it", flush=True)
                missed += 1
                continue
            path.write_text(text.replace(old, new))
            command = ["cargo", "test", "--quiet", "--test", "simulator"]
            try:
                run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
                output, code = run.stdout + run.stderr, run.returncode
            except subprocess.TimeoutExpired:
                output, code = "", "no end"
            path.write_text(text)
            if "error: could not compile" in output:
                verdict = "NO BUILD "
            elif code == 0:
                verdict = "MISSED   "
            else:
                verdict = "found    "
            missed += verdict != "found    "
            print(f"{verdict} {name}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
