//! The admin API (`/api/...`): what the console and `ringverb top` read, and three actions. JSON, or a text if
//! something is wrong.
//!
//! Owns the table of paths (docs/OPERATIONS.md describes them). `overview.rs` reads what workers publish. The other
//! answers come from questions to the workers (`questions.rs`), which answer them in slices, so that no question delays
//! a delivery. All lists are bounded, and name what they leave out. A request that changes something is a POST with
//! JSON, and not of another site (`routes.rs`). Does not touch a shard. Input: a request that `routes.rs` accepted.
//! Output: a response.
//! Limits: `REFUSALS_MAX`, and those of `questions.rs`. Cost: one question to each worker; in a cluster, one message to
//! all other nodes.

mod channels;
mod connections;
mod event;
mod nodes;
mod overview;
mod parameters;
mod questions;

use std::sync::Arc;

use serde_json::{Value as Json, json};

use nodes::NodeAnswers;
pub(super) use questions::Questions;

use self::overview::OverviewFacts;
use super::routes::AdminState;
use crate::app::{AppIndex, Apps};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::operator_requests::{CoreRequest, InspectionReply, OperatorReply, OperatorRequest};
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessEnd, Answer, Findings, Inspection, ORDER_TIME_MS, OperatorOutcome, OperatorQuestion,
    Question,
};
use crate::text::shown;
use crate::worker::time::unix_ms;
pub(super) use event::event_json;
use event::refusal_json;
pub(super) use parameters::{Parameters, parse_socket_id};

/// Each worker remembers its last refusals; the newest of all workers are shown.
const REFUSALS_MAX: usize = 200;

type ApiOutcome<T> = Result<T, Response>;

fn bad_parameter(sentence: &str) -> Response {
    Response::text(400, &format!("{sentence}.\n"))
}

impl AdminState {
    /// 405 with `Allow` for a path that exists and does not take the method. `changes.rs` does the same for its paths.
    pub(in crate::server::admin) fn refuse_method(request: &Request) -> Option<Response> {
        let allow = match request.path() {
            "/api/overview" | "/api/traffic" | "/api/channels" | "/api/channel"
            | "/api/connections" | "/api/connection" | "/api/refusals" | "/api/nodes" => {
                "GET, HEAD"
            }
            "/api/events" => "GET",
            "/api/publish" | "/api/disconnect" | "/api/unsubscribe" => "POST",
            _ => return None,
        };
        if allow.split(", ").any(|method| method == request.method()) {
            return None;
        }
        let body = if allow == "POST" { " with a body of JSON" } else { "" };
        Some(
            Response::text(405, &format!("This path takes {allow}{body}.\n"))
                .with_header("Allow", allow),
        )
    }

    /// The request must have been admitted (`routes.rs`).
    pub(super) async fn answer_api(&self, request: &Request) -> Response {
        let method_and_path = (request.method(), request.path());
        let parameters = Parameters::of(request.query());
        let answer = match method_and_path {
            ("GET" | "HEAD", "/api/overview") => Ok(self.overview()),
            ("GET" | "HEAD", "/api/traffic") => Ok(overview::traffic(self.shared(), &self.apps())),
            ("GET" | "HEAD", "/api/channels") => self.channels(&parameters).await,
            ("GET" | "HEAD", "/api/channel") => self.channel(&parameters).await,
            ("GET" | "HEAD", "/api/connections") => self.connections(&parameters).await,
            ("GET" | "HEAD", "/api/connection") => self.connection(&parameters).await,
            ("GET" | "HEAD", "/api/refusals") => self.refusals(&parameters).await,
            ("GET" | "HEAD", "/api/nodes") => self.nodes().await,
            ("POST", "/api/publish") => return self.publish(request, &parameters).await,
            ("POST", "/api/disconnect") => self.end_access(request, false).await,
            ("POST", "/api/unsubscribe") => self.end_access(request, true).await,
            _ => {
                Err(Response::text(404, "No such path. docs/OPERATIONS.md lists those of /api.\n"))
            }
        };
        answer.map_or_else(|refusal| refusal, |json| Response::json(200, json.to_string()))
    }

