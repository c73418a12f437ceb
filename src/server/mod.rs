//! The process: command line, checks before the start, life, messages to the operator.

pub mod life;
