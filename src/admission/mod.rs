//! Limits of each client address, and which address a client has.
//!
//! WebSockets are limited by their number and by the rate of handshakes, other connections by a number of their own.
//! API requests are limited only when they fail to authenticate: an app's backend has one address for all its requests,
//! and those are signed. Owns the tables, which all workers share by atomic operations. Knows no socket and no clock.
//!
//! Limits: those of `addresses.rs`; the options decide how much one address may have. Cost: nothing for a limit that is
//! off; otherwise one table for each call (`addresses.rs`), with no allocation. `client_address` is linear in the
//! entries of the header, and in the trusted proxies for each.

pub mod addresses;
pub mod overload;

use core::net::IpAddr;

use crate::config::Config;
use crate::config::network::Network;
use crate::proxy_header::ProxyHeaderReader;
pub use addresses::{AddressSlot, AddressSlots, ClientAddress};
use addresses::{ConnectionTable, RateTable};

/// HTTP connections that one client address may have at least: browsers open several, and each request of a backend may
/// be one.
const SOCKETS_PER_IP_MIN: u16 = 64;

/// Shared by all workers. A limit whose option is not set is `None`.
#[derive(Debug, Default)]
pub struct Admission {
    proxies: Box<[Network]>,
    /// Which versions of the header a trusted proxy may send: see `Config::proxy_protocol`.
    proxy_protocol: Option<[bool; 2]>,
    connections: Option<(u16, ConnectionTable)>,
    /// Of sockets that speak HTTP, or nothing yet. An upgrade moves the count to `connections`.
    sockets: Option<(u16, ConnectionTable)>,
    handshakes: Option<(u32, RateTable)>,
    auth_failures: Option<(u32, RateTable)>,
}

impl Admission {
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            proxies: config.trusted_proxies.as_slice().into(),
            proxy_protocol: config.proxy_protocol,
            connections: config
                .connections_per_ip_max
                .map(|most| (most, ConnectionTable::new(seed))),
            sockets: config
                .connections_per_ip_max
                .map(|most| (most.max(SOCKETS_PER_IP_MIN), ConnectionTable::new(seed))),
            handshakes: config
                .handshakes_per_ip_per_second_max
                .map(|most| (most, RateTable::new(seed))),
            auth_failures: config
                .auth_failures_per_ip_per_second_max
                .map(|most| (most, RateTable::new(seed))),
        }
    }

    /// If not, no handshake needs the client's address.
    pub fn limits_clients(&self) -> bool {
        self.connections.is_some() || self.handshakes.is_some()
    }

    /// The address by which a client is counted. Each proxy appends the address that connected to it. So the list is
    /// trustworthy from its end for as long as the entries are trusted proxies, and the first entry that is none is the
    /// client. Everything before it is what the client wrote.
    ///
    /// `forwarded_for` are the fields of the header in their order. They are read as bytes from the end, because the
    /// part that the client wrote can be anything.
    pub fn client_address<'a>(
        &self,
        peer: IpAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> IpAddr {
        let mut known = peer;
        for entry in forwarded_for.rev().flat_map(|field| field.rsplit(|byte| *byte == b',')) {
            if !self.proxies.iter().any(|proxy| proxy.contains(known)) {
                break;
            }
            // An entry that is no address, such as "unknown", hides the client of the proxy before it.
            let Some(address) = parse_address(entry.trim_ascii()) else { break };
            known = address;
        }
        known.to_canonical()
    }

    /// `Err` is the limit that is reached: the handshake is to be refused, and is not counted.
    pub fn try_count_handshake(&self, client: IpAddr, unix_seconds: u64) -> Result<(), u32> {
        match &self.handshakes {
            Some((most, table))
                if !table.try_count(ClientAddress::of(client), *most, unix_seconds) =>
            {
                Err(*most)
            }
            _ => Ok(()),
        }
    }

    pub fn limits_handshakes(&self) -> bool {
        self.handshakes.is_some()
    }

    pub fn limits_connections(&self) -> bool {
        self.connections.is_some()
    }

    pub fn counts_auth_failures(&self) -> bool {
        self.auth_failures.is_some()
    }

    /// Called before the signature is computed, so that guesses over the limit cost no hash. `Err` is the limit that is
    /// reached.
    pub fn may_authenticate(&self, client: IpAddr, unix_seconds: u64) -> Result<(), u32> {
        match &self.auth_failures {
            Some((most, table))
                if table.count_in(ClientAddress::of(client), unix_seconds) >= *most =>
            {
                Err(*most)
            }
            _ => Ok(()),
        }
    }

    /// `None`: no limit is set, so the client was not looked up.
    pub fn count_auth_failure(&self, client: Option<IpAddr>, unix_seconds: u64) {
        if let (Some((most, table)), Some(client)) = (&self.auth_failures, client) {
            // Requests of other connections may have reached the limit since this one was let through.
            let _is_within_limit = table.try_count(ClientAddress::of(client), *most, unix_seconds);
        }
    }

    /// Counts a connection. `Err` is the limit that is reached. The caller passes the returned slot to
    /// `release_connection`.
    pub fn try_count_connection(&self, client: IpAddr) -> Result<AddressSlot, u16> {
        match &self.connections {
            Some((most, table)) => table.try_count(ClientAddress::of(client), *most).ok_or(*most),
            None => Ok(AddressSlot::NONE),
        }
    }

    /// Counts a socket that speaks no WebSocket yet. `Err` is the limit that is reached. The caller passes the returned
    /// slot to `release_socket`. Sockets of a trusted proxy have no limit: they are counted for the clients that it
    /// names.
    pub fn try_count_socket(&self, client: IpAddr) -> Result<AddressSlot, u16> {
        match &self.sockets {
            Some((most, table)) if !self.is_proxy(client) => {
                table.try_count(ClientAddress::of(client.to_canonical()), *most).ok_or(*most)
            }
            _ => Ok(AddressSlot::NONE),
        }
    }

    /// Counts a socket over the limit. `makes_room`: the caller ends another socket of the address for it. If this
    /// worker has none to end, other workers may have them, so the socket is accepted up to twice the limit.
    pub fn count_replacing_socket(&self, client: IpAddr, makes_room: bool) -> Option<AddressSlot> {
        let (most, table) = self.sockets.as_ref()?;
        let most = if makes_room { u16::MAX } else { most.saturating_mul(2) };
        table.try_count(ClientAddress::of(client.to_canonical()), most)
    }

    pub fn release_socket(&self, address_slot: AddressSlot) {
        if let Some((_, table)) = &self.sockets {
            table.release(address_slot);
        }
    }

    /// Whether this socket is counted later, when its proxy has named the client.
    pub fn counts_sockets_of_proxy(&self, peer: IpAddr) -> bool {
        self.sockets.is_some() && self.is_proxy(peer)
    }

    /// The reader of the header that this peer must send first. A trusted proxy that sends none is refused: to guess
    /// would let a client behind it name any address. Any other peer may send none.
    pub fn expects_header(&self, peer: IpAddr) -> Option<ProxyHeaderReader> {
        let versions = self.proxy_protocol.filter(|_| self.is_proxy(peer))?;
        Some(ProxyHeaderReader::new(versions))
    }

    fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(peer))
    }

    /// The client of a connection, so that another process can count it.
    pub fn client_of(&self, address_slot: &AddressSlot) -> Option<ClientAddress> {
        self.connections.as_ref()?.1.client(address_slot)
    }

    /// Counts a connection that another process accepted, even over the limit of this one.
    pub fn count_transferred_connection(&self, client: ClientAddress) -> AddressSlot {
        let table = self.connections.as_ref();
        table.and_then(|(_, table)| table.try_count(client, u16::MAX)).unwrap_or(AddressSlot::NONE)
    }

    pub fn release_connection(&self, address_slot: AddressSlot) {
        if let Some((_, table)) = &self.connections {
            table.release(address_slot);
        }
    }
}

