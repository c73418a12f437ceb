//! Clients of established connections, as a header of the PROXY protocol has named them, for log lines and the console.
//! PURE.
//!
//! Owns a side table by slot, so that a connection without such a header pays nothing: it has entries up to the highest
//! slot with one only, of 20 bytes each. Other connections have the address of their socket, which is not kept here.
//! Does not read headers.
//!
//! Limit: one entry for each slot, as in `tick/reactor.rs`. Cost: an index for a look-up, no allocation unless the
//! table grows.

use crate::slot::Slot;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Addresses by slot, with IPv4 mapped into IPv6, and ports: 20 bytes an entry, where `Option<SocketAddr>` has 32.
#[derive(Default)]
pub(in crate::tick) struct NamedClients(Vec<Option<(Ipv6Addr, u16)>>);

impl NamedClients {
    pub(in crate::tick) fn get(&self, slot: Slot) -> Option<SocketAddr> {
        let (address, port) = self.0.get(slot.index()).copied()??;
        Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), port))
    }

    /// Sets or removes the client of a connection.
    pub(in crate::tick) fn set(&mut self, slot: Slot, client: Option<SocketAddr>) {
        let slot = slot.index();
        if client.is_some() && self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        let address = |client: SocketAddr| match client.ip() {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), client.port()),
            IpAddr::V6(address) => (address, client.port()),
        };
        if let Some(entry) = self.0.get_mut(slot) {
            *entry = client.map(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_its_client_until_another_connection_has_the_slot() {
        let mut clients = NamedClients::default();
        let addresses = ["198.51.100.1:5123", "[2001:db8::7]:80"].map(|text| text.parse().unwrap());
        for client in addresses {
            clients.set(Slot::new(3), Some(client));
            assert_eq!(
                (clients.get(Slot::new(3)), clients.get(Slot::new(2))),
                (Some(client), None)
            );
        }
        clients.set(Slot::new(9), None);
        assert_eq!(clients.0.len(), 4);
        clients.set(Slot::new(3), None);
        assert_eq!((clients.get(Slot::new(3)), clients.get(Slot::new(9))), (None, None));
    }
}
