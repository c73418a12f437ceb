//! What a connection of the pool receives: frames of a WebSocket, answers of HTTP.
//!
//! Owns no state: it is `impl Pool`. Knows no event: whole messages go to the `Handler`. Limits: those of `frame` and
//! `http`. Cost: a read is one system call; whole messages are passed on without a copy, and only an incomplete rest is
//! copied.

use std::io;
use std::io::Read;

use super::{CloseWhy, Handler, Key, Pool, State};
use crate::frame::{self, opcode};
use crate::http;

impl Pool {
    pub(super) fn read(&mut self, key: Key, handler: &mut impl Handler) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some(connection) = self.get(key) else {
            self.scratch = scratch;
            return;
        };
        let result = connection.stream.read(&mut scratch);
        match result {
            Ok(0) => self.ended(key, handler),
            Ok(count) => self.received(key, &scratch[..count], false, handler),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.lost(handler, key, CloseWhy::Failed(error.to_string())),
        }
        self.scratch = scratch;
    }

    fn ended(&mut self, key: Key, handler: &mut impl Handler) {
        let Some(connection) = self.get(key) else { return };
        if connection.state == State::Http && !connection.unread.is_empty() {
            self.received(key, &[], true, handler);
        }
        let Some(connection) = self.get(key) else { return };
        let why = match connection.state {
            State::Handshaking => {
                let answer = String::from_utf8_lossy(&connection.unread).into_owned();
                CloseWhy::Failed(format!("closed during the handshake after {answer:?}"))
            }
            _ => CloseWhy::Code(connection.close_code.unwrap_or(1006)),
        };
        self.lost(handler, key, why);
    }

    /// Takes the messages out of what has come, and keeps the incomplete rest.
    fn received(&mut self, key: Key, bytes: &[u8], closed: bool, handler: &mut impl Handler) {
        let Some(connection) = self.get(key) else { return };
        let mut joined = std::mem::take(&mut connection.unread);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        loop {
            // The handler may have closed the connection.
            let Some(connection) = self.get(key) else { return };
            let step = match connection.state {
                State::Handshaking => self.upgraded(key, rest, handler),
                State::WebSocket => self.one_frame(key, rest, handler),
                State::Http => self.one_response(key, rest, closed, handler),
                State::Connecting => Ok(0),
            };
            match step {
                Ok(0) => break,
                Ok(used) => rest = &rest[used..],
                Err(why) => return self.lost(handler, key, CloseWhy::Failed(why)),
            }
        }
        if !rest.is_empty()
            && let Some(connection) = self.get(key)
        {
            connection.unread = rest.to_vec();
        }
    }

    /// Returns the bytes of the handshake's response, or 0 while it is incomplete.
    fn upgraded(
        &mut self,
        key: Key,
        bytes: &[u8],
        handler: &mut impl Handler,
    ) -> Result<usize, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(0);
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no upgrade: {:?}", String::from_utf8_lossy(bytes)));
        }
        if let Some(connection) = self.get(key) {
            connection.state = State::WebSocket;
        }
        handler.on_open(self, key);
        Ok(end + 4)
    }

    /// Returns the bytes of the frame, or 0 while it is incomplete.
    fn one_frame(
        &mut self,
        key: Key,
        bytes: &[u8],
        handler: &mut impl Handler,
    ) -> Result<usize, String> {
        let decoded = frame::decode(bytes).map_err(|fault| format!("frame: {fault:?}"))?;
        let Some((frame, used)) = decoded else { return Ok(0) };
        match frame.opcode {
            opcode::TEXT if frame.fin => handler.on_message(self, key, frame.payload),
            opcode::TEXT | opcode::CONTINUATION => {
                let Some(connection) = self.get(key) else { return Ok(used) };
                connection.fragments.extend_from_slice(frame.payload);
                if frame.fin {
                    let message = std::mem::take(&mut connection.fragments);
                    handler.on_message(self, key, &message);
                }
            }
            opcode::PING => self.send_frame(key, opcode::PONG, frame.payload),
            opcode::PONG => {}
            opcode::CLOSE => {
                let code = match frame.payload {
                    [high, low, ..] => u16::from_be_bytes([*high, *low]),
                    _ => 1005,
                };
                let Some(connection) = self.get(key) else { return Ok(used) };
                connection.close_code = Some(code);
                if !std::mem::replace(&mut connection.close_sent, true) {
                    self.send_frame(key, opcode::CLOSE, &code.to_be_bytes());
                }
            }
            other => return Err(format!("frame with opcode {other}")),
        }
        Ok(used)
    }

    fn one_response(
        &mut self,
        key: Key,
        bytes: &[u8],
        closed: bool,
        handler: &mut impl Handler,
    ) -> Result<usize, String> {
        let decoded = http::decode(bytes, closed)
            .map_err(|_| format!("response: {:?}", String::from_utf8_lossy(bytes)))?;
        let Some((response, used)) = decoded else { return Ok(0) };
        handler.on_response(self, key, &response);
        Ok(used)
    }
}
