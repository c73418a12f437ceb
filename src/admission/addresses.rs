//! Counts of each client address, shared by all workers: open connections, and events of the current second.
//!
//! Owns the counts only; `admission/mod.rs` decides what follows from them. Knows no clock. The tables are changed at
//! an accept, a handshake, the end of a connection and, if failed authentications are limited, an API request; never
//! for a frame. There are no locks: an entry is one or two atomic words. If a bucket is full, the client is admitted
//! without being counted: a limit for each address is no defense against so many addresses, and to refuse others would
//! help the attacker. Which clients share a bucket is secret, because it follows from a seed that is generated at the
//! start.
//!
//! Limits: `BUCKETS` buckets in a table, made at the start if its option is set: 4.2 MB for connections, 6.3 MB for a
//! rate. One word in `AddressSlots` for each slot of a connection. Cost: a call reads one or two cache lines; 16 atomic
//! loads and one exchange count a connection, at most 16 atomic steps an event.

use core::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::app::PerSecond;
use crate::slot::Slot;

/// A client's address as a number: IPv4 as it is, IPv6 by its first 64 bits, because providers assign a /64 to one
/// customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClientAddress(u64);

impl ClientAddress {
    /// No client has an address in 0000::/8, so IPv4 addresses are mapped into it, and 0 means an empty entry.
    pub fn of(address: IpAddr) -> Self {
        const IPV4: u64 = 1 << 48;
        /// ::/64 with `::1` in it has the number 0, which means an empty entry, so it gets another one.
        const NEAR: u64 = 2 << 48;
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4 | u64::from(address.to_bits())),
            IpAddr::V6(address) => match u64::try_from(address.to_bits() >> 64) {
                Ok(0) | Err(_) => Self(NEAR),
                Ok(network) => Self(network),
            },
        }
    }
}

const BUCKET_BITS: u32 = 16;
const BUCKETS: usize = 1 << BUCKET_BITS;

/// The bucket of a client and its tag there, which is the rest of its number. The mapping is one-to-one, so two clients
/// never share an entry.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are the bucket")]
fn locate(client: ClientAddress, seed: u64) -> (usize, u64) {
    let mut mixed = (client.0 ^ seed).wrapping_mul(seed | 1);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    (mixed as usize % BUCKETS, mixed >> BUCKET_BITS)
}

/// Finds the client of an entry again, for a take-over: another process has another seed.
fn client_at(bucket: usize, tag: u64, seed: u64) -> ClientAddress {
    let mut mixed = tag << BUCKET_BITS | bucket as u64;
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(inverse(0x9e37_79b9_7f4a_7c15));
    mixed ^= mixed >> 32;
    ClientAddress(mixed.wrapping_mul(inverse(seed | 1)) ^ seed)
}

/// The inverse of an odd number modulo 2^64. An odd number is its own inverse in the lowest three bits, and each step
/// of Newton's method doubles the number of right bits.
fn inverse(odd: u64) -> u64 {
    (0..5).fold(odd, |found, _| found.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(found))))
}

/// Open connections by client. An entry stays while its client has one.
#[derive(Debug)]
pub struct ConnectionTable {
    seed: u64,
    /// 48 bits of tag and 16 bits of count; 0 is free. An entry changes its tag only while it is free.
    entries: Box<[AtomicU64]>,
}

/// The entry in which a connection is counted. Its owner passes it to `ConnectionTable::release` exactly once.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct AddressSlot(u32);

impl AddressSlot {
    /// Not in the table: the option is off, or the bucket was full.
    pub const NONE: Self = Self(u32::MAX);
}

const COUNT_BITS: u32 = 16;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const CONNECTION_WAYS: usize = 8;

impl ConnectionTable {
    pub fn new(seed: u64) -> Self {
        let entries = (0..BUCKETS * CONNECTION_WAYS).map(|_| AtomicU64::new(0)).collect();
        Self { seed, entries }
    }

