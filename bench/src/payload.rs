//! What every measured event carries, so that its receiver knows which one it is and whether it is whole: `rv`, a slot
//! in 2 hexadecimal digits, a number in 12, and filling. PURE: bytes only.
//!
//! `Finder` owns the filling that it compares with. Knows neither the subscribers nor the order: `sink` does. Limits:
//! `SLOTS_MAX`, `BYTES_MAX`, numbers below 2^48. Cost: `Finder::take` looks at each byte about twice, and allocates
//! nothing.

/// Slots are two hexadecimal digits.
pub(crate) const SLOTS_MAX: usize = 256;

/// `rv`, the slot, and the number.
pub(crate) const BYTES_MIN: usize = 16;
pub(crate) const BYTES_MAX: usize = 1 << 20;

const MARK: &[u8] = b":\"rv";
const PREFIX: usize = MARK.len() - 2;

fn filling(position: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyz"[position % 26]
}

/// The payload of event `number` of `slot`: `bytes` long, and nothing that JSON would escape.
pub(crate) fn make(slot: usize, number: u64, bytes: usize) -> String {
    debug_assert!(slot < SLOTS_MAX && number < 1 << 48);
    let mut payload = format!("rv{slot:02x}{number:012x}");
    payload.extend((payload.len()..bytes).map(|position| char::from(filling(position))));
    payload
}

/// Value parser of an option.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (BYTES_MIN..=BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a number from {BYTES_MIN} to {BYTES_MAX}")),
    }
}

/// Value parser of an option.
pub(crate) fn parse_slots(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(slots) if (1..=SLOTS_MAX).contains(&slots) => Ok(slots),
        _ => Err(format!("a number from 1 to {SLOTS_MAX}")),
    }
}

fn from_hex(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |value, digit| Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Altered;

/// Finds payloads in messages. HOT: `take` runs once a delivery.
pub(crate) struct Finder {
    filling: Vec<u8>,
    /// Where the payload was found the last time.
    at: usize,
}

impl Finder {
    pub(crate) fn new(bytes: usize) -> Self {
        assert!(bytes >= BYTES_MIN);
        Self { filling: (BYTES_MIN..bytes).map(filling).collect(), at: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        BYTES_MIN + self.filling.len()
    }

    /// Slot and number of the event in `message`; `None` when the message is something else.
    pub(crate) fn take(&mut self, message: &[u8]) -> Option<Result<(usize, u64), Altered>> {
        let at = self.find(message)?;
        self.at = at;
        let bytes = self.bytes();
        let parsed = message.get(at..at + bytes).and_then(|payload| {
            let slot = usize::try_from(from_hex(&payload[2..4])?).ok()?;
            let number = from_hex(&payload[4..BYTES_MIN])?;
            let whole =
                payload[BYTES_MIN..] == self.filling && message.get(at + bytes) == Some(&b'"');
            whole.then_some((slot, number))
        });
        Some(parsed.ok_or(Altered))
    }

    fn find(&self, message: &[u8]) -> Option<usize> {
        let guess = self.at.checked_sub(PREFIX).and_then(|start| message.get(start..));
        if guess.is_some_and(|rest| rest.starts_with(MARK)) {
            return Some(self.at);
        }
        message.windows(MARK.len()).position(|window| window == MARK).map(|start| start + PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_where_it_is() {
        let mut finder = Finder::new(64);
        for (slot, number) in [(0, 0), (255, (1 << 48) - 1), (7, 123_456)] {
            let payload = make(slot, number, 64);
            assert_eq!(payload.len(), 64);
            for frame in [
                format!(r#"{{"event":"e","data":"{payload}","channel":"c"}}"#),
                format!(r#"{{"channel":"private-rv","event":"e","data":{{"p":"{payload}"}}}}"#),
            ] {
                assert_eq!(finder.take(frame.as_bytes()), Some(Ok((slot, number))));
            }
        }
        assert_eq!(finder.take(br#"{"event":"pusher:ping","data":{}}"#), None);
    }

    #[test]
    fn every_altered_byte_is_seen() {
        let frame = format!(r#"{{"data":"{}"}}"#, make(1, 2, 40)).into_bytes();
        let start = frame.iter().position(|byte| *byte == b'r').expect("there");
        for position in start + 2..start + 41 {
            let mut altered = frame.clone();
            altered[position] ^= 0x40;
            let found = Finder::new(40).take(&altered);
            assert!(found != Some(Ok((1, 2))), "byte {position}");
        }
        assert_eq!(Finder::new(40).take(&frame[..30]), Some(Err(Altered)), "cut");
    }
}
