//! The admin API (`/api/...`): what the console and `ringverb top` read, and two actions. JSON, or a text if something
//! is wrong.
//!
//! `overview.rs` reads what workers publish. The other answers come from questions to the workers (`questions.rs`),
//! which answer them in slices, so that no question delays a delivery. All lists are bounded, and name what they leave
//! out. A request that changes something is a POST with JSON, and not of another site (`routes.rs`). docs/OPERATIONS.md
//! has the paths.

mod channels;
mod connections;
mod json;
mod overview;
mod questions;

use std::borrow::Cow;
use std::sync::Arc;

pub(super) use questions::Questions;

use self::json::{JsonObject, list};
use self::overview::Facts;
use super::routes::AdminState;
use crate::app::{AppIndex, Apps};
use crate::http1::query::parse_query;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::live::LiveEvent;
use crate::pusher::json as read;
use crate::pusher::json::Validator;
use crate::pusher::socket_id::SocketId;
use crate::shard::{Findings, Inspection};
use crate::text::shown;
use crate::worker::inspect::{DeskReply, DeskRequest, Found};

/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 200;

/// Refusals of an answer.
const REFUSALS_MAX: usize = 200;

/// An event of the log as JSON.
pub(super) fn event_json(event: &LiveEvent, apps: &Apps) -> Vec<u8> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let socket_id = event.socket_id.map(|socket_id| socket_id.to_string());
    JsonObject::new()
        .value("at", event.unix_ms)
        .text("kind", event.kind.name())
        .some_text("app", event.app.and_then(|app| apps.find(app)).map(|app| &*app.id))
        .some_text("socket_id", socket_id.as_deref())
        .some_text("channel", event.channel.as_deref())
        .some_text("cause", some(event.cause).as_deref())
        .some_text("text", some(&event.text).as_deref())
        .finish()
}

/// The query of a request.
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    pub(super) fn of(query: &'a str) -> Self {
        Self(parse_query(query))
    }

    /// `None`: it is not given, or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str, otherwise: usize) -> Result<usize, String> {
        match self.get(name) {
            None => Ok(otherwise),
            Some(text) => text.parse().map_err(|_| {
                format!("{name} is {}, but takes a number such as {otherwise}", shown(text))
            }),
        }
    }

    /// A text that names contain.
    fn filter(&self) -> Result<Box<str>, String> {
        let text = self.get("filter").unwrap_or_default();
        if text.len() > FILTER_BYTES_MAX {
            let length = text.len();
            return Err(format!("filter has {length} bytes, and may have {FILTER_BYTES_MAX}"));
        }
        Ok(text.into())
    }
}

type Answered<T> = Result<T, Response>;

fn wrong(sentence: &str) -> Response {
    Response::text(400, &format!("{sentence}.\n"))
}

impl AdminState {
    /// Answers a request for a path below `/api/`, which has been admitted.
    pub(super) async fn answer_api(&self, request: &Request) -> Response {
        let what = (request.method(), request.path());
        let parameters = Parameters::of(request.query());
        let answer = match what {
            ("GET" | "HEAD", "/api/overview") => Ok(self.overview()),
            ("GET" | "HEAD", "/api/traffic") => Ok(overview::traffic(self.shared(), &self.apps())),
            ("GET" | "HEAD", "/api/channels") => self.channels(&parameters).await,
            ("GET" | "HEAD", "/api/channel") => self.channel(&parameters).await,
            ("GET" | "HEAD", "/api/connections") => self.connections(&parameters).await,
            ("GET" | "HEAD", "/api/connection") => self.connection(&parameters).await,
            ("GET" | "HEAD", "/api/refusals") => self.refusals(&parameters).await,
            ("GET" | "HEAD", "/api/nodes") => self.nodes().await,
            ("POST", "/api/publish") => return self.publish(request, &parameters).await,
            ("POST", "/api/disconnect") => self.disconnect(request).await,
            (_, "/api/publish" | "/api/disconnect") => {
                let text = "This path takes POST with a body of JSON.\n";
                Err(Response::text(405, text).with_header("Allow", "POST"))
            }
            _ => {
                Err(Response::text(404, "No such path. docs/OPERATIONS.md lists those of /api.\n"))
            }
        };
        answer.map_or_else(|refusal| refusal, |json| Response::json(200, json))
    }

    fn overview(&self) -> Vec<u8> {
        let facts = Facts {
            resident_bytes: self.resident_bytes(),
            why_not_ready: self.why_not_ready(),
            lost_events: self.viewers.lost(),
            viewers: self.viewers.len(),
        };
        overview::overview(&self.sources, &facts)
    }

    fn apps(&self) -> Arc<Apps> {
        self.shared().current.get().apps.clone()
    }

    fn app(&self, parameters: &Parameters<'_>) -> Answered<AppIndex> {
        let id = parameters.get("app");
        overview::find_app(&self.apps(), id).ok_or_else(|| {
            let id = shown(id.unwrap_or_default());
            Response::text(
                404,
                &format!("There is no app with the id {id}; /api/apps lists all.\n"),
            )
        })
    }

    /// Asks all workers.
    async fn look(&self, inspection: &Inspection) -> Answered<Vec<(usize, Box<Found>)>> {
        let workers = 0..self.shared().desks.len();
        let request = || DeskRequest::Look(inspection.clone());
        let replies = self.questions.ask(&self.sources, workers, request).await?;
        let found = replies.into_iter().filter_map(|(worker, reply)| match reply {
            DeskReply::Found(found) => Some((worker, found)),
            _ => None,
        });
        Ok(found.collect())
    }

