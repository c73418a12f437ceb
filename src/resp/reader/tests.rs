//! Tests of the reader: tables of forms and faults, and properties over every way to cut the input.

use super::*;
use proptest::prelude::*;

type Outcome = (Vec<Value>, Option<MalformedReply>);

/// Reads the pieces one after the other; checks after each that no more than the start of a line is kept.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = Reader::default();
    let mut values = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(malformed) => {
                    reader.push(b"+OK\r\n");
                    assert_eq!(reader.next(), Err(malformed), "there is no way on");
                    assert_eq!(reader.input.capacity(), 0);
                    return (values, Some(malformed));
                }
            }
        }
        assert!(reader.input.len() - reader.used_bytes <= TEXT_BYTES_MAX + 2);
        assert!(reader.open_groups.len() <= LEVELS_MAX && reader.charged_bytes <= VALUE_BYTES_MAX);
    }
    (values, None)
}

/// Reads whole, byte by byte and in two pieces at every place; all must agree.
fn read(stream: &[u8]) -> Outcome {
    let whole = read_pieces([stream]);
    assert_eq!(read_pieces(stream.chunks(1)), whole);
    for cut in 0..stream.len().min(200) {
        let (first, second) = stream.split_at(cut);
        assert_eq!(read_pieces([first, second]), whole, "cut at {cut}");
    }
    whole
}

