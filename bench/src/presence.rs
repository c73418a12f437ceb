//! Presence as it is on the wire: users by number, rosters, and members that are added and removed. Plain values.
//!
//! Owns no state. Does not judge: a message of another form gives an empty roster or `None`. No limits: those of the
//! message. Cost: linear in the message, which is parsed with allocations.

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(crate) type User = u64;

pub(crate) fn channel_data(user: User) -> String {
    json!({ "user_id": format!("u{user}"), "user_info": { "name": format!("user {user}") } })
        .to_string()
}

fn user_of(id: &Value) -> Option<User> {
    id.as_str()?.strip_prefix('u')?.parse().ok()
}

/// The data of a message, which is JSON in a string.
fn data_of(message: &Value) -> Value {
    let text = message["data"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// The members, by the acknowledgement of a subscription.
pub(crate) fn roster(message: &Value) -> BTreeSet<User> {
    let data = data_of(message);
    let ids = data["presence"]["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(user_of).collect()
}

/// The user of a `member_added` or `member_removed`.
pub(crate) fn member(message: &Value) -> Option<User> {
    user_of(&data_of(message)["user_id"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_from_rosters_and_member_data() {
        let data = r#"{"presence":{"ids":["u1","u22"],"hash":{},"count":2}}"#;
        assert_eq!(roster(&json!({ "data": data })), BTreeSet::from([1, 22]));
        assert_eq!(roster(&json!({ "data": "" })), BTreeSet::new());
        assert_eq!(member(&json!({ "data": channel_data(7) })), Some(7));
        assert_eq!(member(&json!({ "data": "{}" })), None);
    }
}
