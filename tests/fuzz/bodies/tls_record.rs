//! The record layer of TLS against that of rustls: the same records, whole and in pieces, have the same content, and
//! the first record that rustls does not accept ends the connection. What this server sends, rustls opens.

use ringverb::tls::socket::{ChannelEnd, SecureSocket, SecureState};
use ringverb::tls::{RECORD_BYTES_MAX, TlsChannel};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::{ContentType, ProtocolVersion};

/// A key of the tests, for both directions.
const KEY: [u8; 32] = [0x5a; 32];
const IV: [u8; 12] = [0xa5; 12];
const VERSION: ProtocolVersion = ProtocolVersion::TLSv1_2;

/// A server after its handshake, as another process would have exported it (`RecordLayer::export`): suite, records in
/// a row, bytes of a key update, four flags, and two directions of sequence number, secret, key and IV.
fn server(suite: u8) -> Box<SecureSocket<TlsChannel>> {
    let mut channel = vec![suite, 0, 0, 1, 0, 0, 0];
    for _ in 0..2 {
        channel.extend([0; 8 + 48]);
        channel.extend(KEY);
        channel.extend(IV);
    }
    let bytes = postcard::to_allocvec(&(channel, Vec::<u8>::new(), Vec::<u8>::new(), false));
    let state: SecureState = postcard::from_bytes(&bytes.expect("bytes")).expect("a state");
    SecureSocket::import(Box::new(state)).expect("this version's state")
}

/// rustls' record layers: one that opens and one that seals.
fn rustls_layers(suite: u8) -> (Box<dyn MessageDecrypter>, Box<dyn MessageEncrypter>) {
    let found = match suite {
        1 => TLS13_AES_256_GCM_SHA384,
        _ => TLS13_CHACHA20_POLY1305_SHA256,
    };
    let algorithm = found.tls13().expect("a suite of TLS 1.3").aead_alg;
    let key = || AeadKey::from(KEY);
    (algorithm.decrypter(key(), Iv::new(IV)), algorithm.encrypter(key(), Iv::new(IV)))
}

/// One record: how it is made, and its content.
struct Step<'a> {
    kind: u8,
    content: &'a [u8],
    /// Where a bit of the record is changed.
    change: Option<u8>,
}

/// A step has three bytes before its content: kind, length, and where the record is changed, if that is below 64.
fn steps(mut script: &[u8]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    while let [kind, length, change, rest @ ..] = script {
        let length = usize::from(*length).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let kind = [23, 23, 23, 21, 22, 20, 0, 24][usize::from(*kind % 8)];
        steps.push(Step { kind, content, change: Some(*change).filter(|change| *change < 64) });
        script = rest;
    }
    steps
}

/// The first byte chooses the suite and the length of a piece.
pub(crate) fn check(data: &[u8]) {
    let Some((&first, script)) = data.split_first() else { return };
    let suite = 1 + first % 2;
    let (mut decrypter, mut encrypter) = rustls_layers(suite);
    let mut stream = Vec::new();
    let (mut expected, mut ends) = (Vec::new(), false);
    for (sequence, step) in (0..).zip(steps(script)) {
        let payload = [step.content];
        let message = OutboundPlainMessage {
            typ: ContentType::from(step.kind),
            version: VERSION,
            payload: OutboundChunks::new(&payload),
        };
        let mut record = encrypter.encrypt(message, sequence).expect("a record").encode();
        if let Some(change) = step.change {
            let at = 5 + usize::from(change) % (record.len() - 5);
            record[at] ^= 1;
        }
        stream.extend_from_slice(&record);
        if ends {
            continue;
        }
        let opaque =
            InboundOpaqueMessage::new(ContentType::ApplicationData, VERSION, &mut record[5..]);
        match decrypter.decrypt(opaque, sequence) {
            Ok(opened) if opened.typ == ContentType::ApplicationData => {
                expected.extend_from_slice(opened.payload);
            }
            // Every other kind is for this layer: it may go on or end. With kind 0 the content has the kind at its end.
            Ok(opened) => {
                assert!(step.change.is_none(), "it is authentic");
                ends = goes_no_further(u8::from(opened.typ), opened.payload);
                if !ends {
                    break;
                }
            }
            Err(_) => ends = true,
        }
    }
    let pieces = usize::from(first / 2).max(1);
    for piece in [stream.len().max(1), pieces] {
        let mut server = server(suite);
        let (content, end) = receive(&mut server, &stream, piece);
        let common = expected.len().min(content.len());
        assert_eq!(content[..common], expected[..common], "in pieces of {piece}");
        if ends {
            assert_eq!(content, expected, "in pieces of {piece}");
            assert!(end.is_some(), "rustls ends here");
        }
    }
    answers(suite, &expected);
}

/// Records that end every connection. Others may be parts of a key update, or empty.
fn goes_no_further(kind: u8, content: &[u8]) -> bool {
    match kind {
        21 => content.len() != 2 || content[1] != 90,
        22 => content.is_empty() || content[0] != 24,
        _ => true,
    }
}

fn receive(
    server: &mut SecureSocket<TlsChannel>,
    stream: &[u8],
    piece: usize,
) -> (Vec<u8>, Option<ChannelEnd>) {
    let mut content = Vec::new();
    for bytes in stream.chunks(piece) {
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        buffer.extend_from_slice(bytes);
        let received = buffer.len();
        let input = server.receive(&mut buffer, RECORD_BYTES_MAX, received);
        content.extend_from_slice(&buffer[input.plain]);
        assert!(server.heap_bytes() < 3 * RECORD_BYTES_MAX);
        if input.end.is_some() {
            return (content, input.end);
        }
    }
    (content, None)
}

/// rustls opens what this server seals.
fn answers(suite: u8, content: &[u8]) {
    let (mut decrypter, _) = rustls_layers(suite);
    let mut server = server(suite);
    let mut opened = Vec::new();
    for (sequence, part) in (0..).zip(content.chunks(100)) {
        let mut record = Vec::new();
        let sealed = server.write(&mut record, |out, _| out.extend_from_slice(part));
        assert_eq!(sealed, part.len());
        let opaque =
            InboundOpaqueMessage::new(ContentType::ApplicationData, VERSION, &mut record[5..]);
        let plain = decrypter.decrypt(opaque, sequence).expect("rustls opens it");
        opened.extend_from_slice(plain.payload);
    }
    assert_eq!(opened, content);
}
