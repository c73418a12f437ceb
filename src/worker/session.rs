//! One task per socket while it speaks HTTP: requests in order, keep-alive, and the hand-over of WebSockets to
//! the reactor.
//!
//! A session owns no read buffer while it waits: bytes are received into a scratch buffer once they are there.
//! Each request has a deadline from its start; a half-sent head is cut off by it (PROTOCOL.md rule 17).

use std::num::IntErrorKind;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{Worker, printed, sys, time};
use crate::api::{self, Context, Plan, Target};
use crate::app::AppIndex;
use crate::http1::query::parse_query;
use crate::http1::refusal::Refusal;
use crate::http1::request::{Limits, Progress, Request, RequestReader};
use crate::http1::response::Response;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::origin;
use crate::ws::handshake::{self, AcceptKey, UpgradeRequest};

/// Serves one socket from its accept to its end or hand-over.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream) {
    let limits = Limits { request_size_max: worker.shared.config.request_size_max };
    let mut session = Session {
        reader: RequestReader::new(limits),
        input: Vec::new(),
        output: Vec::new(),
        stream,
        worker,
    };
    match session.run().await {
        End::HandOver { accept, app } => session.hand_over(&accept, app),
        // The socket closes with the session; there is nobody left to tell.
        End::Gone => {}
    }
}