/// An address, as proxies write it: some add the port, and then IPv6 is in brackets.
fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(with_port) = text.parse::<core::net::SocketAddr>() {
        return Some(with_port.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admission(proxies: &[&str]) -> Admission {
        let proxies = proxies.iter().map(|text| Network::parse(text).unwrap()).collect();
        Admission {
            proxies,
            proxy_protocol: None,
            connections: None,
            sockets: None,
            handshakes: None,
            auth_failures: None,
        }
    }

    fn address(admission: &Admission, peer: &str, forwarded_for: &[&[u8]]) -> String {
        let peer: IpAddr = peer.parse().unwrap();
        assert_eq!(admission.client_address(peer, std::iter::empty()), peer.to_canonical());
        admission.client_address(peer, forwarded_for.iter().copied()).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let ours = admission(&["10.0.0.0/8", "2001:db8::/32"]);
        for (peer, list, client) in [
            // The header counts only if a trusted proxy sends it.
            ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            // The entry that the client wrote precedes the one that our proxy appended.
            ("10.0.0.1", "203.0.113.7, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "203.0.113.7,198.51.100.1 , 10.0.0.2,  10.9.9.9", "198.51.100.1"),
            // All entries are trusted proxies: the client is inside the network.
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "[2001:db9::1]:443", "2001:db9::1"),
            ("10.0.0.1", "[2001:db9::1]", "2001:db9::1"),
            ("10.0.0.1", "2001:db9::1, 2001:db8::1", "2001:db9::1"),
            ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
        ] {
            assert_eq!(address(&ours, peer, &[list.as_bytes()]), client, "{peer} {list:?}");
        }
        assert_eq!(address(&admission(&[]), "10.0.0.1", &[b"198.51.100.1"]), "10.0.0.1");
        // Several fields are one list. An empty field names no client.
        let fields: [&[u8]; 2] = [b"203.0.113.7", b"198.51.100.1, 10.0.0.2"];
        assert_eq!(address(&ours, "10.0.0.1", &fields), "198.51.100.1");
        assert_eq!(address(&ours, "10.0.0.1", &[b"198.51.100.1", b""]), "10.0.0.1");
    }

    proptest! {
        /// Behind one proxy, a client always has the address that the proxy appended, to the client's field or as a
        /// field of its own.
        #[test]
        fn a_client_cannot_change_or_hide_its_address(
            written in prop::collection::vec(any::<u8>(), 0..60),
            client: [u8; 4],
            joined: bool,
        ) {
            prop_assume!(client[0] != 10);
            let ours = admission(&["10.0.0.0/8"]);
            let client = IpAddr::from(client);
            let seen = client.to_string();
            let list = [&written, &b", "[..], seen.as_bytes()].concat();
            let fields: &[&[u8]] =
                if joined { &[&list] } else { &[&written, seen.as_bytes()] };
            let found = ours.client_address(IpAddr::from([10, 0, 0, 1]), fields.iter().copied());
            prop_assert_eq!(found, client);
        }
    }
}