    fn overview(&self) -> Json {
        let facts = OverviewFacts {
            resident_bytes: self.resident_bytes(),
            why_not_ready: self.why_not_ready(),
            lost_events: self.viewers.lost_events(),
            viewers: self.viewers.len(),
        };
        overview::overview(&self.sources, &facts)
    }

    fn apps(&self) -> Arc<Apps> {
        self.shared().current_configuration.get().apps.clone()
    }

    fn app(&self, parameters: &Parameters<'_>) -> ApiOutcome<AppIndex> {
        let id = parameters.get("app");
        overview::find_app(&self.apps(), id).ok_or_else(|| {
            let id = shown(id.unwrap_or_default());
            Response::text(
                404,
                &format!("There is no app with the id {id}; /api/apps lists all.\n"),
            )
        })
    }

    async fn inspect(
        &self,
        inspection: &Inspection,
    ) -> ApiOutcome<Vec<(usize, Box<InspectionReply>)>> {
        let workers = 0..self.shared().operator_queues.len();
        let request = || OperatorRequest::ThisCore(CoreRequest::Inspect(inspection.clone()));
        let replies = self.questions.ask(&self.sources, workers, request).await?;
        let found = replies.into_iter().filter_map(|(worker, reply)| match reply {
            OperatorReply::Found(found) => Some((worker, found)),
            _ => None,
        });
        Ok(found.collect())
    }

    async fn findings(&self, inspection: &Inspection) -> ApiOutcome<Vec<Findings>> {
        let found = self.inspect(inspection).await?;
        Ok(found.into_iter().map(|(_, found)| found.findings).collect())
    }

    async fn channels(&self, parameters: &Parameters<'_>) -> ApiOutcome<Json> {
        let app = self.app(parameters)?;
        let contains = parameters.filter().map_err(|sentence| bad_parameter(&sentence))?;
        let searched = contains.clone();
        let question =
            OperatorQuestion::Channels { app: self.id_of(app), contains: searched.clone() };
        let found = self.findings(&Inspection::Channels { app, contains }).await?;
        let node_answers = self.ask_nodes(&question).await?;
        let page = channels::page(parameters, found, node_answers.as_ref());
        let mut page = page.map_err(|sentence| bad_parameter(&sentence))?;
        let Some(node_answers) = node_answers else { return Ok(page) };
        node_answers.add_nodes_to(&mut page);
        if node_answers.rows().any(|(_, rows)| rows.left_out > 0) {
            // The sums are exact for the rows that are shown, also of nodes that have left these out.
            let rows = page["channels"].as_array().into_iter().flatten();
            let names = rows.filter_map(|row| row["name"].as_str());
            let mut names: Vec<String> = names.map(str::to_owned).collect();
            // A whole name finds a channel that only other nodes have.
            if !searched.is_empty() && !names.iter().any(|name| **name == *searched) {
                names.push(searched.into());
            }
            let counts = self.subscribers_of_all_nodes(app, names.clone()).await?;
            channels::set_all_nodes(&mut page, &names, &counts);
        }
        Ok(page)
    }

    fn id_of(&self, app: AppIndex) -> Box<str> {
        self.apps().id_of(app).into()
    }

    /// Returns a count for each name, in their order. This is the HTTP API's question about channels with names, so the
    /// answers are bounded by their number. Nodes that do not answer in time are left out.
    async fn subscribers_of_all_nodes(
        &self,
        app: AppIndex,
        names: Vec<String>,
    ) -> ApiOutcome<Vec<usize>> {
        let mut counts = vec![0_usize; names.len()];
        let ask = || OperatorRequest::AllCores(Question::Describe { app, names: names.clone() });
        let replies = self.questions.ask(&self.sources, 0..1, ask).await?;
        let answers = replies.into_iter().filter_map(|(_, reply)| match reply {
            OperatorReply::Answers(answers) => Some(answers),
            _ => None,
        });
        for answer in answers.flatten() {
            let Answer::Described(parts) = answer else { continue };
            for (count, part) in counts.iter_mut().zip(parts) {
                *count = count.saturating_add(part.subscription_count);
            }
        }
        Ok(counts)
    }