    /// Counts one more connection of the client, unless it has `most` already.
    ///
    /// The limit is never exceeded. Two workers that see a client for the first time at the same time can put it into a
    /// bucket twice. So each counts itself first and then looks at the sum: if the sum is too large, the last one sees
    /// all others and leaves. Two workers that race for the last connection of such a client may both be refused.
    pub fn try_count(&self, client: ClientAddress, most: u16) -> Option<AddressSlot> {
        let (bucket, tag) = locate(client, self.seed);
        let first = bucket * CONNECTION_WAYS;
        let bucket = &self.entries[first..first + CONNECTION_WAYS];
        let most = u64::from(most);
        loop {
            let words: [u64; CONNECTION_WAYS] =
                std::array::from_fn(|index| bucket[index].load(Ordering::SeqCst));
            if sum_of_counts(words, tag) >= most {
                return None;
            }
            let its_own = words.iter().position(|word| *word != 0 && word >> COUNT_BITS == tag);
            let Some(index) = its_own.or_else(|| words.iter().position(|word| *word == 0)) else {
                return Some(AddressSlot::NONE);
            };
            let before = words[index];
            let after = if before == 0 { tag << COUNT_BITS | 1 } else { before + 1 };
            let exchanged =
                bucket[index].compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst);
            if exchanged.is_err() {
                continue;
            }
            let address_slot = AddressSlot(u32::try_from(first + index).unwrap_or(u32::MAX));
            let words = std::array::from_fn(|index| bucket[index].load(Ordering::SeqCst));
            if sum_of_counts(words, tag) > most {
                self.release(address_slot);
                return None;
            }
            return Some(address_slot);
        }
    }

    /// `None` for `AddressSlot::NONE`. The entry cannot be another client's, because the slot keeps it in use.
    pub fn client(&self, address_slot: &AddressSlot) -> Option<ClientAddress> {
        let index = address_slot.0 as usize;
        let word = self.entries.get(index)?.load(Ordering::SeqCst);
        Some(client_at(index / CONNECTION_WAYS, word >> COUNT_BITS, self.seed))
    }

    /// Frees the entry with the last connection. Takes the slot by value, because it may be released once only.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is released once")]
    pub fn release(&self, address_slot: AddressSlot) {
        if address_slot == AddressSlot::NONE {
            return;
        }
        let less = |word: u64| match word & COUNT_MASK {
            0 => None,
            1 => Some(0),
            _ => Some(word - 1),
        };
        let Some(entry) = self.entries.get(address_slot.0 as usize) else { return };
        let left = entry.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        debug_assert!(left.is_ok(), "a connection left its address's count twice");
    }
}

fn sum_of_counts(words: [u64; CONNECTION_WAYS], tag: u64) -> u64 {
    let its = words.into_iter().filter(|word| *word != 0 && word >> COUNT_BITS == tag);
    its.map(|word| word & COUNT_MASK).sum()
}

/// The address slots of one worker's connections, by connection slot. Without the option the list stays empty: an idle
/// connection costs 4 bytes here or none.
#[derive(Debug, Default)]
pub struct AddressSlots(Vec<u32>);

impl AddressSlots {
    #[expect(clippy::needless_pass_by_value, reason = "from here on the table has it")]
    pub fn insert(&mut self, slot: Slot, address_slot: AddressSlot) {
        if address_slot == AddressSlot::NONE {
            return;
        }
        let slot = slot.index();
        if self.0.len() <= slot {
            self.0.resize(slot + 1, AddressSlot::NONE.0);
        }
        debug_assert_eq!(
            self.0[slot],
            AddressSlot::NONE.0,
            "a slot is freed before it is used again"
        );
        self.0[slot] = address_slot.0;
    }

    pub fn get(&self, slot: Slot) -> AddressSlot {
        AddressSlot(self.0.get(slot.index()).copied().unwrap_or(AddressSlot::NONE.0))
    }

    pub fn remove(&mut self, slot: Slot) -> AddressSlot {
        self.0.get_mut(slot.index()).map_or(AddressSlot::NONE, |address_slot| {
            AddressSlot(std::mem::replace(address_slot, AddressSlot::NONE.0))
        })
    }
}

/// Events by client in the current second: handshakes, or failed authentications.
///
/// A second is a whole second of the clock, so a client can begin twice as many around its end. While a worker counts a
/// client in an entry whose second is over, another worker may give the entry to another client, which is then counted
/// one handshake too many. A rate limit need not be exact, and a refused client can try again in the next second.
#[derive(Debug)]
pub struct RateTable {
    seed: u64,
    entries: Box<[RateEntry]>,
}

#[derive(Debug, Default)]
struct RateEntry {
    /// 0 until a client gets the entry.
    client: AtomicU64,
    /// The second of the client's last event. Entries of an earlier second are free.
    second: AtomicU32,
    events: PerSecond,
}

const RATE_WAYS: usize = 4;

impl RateTable {
    pub fn new(seed: u64) -> Self {
        let entries = (0..BUCKETS * RATE_WAYS).map(|_| RateEntry::default()).collect();
        Self { seed, entries }
    }

