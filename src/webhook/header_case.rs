//! Header names as Pusher writes them: `X-Pusher-Signature`, not `x-pusher-signature`.
//!
//! Names are case-insensitive (RFC 9110 section 5.1), but backends look them up in plain arrays: pusher-http-php's
//! `webhook()` with what `getallheaders()` returns, for one. ureq writes them in lower case and has no switch, so the
//! head is changed on its way out: same length, ASCII only, nothing behind the empty line. Owns no state, and does not
//! touch a value or the body. Cost: one pass over the bytes of each request's head, in place. No limits: the head is
//! that of one request of ours.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Wraps the connections that another connector makes.
#[derive(Debug)]
pub(super) struct TitleCase;

#[derive(Debug)]
pub(super) struct TitleCased<T>(T);

impl<In: Transport> Connector<In> for TitleCase {
    type Out = TitleCased<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        connection: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(connection.map(TitleCased))
    }
}

impl<T: Transport> Transport for TitleCased<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if let Some(bytes) = self.0.buffers().output().get_mut(..amount) {
            title_case_head(bytes);
        }
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// Changes the head of a request, if these bytes are one. A piece of a body never is, because JSON contains no empty
/// line.
fn title_case_head(bytes: &mut [u8]) {
    let Some(length) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return };
    if !bytes.starts_with(b"POST ") {
        return;
    }
    for line in bytes[..length].split_mut(|byte| *byte == b'\n').skip(1) {
        let name = line.iter().position(|byte| *byte == b':').unwrap_or_default();
        let mut begins_word = true;
        for byte in &mut line[..name] {
            if begins_word {
                byte.make_ascii_uppercase();
            }
            begins_word = *byte == b'-';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_head_change() {
        let mut head =
            b"POST /a-b:c HTTP/1.1\r\nx-pusher-key: a-b:c\r\nhost: x\r\n\r\n{\"a-b\":1}\r\nc-d: e"
                .to_vec();
        title_case_head(&mut head);
        let expected =
            b"POST /a-b:c HTTP/1.1\r\nX-Pusher-Key: a-b:c\r\nHost: x\r\n\r\n{\"a-b\":1}\r\nc-d: e";
        assert_eq!(head.escape_ascii().to_string(), expected.escape_ascii().to_string());
        for other in [&b"{\"a\":1}"[..], b"POST a-b: c\r\n", b"GET / HTTP/1.1\r\na: b\r\n\r\n", b""]
        {
            let mut bytes = other.to_vec();
            title_case_head(&mut bytes);
            assert_eq!(bytes, other);
        }
    }
}
