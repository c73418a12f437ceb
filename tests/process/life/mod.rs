//! The life of the process: start, output, supervision and end.

mod logs;
mod output;
mod restart;
mod start_and_end;
mod supervision;
