//! Messages of clients: reading one never panics, what is accepted is an object for serde_json too, and the spans that
//! are passed on are JSON and stand in the message as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ringverb::pusher::inbound::{Inbound, WATCHLIST_MAX, parse};
use ringverb::pusher::json::{self, ObjectMembers, Validator};
use serde_json::value::RawValue;

/// The input is one message.
pub(crate) fn check(data: &[u8]) {
    let mut validator = Validator::default();
    let parsed = parse(data, &mut validator);
    // The same again: scratch space that was used changes nothing.
    assert_eq!(parsed, parse(data, &mut validator));
    let Some(members) = validator.check_object(data) else {
        assert!(parsed.is_err(), "accepted, but no object");
        return;
    };
    let text = std::str::from_utf8(data).expect("validated text is UTF-8");
    check_members(text, members);
    match parsed {
        Ok(Inbound::ClientEvent(event)) => {
            let name = json::string(event.event).expect("an event name is a string");
            assert!(name.starts_with("client-"));
            assert!(lies_in(text, event.event));
            assert_json(event.data);
            // Without data the `null` is ours.
            assert!(lies_in(text, event.data) || event.data == "null");
            if let Cow::Borrowed(channel) = event.channel {
                assert!(lies_in(text, channel));
            }
        }
        Ok(Inbound::Subscribe(subscribe)) => {
            assert!(!subscribe.channel.is_empty());
            if let Some(data) = subscribe.channel_data {
                // Where no member is needed it may be anything, and says nothing.
                let is_json = serde_json::from_str::<&RawValue>(&data.text).is_ok();
                assert!(is_json || (data.user_id.is_none() && data.user_info == "null"));
                assert_json(&data.user_info);
                if let Some(user_id) = data.user_id {
                    assert_json(&user_id.json);
                    assert!(!user_id.text.is_empty());
                }
            }
        }
        Ok(Inbound::SignIn(sign_in)) => {
            assert_json(&sign_in.user_data);
            if let Some(user) = sign_in.user {
                assert_json(&user.user_info);
                assert!(user.id.json.starts_with('"') && !user.id.text.is_empty());
                assert!(user.watchlist.len() <= WATCHLIST_MAX + 1);
                assert!(user.watchlist.iter().all(|id| !id.is_empty()));
            }
        }
        _ => {}
    }
}

/// The walk over raw spans sees what serde_json sees; of a name given twice both keep the last.
fn check_members(text: &str, members: ObjectMembers<'_>) {
    let theirs: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).expect("an accepted object is one for serde_json");
    let mut ours = BTreeMap::new();
    for (name, value) in members {
        let name = json::string(name).expect("a name is a string");
        ours.insert(name.into_owned(), value);
        if let Ok(expected) = serde_json::from_str::<String>(value) {
            assert_eq!(json::string(value).as_deref(), Some(expected.as_str()));
        }
    }
    let theirs: BTreeMap<_, _> =
        theirs.into_iter().map(|(name, value)| (name, value.get())).collect();
    assert_eq!(ours, theirs);
}

fn assert_json(span: &str) {
    let read = serde_json::from_str::<&RawValue>(span);
    assert!(read.is_ok(), "{span:?} is no JSON: {read:?}");
}

/// By address: an equal text elsewhere does not count.
fn lies_in(text: &str, span: &str) -> bool {
    let (text, span) = (text.as_bytes().as_ptr_range(), span.as_bytes().as_ptr_range());
    text.start <= span.start && span.end <= text.end
}
