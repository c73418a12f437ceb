//! The reader of Redis replies: the same bytes, whole and in two pieces, give the same values and the same verdict, and
//! no value is larger or deeper than it may be.

use ringverb::resp::Value;
use ringverb::resp::reader::{LEVELS_MAX, MalformedReply, Reader};

/// The first byte is where the rest, the stream, is cut, in 256ths of its length.
pub(crate) fn check(data: &[u8]) {
    let Some((&place, stream)) = data.split_first() else { return };
    let (first, second) = stream.split_at(stream.len() * usize::from(place) / 256);
    let whole = read(&[stream]);
    assert_eq!(whole, read(&[first, second]));
    assert!(whole.0.iter().all(|value| levels(value) <= LEVELS_MAX));
    assert!(whole.0.iter().map(bytes).sum::<usize>() <= 3 * stream.len());
}

fn read(pieces: &[&[u8]]) -> (Vec<Value>, Option<MalformedReply>) {
    let mut reader = Reader::default();
    let mut values = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(malformed) => {
                    assert_eq!(reader.next(), Err(malformed));
                    return (values, Some(malformed));
                }
            }
        }
    }
    (values, None)
}

fn inner(value: &Value) -> Vec<&Value> {
    match value {
        Value::List(elements) | Value::Push(elements) => elements.iter().collect(),
        Value::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
        _ => Vec::new(),
    }
}

fn levels(value: &Value) -> usize {
    let own = matches!(value, Value::List(_) | Value::Push(_) | Value::Map(_));
    usize::from(own) + inner(value).into_iter().map(levels).max().unwrap_or(0)
}

/// Of payload. A byte that is not UTF-8 becomes three.
fn bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Error(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => inner(value).into_iter().map(bytes).sum(),
    }
}