fn one(stream: &[u8]) -> Value {
    let (mut values, malformed) = read(stream);
    assert_eq!((values.len(), malformed), (1, None), "{}", stream.escape_ascii());
    values.remove(0)
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

#[test]
fn each_form_of_value_is_read() {
    let text = |text: &str| Value::Text(text.to_owned());
    let error = |text: &str| Value::Error(text.to_owned());
    let table: [(&[u8], Value); 26] = [
        (b"+OK\r\n", text("OK")),
        (b"+\r\n", text("")),
        (b"=9\r\ntxt:a\r\nb \r\n", text("a\r\nb ")),
        (b"=4\r\nmkd:\r\n", text("")),
        (b"-ERR unknown command 'a\xff'\r\n", error("ERR unknown command 'a\u{fffd}'")),
        (b"!5\r\nERR \n\r\n", error("ERR \n")),
        (b":-9223372036854775808\r\n", Value::Integer(i64::MIN)),
        (b":+7\r\n", Value::Integer(7)),
        (b"$0\r\n\r\n", bytes(b"")),
        (b"$4\r\n\r\n\r\xff\r\n", bytes(b"\r\n\r\xff")),
        (b"_\r\n", Value::Null),
        (b"$-1\r\n", Value::Null),
        (b"*-1\r\n", Value::Null),
        (b"*0\r\n", Value::List(vec![])),
        (b"*2\r\n*-1\r\n$-1\r\n", Value::List(vec![Value::Null, Value::Null])),
        (b"~1\r\n*1\r\n:1\r\n", Value::List(vec![Value::List(vec![Value::Integer(1)])])),
        (b"%0\r\n", Value::Map(vec![])),
        (b"%1\r\n*0\r\n$1\r\nx\r\n", Value::Map(vec![(Value::List(vec![]), bytes(b"x"))])),
        (b">0\r\n", Value::Push(vec![])),
        (b">2\r\n+a\r\n_\r\n", Value::Push(vec![text("a"), Value::Null])),
        (b",-inf\r\n", Value::Other),
        (b"#t\r\n", Value::Other),
        (b"(3492890328409238509324850943850943825024385\r\n", Value::Other),
        (b"|1\r\n+ttl\r\n:3600\r\n+a\r\n", text("a")),
        (b"|0\r\n:2\r\n", Value::Integer(2)),
        (b"*1\r\n|1\r\n+a\r\n*1\r\n:1\r\n:2\r\n", Value::List(vec![Value::Integer(2)])),
    ];
    for (stream, expected) in table {
        assert_eq!(one(stream), expected, "{}", stream.escape_ascii());
    }
}

#[test]
fn each_fault_ends_the_reader() {
    let table: [(&[u8], MalformedReply); 30] = [
        (b"x", MalformedReply::UnknownType),
        (b"\r\n", MalformedReply::UnknownType),
        (b"*1\r\n?", MalformedReply::UnknownType),
        (b"HELLO 3\r\n", MalformedReply::UnknownType),
        (b"+a\nb\r\n", MalformedReply::LineEnd),
        (b"+a\rb\r\n", MalformedReply::LineEnd),
        (b"+a\r\r\n", MalformedReply::LineEnd),
        (b"$1\r\nab\r\n", MalformedReply::LineEnd),
        (b"$1\r\na\n\r", MalformedReply::LineEnd),
        (b":\r\n", MalformedReply::Number),
        (b":1.5\r\n", MalformedReply::Number),
        (b":9223372036854775808\r\n", MalformedReply::Number),
        (b": 1\r\n", MalformedReply::Number),
        (b":\xff\r\n", MalformedReply::Number),
        (b"$\r\n", MalformedReply::Number),
        (b"$?\r\n", MalformedReply::Number),
        (b"*?\r\n", MalformedReply::Number),
        (b"*-2\r\n", MalformedReply::Number),
        (b"*+1\r\n", MalformedReply::Number),
        (b"%-1\r\n", MalformedReply::Number),
        (b"$18446744073709551616\r\n", MalformedReply::Number),
        (b"_1\r\n", MalformedReply::Form),
        (b"=3\r\ntxt\r\n", MalformedReply::Form),
        (b"=5\r\nabcde\r\n", MalformedReply::Form),
        (b"*1\r\n>0\r\n", MalformedReply::NestedPush),
        (b"|1\r\n+a\r\n>1\r\n", MalformedReply::NestedPush),
        (b"$9223372036854775807\r\n", MalformedReply::TooLarge),
        (b"*9223372036854775807\r\n", MalformedReply::TooLarge),
        (b"%9223372036854775807\r\n", MalformedReply::TooLarge),
        (b"!65537\r\n", MalformedReply::TooLarge),
    ];
    for (stream, expected) in table {
        let whole = [b":1\r\n", stream].concat();
        let outcome = (vec![Value::Integer(1)], Some(expected));
        assert_eq!(read(&whole), outcome, "{}", stream.escape_ascii());
    }
}

#[test]
fn unfinished_is_no_fault() {
    let stream = b"%1\r\n+a\r\n|1\r\n+b\r\n$-1\r\n*2\r\n$3\r\nabc\r\n=5\r\ntxt:d\r\n";
    assert!(matches!(one(stream), Value::Map(_)));
    for cut in 0..stream.len() {
        assert_eq!(read(&stream[..cut]), (vec![], None), "cut at {cut}");
    }
}

#[test]
fn replies_and_pushes_take_turns() {
    let stream = b"+OK\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n:1\r\n_\r\n";
    let push = Value::Push(vec![bytes(b"message"), bytes(b"c"), bytes(b"hi")]);
    let expected = vec![Value::Text("OK".to_owned()), push, Value::Integer(1), Value::Null];
    assert_eq!(read(stream), (expected, None));
}

#[test]
fn nested_values_are_refused_below_the_depth_limit() {
    let nested = |levels: usize| [b"*1\r\n".repeat(levels), b":1\r\n".to_vec()].concat();
    let mut value = &one(&nested(LEVELS_MAX));
    let mut levels = 0;
    while let Value::List(elements) = value {
        (value, levels) = (&elements[0], levels + 1);
    }
    assert_eq!(levels, LEVELS_MAX);
    for opening in ["*0\r\n", "%1\r\n", "|1\r\n", "~1\r\n"] {
        let deep = [b"*1\r\n".repeat(LEVELS_MAX), opening.into()].concat();
        assert_eq!(read(&deep), (vec![], Some(MalformedReply::TooDeep)), "{opening:?}");
    }
    // A null has no level of its own, and a level that was left is free again.
    let last = [b"*1\r\n".repeat(LEVELS_MAX), b"*-1\r\n".to_vec()].concat();
    assert_eq!(read(&last).1, None);
    let wide = [b"*9\r\n".to_vec(), nested(LEVELS_MAX - 1).repeat(9)].concat();
    assert!(matches!(one(&wide), Value::List(elements) if elements.len() == 9));
    let hostile = b"*1\r\n".repeat(1_000_000);
    assert_eq!(read_pieces([hostile.as_slice()]), (vec![], Some(MalformedReply::TooDeep)));
}

#[test]
fn sizes_are_refused_when_declared() {
    let exact = format!("${VALUE_BYTES_MAX}\r\n");
    assert_eq!(read(exact.as_bytes()), (vec![], None));
    let more = format!("${}\r\n", VALUE_BYTES_MAX + 1);
    assert_eq!(read(more.as_bytes()), (vec![], Some(MalformedReply::TooLarge)));

    let elements = VALUE_BYTES_MAX / size_of::<Value>();
    for (kind, count) in [('*', elements), ('~', elements), ('%', elements / 2), ('>', elements)] {
        let exact = format!("{kind}{count}\r\n");
        assert_eq!(read(exact.as_bytes()), (vec![], None), "{exact:?}");
        let more = format!("{kind}{}\r\n", count + 1);
        assert_eq!(read(more.as_bytes()), (vec![], Some(MalformedReply::TooLarge)), "{more:?}");
    }
    let together = format!("*2\r\n${VALUE_BYTES_MAX}\r\n");
    assert_eq!(read(together.as_bytes()), (vec![], Some(MalformedReply::TooLarge)));
    let attributes = format!("|1\r\n+a\r\n+b\r\n*{elements}\r\n");
    assert_eq!(read(attributes.as_bytes()), (vec![], Some(MalformedReply::TooLarge)));
    let later = format!("*1\r\n+a\r\n*{elements}\r\n");
    assert_eq!(read(later.as_bytes()).1, None);
}

/// A declared size alone takes no memory.
#[test]
fn memory_follows_the_bytes() {
    let mut reader = Reader::default();
    let elements = VALUE_BYTES_MAX / size_of::<Value>() - 1;
    reader.push(format!("*{elements}\r\n$20\r\n").as_bytes());
    assert_eq!(reader.next(), Ok(None));
    let group = &reader.open_groups[0];
    assert!(group.elements.capacity() <= ELEMENTS_AT_ONCE_MAX);
    assert_eq!(reader.blob.as_ref().unwrap().bytes.capacity(), 0);
}

#[test]
fn text_has_a_bound_of_its_own() {
    let long = |length: usize| "a".repeat(length);
    let line = |length: usize| format!("+{}\r\n", long(length)).into_bytes();
    let exact = read_pieces(line(TEXT_BYTES_MAX).chunks(1000));
    assert_eq!(exact, (vec![Value::Text(long(TEXT_BYTES_MAX))], None));
    for unfinished in [0, 2] {
        let stream = line(TEXT_BYTES_MAX + 1);
        let stream = &stream[..stream.len() - unfinished];
        assert_eq!(read_pieces([stream]), (vec![], Some(MalformedReply::TooLarge)));
        assert_eq!(read_pieces(stream.chunks(1000)), (vec![], Some(MalformedReply::TooLarge)));
    }
}

/// Quadratic cost would show: these take minutes where each piece has all before it parsed again.
#[test]
fn the_cost_of_reading_is_linear_in_the_bytes() {
    let bulk = vec![b'\r'; 5_000_000];
    let stream = [b"$5000000\r\n".as_slice(), &bulk, b"\r\n"].concat();
    assert_eq!(read_pieces(stream.chunks(16)), (vec![Value::Bytes(bulk)], None));

    let count = 300_000;
    let stream = [format!("*{count}\r\n").into_bytes(), b"$2\r\nab\r\n".repeat(count)].concat();
    let (values, malformed) = read_pieces(stream.chunks(16));
    assert_eq!(malformed, None);
    assert!(matches!(&values[..], [Value::List(elements)] if elements.len() == count));

    // All at once, and taken out one by one with a byte of the next arriving in between.
    let stream = b":1\r\n".repeat(500_000);
    let mut reader = Reader::default();
    reader.push(&stream);
    for _ in 0..500_000 {
        assert_eq!(reader.next(), Ok(Some(Value::Integer(1))));
        reader.push(b":");
        reader.push(b"1\r\n");
    }
}

/// An encoder of the tests', for all that has a form of its own.
fn encode(value: &Value, out: &mut Vec<u8>) {
    let mut group = |kind: char, count: usize, elements: &mut dyn Iterator<Item = &Value>| {
        out.extend_from_slice(format!("{kind}{count}\r\n").as_bytes());
        elements.for_each(|element| encode(element, out));
    };
    match value {
        Value::List(elements) => group('*', elements.len(), &mut elements.iter()),
        Value::Push(elements) => group('>', elements.len(), &mut elements.iter()),
        Value::Map(pairs) => {
            group('%', pairs.len(), &mut pairs.iter().flat_map(|(key, value)| [key, value]));
        }
        Value::Text(text) => {
            out.extend_from_slice(format!("={}\r\ntxt:{text}\r\n", text.len() + 4).as_bytes());
        }
        Value::Error(text) => {
            out.extend_from_slice(format!("!{}\r\n{text}\r\n", text.len()).as_bytes());
        }
        Value::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        Value::Bytes(bytes) => {
            out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Value::Null => out.extend_from_slice(b"_\r\n"),
        Value::Other => out.extend_from_slice(b"#f\r\n"),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        ".{0,6}".prop_map(Value::Text),
        ".{0,6}".prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        Just(Value::Null),
        Just(Value::Other),
    ];
    let inner = leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    });
    prop_oneof![
        inner.clone(),
        prop::collection::vec(inner, 0..4).prop_map(Value::Push), // At the top only.
    ]
}

