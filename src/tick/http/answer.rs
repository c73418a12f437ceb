//! Carries out requests of the HTTP API.
//!
//! Owns no state. `api` turns a request into a plan; this file publishes, asks the other cores, and builds the answer.
//! A request that must wait (for room in mailboxes, for its mail, for answers) leaves a `Pending` in its session, and
//! `resume` continues it. Does not decide what a request may do: `api` does.
//!
//! Limits: `GATHER_TIMEOUT_MS` for answers of cores, the overload level for publishes. Cost: a publish is two reference
//! counts for each channel and one mail; the answer is written to the buffer of the session, without an allocation of
//! its own.

use core::net::IpAddr;

use super::super::gather::Asker;
use super::super::site::Site;
use super::about::RefusalContext;
use super::session::{Pending, Publish, Session};
use super::{Http, Printed, SessionKey};
use crate::admission::overload::OverloadLevel;
use crate::api::{self, Denied, Plan, Publication, Reply, Target};
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::counters::Refused;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::limits;
use crate::shard::Question;

impl Session {
    /// Carries out a request of the API. Its answer is written now, or after a wait.
    pub(super) fn answer(
        &mut self,
        key: SessionKey,
        request: Request,
        target: &Target,
        site: &mut Site<'_>,
    ) {
        let http = &mut *site.http;
        let client = match self.may_authenticate(http, &request, target) {
            Ok(client) => client,
            Err(response) => return self.respond(http, &response, &request),
        };
        let response = match api::plan(&request, target, &mut http.context()) {
            Plan::Respond(response) => response,
            Plan::Refuse(Denied { response, app, log_line }) => self.noted_refusal_response(
                http,
                RefusalContext { request: Some(&request), app },
                response,
                log_line,
            ),
            Plan::Unauthenticated(Denied { response, app, log_line }) => {
                http.overload.admission.count_auth_failure(client, http.unix_seconds);
                self.noted_refusal_response(
                    http,
                    RefusalContext { request: Some(&request), app },
                    response,
                    log_line,
                )
            }
            // Over the budget, publishes continue: a server full of quiet connections must still deliver. Far over it,
            // publishes are refused, because they fill the send queues and a backend can retry.
            Plan::Publish { app, .. }
                if http.overload.pressure.level() == OverloadLevel::FarOver =>
            {
                let about = RefusalContext { request: Some(&request), app: Some(app) };
                let response = short_of_memory("event was not published");
                self.refusal_response(http, about, response, Cause::MemoryPublish, &[])
            }
            Plan::Publish { app, publications, info, reply, quota } => {
                let publish = Publish { request, app, publications, info, reply, quota };
                if site.mailbox.is_congested() {
                    // Nothing is discarded: the publisher waits.
                    debug_assert!(
                        site.http.congested.len() > crate::limits::ASSERTED_LEN_MAX
                            || !site.http.congested.contains(&key),
                        "a session waits once"
                    );
                    site.http.congested.push_back(key);
                    return self.wait(Pending::Congested(Box::new(publish)));
                }
                return self.publish(key, publish, site);
            }
            Plan::Ask { question, reply } => {
                return self.ask(key, request, question, reply, None, site);
            }
            Plan::EndAccess(command) => {
                site.shard.end_access(command);
                api::render(&Reply::Empty, Vec::new())
            }
        };
        self.respond(site.http, &response, &request);
    }

    /// Publishes the events. They have their position in the order of their channels before the answer is sent.
    fn publish(&mut self, key: SessionKey, publish: Publish, site: &mut Site<'_>) {
        let Publish { request, app, publications, info, reply, quota } = publish;
        note_accepted(site.http, app, &publications);
        site.publish(app, &publications);
        if let Some(question) = info {
            return self.ask(key, request, question, reply, quota, site);
        }
        let response = with_quota(quota, api::render(&reply, Vec::new()));
        if let Some(mark) = site.mailbox.overflow_mark() {
            site.http.awaiting_mail_in_rings.push_back((key, mark));
            return self.wait(Pending::Posting { request, response });
        }
        self.respond(site.http, &response, &request);
    }

    fn ask(
        &mut self,
        key: SessionKey,
        request: Request,
        question: Question,
        reply: Reply,
        quota: Option<api::Quota>,
        site: &mut Site<'_>,
    ) {
        let id = site.begin_gather(Asker::Session(key), question);
        self.wait(Pending::Asking { request, id, reply, quota });
        debug_assert_eq!(self.question(), Some(id), "its answers find it by this number");
    }

