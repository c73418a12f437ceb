//! The backend's side: HTTP connections with one signed request in flight each, kept or new for each request.
//!
//! Owns these connections, their latency and violations. Does not know what is published. A server that closes a kept
//! connection after its answer costs the time of a new one, which is part of what it offers. A connection that ends
//! before its answer is a violation. Limit: the count of `open`, with one request each. Cost: a request is one HMAC,
//! some allocations and usually one system call.

use std::io;
use std::time::Instant;

use crate::app::App;
use crate::http::{After, Response};
use crate::pool::{CloseWhy, Goal, Key, Pool, Tag};
use crate::report::{Latency, Violations};

pub(crate) struct Publishers {
    app: App,
    part: u8,
    list: Vec<Publisher>,
    /// What each request asks for. With `Close` a publisher connects again after each answer.
    pub(crate) after: After,
    /// Answers with status 200.
    pub(crate) answers: u64,
    pub(crate) reconnects: u64,
    /// From the request to its answer.
    pub(crate) latency: Latency,
    pub(crate) violations: Violations,
}

struct Publisher {
    key: Key,
    open: bool,
    waits: bool,
    asked: Instant,
}

impl Publishers {
    pub(crate) fn open(app: &App, pool: &mut Pool, part: u8, count: usize) -> io::Result<Self> {
        let open = |number| {
            let key = pool.open_as(Goal::Http, Tag::new(part, number))?;
            Ok(Publisher { key, open: false, waits: false, asked: Instant::now() })
        };
        let list = (0..count).map(open).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            app: app.clone(),
            part,
            list,
            after: After::Keep,
            answers: 0,
            reconnects: 0,
            latency: Latency::default(),
            violations: Violations::default(),
        })
    }

    pub(crate) fn owns(&self, key: Key) -> bool {
        key.tag.part == self.part
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_free(&self, number: usize) -> bool {
        let publisher = &self.list[number];
        publisher.open && !publisher.waits
    }

    pub(crate) fn waits(&self) -> bool {
        self.list.iter().any(|publisher| publisher.waits)
    }

    /// Sends a request on a free connection.
    pub(crate) fn post(&mut self, pool: &mut Pool, number: usize, path: &str, body: &str) {
        let publisher = &mut self.list[number];
        debug_assert!(publisher.open && !publisher.waits);
        publisher.waits = true;
        publisher.asked = Instant::now();
        let target = self.app.api("POST", path, &[], body.as_bytes());
        pool.send_request(publisher.key, "POST", &target, body.as_bytes(), self.after);
    }

    pub(crate) fn on_open(&mut self, key: Key) {
        self.list[key.number()].open = true;
    }

    /// An answer. The publisher is free again, at once or after it has reconnected.
    pub(crate) fn on_response(&mut self, pool: &mut Pool, key: Key, response: &Response<'_>) {
        let publisher = &mut self.list[key.number()];
        publisher.waits = false;
        self.latency.record(publisher.asked.elapsed());
        // soketi answers some errors with status 200.
        let refused = response.body.windows(8).any(|window| window == b"\"error\":");
        if response.status == 200 && !refused {
            self.answers += 1;
        } else {
            let Response { status, body, .. } = response;
            let body = String::from_utf8_lossy(body);
            self.violations.add(|| format!("publish answered {status}: {body}"));
        }
        if response.last || self.after == After::Close {
            pool.close(key, false);
            self.reopen(pool, key.number());
        }
    }

    pub(crate) fn on_close(&mut self, pool: &mut Pool, key: Key, why: &CloseWhy) {
        let number = key.number();
        if self.list[number].waits || !self.list[number].open {
            self.violations.add(|| format!("publisher {number} closed: {why}"));
            return;
        }
        // A kept connection may be closed by the server whenever it is idle.
        self.reopen(pool, number);
    }

    fn reopen(&mut self, pool: &mut Pool, number: usize) {
        self.reconnects += 1;
        self.list[number].open = false;
        match pool.open_as(Goal::Http, Tag::new(self.part, number)) {
            Ok(key) => self.list[number].key = key,
            Err(error) => self.violations.add(|| format!("publisher {number}: {error}")),
        }
    }

    pub(crate) fn close_all(&mut self, pool: &mut Pool) {
        for publisher in self.list.drain(..) {
            pool.close(publisher.key, false);
        }
    }
}
