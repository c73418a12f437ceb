//! One task per socket while it speaks HTTP: requests in order, keep-alive, and the hand-over of WebSockets to
//! the reactor.
//!
//! A session owns no read buffer while it waits: bytes are received into a scratch buffer once they are there.
//! Each request has a deadline from its start; a half-sent head is cut off by it (PROTOCOL.md rule 17).

mod refuse;
mod upgrade;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::addresses::Place;
use super::lobby::{Aside, Cut, Visit, Waiter};
use super::overload::Strain;
use super::{Worker, printed, sys, time};
use crate::api::{self, Context, Denied, Plan, Target};
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::http1::request::{Limits, Progress, Request, RequestReader};
use crate::http1::response::Response;
use crate::limits;
use crate::output;
use crate::pusher::error_code::ErrorCode;
use crate::ws::handshake::AcceptKey;
use refuse::About;

/// Bytes received at a time.
const READ_BYTES: usize = 8 * 1024;

/// Serves one socket from its accept to its end, or until its handshake is done. `place`: what it is counted in.
pub(super) async fn serve(visit: Visit, stream: TcpStream, peer: IpAddr, place: Place) {
    begin(visit, stream, peer, place, false, Vec::new()).await;
}

/// Serves a socket that another process served before, from what it had received.
pub(super) async fn go_on(
    visit: Visit,
    stream: TcpStream,
    peer: IpAddr,
    served: bool,
    input: Vec<u8>,
) {
    // Another process had let it in, whatever the limit is here.
    let admission = &visit.worker().shared.overload.admission;
    let place = admission.enter_socket(peer).unwrap_or(Place::NONE);
    begin(visit, stream, peer, place, served, input).await;
}

async fn begin(
    visit: Visit,
    stream: TcpStream,
    peer: IpAddr,
    place: Place,
    served: bool,
    input: Vec<u8>,
) {
    let worker = visit.worker().clone();
    let limits = Limits { request_size_max: worker.shared.config.request_size_max };
    let mut session = Session {
        reader: RequestReader::new(limits),
        input,
        output: Vec::new(),
        stream,
        peer,
        place,
        served,
        may_be_in_flight: false,
        held: 0,
        worker: worker.clone(),
    };
    let end = if session.note_memory() {
        session.run().await
    } else {
        session.refuse(About::default(), Cause::HttpMemory, &[]);
        End::Gone
    };
    worker.note_memory(session.held, 0);
    worker
        .shared
        .overload
        .admission
        .leave_socket(std::mem::replace(&mut session.place, Place::NONE));
    match end {
        End::HandOver { accept, admitted } => session.hand_over(&accept, admitted),
        // The socket closes with the session; there is nobody left to tell.
        End::Gone => {}
    }
}

struct Session {
    worker: Rc<Worker>,
    stream: TcpStream,
    /// The other end of the socket: the client, or a proxy.
    peer: IpAddr,
    /// What the socket is counted in as long as it speaks HTTP.
    place: Place,
    /// A request was answered: waiting for the next one is no fault.
    served: bool,
    /// A wait on the stream was cut short by a deadline or the lobby. monoio cancels such an operation only when it
    /// parks next, and until then `into_raw_fd` panics: the descriptor must be duplicated instead of taken. A wait
    /// that completes has dropped its reference to the descriptor.
    may_be_in_flight: bool,
    /// Memory that is noted for it, in bytes.
    held: usize,
    reader: RequestReader,
    /// Received and not yet used.
    input: Vec<u8>,
    /// Answers to pipelined requests, sent together.
    output: Vec<u8>,
}

/// Why a session ends.
enum End {
    /// The peer closed, stalled, failed, or has got its last answer.
    Gone,
    /// A WebSocket begins; the error, if any, is told on it.
    HandOver { accept: AcceptKey, admitted: Result<Admitted, Unwanted> },
}

/// A connection that is told on its socket why it does not open.
pub(super) struct Unwanted {
    pub(super) error: ErrorCode,
    /// The line, in development mode and with `--debug`.
    pub(super) why: Option<String>,
}

/// A connection that may open, and what it is counted in.
pub(super) struct Admitted {
    pub(super) app: AppIndex,
    pub(super) place: Place,
}