    async fn channel(&self, parameters: &Parameters<'_>) -> ApiOutcome<Json> {
        let app = self.app(parameters)?;
        let name = parameters.get("name").ok_or_else(|| bad_parameter("name is missing"))?;
        let found = self.findings(&Inspection::Channel { app, name: name.into() }).await?;
        let question = OperatorQuestion::Channel { app: self.id_of(app), name: name.into() };
        let node_answers = self.ask_nodes(&question).await?;
        let mut inside =
            channels::channel_details(name, found, &self.apps(), node_answers.as_ref());
        node_answers.iter().for_each(|node_answers| node_answers.add_nodes_to(&mut inside));
        Ok(inside)
    }

    async fn connections(&self, parameters: &Parameters<'_>) -> ApiOutcome<Json> {
        let app = parameters.get("app").map(|_| self.app(parameters)).transpose()?;
        let contains = parameters.filter().map_err(|sentence| bad_parameter(&sentence))?;
        let id = app.map(|app| self.id_of(app));
        let question = OperatorQuestion::Connections { app: id, contains: contains.clone() };
        let found = self.findings(&Inspection::Connections { app, contains }).await?;
        let node_answers = self.ask_nodes(&question).await?;
        let mut table = connections::connection_table(found, &self.apps(), node_answers.as_ref());
        node_answers.iter().for_each(|node_answers| node_answers.add_nodes_to(&mut table));
        Ok(table)
    }

    async fn connection(&self, parameters: &Parameters<'_>) -> ApiOutcome<Json> {
        let socket_id = required_socket_id(parameters.get("socket_id"))?;
        let found = self.inspect(&Inspection::Connection { socket_id }).await?;
        if let Some(inside) = connections::connection_details(found, &self.apps()) {
            return Ok(inside);
        }
        let node_answers = self.ask_nodes(&OperatorQuestion::Connection { socket_id }).await?;
        let inside = node_answers.as_ref().and_then(connections::connection_details_of_nodes);
        inside.ok_or_else(|| {
            not_open_response(socket_id, node_answers.as_ref(), "may have the connection")
        })
    }

    async fn refusals(&self, parameters: &Parameters<'_>) -> ApiOutcome<Json> {
        let id = parameters.get("socket_id");
        let socket_id = id.map(|id| required_socket_id(Some(id))).transpose()?;
        let workers = 0..self.shared().operator_queues.len();
        let ask = || OperatorRequest::ThisCore(CoreRequest::Refusals { socket_id });
        let replies = self.questions.ask(&self.sources, workers, ask).await?;
        let lists = replies.into_iter().filter_map(|(_, reply)| match reply {
            OperatorReply::Refused(refused) => Some(refused),
            _ => None,
        });
        let mut refused: Vec<_> = lists.flatten().collect();
        refused.sort_by_key(|event| std::cmp::Reverse(event.unix_ms));
        refused.truncate(REFUSALS_MAX);
        let apps = &self.apps();
        let each: Vec<_> = refused.iter().map(|event| refusal_json(event, apps)).collect();
        Ok(json!({ "refusals": each }))
    }

    async fn nodes(&self) -> ApiOutcome<Json> {
        let Some(redis) = &self.shared().redis else {
            return Ok(json!({ "nodes": [] }));
        };
        let found = self.inspect(&Inspection::Nodes).await?;
        let mut nodes = std::collections::BTreeMap::new();
        for (node, seconds) in found.iter().flat_map(|(_, found)| &found.findings.nodes) {
            let last = nodes.entry(node.0).or_insert(*seconds);
            *last = (*last).min(*seconds);
        }
        let sessions = found.len();
        let up = found.iter().filter(|(_, found)| found.findings.is_session_up).count();
        let each = nodes.into_iter().map(|(node, seconds)| {
            json!({ "node": format!("{node:016x}"), "seen_seconds_ago": seconds })
        });
        Ok(json!({
            "own": format!("{:016x}", redis.node.0),
            "sessions": sessions,
            "sessions_up": up,
            "nodes": each.collect::<Vec<_>>(),
        }))
    }

