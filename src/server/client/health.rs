//! `ringverb health`: whether the server is up, for the health check of a container.
//!
//! It has its answer from `/up`, so it needs no app and no secret. Any status but 200 is a failure: a server that
//! drains, or that delays its end, is not to be sent new clients. A mistake in the configuration that does not concern
//! the connection is a warning (`server/mod.rs`). Output: a sentence and the exit code. Does not repeat the request.
//! Limit: `TIMEOUT` of `outcome.rs`.

use super::http;
use super::outcome::{CommandFailure, is_page, one_line, print};
use super::peer::ServerPeer;

pub(super) fn run(peer: &ServerPeer) -> Result<(), CommandFailure> {
    let answer = http::send(peer, "GET", "/up", "")?;
    if answer.status != 200 {
        let question = if is_page(&answer.body) { ": does ringverb listen there?" } else { "" };
        return Err(CommandFailure::Server(format!(
            "{}/up answers {}: {}{question}",
            peer.url(),
            answer.status,
            one_line(&answer.body)
        )));
    }
    print(&format!("{} is up\n", peer.url()))
}
