//! The short texts of the protocol: channel names, socket ids, origins, strings to be written as JSON. Nothing panics,
//! and what was read is written as it came.

use ringverb::limits::CHANNEL_NAME_BYTES_MAX;
use ringverb::pusher::channel_name::{Access, NameError, classify};
use ringverb::pusher::json;
use ringverb::pusher::origin::is_allowed;
use ringverb::pusher::socket_id::SocketId;

/// The input is taken for each of them in turn; for origins, its lines are the patterns and the last is the origin.
pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    check_channel_name(&text);
    check_socket_id(data, &text);
    check_origin(&text);
    check_json(&text);
}

fn check_channel_name(name: &str) {
    match classify(name) {
        Err(NameError::Empty) => assert!(name.is_empty()),
        Err(NameError::TooLong) => assert!(name.len() > CHANNEL_NAME_BYTES_MAX),
        Ok(kind) => {
            assert_eq!(kind.access == Access::Private, name.starts_with("private-"));
            assert_eq!(kind.access == Access::Presence, name.starts_with("presence-"));
            assert_eq!(kind.access == Access::User, name.starts_with("#server-to-user-"));
            assert!(!kind.cached || name.contains("cache-"));
        }
    }
}

fn check_socket_id(data: &[u8], text: &str) {
    if let Some(id) = SocketId::parse(text) {
        // One id, one spelling.
        assert_eq!(id.to_string(), text);
    }
    if let Some((entropy, rest)) = data.split_first_chunk::<8>() {
        let cores = u16::from(rest.first().copied().unwrap_or(0) % 128) + 1;
        let core = u16::from(rest.get(1).copied().unwrap_or(0)) % cores;
        let id = SocketId::make(core, cores, u64::from_le_bytes(*entropy));
        assert_eq!(id.core(cores), core);
        assert_eq!(SocketId::parse(&id.to_string()), Some(id));
    }
}

fn check_origin(text: &str) {
    let (patterns, origin) = text.rsplit_once('\n').unwrap_or(("", text));
    let mut patterns: Vec<String> = patterns.split('\n').map(str::to_owned).collect();
    let allowed = is_allowed(&patterns, Some(origin), false);
    // Whether a missing origin is allowed says nothing about one that is there.
    assert_eq!(allowed, is_allowed(&patterns, Some(origin), true));
    if origin.contains("://") {
        assert!(is_allowed(&[origin.to_owned()], Some(origin), false), "an origin matches itself");
    }
    patterns.push("*".to_owned());
    assert!(is_allowed(&patterns, Some(origin), false));
    assert!(is_allowed(&patterns, None, false));
}

fn check_json(text: &str) {
    let mut written = Vec::new();
    json::write_string(text, &mut written);
    let read: String = serde_json::from_slice(&written).expect("what is written is JSON");
    assert_eq!(read, text);
    let span = std::str::from_utf8(&written).expect("JSON is UTF-8");
    assert_eq!(json::string(span).as_deref(), Some(text));
}
