//! Channels and their subscribers, as the admin API shows them.
//!
//! Input: the findings of each worker, which has filtered its channels already, and the rows of the other nodes. Here
//! they are merged by name, because a channel has subscribers on several cores and nodes, sorted, and cut into pages.
//! Output: JSON. Owns no state. Does not ask workers or nodes (`questions.rs`, `nodes.rs`).
//! Limits: `PAGE_ROWS_MAX` rows in an answer; each worker finds at most as many as `shard/inspect.rs` allows, and
//! another node as many as `shard/operator.rs` allows. Cost: one entry of a hash table for each row found, and a sort
//! of all channels for each page.

use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::{Value, json};

use super::Parameters;
use super::connections;
use super::nodes::{NodeAnswers, node_name};
use crate::app::Apps;
use crate::shard::{ChannelRow, Findings, NodeChannelRow};
use crate::text::shown;

const PAGE_ROWS: usize = 100;
const PAGE_ROWS_MAX: usize = 500;

/// Ties are in the order of names, so that pages do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelOrder {
    Name,
    Subscribers,
    Users,
}

/// What this node and the other nodes have of a channel. `users` is the most that any of them has: each home of a
/// presence channel knows the users of all nodes.
#[derive(Debug, Default)]
struct ChannelSums {
    subscribers: u32,
    users: u32,
    on_other_nodes: u64,
    nodes: Vec<u64>,
}

impl ChannelSums {
    fn on_all_nodes(&self) -> u64 {
        u64::from(self.subscribers) + self.on_other_nodes
    }
}

/// One page of the table. `Err`: a sentence about a parameter.
pub(super) fn page(
    parameters: &Parameters<'_>,
    found: Vec<Findings>,
    node_answers: Option<&NodeAnswers>,
) -> Result<Value, String> {
    let order = match parameters.get("sort").unwrap_or("name") {
        "name" => ChannelOrder::Name,
        "subscribers" => ChannelOrder::Subscribers,
        "users" => ChannelOrder::Users,
        other => {
            return Err(format!("sort is {}, but takes name, subscribers or users", shown(other)));
        }
    };
    let rows = parameters.number("rows", PAGE_ROWS)?.clamp(1, PAGE_ROWS_MAX);
    let mut left_out: u64 = found.iter().map(|found| found.left_out).sum();
    let mut subscribers: u64 = found.iter().map(|found| found.left_out_subscribers).sum();
    for (_, rows) in node_answers.into_iter().flat_map(NodeAnswers::rows) {
        left_out = left_out.saturating_add(rows.left_out);
        subscribers = subscribers.saturating_add(rows.left_out_subscribers);
    }
    let mut channels = sum_by_channel(found, node_answers);
    subscribers += channels.iter().map(|(_, sums)| sums.on_all_nodes()).sum::<u64>();
    channels.sort_unstable_by(|(a, of_a), (b, of_b)| {
        let by = match order {
            ChannelOrder::Name => std::cmp::Ordering::Equal,
            ChannelOrder::Subscribers => of_b.on_all_nodes().cmp(&of_a.on_all_nodes()),
            ChannelOrder::Users => of_b.users.cmp(&of_a.users),
        };
        by.then_with(|| a.cmp(b))
    });
    if parameters.get("order") == Some("reverse") {
        channels.reverse();
    }
    let pages = channels.len().div_ceil(rows).max(1);
    let page = parameters.number("page", 1)?.clamp(1, pages);
    let shown = channels.iter().skip((page - 1) * rows).take(rows);
    let shown: Vec<_> = shown
        .map(|(name, sums)| {
            let ChannelSums { subscribers, users, .. } = sums;
            let mut row = json!({ "name": &**name, "subscribers": subscribers, "users": users });
            if node_answers.is_some() {
                row["all_nodes"] = json!(sums.on_all_nodes());
                row["nodes"] = sums.nodes.iter().map(|node| node_name(*node)).collect();
            }
            row
        })
        .collect();
    // A channel that several cores leave out counts for each.
    Ok(json!({
        "total": channels.len() as u64 + left_out,
        "subscribers": subscribers,
        "left_out": left_out,
        "page": page,
        "pages": pages,
        "channels": shown,
    }))
}

/// A roster can outlive its last subscriber by a mail. Then the channel has no subscriber, and is left out.
fn sum_by_channel(
    found: Vec<Findings>,
    node_answers: Option<&NodeAnswers>,
) -> Vec<(Arc<str>, ChannelSums)> {
    let mut channels: HashMap<Arc<str>, ChannelSums, foldhash::fast::RandomState> =
        HashMap::default();
    for ChannelRow { name, subscribers, users } in found.into_iter().flat_map(|one| one.channels) {
        let sums = channels.entry(name).or_default();
        sums.subscribers = sums.subscribers.saturating_add(subscribers);
        sums.users = sums.users.max(users);
    }
    for (node, rows) in node_answers.into_iter().flat_map(NodeAnswers::rows) {
        for NodeChannelRow { name, subscribers, users } in &rows.channels {
            let sums = channels.entry(Arc::from(&**name)).or_default();
            sums.on_other_nodes += u64::from(*subscribers);
            sums.users = sums.users.max(*users);
            if *subscribers > 0 && !sums.nodes.contains(&node) {
                sums.nodes.push(node);
            }
        }
    }
    channels.into_iter().filter(|(_, sums)| sums.on_all_nodes() > 0).collect()
}

