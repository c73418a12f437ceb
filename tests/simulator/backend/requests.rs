//! The requests that a backend of the simulation sends, right and wrong ones.

use serde_json::json;

use super::{Asked, BURST, Backend, Effect, Manner, What};
use crate::client::CHANNELS;
use crate::http::{self, Form};
use crate::kernel::Shared;
use crate::random::Random;

impl Backend {
    /// Writes some requests. `socket_id`: of a subscriber that is left out.
    pub(crate) fn ask(&mut self, random: &Random, unix_seconds: u64, socket_id: Option<&str>) {
        let is_burst = random.one_in(64);
        let count = match is_burst {
            true => BURST,
            false if random.one_in(32) => 1 + random.below(12),
            false => 0,
        };
        (0..count).for_each(|_| self.probe("GET", Form::default()));
        for _ in 0..1 + random.below(3) {
            self.ask_one(random, unix_seconds, socket_id);
        }
        // Requests that wait for answers ahead of them to leave, and the end behind them.
        self.ends_behind = random.one_in(if is_burst { 2 } else { 8 });
        if self.manner == Manner::Endless {
            // At least its last byte is missing.
            let last = self.requests.back_mut().expect("just written");
            let missing = 1 + random.below(last.end - last.start - 1);
            self.script.truncate(last.end - missing);
            last.end = usize::MAX;
            self.gates.clear();
            self.ends_behind = false;
        }
    }

    fn ask_one(&mut self, random: &Random, unix: u64, socket_id: Option<&str>) {
        let form = Form::any(random);
        let channel = CHANNELS[random.below(CHANNELS.len())];
        match random.below(20) {
            0..=7 => {
                let number = self.number();
                let except = socket_id.filter(|_| random.one_in(4));
                let info = random.one_in(4).then_some("subscription_count,user_count");
                let body = http::event_body(number, channel, except, info).to_string();
                let except = except.map(str::to_owned);
                let what = What::Publish { events: vec![(number, channel)], except };
                self.post("events", &body, what, &[200], form, unix);
            }
            8..=9 => {
                let events: Vec<(u64, &'static str)> = (0..1 + random.below(3))
                    .map(|_| (self.number(), CHANNELS[random.below(CHANNELS.len())]))
                    .collect();
                let items = events.iter().map(|(number, channel)| {
                    let info = random.one_in(4).then_some("subscription_count");
                    http::event_body(*number, channel, None, info)
                });
                let body = json!({"batch": items.collect::<Vec<_>>()}).to_string();
                let what = What::Publish { events, except: None };
                self.post("batch_events", &body, what, &[200], form, unix);
            }
            10..=11 => self.ask_in_vain(random, channel, form, unix),
            12 => {
                let info = [("filter_by_prefix", "presence-"), ("info", "user_count")];
                let target = http::signed("GET", "channels", &info, None, unix);
                self.get(&target, What::Other, &[200], form);
            }
            13..=14 => {
                let info = [("info", "subscription_count,user_count,cache")];
                let resource = format!("channels/{channel}");
                let target = http::signed("GET", &resource, &info, None, unix);
                self.get(&target, What::Other, &[200], form);
            }
            15 => {
                let target = http::signed("GET", "channels/presence-r/users", &[], None, unix);
                self.get(&target, What::Other, &[200, 404], form);
            }
            16 => self.probe("HEAD", form),
            17 => {
                let (bytes, status) = http::refused(random);
                let statuses: &'static [u16] = match status {
                    400 => &[400],
                    413 => &[413],
                    417 => &[417],
                    501 => &[501],
                    _ => &[505],
                };
                self.append(&bytes, None, What::Other, statuses, Form::default());
                self.requests.back_mut().expect("just written").is_fatal = true;
            }
            _ => self.probe("GET", form),
        }
    }

