//! Addresses and CIDR networks, as people write them in a list. PURE.
//!
//! Plain values. A dual-stack listener shows IPv4 peers as IPv4-mapped IPv6 addresses, so both sides of a comparison
//! are brought into their canonical form. An address without a prefix is a network of one address. Does not resolve
//! names.
//!
//! No limits: a value is two numbers; `validate.rs` bounds the list. Cost: a comparison is a few steps without an
//! allocation, for each accepted connection and configured proxy.

use std::net::IpAddr;

/// The addresses that share a prefix. A single address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address of the network, as a number.
    start: u128,
    mask: u128,
    is_ipv4: bool,
}

impl Network {
    /// `10.0.0.0/8`, `192.0.2.1`, `2001:db8::/32`. Bits after the prefix do not matter. An IPv4-mapped IPv6
    /// address (`::ffff:192.0.2.1`) is the IPv4 address, because a dual-stack listener shows its peers in that form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().ok()?;
        let address = given.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            // A plain number: `parse` alone would take "+8" too.
            Some(digits)
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                let length = digits.parse::<u32>().ok()?;
                if given.is_ipv6() && bits == 32 { length.checked_sub(96)? } else { length }
            }
            Some(_) => return None,
        };
        let free = bits.checked_sub(prefix)?;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Some(Self { start: number(address) & mask, mask, is_ipv4: bits == 32 })
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.is_ipv4 && number(address) & self.mask == self.start
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn networks_contain_their_own() {
        for (network, inside, outside) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::192.0.2.1"),
            ("10.9.8.7/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            assert!(contains(network, inside), "{network} has {inside}");
            assert!(!contains(network, outside), "{network} has not {outside}");
        }
    }

    #[test]
    fn a_text_that_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "proxy",
            "10.0.0.1/+8",
            "10.0.0.1:80",
            "[::1]",
            "::ffff:10.0.0.0/95",
            "1.2.3.4/8/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    proptest! {
        /// A network of any length has exactly the addresses that share its first bits.
        #[test]
        fn a_prefix_is_a_prefix(a: u32, b: u32, length in 0_u32..=32) {
            let network = format!("{}/{length}", std::net::Ipv4Addr::from_bits(a));
            let shared = length == 0 || a >> (32 - length) == b >> (32 - length);
            prop_assert_eq!(contains(&network, &std::net::Ipv4Addr::from_bits(b).to_string()), shared);
        }
    }
}
