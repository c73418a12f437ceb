//! Questions of the HTTP API under way to the other cores. PURE.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use super::Core;
use super::kernel::Kernel;
use crate::shard::{Answer, Answered, Mail, Question};

/// By number. Numbers are not used twice: a late answer must not count for a later question.
#[derive(Default)]
pub struct Gathers {
    gathers: HashMap<u32, Gather, foldhash::fast::RandomState>,
    next: u32,
}

struct Gather {
    missing: usize,
    answers: Vec<Answer>,
    waker: Option<Waker>,
}

impl Gathers {
    fn begin(&mut self, own: Answer, missing: usize) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.gathers.insert(id, Gather { missing, answers: vec![own], waker: None });
        id
    }

    pub(super) fn tell(&mut self, answered: &mut Vec<Answered>) {
        for Answered { id, answer } in answered.drain(..) {
            // A late answer finds nobody.
            let Some(gather) = self.gathers.get_mut(&id) else { continue };
            gather.answers.push(answer);
            gather.missing = gather.missing.saturating_sub(1);
            if gather.missing == 0
                && let Some(waker) = gather.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// All answers, once there are none missing.
    pub fn poll(&mut self, id: u32, context: &Context<'_>) -> Poll<Vec<Answer>> {
        let Some(gather) = self.gathers.get_mut(&id) else { return Poll::Ready(Vec::new()) };
        if gather.missing == 0 {
            return Poll::Ready(std::mem::take(&mut gather.answers));
        }
        gather.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Nobody waits any more.
    pub fn end(&mut self, id: u32) {
        self.gathers.remove(&id);
    }
}

impl<K: Kernel> Core<K> {
    /// Asks all cores, this one included; the number to `poll` and to `end` it by.
    pub fn begin_gather(&mut self, question: Question) -> u32 {
        self.catch_up();
        let cores = self.mailbox.cores();
        let own = self.shard.answer(&question);
        let id = self.gathers.begin(own, usize::from(cores) - 1);
        let question = Arc::new(question);
        let from = self.mailbox.core();
        for to in (0..cores).filter(|to| *to != from) {
            // Behind what the shard has to say: a question must not overtake the publish it asks about.
            let mail = Mail::Ask { id, from, question: question.clone() };
            self.shard.outbox.mails.push((to, mail));
        }
        id
    }
}