/// Members and subscribers. Lists are cut where the workers and nodes cut theirs.
pub(super) fn channel_details(
    name: &str,
    found: Vec<Findings>,
    apps: &Apps,
    node_answers: Option<&NodeAnswers>,
) -> Value {
    let rows = found.iter().flat_map(|found| &found.channels);
    let subscribers: u64 = rows.map(|row| u64::from(row.subscribers)).sum();
    let mut members: Vec<Value> = Vec::new();
    let member = |(id, info): &(Box<str>, Box<str>)| json!({ "id": id, "info": info });
    let own = found.iter().flat_map(|found| &found.members);
    members.extend(own.map(member));
    let mut left_out: u64 = found.iter().map(|found| found.left_out).sum();
    let mut left_out_members: u64 = found.iter().map(|found| found.left_out_members).sum();
    let mut elsewhere = 0_u64;
    for (_, rows) in node_answers.into_iter().flat_map(NodeAnswers::rows) {
        left_out = left_out.saturating_add(rows.left_out);
        elsewhere += rows.channels.iter().map(|row| u64::from(row.subscribers)).sum::<u64>();
        // The home of each node with the channel knows the members of all nodes.
        if rows.members.len() > members.len() {
            members = rows.members.iter().map(member).collect();
            left_out_members = rows.left_out_members;
        }
    }
    let connections = connections::rows(found, apps, node_answers);
    let connections: Vec<_> =
        connections.iter().map(|row| connections::node_row(row, node_answers)).collect();
    let mut inside = json!({
        "name": name,
        "subscribers": subscribers,
        "left_out": left_out.saturating_add(left_out_members),
        "members": members,
        "connections": connections,
    });
    if node_answers.is_some() {
        inside["all_nodes"] = json!(subscribers + elsewhere);
    }
    inside
}

/// Sets the subscribers that all nodes together have, where nodes have left rows out. `names` are those of the rows,
/// and then perhaps one more: it has a row of its own if only other nodes have subscribers of it.
pub(super) fn set_all_nodes(page: &mut Value, names: &[String], counts: &[usize]) {
    let Some(rows) = page["channels"].as_array_mut() else { return };
    for (index, (name, count)) in names.iter().zip(counts).enumerate() {
        match rows.get_mut(index) {
            Some(row) => row["all_nodes"] = json!(count),
            None if *count > 0 => {
                rows.push(
                    json!({ "name": name, "subscribers": 0, "users": 0, "all_nodes": count }),
                );
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(rows: &[(&str, u32, u32)]) -> Findings {
        let row = |(name, subscribers, users): &(&str, u32, u32)| ChannelRow {
            name: (*name).into(),
            subscribers: *subscribers,
            users: *users,
        };
        Findings { channels: rows.iter().map(row).collect(), ..Findings::default() }
    }

    fn ask(query: &str) -> Result<Value, String> {
        let cores = vec![
            core(&[("a", 2, 0), ("presence-b", 1, 0), ("presence-gone", 0, 3)]),
            core(&[("a", 5, 0), ("presence-b", 0, 4), ("c", 1, 0)]),
        ];
        page(&Parameters::of(query), cores, None)
    }

    fn names(query: &str) -> Vec<String> {
        let rows = ask(query).unwrap()["channels"].as_array().cloned().unwrap();
        rows.iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn counts_of_cores_are_added_up_and_an_empty_roster_is_no_channel() {
        let all = ask("").unwrap();
        assert_eq!((&all["total"], &all["subscribers"]), (&Value::from(3), &Value::from(9)));
        let (a, b) = (&all["channels"][0], &all["channels"][2]);
        assert_eq!((&a["subscribers"], &a["users"]), (&Value::from(7), &Value::from(0)));
        assert_eq!((&b["subscribers"], &b["users"]), (&Value::from(1), &Value::from(4)));
    }

    #[test]
    fn rows_have_the_subscribers_of_all_nodes_and_a_channel_of_other_nodes_has_a_row() {
        let mut all = ask("sort=name").unwrap();
        let names = ["a", "c", "presence-b", "elsewhere"].map(str::to_owned);
        set_all_nodes(&mut all, &names, &[9, 1, 2, 5]);
        let rows = all["channels"].as_array().unwrap();
        let numbers = |row: &Value| (row["subscribers"].clone(), row["all_nodes"].clone());
        assert_eq!(numbers(&rows[0]), (json!(7), json!(9)));
        assert_eq!(numbers(&rows[3]), (json!(0), json!(5)));
        let mut all = ask("sort=name").unwrap();
        set_all_nodes(&mut all, &names, &[9, 1, 2, 0]);
        assert_eq!(all["channels"].as_array().map(Vec::len), Some(3), "nobody is in it");
    }

    #[test]
    fn totals_have_what_cores_have_left_out() {
        let cut = Findings { left_out: 3, left_out_subscribers: 4, ..core(&[("a", 2, 0)]) };
        let all =
            page(&Parameters::of(""), vec![cut, core(&[("a", 1, 0), ("b", 1, 0)])], None).unwrap();
        for (name, expected) in [("total", 5), ("subscribers", 8), ("left_out", 3), ("pages", 1)] {
            assert_eq!(all[name], expected, "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_cut_into_pages() {
        assert_eq!(names("sort=name"), ["a", "c", "presence-b"]);
        assert_eq!(names("sort=name&order=reverse"), ["presence-b", "c", "a"]);
        assert_eq!(names("sort=users"), ["presence-b", "a", "c"]);
        assert_eq!(names("sort=subscribers&rows=2&page=1"), ["a", "c"]);
        assert_eq!(names("sort=subscribers&rows=2&page=2"), ["presence-b"]);
        assert_eq!(names("rows=2&page=99"), ["presence-b"], "the last page");
        assert!(ask("sort=size").unwrap_err().contains("\"size\""));
        assert!(ask("page=x").is_err());
    }
}
