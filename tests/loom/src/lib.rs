//! The mailbox as loom sees it. What loom proves here is the protocol of the doorbell and of the mailbox's own queues
//! around a ring; the ring itself, which is the rtrb package's, is a model.
#![allow(dead_code, reason = "what the models do not call")]

pub mod kernel;
pub mod ring;

pub mod mailbox {
    include!(concat!(env!("OUT_DIR"), "/mailbox.rs"));
}

/// The bounds that the mailbox names, small enough to be met.
pub mod limits {
    pub const MAIL_RING_MAX: usize = 64;
    pub const MAIL_PER_TICK_MAX: usize = 64;
    pub const WORKERS_MAX: usize = 4;
    pub const MAIL_OVERFLOW_SOFT_MAX: usize = 2;
    pub const MAIL_OVERFLOW_MAX: usize = 8;
}