    async fn publish(&self, request: &Request, parameters: &Parameters<'_>) -> Response {
        let app = match self.app(parameters) {
            Ok(app) => app,
            Err(response) => return response,
        };
        let ask = || {
            let request = Box::new(request.clone());
            OperatorRequest::ThisCore(CoreRequest::Publish { app, request })
        };
        match self.questions.ask(&self.sources, 0..1, ask).await {
            Err(response) => response,
            Ok(replies) => {
                let published = replies.into_iter().find_map(|(_, reply)| match reply {
                    OperatorReply::Published(response) => Some(response),
                    _ => None,
                });
                published.unwrap_or_else(|| Response::text(500, "No answer.\n"))
            }
        }
    }

    /// The connection may be on any node: the workers of this one are asked first, then the other nodes.
    async fn end_access(&self, request: &Request, has_channel: bool) -> ApiOutcome<Json> {
        let body: Json = serde_json::from_slice(request.body()).map_err(|_| {
            bad_parameter("the body is no JSON: send {\"socket_id\": \"1234.5678\"}")
        })?;
        let socket_id = required_socket_id(body["socket_id"].as_str())?;
        let channel = body["channel"].as_str().filter(|_| has_channel);
        if has_channel && channel.is_none() {
            return Err(bad_parameter("channel is missing, and takes the name of a channel"));
        }
        let channel: Option<Box<str>> = channel.map(Into::into);
        let not_subscribed = || {
            let channel = shown(channel.as_deref().unwrap_or_default());
            let text = format!("Connection {socket_id} is not subscribed to {channel}.\n");
            Err(Response::text(404, &text))
        };
        let workers = 0..self.shared().operator_queues.len();
        let ask = || {
            let channel = channel.clone();
            OperatorRequest::ThisCore(CoreRequest::EndAccess { socket_id, channel })
        };
        for (_, reply) in self.questions.ask(&self.sources, workers, ask).await? {
            match reply {
                OperatorReply::Ended(AccessEnd::Done) => return Ok(json!({})),
                OperatorReply::Ended(AccessEnd::NotSubscribed) => return not_subscribed(),
                _ => {}
            }
        }
        let deadline_unix_ms = unix_ms() + ORDER_TIME_MS;
        let channel_to_end = channel.clone();
        let order = OperatorQuestion::EndAccessUntil {
            socket_id,
            channel: channel_to_end,
            deadline_unix_ms,
        };
        let node_answers = self.ask_nodes(&order).await?;
        for answer in node_answers.iter().flat_map(NodeAnswers::answers) {
            match answer.outcome {
                OperatorOutcome::Ended => {
                    let node = nodes::node_name(answer.node);
                    return Ok(json!({ "node": node, "host": answer.host }));
                }
                OperatorOutcome::NotSubscribed => return not_subscribed(),
                _ => {}
            }
        }
        let perhaps = "may have the connection, and may have carried this out";
        Err(not_open_response(socket_id, node_answers.as_ref(), perhaps))
    }
}

fn required_socket_id(text: Option<&str>) -> ApiOutcome<SocketId> {
    let text = text.ok_or_else(|| bad_parameter("socket_id is missing"))?;
    parse_socket_id(text).map_err(|sentence| bad_parameter(&sentence))
}

/// `node_answers`: what the other nodes of the cluster have answered. `perhaps`: what is possible on a node without an
/// answer.
fn not_open_response(
    socket_id: SocketId,
    node_answers: Option<&NodeAnswers>,
    perhaps: &str,
) -> Response {
    match node_answers {
        None => {
            let text = format!("No connection {socket_id} is open on this node: it has ended.\n");
            Response::text(404, &text)
        }
        Some(node_answers) if node_answers.is_complete() => {
            let text = format!("No connection {socket_id} is open on any node: it has ended.\n");
            Response::text(404, &text)
        }
        Some(node_answers) => {
            let missing = node_answers.missing_nodes_text();
            let text = format!(
                "No connection {socket_id} is open on the nodes that answered. {missing}: it {perhaps}. \
                 Try again, or use the console of that node.\n"
            );
            Response::text(503, &text).with_header("Retry-After", "1")
        }
    }
}