/// Pieces of the grammar, right and wrong, so that chance gets somewhere.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    #[rustfmt::skip]
    const TOKENS: &[&[u8]] = &[
        b"+OK\r\n", b"-E\r\n", b":1\r\n", b"$2\r\nab\r\n", b"$-1\r\n", b"_\r\n", b"*2\r\n", b"*0\r\n", b"%1\r\n",
        b">1\r\n", b"|1\r\n", b"~3\r\n", b"=5\r\ntxt:a\r\n", b"!1\r\nx\r\n", b"\r", b"\n", b"\r\n", b"$", b"*", b"9",
        b"$70000000\r\n", b"*9999999\r\n", b"\xff",
    ];
    let token = prop_oneof![
        20 => prop::sample::select(TOKENS).prop_map(<[u8]>::to_vec),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn cut_up<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle().take(stream.len()) {
        let (piece, rest) = stream.split_at(stream.len().min(*size));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}

proptest! {
    #[test]
    fn values_survive_every_cut(
        values in prop::collection::vec(any_value(), 1..5),
        sizes in prop::collection::vec(0_usize..40, 1..20),
    ) {
        let mut stream = Vec::new();
        values.iter().for_each(|value| encode(value, &mut stream));
        prop_assert_eq!(&read_pieces([stream.as_slice()]), &(values.clone(), None));
        prop_assert_eq!(&read_pieces(stream.chunks(1)), &(values.clone(), None));
        prop_assert_eq!(&read_pieces(cut_up(&stream, &sizes)), &(values, None));
    }

    #[test]
    fn faults_are_the_same_in_every_cut(
        stream in any_stream(),
        sizes in prop::collection::vec(0_usize..9, 1..20),
    ) {
        let whole = read(&stream);
        prop_assert_eq!(read_pieces(cut_up(&stream, &sizes)), whole);
    }

    #[test]
    fn hostile_bytes_do_no_harm(stream: Vec<u8>) {
        read(&stream);
    }
}
