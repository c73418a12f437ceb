//! Several nodes around a real Redis or Valkey.

mod churn;
mod events;
mod faults;
mod floods;
mod log;
mod presence;
mod transitions;