    /// Counts one more event, unless the client had `most` in this second.
    pub fn try_count(&self, client: ClientAddress, most: u32, unix_seconds: u64) -> bool {
        let (bucket, _) = locate(client, self.seed);
        let bucket = &self.entries[bucket * RATE_WAYS..(bucket + 1) * RATE_WAYS];
        let second = u32::try_from(unix_seconds & u64::from(u32::MAX)).unwrap_or_default();
        let its_own = |entry: &&RateEntry| entry.client.load(Ordering::Acquire) == client.0;
        if let Some(entry) = bucket.iter().find(its_own) {
            return entry.try_count(most, second, unix_seconds);
        }
        for entry in bucket {
            let before = entry.client.load(Ordering::Acquire);
            if before != 0 && entry.second.load(Ordering::Acquire) == second {
                continue;
            }
            let exchanged = entry.client.compare_exchange(
                before,
                client.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            // Another worker may have seen the same client first.
            if exchanged.is_ok() || exchanged == Err(client.0) {
                return entry.try_count(most, second, unix_seconds);
            }
        }
        true
    }
}

impl RateTable {
    /// 0 for a client without an entry: it had no event, or its bucket was full.
    pub fn count_in(&self, client: ClientAddress, unix_seconds: u64) -> u32 {
        let (bucket, _) = locate(client, self.seed);
        let bucket = &self.entries[bucket * RATE_WAYS..(bucket + 1) * RATE_WAYS];
        let its_own = |entry: &&RateEntry| entry.client.load(Ordering::Acquire) == client.0;
        bucket.iter().find(its_own).map_or(0, |entry| entry.events.count_in(unix_seconds))
    }
}

impl RateEntry {
    fn try_count(&self, most: u32, second: u32, unix_seconds: u64) -> bool {
        self.second.store(second, Ordering::Release);
        self.events.try_reserve(1, most, unix_seconds).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn client(text: &str) -> ClientAddress {
        ClientAddress::of(text.parse().unwrap())
    }

    fn of_number(number: u32) -> ClientAddress {
        ClientAddress::of(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn an_ipv4_client_is_its_address_and_an_ipv6_client_its_network() {
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_ne!(client("::1"), client("0.0.0.1"));
        assert_ne!(client("::1").0, 0);
        assert_ne!(client("0.0.0.0").0, 0);
    }

    proptest! {
        /// Two clients never share bucket and tag, so no client is limited for another one.
        #[test]
        fn clients_and_table_positions_are_one_to_one(a: u64, b: u64, seed: u64) {
            prop_assert_eq!(locate(ClientAddress(a), seed) == locate(ClientAddress(b), seed), a == b);
        }

        #[test]
        fn a_network_of_64_bits_is_one_client(network: u64, a: u64, b: u64) {
            let address = |host: u64| {
                ClientAddress::of(Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(host)).into())
            };
            // An IPv4 address that is mapped into IPv6 counts as the IPv4 address.
            prop_assume!(network != 0);
            prop_assert_eq!(address(a), address(b));
        }

        /// The table against a map, with few clients in few buckets: every answer is the map's.
        #[test]
        fn the_connection_table_answers_like_a_map(
            steps in prop::collection::vec((0_u32..40, any::<bool>(), any::<prop::sample::Index>()), 1..400),
            most in 1_u16..6,
            seed: u64,
        ) {
            let table = ConnectionTable::new(seed);
            let mut counts: HashMap<u32, u16> = HashMap::new();
            let mut open: Vec<(u32, AddressSlot)> = Vec::new();
            for (number, enters, which) in steps {
                if enters {
                    let count = counts.entry(number).or_default();
                    let entered = table.try_count(of_number(number), most);
                    prop_assert_eq!(entered.is_some(), *count < most);
                    if let Some(address_slot) = entered {
                        prop_assert!(address_slot != AddressSlot::NONE, "40 clients do not fill a bucket");
                        *count += 1;
                        open.push((number, address_slot));
                    }
                } else if !open.is_empty() {
                    let (number, address_slot) = open.swap_remove(which.index(open.len()));
                    *counts.entry(number).or_default() -= 1;
                    table.release(address_slot);
                }
            }
            open.into_iter().for_each(|(_, address_slot)| table.release(address_slot));
            prop_assert!(table.entries.iter().all(|entry| entry.load(Ordering::SeqCst) == 0));
        }
    }

    /// Clients of the same bucket as the first one.
    fn crowd(seed: u64, count: usize) -> Vec<ClientAddress> {
        let (bucket, _) = locate(of_number(0), seed);
        let same = |client: &ClientAddress| locate(*client, seed).0 == bucket;
        (0..).map(of_number).filter(same).take(count).collect()
    }

    #[test]
    fn a_client_of_a_full_bucket_is_accepted_uncounted_until_there_is_room() {
        let table = ConnectionTable::new(7);
        let clients = crowd(7, CONNECTION_WAYS + 1);
        let mut address_slots: Vec<AddressSlot> = clients[..CONNECTION_WAYS]
            .iter()
            .map(|client| table.try_count(*client, 1).unwrap())
            .collect();
        assert!(!address_slots.contains(&AddressSlot::NONE));
        let last = clients[CONNECTION_WAYS];
        assert_eq!(table.try_count(last, 1), Some(AddressSlot::NONE), "uncounted");
        assert_eq!(table.try_count(last, 1), Some(AddressSlot::NONE), "so not limited");
        assert_eq!(table.try_count(clients[0], 1), None, "who is in is limited");
        table.release(AddressSlot::NONE);
        table.release(address_slots.pop().unwrap());
        assert!(
            table.try_count(last, 1).is_some_and(|address_slot| address_slot != AddressSlot::NONE)
        );
        assert_eq!(table.try_count(last, 1), None);
    }

    /// Threads that enter and leave for a few clients in one bucket: the limit is never exceeded, and at the end all
    /// entries are free.
    #[test]
    fn concurrent_threads_never_exceed_the_limit_of_a_client() {
        const MOST: u16 = 3;
        let table = ConnectionTable::new(11);
        let clients = crowd(11, 3);
        let inside: Vec<AtomicU32> = clients.iter().map(|_| AtomicU32::new(0)).collect();
        let refused = AtomicU32::new(0);
        let turn = |number: usize| {
            let index = number % clients.len();
            match table.try_count(clients[index], MOST) {
                None => drop(refused.fetch_add(1, Ordering::SeqCst)),
                Some(address_slot) => {
                    let others = inside[index].fetch_add(1, Ordering::SeqCst);
                    assert!(others < MOST.into(), "{others} others are in");
                    if number.is_multiple_of(4) {
                        std::thread::yield_now();
                    }
                    inside[index].fetch_sub(1, Ordering::SeqCst);
                    table.release(address_slot);
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || (0..20_000).for_each(|number| turn(number + thread)));
            }
        });
        assert!(table.entries.iter().all(|entry| entry.load(Ordering::SeqCst) == 0));
        for client in clients {
            assert!(
                (0..MOST).all(|_| table.try_count(client, MOST).is_some()),
                "all places are free"
            );
            assert_eq!(table.try_count(client, MOST), None);
        }
    }

    #[test]
    fn an_address_slot_that_is_released_twice_is_a_fault() {
        let table = ConnectionTable::new(3);
        let address_slot = table.try_count(of_number(1), 9).unwrap();
        let again = AddressSlot(address_slot.0);
        table.release(address_slot);
        let result = std::panic::catch_unwind(|| table.release(again));
        assert!(result.is_err());
    }

    #[test]
    fn a_second_has_so_many_handshakes() {
        let table = RateTable::new(5);
        let crowd = crowd(5, RATE_WAYS + 1);
        for second in [100, 101, 1 << 31] {
            for client in &crowd[..RATE_WAYS] {
                let taken = (0..5).filter(|_| table.try_count(*client, 3, second)).count();
                assert_eq!(taken, 3, "each has its own");
            }
            let last = crowd[RATE_WAYS];
            assert!((0..5).all(|_| table.try_count(last, 3, second)), "a full bucket lets pass");
        }
        let later = crowd[RATE_WAYS];
        let taken = (0..5).filter(|_| table.try_count(later, 3, 200)).count();
        assert_eq!(taken, 3, "what is over makes room");
        assert_eq!(table.count_in(later, 200), 3);
        assert_eq!(table.count_in(later, 201), 0, "the second is over");
        assert_eq!(table.count_in(of_number(u32::MAX), 200), 0, "never seen");
    }

    #[test]
    fn address_slots_are_kept_by_connection_slot() {
        let mut address_slots = AddressSlots::default();
        assert_eq!(address_slots.remove(Slot::new(9)), AddressSlot::NONE);
        address_slots.insert(Slot::new(4), AddressSlot::NONE);
        assert!(address_slots.0.is_empty(), "nothing is kept while the option is off");
        address_slots.insert(Slot::new(4), AddressSlot(17));
        assert_eq!(address_slots.remove(Slot::new(3)), AddressSlot::NONE);
        assert_eq!(address_slots.remove(Slot::new(4)), AddressSlot(17));
        assert_eq!(address_slots.remove(Slot::new(4)), AddressSlot::NONE);
    }
}