struct Session {
    worker: Rc<Worker>,
    stream: TcpStream,
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
    HandOver { accept: AcceptKey, app: Result<AppIndex, ErrorCode> },
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
        let target = api::target(request.method(), request.path(), &self.worker.shared.config.path);
        if let Target::Socket { key } = &target {
            match self.check_upgrade(&request, key) {
                Ok((accept, app)) => return Err(End::HandOver { accept, app }),
                Err(response) => self.respond(&response, &request),
            }
        } else {
            let response = self.answer(&request, &target).await;
            self.respond(&response, &request);
        }
        if request.keep_alive() && !self.worker.draining.get() {
            return Ok(());
        }
        Err(self.finish().await)
    }

    /// The next whole request, or the answer to one that is no good.
    async fn next_request(&mut self) -> Result<Result<Request, Response>, End> {
        let timeout = u64::from(self.worker.shared.config.handshake_timeout_seconds);
        let deadline = monoio::time::Instant::now() + Duration::from_secs(timeout);
        loop {
            match self.reader.read(&mut self.input) {
                Ok(Progress::Complete(request)) => return Ok(Ok(request)),
                Ok(Progress::Incomplete { continue_expected }) => {
                    if continue_expected {
                        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    self.send_output().await?;
                    self.receive(deadline).await?;
                }
                Err(refusal) => {
                    if refusal == Refusal::TooLarge {
                        self.worker.notes.tell(&format!(
                            "a request over {} bytes was refused; REVERB_MAX_REQUEST_SIZE sets the limit",
                            self.worker.shared.config.request_size_max
                        ));
                    }
                    return Ok(Err(Response::text(refusal.status(), refusal.body())));
                }
            }
        }
    }

    /// Waits for bytes and appends them to the input.
    async fn receive(&mut self, deadline: monoio::time::Instant) -> Result<(), End> {
        loop {
            match monoio::time::timeout_at(deadline, self.stream.readable(true)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(End::Gone),
            }
            let mut chunk = [0_u8; 8 * 1024];
            match rustix::net::recv(sys::borrow(&self.stream), &mut chunk[..], RecvFlags::DONTWAIT)
            {
                Ok((0, _)) => return Err(End::Gone),
                Ok((count, _)) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Err(End::Gone),
            }
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
            let written =
                monoio::time::timeout(Duration::from_secs(timeout), self.stream.write_all(rest));
            match written.await {
                Ok((Ok(_), _)) => {}
                Ok((Err(_), _)) | Err(_) => return Err(End::Gone),
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
            for _ in 0..64 {
                self.input.clear();
                if self.receive(deadline).await.is_err() {
                    break;
                }
            }
        }
        End::Gone
    }

    /// Carries out an API request.
    async fn answer(&self, request: &Request, target: &Target) -> Response {
        let worker = &self.worker;
        match self.plan(request, target) {
            Plan::Respond(response) => response,
            Plan::Publish { app, publications, info, reply, quota } => {
                self.publish(app, publications).await;
                let response = match info {
                    None => api::render(&reply, Vec::new()),
                    Some(question) => self.ask(question, &reply).await,
                };
                match quota {
                    None => response,
                    Some(quota) => quota.tell(response),
                }
            }
            Plan::Ask { question, reply } => self.ask(question, &reply).await,
            Plan::Terminate { app, user_id } => {
                worker.core.borrow_mut().shard.terminate(app, &user_id);
                worker.ask_tick();
                api::render(&api::Reply::Empty, Vec::new())
            }
        }
    }

    fn plan(&self, request: &Request, target: &Target) -> Plan {
        let worker = &self.worker;
        let mut context = Context {
            apps: &worker.shared.apps,
            prefix: &worker.shared.config.path,
            unix_seconds: time::unix_seconds(),
            draining: worker.draining.get(),
            validator: &mut worker.validator.borrow_mut(),
            note: None,
        };
        let plan = api::plan(request, target, &mut context);
        if let Some(note) = context.note {
            worker.notes.tell(&note);
        }
        plan
    }

    /// Publishes, and returns when the events have their place in their channels' order.
    async fn publish(&self, app: AppIndex, publications: Vec<api::Publication>) {
        self.worker.uncongested().await;
        let shared = &self.worker.shared;
        let print = shared.config.print_events;
        let lines = print.then(|| printed::lines(&shared.apps.get(app).id, &publications));
        self.worker.publish(app, &publications);
        self.worker.ask_tick();
        self.worker.posted().await;
        if let Some(lines) = lines {
            printed::write(&lines);
        }
    }

    async fn ask(&self, question: crate::shard::Question, reply: &api::Reply) -> Response {
        match self.worker.ask(question).await {
            Some(answers) => api::render(reply, answers),
            None => Response::text(503, "A core of the server did not answer in time; try again."),
        }
    }

    /// Whether this is a handshake, and for which app. Protocol errors are told on the socket: browsers cannot
    /// read the body of a failed upgrade (PROTOCOL.md rule 9).
    fn check_upgrade(
        &self,
        request: &Request,
        key: &str,
    ) -> Result<(AcceptKey, Result<AppIndex, ErrorCode>), Response> {
        let accept = handshake::check(&UpgradeRequest {
            method: request.method(),
            http_11: request.http_11(),
            upgrade: request.header_list("upgrade").as_deref(),
            connection: request.header_list("connection").as_deref(),
            version: request.header("sec-websocket-version"),
            key: request.header("sec-websocket-key"),
        })
        .map_err(refuse_upgrade)?;
        Ok((accept, self.admit(request, key)))
    }

    /// The order of PROTOCOL.md rule 10, with the protocol version before it.
    fn admit(&self, request: &Request, key: &str) -> Result<AppIndex, ErrorCode> {
        let apps = &self.worker.shared.apps;
        let index = apps.by_key(key).ok_or(error_code::NO_SUCH_APP)?;
        check_version(request.query())?;
        let app = apps.get(index);
        let from = request.header("origin");
        if !origin::is_allowed(&app.allowed_origins, from, app.allow_missing_origin) {
            let allowed = &app.allowed_origins;
            self.worker.notes.tell(&format!(
                "app {}: origin {from:?} refused; RINGVERB_ALLOWED_ORIGINS allows {allowed:?}",
                app.id
            ));
            return Err(error_code::ORIGIN_NOT_ALLOWED);
        }
        if app.admit() {
            Ok(index)
        } else if app.over_quota_retries {
            Err(error_code::OVER_QUOTA_RETRY)
        } else {
            Err(error_code::OVER_QUOTA)
        }
    }

    /// Gives the socket to the reactor. The 101 answer leaves with the first frame, in one send.
    fn hand_over(mut self, accept: &AcceptKey, app: Result<AppIndex, ErrorCode>) {
        handshake::write_response(accept, &mut self.output);
        let socket = sys::take_fd(self.stream);
        self.worker.adopt(app, &self.output, socket, &mut self.input);
    }
}

/// Protocol 5 to 7 are served; no version at all is fine too, as in Reverb.
fn check_version(query: &str) -> Result<(), ErrorCode> {
    let given = parse_query(query).into_iter().find(|(name, _)| name == "protocol");
    let Some((_, version)) = given else { return Ok(()) };
    match version.parse::<u32>() {
        Ok(5..=7) => Ok(()),
        Ok(_) => Err(error_code::UNSUPPORTED_VERSION),
        // A number all the same, if one that fits no integer here.
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(error_code::UNSUPPORTED_VERSION)
        }
        Err(_) => Err(error_code::BAD_VERSION),
    }
}

fn refuse_upgrade(refusal: handshake::Refusal) -> Response {
    let response = Response::text(refusal.status(), refusal.body());
    match refusal.header() {
        Some((name, value)) => response.with_header(name, value),
        None => response,
    }
}