impl Session {
    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.serve_one().await {
                return end;
            }
        }
    }

    /// One request and its answer.
    async fn serve_one(&mut self) -> Result<(), End> {
        let request = match self.next_request().await? {
            Ok(request) => request,
            Err(response) => {
                response.write(&mut self.output, false, false);
                return Err(self.finish().await);
            }
        };
        if self.worker.is_paused() {
            self.moving(&request).write(&mut self.output, false, false);
            return Err(self.finish().await);
        }
        if let Err(response) = self.count_client(&request) {
            response.write(&mut self.output, false, false);
            return Err(self.finish().await);
        }
        let target = api::target(request.method(), request.path(), &self.worker.shared.config.path);
        if let Target::Socket { key } = &target {
            let client = self.client(&request);
            if let Err(response) = self.check_rate(&request, client) {
                response.write(&mut self.output, false, false);
                return Err(self.finish().await);
            }
            match self.check_upgrade(&request, key, client) {
                Ok((accept, admitted)) => return Err(End::HandOver { accept, admitted }),
                Err(response) => self.respond(&response, &request),
            }
        } else {
            let response = self.answer(&request, &target).await;
            self.respond(&response, &request);
        }
        self.served = true;
        if self.output.len() > limits::ANSWERS_BYTES_MAX {
            self.send_output().await?;
        }
        if request.keep_alive() && !self.worker.draining.get() {
            return Ok(());
        }
        Err(self.finish().await)
    }

    /// The next whole request, or the answer to one that is no good.
    async fn next_request(&mut self) -> Result<Result<Request, Response>, End> {
        let mut has_begun = self.has_begun();
        let mut deadline = self.deadline(has_begun);
        loop {
            if !has_begun && self.has_begun() {
                has_begun = true;
                deadline = self.deadline(true);
            }
            let is_in_body = !self.reader.holds_nothing();
            match self.reader.read(&mut self.input) {
                Ok(Progress::Complete(request)) => return Ok(Ok(request)),
                Ok(Progress::Incomplete { continue_expected }) => {
                    if self.input.is_empty() {
                        // Nothing is kept beside the request itself while the session waits.
                        self.input = Vec::new();
                    }
                    if !self.note_memory() {
                        let size_max = self.worker.shared.config.request_size_max;
                        self.reader = RequestReader::new(Limits { request_size_max: size_max });
                        self.input = Vec::new();
                        let about = About::default();
                        let response = short_of_memory("request was not carried out");
                        let response = self.refused(about, response, Cause::HttpMemory, &[]);
                        return Ok(Err(response));
                    }
                    if continue_expected {
                        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    self.send_output().await?;
                    let received = self.receive_or_move(deadline).await;
                    let waits_for_first = !self.served || has_begun;
                    if received.is_err()
                        && waits_for_first
                        && monoio::time::Instant::now() >= deadline
                    {
                        let cause =
                            if has_begun { Cause::RequestTimeout } else { Cause::NothingSent };
                        let time = Detail::Number(self.seconds(has_begun).into());
                        self.refuse(About::default(), cause, &[time]);
                    }
                    received?;
                }
                Err(refusal) => return Ok(Err(self.refuse_bytes(refusal, is_in_body))),
            }
        }
    }

    /// Notes the memory that the session takes now. `false`: there is none for it.
    fn note_memory(&mut self) -> bool {
        let buffers = self.input.capacity() + self.output.capacity();
        let now = limits::HTTP_CONNECTION_BYTES + buffers + self.reader.held_bytes();
        let fits = now == self.held || self.worker.note_memory(self.held, now);
        if fits {
            self.held = now;
        }
        fits
    }

    /// For a wait in the lobby.
    fn waiter(&self, may_move: bool) -> Waiter {
        Waiter { peer: self.peer, may_move, is_silent: !self.served && !self.has_begun() }
    }

    /// Whether a byte of the next request has come.
    fn has_begun(&self) -> bool {
        !self.reader.is_idle() || !self.input.is_empty()
    }

    /// When the wait for the next byte ends: there is a time for a whole request, a longer one between two requests,
    /// and a shorter one for the first byte of a connection, which costs a descriptor and says nothing.
    fn deadline(&self, has_begun: bool) -> monoio::time::Instant {
        monoio::time::Instant::now() + Duration::from_secs(self.seconds(has_begun).into())
    }

    fn seconds(&self, has_begun: bool) -> u32 {
        let config = &self.worker.shared.config;
        match (has_begun, self.served) {
            (true, _) => config.handshake_timeout_seconds,
            (false, true) => config.keepalive_timeout_seconds,
            (false, false) => {
                config.handshake_timeout_seconds.min(limits::FIRST_BYTE_TIMEOUT_SECONDS)
            }
        }
    }

    /// Waits for bytes and appends them to the input.
    async fn receive(&mut self, deadline: monoio::time::Instant) -> Result<(), End> {
        loop {
            // Still set if this future is dropped within the wait.
            let before = std::mem::replace(&mut self.may_be_in_flight, true);
            let late = match monoio::time::timeout_at(deadline, self.stream.readable(true)).await {
                Ok(Ok(())) => {
                    self.may_be_in_flight = before;
                    false
                }
                Ok(Err(_)) => return Err(End::Gone),
                // Where the whole host stalled, a request and the end of its time are seen together: it came in time.
                Err(_) => true,
            };
            let mut chunk = [0_u8; READ_BYTES];
            match rustix::net::recv(sys::borrow(&self.stream), &mut chunk[..], RecvFlags::DONTWAIT)
            {
                Ok((0, _)) => return Err(End::Gone),
                Ok((count, _)) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(Errno::AGAIN | Errno::INTR) if !late => {}
                Err(_) => return Err(End::Gone),
            }
        }
    }

    /// `receive`, but for a while another process may take the session over, if there is no more to it than its input.
    async fn receive_or_move(&mut self, deadline: monoio::time::Instant) -> Result<(), End> {
        let worker = self.worker.clone();
        let waiter = self.waiter(self.reader.holds_nothing());
        loop {
            match worker.lobby.wait(waiter, self.receive(deadline)).await {
                Ok(received) => return received,
                Err(Cut::Ends) => {
                    self.refuse_idle();
                    return Err(End::Gone);
                }
                Err(Cut::Asked) => {}
            }
            // No descriptor left for a second one: whoever sits here has to come again.
            let socket = sys::borrow(&self.stream).try_clone_to_owned().map_err(|_| End::Gone)?;
            let (peer, served, input) = (self.peer, self.served, self.input.clone());
            worker.lobby.stand_aside(Aside { socket, peer, served, input }).await;
        }
    }

    fn respond(&mut self, response: &Response, request: &Request) {
        let keep_alive = request.keep_alive() && !self.worker.draining.get();
        response.write(&mut self.output, keep_alive, request.method() == "HEAD");
    }

    /// Sends all answers there are. The usual answer leaves at once; a peer that does not read gets its deadline.
    async fn send_output(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match rustix::net::send(sys::borrow(&self.stream), &self.output, flags) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return Err(End::Gone),
        };
        if sent < self.output.len() {
            let rest = self.output.split_off(sent);
            let timeout = u64::from(self.worker.shared.config.handshake_timeout_seconds);
            let (worker, waiter) = (self.worker.clone(), self.waiter(false));
            let written =
                monoio::time::timeout(Duration::from_secs(timeout), self.stream.write_all(rest));
            match worker.lobby.wait(waiter, written).await {
                Ok(Ok((Ok(_), _))) => {}
                Err(_) => {
                    self.refuse_idle();
                    return Err(End::Gone);
                }
                Ok(Ok(_)) => return Err(End::Gone),
                Ok(Err(_)) => {
                    let time = Detail::Number(timeout);
                    self.refuse(About::default(), Cause::AnswerUnread, &[time]);
                    return Err(End::Gone);
                }
            }
        }
        self.output.clear();
        Ok(())
    }

    /// Sends the last answer and closes in order, so that unread input does not turn it into a reset.
    async fn finish(&mut self) -> End {
        if let Err(end) = self.send_output().await {
            return end;
        }
        if rustix::net::shutdown(sys::borrow(&self.stream), rustix::net::Shutdown::Write).is_ok() {
            let deadline = monoio::time::Instant::now() + Duration::from_secs(1);
            // A request that was refused may still be on its way, and its client reads the answer only behind it.
            let reads_max = 64 + self.worker.shared.config.request_size_max / READ_BYTES;
            for _ in 0..reads_max {
                self.input.clear();
                let (worker, waiter) = (self.worker.clone(), self.waiter(false));
                let received = worker.lobby.wait(waiter, self.receive(deadline)).await;
                if !matches!(received, Ok(Ok(()))) {
                    break;
                }
            }
        }
        End::Gone
    }

    /// Carries out an API request.
    async fn answer(&self, request: &Request, target: &Target) -> Response {
        let worker = &self.worker;
        let client = match self.may_authenticate(request, target) {
            Ok(client) => client,
            Err(response) => return response,
        };
        match self.plan(request, target) {
            Plan::Respond(response) => response,
            Plan::Refuse(Denied { response, app, noted }) => {
                self.refused_as(About { request: Some(request), app }, response, noted)
            }
            Plan::Unauthenticated(Denied { response, app, noted }) => {
                let admission = &worker.shared.overload.admission;
                admission.count_auth_failure(client, time::unix_seconds());
                self.refused_as(About { request: Some(request), app }, response, noted)
            }
            // Over the budget, publishes go on: a server that is full of quiet connections must not fall silent for
            // it. Far over it they are what fills the queues, and a backend tries again, where a client cannot.
            Plan::Publish { app, .. }
                if worker.shared.overload.pressure.strain() == Strain::FarOver =>
            {
                let about = About { request: Some(request), app: Some(app) };
                self.refused(
                    about,
                    short_of_memory("event was not published"),
                    Cause::MemoryPublish,
                    &[],
                )
            }
            Plan::Publish { app, publications, info, reply, quota } => {
                if !self.publish(app, publications).await {
                    return self.moving(request);
                }
                let response = match info {
                    None => api::render(&reply, Vec::new()),
                    Some(question) => self.ask(request, question, &reply).await,
                };
                match quota {
                    None => response,
                    Some(quota) => quota.tell(response),
                }
            }
            Plan::Ask { question, reply } => self.ask(request, question, &reply).await,
            Plan::Terminate { app, user_id } => {
                worker.core.borrow_mut().shard.terminate(app, &user_id);
                worker.ask_tick();
                api::render(&api::Reply::Empty, Vec::new())
            }
        }
    }

    /// The address that a failed authentication counts for, if failures are counted; or the refusal of an address
    /// that has failed too often in this second, before any work is done for its request.
    fn may_authenticate(
        &self,
        request: &Request,
        target: &Target,
    ) -> Result<Option<IpAddr>, Response> {
        let admission = &self.worker.shared.overload.admission;
        if !admission.counts_auth_failures() || !matches!(target, Target::Api { .. }) {
            return Ok(None);
        }
        let client = admission.address(self.peer, request.header_values("x-forwarded-for"));
        let Err(most) = admission.may_authenticate(client, time::unix_seconds()) else {
            return Ok(Some(client));
        };
        let text = format!(
            "Too many failed authentications: {most} a second from one address; check the app's id, key and secret, \
             and try again in a second."
        );
        let response = Response::text(429, &text).with_header("Retry-After", "1");
        let values = [Detail::Address(client), Detail::Counted(most.into(), "API request")];
        let cause = Cause::AuthFailuresPerIp;
        Err(self.refused(About::request(request), response, cause, &values))
    }

    fn plan(&self, request: &Request, target: &Target) -> Plan {
        let worker = &self.worker;
        let mut context = Context {
            apps: &worker.shared.apps,
            prefix: &worker.shared.config.path,
            unix_seconds: time::unix_seconds(),
            draining: worker.draining.get() || worker.shared.unready.load(Ordering::Relaxed),
            validator: &mut worker.validator.borrow_mut(),
            lines: &mut worker.notes.lines.borrow_mut(),
            talkative: worker.shared.config.talkative,
            debug: worker.shared.config.debug,
        };
        api::plan(request, target, &mut context)
    }

    /// Publishes, and returns when the events have their place in their channels' order. `false`: nothing was
    /// published, because this process is giving all it has to another.
    async fn publish(&self, app: AppIndex, publications: Vec<api::Publication>) -> bool {
        self.worker.uncongested().await;
        if self.worker.is_paused() {
            return false;
        }
        let shared = &self.worker.shared;
        let print = shared.config.print_events;
        let lines = print.then(|| printed::lines(&shared.apps.get(app).id, &publications));
        self.worker.publish(app, &publications);
        self.worker.ask_tick();
        self.worker.posted().await;
        if let Some(lines) = lines {
            output::events(lines);
        }
        true
    }

    async fn ask(
        &self,
        request: &Request,
        question: crate::shard::Question,
        reply: &api::Reply,
    ) -> Response {
        match self.worker.ask(question).await {
            Some(answers) => api::render(reply, answers),
            None => {
                let text = "A core of the server did not answer in time; try again.";
                let values = [Detail::Number(limits::GATHER_TIMEOUT_MS)];
                let about = About::request(request);
                self.refused(about, Response::text(503, text), Cause::CoreSilent, &values)
            }
        }
    }

    /// A request that took too long to stand aside with the others.
    fn moving(&self, request: &Request) -> Response {
        let text = "This server is giving its connections to another process; try again.";
        let response = Response::text(503, text).with_header("Retry-After", "1");
        self.refused(About::request(request), response, Cause::Moving, &[])
    }

    /// Others need the descriptor of this session.
    fn refuse_idle(&self) {
        let most = Detail::count(self.worker.http_connections_max);
        self.refuse(About::default(), Cause::HttpConnections, &[most]);
    }
}

fn short_of_memory(what: &str) -> Response {
    let text = format!("The server is short of memory: the {what}; try again.");
    Response::text(503, &text).with_header("Retry-After", "1")
}
