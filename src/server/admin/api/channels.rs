//! Channels and their subscribers, as the admin API shows them.
//!
//! Input: the findings of each worker, which has filtered its channels already. Here they are merged by name, because a
//! channel has subscribers on several cores, sorted, and cut into pages. Output: JSON. All numbers are of this node.
//! Limits: `PAGE_ROWS_MAX` rows in an answer; each worker finds at most as many as `shard/inspect.rs` allows.

use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::{Value, json};

use super::Parameters;
use super::connections::row;
use super::event::compact;
use crate::app::Apps;
use crate::shard::{ChannelRow, Findings};
use crate::text::shown;

/// Channels of a page.
const PAGE_ROWS: usize = 100;
const PAGE_ROWS_MAX: usize = 500;

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelOrder {
    Name,
    Subscribers,
    Users,
}

/// A channel on this node.
#[derive(Debug)]
struct NodeChannel {
    name: Arc<str>,
    subscribers: u32,
    users: u32,
}

/// One page of the table. `Err`: a sentence about a parameter.
pub(super) fn page(parameters: &Parameters<'_>, found: Vec<Findings>) -> Result<Value, String> {
    let order = match parameters.get("sort").unwrap_or("name") {
        "name" => ChannelOrder::Name,
        "subscribers" => ChannelOrder::Subscribers,
        "users" => ChannelOrder::Users,
        other => {
            return Err(format!("sort is {}, but takes name, subscribers or users", shown(other)));
        }
    };
    let rows = parameters.number("rows", PAGE_ROWS)?.clamp(1, PAGE_ROWS_MAX);
    let left_out: u64 = found.iter().map(|found| found.left_out).sum();
    let mut subscribers: u64 = found.iter().map(|found| found.left_out_subscribers).sum();
    let mut channels = merged(found);
    subscribers += channels.iter().map(|channel| u64::from(channel.subscribers)).sum::<u64>();
    channels.sort_unstable_by(|a, b| {
        let by = match order {
            ChannelOrder::Name => std::cmp::Ordering::Equal,
            ChannelOrder::Subscribers => b.subscribers.cmp(&a.subscribers),
            ChannelOrder::Users => b.users.cmp(&a.users),
        };
        by.then_with(|| a.name.cmp(&b.name))
    });
    if parameters.get("order") == Some("reverse") {
        channels.reverse();
    }
    let pages = channels.len().div_ceil(rows).max(1);
    let page = parameters.number("page", 1)?.clamp(1, pages);
    let shown = channels.iter().skip((page - 1) * rows).take(rows);
    let shown: Vec<_> = shown
        .map(|NodeChannel { name, subscribers, users }| {
            json!({ "name": &**name, "subscribers": subscribers, "users": users })
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

/// Adds up what the cores have. A roster can outlive its last subscriber by a mail: then the channel is not shown.
fn merged(found: Vec<Findings>) -> Vec<NodeChannel> {
    let mut channels: HashMap<Arc<str>, (u32, u32), foldhash::fast::RandomState> =
        HashMap::default();
    for ChannelRow { name, subscribers, users } in found.into_iter().flat_map(|one| one.channels) {
        let sums = channels.entry(name).or_default();
        *sums = (sums.0.saturating_add(subscribers), sums.1.max(users));
    }
    let each = channels.into_iter().filter(|(_, (subscribers, _))| *subscribers > 0);
    each.map(|(name, (subscribers, users))| NodeChannel { name, subscribers, users }).collect()
}

/// One channel: its members and subscribers. Lists are cut where the workers cut theirs.
pub(super) fn inside(name: &str, found: &[Findings], apps: &Apps) -> Value {
    let rows = || found.iter().flat_map(|found| &found.channels);
    let subscribers: u64 = rows().map(|row| u64::from(row.subscribers)).sum();
    let members = found.iter().flat_map(|found| &found.members);
    let members: Vec<_> = members.map(|(id, info)| json!({ "id": id, "info": info })).collect();
    let connections = found.iter().flat_map(|found| &found.connections);
    let connections: Vec<_> = connections.map(|found| compact(row(found, apps))).collect();
    json!({
        "name": name,
        "subscribers": subscribers,
        "left_out": found.iter().map(|found| found.left_out).sum::<u64>(),
        "members": members,
        "connections": connections,
    })
}

/// Adds to rows of this node the subscribers that all nodes together have. `names` are those of the rows, and then
/// perhaps one more: it has a row of its own if only other nodes have subscribers of it.
pub(super) fn add_all_nodes(page: &mut Value, names: &[String], counts: &[usize]) {
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
        page(&Parameters::of(query), cores)
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
        add_all_nodes(&mut all, &names, &[9, 1, 2, 5]);
        let rows = all["channels"].as_array().unwrap();
        let numbers = |row: &Value| (row["subscribers"].clone(), row["all_nodes"].clone());
        assert_eq!(numbers(&rows[0]), (json!(7), json!(9)));
        assert_eq!(numbers(&rows[3]), (json!(0), json!(5)));
        let mut all = ask("sort=name").unwrap();
        add_all_nodes(&mut all, &names, &[9, 1, 2, 0]);
        assert_eq!(all["channels"].as_array().map(Vec::len), Some(3), "nobody is in it");
    }

    #[test]
    fn totals_have_what_cores_have_left_out() {
        let cut = Findings { left_out: 3, left_out_subscribers: 4, ..core(&[("a", 2, 0)]) };
        let all = page(&Parameters::of(""), vec![cut, core(&[("a", 1, 0), ("b", 1, 0)])]).unwrap();
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
