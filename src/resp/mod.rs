//! The Redis wire protocol, RESP3 (and the nulls of RESP2), as pure functions over bytes. Owns no state.
//!
//! Knows no socket and no clock, and does not know what a command means or which reply belongs to it. `reader`: bytes
//! in any cut → replies and pushes. Not the crate `redis-protocol` (6.0.0 was tried): it reads an aggregate again from
//! its start with every piece that comes, so that its cost is quadratic; it recurses once for each level a peer opens,
//! and 200,000 levels end the process; `*-1` and `$-1` are faults to its RESP3 decoder; its maps forget their order.
//! Code in front of it that prevents this would have to find the end and the depth of each value, and would be a
//! decoder itself. Limits: those of `reader.rs` for a reply; the caller bounds commands. Cost: the bytes of a
//! command are copied once, into the caller's buffer.

// What a peer sends decides no index.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod reader;

pub use reader::{MalformedReply, Reader};

/// A reply, or a push: a message of a topic that came without a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A simple string, or a verbatim string without its format. Bytes that are not UTF-8 are replaced.
    Text(String),
    /// A simple or a blob error: its code, a blank, a sentence. Redis quotes arguments in it, so bytes that are not
    /// UTF-8 are replaced.
    Error(String),
    Integer(i64),
    Bytes(Vec<u8>),
    /// `_`, `$-1` or `*-1`.
    Null,
    /// An array or a set.
    List(Vec<Value>),
    /// In the order in which it came; a key may be there twice.
    Map(Vec<(Value, Value)>),
    /// Never inside another value.
    Push(Vec<Value>),
    /// A double, a boolean, a big number. No command of this server is answered by one.
    Other,
}

/// Appends a command as an array of bulk strings: its name, then its arguments.
pub fn write_command(parts: &[&[u8]], out: &mut Vec<u8>) {
    write_length(b'*', parts.len(), out);
    for part in parts {
        write_length(b'$', part.len(), out);
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_length(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = b"before".to_vec();
        write_command(&[b"PUBLISH", b"a b", b"x\r\n\xff", b""], &mut out);
        let expected = b"before*4\r\n$7\r\nPUBLISH\r\n$3\r\na b\r\n$4\r\nx\r\n\xff\r\n$0\r\n\r\n";
        assert_eq!(out, expected);
    }

    proptest! {
        /// A command has the form of a reply, so the reader is its judge.
        #[test]
        fn written_commands_are_read_back(parts: Vec<Vec<u8>>) {
            let mut out = Vec::new();
            write_command(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut out);
            let mut reader = Reader::default();
            reader.push(&out);
            let expected = Value::List(parts.into_iter().map(Value::Bytes).collect());
            prop_assert_eq!(reader.next(), Ok(Some(expected)));
            prop_assert_eq!(reader.next(), Ok(None));
        }
    }
}
