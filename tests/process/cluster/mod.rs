//! Several nodes around a real Redis or Valkey.

mod churn;
mod events;
mod faults;
mod floods;
mod foreign_messages;
mod log;
mod outages;
mod presence;
mod transitions;