    async fn findings(&self, inspection: &Inspection) -> Answered<Vec<Findings>> {
        let found = self.look(inspection).await?;
        Ok(found.into_iter().map(|(_, found)| found.findings).collect())
    }

    async fn channels(&self, parameters: &Parameters<'_>) -> Answered<Vec<u8>> {
        let app = self.app(parameters)?;
        let contains = parameters.filter().map_err(|sentence| wrong(&sentence))?;
        let found = self.findings(&Inspection::Channels { app, contains }).await?;
        channels::page(parameters, found).map_err(|sentence| wrong(&sentence))
    }

    async fn channel(&self, parameters: &Parameters<'_>) -> Answered<Vec<u8>> {
        let app = self.app(parameters)?;
        let name = parameters.get("name").ok_or_else(|| wrong("name is missing"))?;
        let found = self.findings(&Inspection::Channel { app, name: name.into() }).await?;
        Ok(channels::inside(name, &found, &self.apps()))
    }

    async fn connections(&self, parameters: &Parameters<'_>) -> Answered<Vec<u8>> {
        let app = parameters.get("app").map(|_| self.app(parameters)).transpose()?;
        let contains = parameters.filter().map_err(|sentence| wrong(&sentence))?;
        let found = self.findings(&Inspection::Connections { app, contains }).await?;
        Ok(connections::table(found, &self.apps()))
    }

    async fn connection(&self, parameters: &Parameters<'_>) -> Answered<Vec<u8>> {
        let socket_id = socket_id(parameters.get("socket_id"))?;
        let found = self.look(&Inspection::Connection { socket_id }).await?;
        connections::inside(found, &self.apps()).ok_or_else(|| not_open(socket_id))
    }

    async fn refusals(&self, parameters: &Parameters<'_>) -> Answered<Vec<u8>> {
        let id = parameters.get("socket_id");
        let socket_id = id.map(|id| socket_id(Some(id))).transpose()?;
        let workers = 0..self.shared().desks.len();
        let ask = || DeskRequest::Refusals { socket_id };
        let replies = self.questions.ask(&self.sources, workers, ask).await?;
        let lists = replies.into_iter().filter_map(|(_, reply)| match reply {
            DeskReply::Refused(refused) => Some(refused),
            _ => None,
        });
        let mut refused: Vec<_> = lists.flatten().collect();
        refused.sort_by_key(|event| std::cmp::Reverse(event.unix_ms));
        refused.truncate(REFUSALS_MAX);
        let apps = &self.apps();
        let each = refused.iter().map(|event| event_json(event, apps));
        Ok(JsonObject::new().json("refusals", &list(each)).finish())
    }

    async fn nodes(&self) -> Answered<Vec<u8>> {
        let Some(redis) = &self.shared().redis else {
            return Ok(JsonObject::new().json("nodes", &list([])).finish());
        };
        let found = self.look(&Inspection::Nodes).await?;
        let mut nodes = std::collections::BTreeMap::new();
        for (node, seconds) in found.iter().flat_map(|(_, found)| &found.findings.nodes) {
            let last = nodes.entry(node.0).or_insert(*seconds);
            *last = (*last).min(*seconds);
        }
        let sessions = found.len();
        let up = found.iter().filter(|(_, found)| found.findings.is_up).count();
        let each = nodes.into_iter().map(|(node, seconds)| {
            let node = format!("{node:016x}");
            JsonObject::new().text("node", &node).value("seen_seconds_ago", seconds).finish()
        });
        let json = JsonObject::new()
            .text("own", &format!("{:016x}", redis.node.0))
            .value("sessions", sessions)
            .value("sessions_up", up)
            .json("nodes", &list(each));
        Ok(json.finish())
    }

    async fn publish(&self, request: &Request, parameters: &Parameters<'_>) -> Response {
        let app = match self.app(parameters) {
            Ok(app) => app,
            Err(response) => return response,
        };
        let ask = || DeskRequest::Publish { app, request: Box::new(request.clone()) };
        match self.questions.ask(&self.sources, 0..1, ask).await {
            Err(response) => response,
            Ok(replies) => {
                let published = replies.into_iter().find_map(|(_, reply)| match reply {
                    DeskReply::Published(response) => Some(response),
                    _ => None,
                });
                published.unwrap_or_else(|| Response::text(500, "No answer.\n"))
            }
        }
    }

    async fn disconnect(&self, request: &Request) -> Answered<Vec<u8>> {
        let mut validator = Validator::default();
        let body = validator.check(request.body());
        let members = body.and_then(read::members).into_iter().flatten();
        let given = members.filter(|(name, _)| read::is_name(name, "socket_id")).last();
        let given = given.and_then(|(_, value)| read::string(value));
        let socket_id = socket_id(given.as_deref())?;
        let workers = 0..self.shared().desks.len();
        let ask = || DeskRequest::Disconnect { socket_id };
        let replies = self.questions.ask(&self.sources, workers, ask).await?;
        let was_open =
            replies.iter().any(|(_, reply)| matches!(reply, DeskReply::Disconnected(true)));
        if was_open { Ok(b"{}".to_vec()) } else { Err(not_open(socket_id)) }
    }
}

fn socket_id(text: Option<&str>) -> Answered<SocketId> {
    let text = text.ok_or_else(|| wrong("socket_id is missing"))?;
    SocketId::parse(text).ok_or_else(|| {
        wrong(&format!("socket_id is {}, but takes two numbers such as 1234.5678", shown(text)))
    })
}

fn not_open(socket_id: SocketId) -> Response {
    let text = format!(
        "No connection {socket_id} is open on this node: it has ended, or another node has it.\n"
    );
    Response::text(404, &text)
}