    /// A publish that is refused, whole as it is, or a request for what does not exist.
    fn ask_in_vain(&mut self, random: &Random, channel: &'static str, form: Form, unix: u64) {
        let number = self.number();
        let body = http::event_body(number, channel, None, None).to_string();
        let what = What::Refused(number);
        match random.below(6) {
            0 => {
                let target = http::signed("POST", "events", &[], Some(b"another body"), unix);
                self.write("POST", &target, Some(body.as_bytes()), what, &[401], form);
            }
            1 => {
                let body = json!({"name": "e", "channel": channel}).to_string();
                self.post("events", &body, what, &[422], form, unix);
            }
            2 => self.post("events", &body[1..], what, &[400, 422], form, unix),
            3 => {
                let target = "/apps/7/events?auth_key=app-key";
                self.write("POST", target, Some(body.as_bytes()), what, &[404], form);
            }
            4 => self.write("POST", "/nowhere", Some(body.as_bytes()), what, &[404], form),
            _ => self.write("PUT", "/up", Some(body.as_bytes()), what, &[405], form),
        }
    }

    fn probe(&mut self, method: &str, form: Form) {
        self.write(method, "/up", None, What::Other, &[200, 503], form);
    }

    fn post(
        &mut self,
        resource: &str,
        body: &str,
        what: What,
        statuses: &'static [u16],
        form: Form,
        unix: u64,
    ) {
        let body = body.as_bytes();
        let target = http::signed("POST", resource, &[], Some(body), unix);
        self.write("POST", &target, Some(body), what, statuses, form);
    }

    fn get(&mut self, target: &str, what: What, statuses: &'static [u16], form: Form) {
        self.write("GET", target, None, what, statuses, form);
    }

    /// A question whose answer is kept.
    pub(crate) fn question(&mut self, resource: &str, info: &str, unix: u64) {
        let parameters = [("info", info)];
        let parameters = if info.is_empty() { &[][..] } else { &parameters[..] };
        let target = http::signed("GET", resource, parameters, None, unix);
        self.get(&target, What::Question, &[200, 404], Form::default());
    }

    fn write(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
        what: What,
        statuses: &'static [u16],
        form: Form,
    ) {
        let written = http::write(method, target, body, form);
        self.append(&written.bytes, written.waits_at, what, statuses, form);
        self.requests.back_mut().expect("just written").is_head = method == "HEAD";
    }

    fn append(
        &mut self,
        bytes: &[u8],
        waits_at: Option<usize>,
        what: What,
        statuses: &'static [u16],
        form: Form,
    ) {
        let start = self.script.len();
        self.script.extend_from_slice(bytes);
        // Half of them send the body without waiting.
        if let Some(at) = waits_at.filter(|at| at % 2 == 0) {
            self.gates.push_back(start + at);
        }
        self.requests.push_back(Asked {
            start,
            end: self.script.len(),
            what,
            is_head: false,
            closes: form.closes(),
            is_fatal: false,
            expects_continue: waits_at.is_some(),
            continued: false,
            statuses,
            announced: false,
        });
    }

    /// Sends up to so many bytes. `is_reported`: the kernel knows of them at once.
    pub(crate) fn send(
        &mut self,
        world: &Shared,
        most: usize,
        is_reported: bool,
        effects: &mut Vec<Effect>,
    ) {
        if self.over || self.is_last || self.unsent() == 0 {
            return;
        }
        let gate = self.gates.front().copied().unwrap_or(usize::MAX);
        let end = self.script.len().min(self.sent.saturating_add(most)).min(gate.max(self.sent));
        if end == self.sent {
            return;
        }
        let mut world = world.borrow_mut();
        let wire = &mut world.wires[self.wire];
        if wire.closed || wire.cut {
            self.late_from.get_or_insert(self.sent);
        }
        let is_behind = |asked: &Asked| asked.closes && asked.end <= self.sent;
        self.is_rash |= self.requests.iter().any(is_behind);
        wire.ended |= self.ends_behind && end == self.script.len();
        let bytes = &self.script[self.sent..end];
        if is_reported {
            world.send(self.wire, bytes);
        } else {
            world.slip_in(self.wire, bytes);
        }
        self.sent = end;
        for asked in self.requests.iter_mut().filter(|asked| asked.end <= end && !asked.announced) {
            asked.announced = true;
            match &asked.what {
                // What follows an answer that is not read is not carried out.
                What::Publish { .. } if self.manner == Manner::Deaf => {}
                What::Publish { events, except } => {
                    effects.extend(events.iter().map(|(number, channel)| Effect::Sent {
                        number: *number,
                        channel,
                        except: except.clone(),
                    }));
                }
                What::Refused(number) => effects.push(Effect::Void(*number)),
                What::Question | What::Other => {}
            }
        }
    }
}