    /// Continues a request if its wait is over: the mailboxes have room, the mail is in the rings, or the cores have
    /// answered. `late`: they have not answered in time. Does nothing if the request waits for something else.
    pub(in crate::tick) fn resume(&mut self, key: SessionKey, late: bool, site: &mut Site<'_>) {
        match self.take_pending() {
            None => {}
            Some(Pending::Congested(publish)) => self.publish(key, *publish, site),
            Some(Pending::Posting { request, response }) => {
                self.respond(site.http, &response, &request);
            }
            Some(Pending::Asking { request, id, reply, quota }) => {
                let response = match site.gathers.take_answers(id) {
                    Some(answers) => with_quota(quota, api::render(&reply, answers)),
                    None if !late => {
                        return self.wait(Pending::Asking { request, id, reply, quota });
                    }
                    None => {
                        site.gathers.end(id);
                        let text = "A core of the server did not answer in time; try again.";
                        let values = [Detail::Number(limits::GATHER_TIMEOUT_MS)];
                        let about = RefusalContext::request(&request);
                        let response = Response::text(503, text);
                        let cause = Cause::CoreSilent;
                        with_quota(
                            quota,
                            self.refusal_response(site.http, about, response, cause, &values),
                        )
                    }
                };
                self.respond(site.http, &response, &request);
            }
        }
    }

    /// Returns the address to which a failed authentication is charged; `None` if failures are not counted. Or refuses
    /// an address with too many failures in this second, before any work is done for its request.
    fn may_authenticate(
        &self,
        http: &mut Http,
        request: &Request,
        target: &Target,
    ) -> Result<Option<IpAddr>, Response> {
        let admission = &http.overload.admission;
        if !admission.counts_auth_failures() || !matches!(target, Target::Api { .. }) {
            return Ok(None);
        }
        let client =
            admission.client_address(self.peer.ip(), request.header_values("x-forwarded-for"));
        http.metrics.count_check(Refused::AuthFailuresPerIp);
        let Err(most) = admission.may_authenticate(client, http.unix_seconds) else {
            return Ok(Some(client));
        };
        let text = format!(
            "Too many failed authentications: {most} a second from one address; check the app's id, key and secret, \
             and try again in a second."
        );
        let response = Response::text(429, &text).with_header("Retry-After", "1");
        let values = [Detail::Address(client), Detail::Counted(most.into(), "API request")];
        let about = RefusalContext::request(request);
        Err(self.refusal_response(http, about, response, Cause::AuthFailuresPerIp, &values))
    }
}

/// Publishes an operator's event: a request of the admin API with the body of `POST /events`. No request waits: where a
/// backend would wait for room in mailboxes, an operator tries again.
pub(in crate::tick) fn publish_for_operator(
    app: AppIndex,
    request: &Request,
    site: &mut Site<'_>,
) -> Response {
    if site.mailbox.is_congested() {
        let text = "The server has more events than it can deliver now, so this one was not published; try again.";
        return Response::text(503, text);
    }
    if site.http.overload.pressure.level() == OverloadLevel::FarOver {
        return short_of_memory("event was not published");
    }
    match api::plan_operators_event(app, request, &mut site.http.context()) {
        Plan::Respond(response) => response,
        Plan::Refuse(denied) | Plan::Unauthenticated(denied) => denied.response,
        Plan::Publish { app, publications, quota, .. } => {
            note_accepted(site.http, app, &publications);
            site.publish(app, &publications);
            with_quota(quota, api::render(&Reply::Empty, Vec::new()))
        }
        // The plan of an event is to publish it, or a refusal.
        Plan::Ask { .. } | Plan::EndAccess(_) => Response::text(500, "No event."),
    }
}

/// Keeps accepted events for `--print-events` and for the event log of the console, if one of them is on.
fn note_accepted(http: &mut Http, app: AppIndex, publications: &[Publication]) {
    if http.rules.print_events || http.is_observed {
        http.published_to_show.extend(publications.iter().map(|one| Printed {
            app,
            channel: one.channel.clone(),
            frame: one.frame.clone(),
            excluded_socket_id: one.excluded_socket_id,
        }));
    }
}

fn with_quota(quota: Option<api::Quota>, response: Response) -> Response {
    match quota {
        None => response,
        Some(quota) => quota.add_to(response),
    }
}

pub(super) fn short_of_memory(what: &str) -> Response {
    let text = format!("The server is short of memory: the {what}; try again.");
    Response::text(503, &text).with_header("Retry-After", "1")
}
