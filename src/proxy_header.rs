//! The header of the PROXY protocol, versions 1 and 2: a load balancer that passes TCP names its client in it. PURE.
//!
//! Owns the bytes of a header that is not complete. Input: the first bytes of a connection, in any cut. Output: the
//! client's address, or that the load balancer speaks for itself (`LOCAL`, `UNKNOWN`, and families that are not TCP),
//! and how many bytes the header used. Does not decide who must send a header: `admission` does.
//!
//! Limits: 107 bytes of version 1; of version 2 the addresses are kept, and the fields after them (TLV) are skipped
//! without being kept. Cost: one step for each byte, no allocation.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, with its CRLF (section 2.1 of the specification).
const V1_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
/// The first bytes of a header of version 2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses: signature, version with command, family, and the length of what follows.
const V2_FIXED_BYTES: usize = 16;
/// Bytes of the addresses in version 2: two addresses and two ports.
const IPV4_BYTES: usize = 12;
const IPV6_BYTES: usize = 36;

/// Headers of a peer that speaks for itself, in version 1 and in version 2. The commands of this program send them.
pub const OWN_HEADERS: [&[u8]; 2] = [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The connection does not begin with a header of any version.
    Missing,
    /// It is a header of the version that the configuration does not accept.
    Version,
    Malformed,
}

impl HeaderFault {
    /// Completes a sentence about the peer.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "sent none: switch it on there (HAProxy: send-proxy or send-proxy-v2)",
            Self::Version => {
                "sent one of the other version: use this version there, or set the option to on"
            }
            Self::Malformed => "sent one that breaks the rules of the PROXY protocol",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// `None` if the load balancer speaks for itself, such as for a health check.
    pub client: Option<SocketAddr>,
    /// Bytes of the last input that belong to the header. What follows them is the client's.
    pub used: usize,
}

#[derive(Clone, Debug)]
pub struct ProxyHeaderReader {
    accepted_versions: [bool; 2],
    kept_bytes: [u8; V1_BYTES_MAX],
    length: usize,
    /// Bytes of a header of version 2 that are still to be skipped, the fields after the addresses.
    bytes_to_skip: usize,
    client: Option<SocketAddr>,
}

impl ProxyHeaderReader {
    /// `accepted_versions`: whether version 1, and whether version 2.
    #[must_use]
    pub fn new(accepted_versions: [bool; 2]) -> Self {
        Self {
            accepted_versions,
            kept_bytes: [0; V1_BYTES_MAX],
            length: 0,
            bytes_to_skip: 0,
            client: None,
        }
    }

    /// Reads the next bytes. `None`: more are needed, and all of these were used.
    ///
    /// # Errors
    /// When the bytes are no header that is accepted. The reader is of no use afterwards.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<ProxyHeader>, HeaderFault> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            if self.bytes_to_skip > 0 {
                let skipped = self.bytes_to_skip.min(input.len() - used);
                self.bytes_to_skip -= skipped;
                used += skipped;
            } else {
                used += 1;
                if !self.push(byte)? {
                    continue;
                }
            }
            if self.bytes_to_skip == 0 {
                return Ok(Some(ProxyHeader { client: self.client, used }));
            }
        }
        Ok(None)
    }

    /// Adds a byte. Returns whether all bytes that are kept have arrived.
    fn push(&mut self, byte: u8) -> Result<bool, HeaderFault> {
        let at = self.length;
        let Some(slot) = self.kept_bytes.get_mut(at) else { return Err(HeaderFault::Malformed) };
        *slot = byte;
        self.length += 1;
        let is_binary = self.kept_bytes.first() == V2_SIGNATURE.first();
        let start = if is_binary { V2_SIGNATURE } else { V1_START };
        if start.get(at).is_some_and(|expected| *expected != byte) {
            return Err(HeaderFault::Missing);
        }
        if at + 1 < start.len() {
            return Ok(false);
        }
        let [line, binary] = self.accepted_versions;
        if !(if is_binary { binary } else { line }) {
            return Err(HeaderFault::Version);
        }
        if is_binary {
            return self.check_complete_v2();
        }
        if byte != b'\n' {
            return Ok(false);
        }
        let line = self.kept_bytes.get(..self.length).and_then(|line| line.strip_suffix(b"\r\n"));
        self.client = line.and_then(line_client).ok_or(HeaderFault::Malformed)?;
        Ok(true)
    }

    /// Whether the kept part of a header of version 2 is complete. If it is, sets the client, and how many bytes are to
    /// be skipped after it.
    fn check_complete_v2(&mut self) -> Result<bool, HeaderFault> {
        let kept = self.kept_bytes.get(..self.length).unwrap_or_default();
        let Some(&[version, family, high, low]) =
            kept.get(V2_SIGNATURE.len()..V2_FIXED_BYTES).and_then(<[u8]>::as_array)
        else {
            return Ok(false);
        };
        let rest = usize::from(u16::from_be_bytes([high, low]));
        let address_bytes = match (version, family) {
            // LOCAL: family and addresses are to be ignored.
            (0x20, _) => 0,
            (0x21, 0x11) => IPV4_BYTES,
            (0x21, 0x21) => IPV6_BYTES,
            // Not specified, UDP, and Unix sockets.
            (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => 0,
            _ => return Err(HeaderFault::Malformed),
        };
        if rest < address_bytes {
            return Err(HeaderFault::Malformed);
        }
        let addresses = kept.get(V2_FIXED_BYTES..).unwrap_or_default();
        if addresses.len() < address_bytes {
            return Ok(false);
        }
        self.client = (address_bytes > 0).then(|| binary_client(addresses)).flatten();
        self.bytes_to_skip = rest - address_bytes;
        Ok(true)
    }
}

/// The client of a line of version 1 without its CRLF. `None` if the line breaks a rule.
#[expect(
    clippy::option_option,
    reason = "the outer one is a fault, the inner one a peer that speaks for itself"
)]
fn line_client(line: &[u8]) -> Option<Option<SocketAddr>> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = text.split(' ');
    let mut next = || words.next();
    let is_ipv4 = match next()? {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let [source, destination]: [IpAddr; 2] = [next()?.parse().ok()?, next()?.parse().ok()?];
    let [source_port, _] = [parse_port(next()?)?, parse_port(next()?)?];
    let is_consistent = source.is_ipv4() == is_ipv4 && destination.is_ipv4() == is_ipv4;
    (is_consistent && next().is_none()).then(|| Some(SocketAddr::new(source, source_port)))
}

/// A port as the specification writes it: no sign, and no zeros before it.
fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = text.len() > 1 && text.starts_with('0');
    (is_plain && !has_zeros).then(|| text.parse().ok())?
}

/// The source address of version 2. `addresses` has the length of its family.
fn binary_client(addresses: &[u8]) -> Option<SocketAddr> {
    let (address, ports): (IpAddr, &[u8]) = if addresses.len() == IPV4_BYTES {
        (Ipv4Addr::from(*addresses.first_chunk::<4>()?).into(), addresses.get(8..)?)
    } else {
        (Ipv6Addr::from(*addresses.first_chunk::<16>()?).into(), addresses.get(32..)?)
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(*ports.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [bool; 2] = [true, true];
    type Outcome = Result<(Option<SocketAddr>, usize), HeaderFault>;

    /// Reads in pieces; the bytes that were used, all in all. Panics if the header is incomplete.
    fn read_in(accepts: [bool; 2], bytes: &[u8], size: usize) -> Option<Outcome> {
        let mut reader = ProxyHeaderReader::new(accepts);
        for (number, piece) in bytes.chunks(size).enumerate() {
            match reader.read(piece) {
                Ok(None) => {}
                Ok(Some(ProxyHeader { client, used })) => {
                    return Some(Ok((client, number * size + used)));
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
        None
    }

    fn read(bytes: &[u8]) -> Option<Outcome> {
        let whole = read_in(BOTH, bytes, bytes.len().max(1));
        for size in 1..bytes.len() {
            assert_eq!(read_in(BOTH, bytes, size), whole, "{size}: {}", bytes.escape_ascii());
        }
        whole
    }

    fn binary(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version, family], &length, rest].concat()
    }

    fn addresses(client: SocketAddr) -> Vec<u8> {
        let port = client.port().to_be_bytes();
        match client.ip() {
            IpAddr::V4(ip) => [&ip.octets()[..], &[10, 0, 0, 1], &port, &[0, 80]].concat(),
            IpAddr::V6(ip) => [&ip.octets()[..], &[9; 16], &port, &[0, 80]].concat(),
        }
    }

    #[test]
    fn lines_name_the_client() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5123 80", Some("192.0.2.1:5123")),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
                Some("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 2001:db8::1 ::1 0 80", Some("[2001:db8::1]:0")),
            ("PROXY UNKNOWN", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
        ] {
            let client = client.map(|client| client.parse().unwrap());
            let bytes = format!("{line}\r\nGET / HTTP/1.1\r\n");
            assert_eq!(read(bytes.as_bytes()), Some(Ok((client, line.len() + 2))), "{line}");
        }
    }

    #[test]
    fn lines_that_break_a_rule_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 5123 80\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5123 80 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5123\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 5123 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 05 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +5 80\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 5 80\r\n",
            "PROXY TCP4 2001:db8::1 ::1 5 80\r\n",
            "PROXY TCP6 192.0.2.1 ::1 5 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 5 80\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 \u{e9}\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)),
            &format!("PROXY {}", "x".repeat(102)),
        ] {
            assert_eq!(read(line.as_bytes()), Some(Err(HeaderFault::Malformed)), "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(read(longest.as_bytes()), Some(Ok((None, V1_BYTES_MAX))));
    }

    #[test]
    fn a_text_that_is_no_header_is_recognized_at_its_first_wrong_byte() {
        for bytes in [&b"GET"[..], b"PROXY\t", b"proxy ", b"\x16\x03\x01", b"\r\n\r\nGET", b"\0"] {
            assert_eq!(read(bytes), Some(Err(HeaderFault::Missing)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn binary_headers_name_the_client_and_their_fields_are_skipped() {
        let client: SocketAddr = "192.0.2.1:5123".parse().unwrap();
        let client_6: SocketAddr = "[2001:db8::1]:5123".parse().unwrap();
        let long = [addresses(client_6), vec![7; 1_000]].concat();
        for (header, client) in [
            (binary(0x21, 0x11, &addresses(client)), Some(client)),
            (binary(0x21, 0x21, &long), Some(client_6)),
            (binary(0x20, 0x11, &addresses(client)), None),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x21, 0x00, &[1, 2, 3]), None),
            (binary(0x21, 0x12, &addresses(client)), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            let bytes = [&header[..], b"GET"].concat();
            assert_eq!(read(&bytes), Some(Ok((client, header.len()))));
            for cut in 0..header.len() {
                assert_eq!(read_in(BOTH, &header[..cut], 3), None, "incomplete at {cut}");
            }
        }
        for (version, family, rest) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x41, 0),
        ] {
            let header = binary(version, family, &vec![0; rest]);
            assert_eq!(read(&header), Some(Err(HeaderFault::Malformed)), "{version} {family}");
        }
    }

    #[test]
    fn only_accepted_versions_are_read() {
        let [line, binary] = OWN_HEADERS;
        for (header, accepts, outcome) in [
            (line, [true, false], Ok((None, line.len()))),
            (binary, [false, true], Ok((None, binary.len()))),
            (line, [false, true], Err(HeaderFault::Version)),
            (binary, [true, false], Err(HeaderFault::Version)),
        ] {
            assert_eq!(read_in(accepts, header, header.len()), Some(outcome));
        }
    }

    proptest! {
        /// A cut changes nothing, and no byte beyond the header is used.
        #[test]
        fn headers_are_read_the_same_in_any_cut(
            ip: IpAddr,
            source_port: u16,
            fields in proptest::collection::vec(any::<u8>(), 0..300),
            size in 1_usize..400,
            is_line: bool,
        ) {
            let client = SocketAddr::new(ip, source_port);
            let header = match (is_line, ip) {
                (true, IpAddr::V4(_)) => format!("PROXY TCP4 {ip} 10.0.0.1 {source_port} 1\r\n").into_bytes(),
                (true, IpAddr::V6(_)) => format!("PROXY TCP6 {ip} ::1 {source_port} 1\r\n").into_bytes(),
                (false, _) => {
                    let family = if ip.is_ipv4() { 0x11 } else { 0x21 };
                    binary(0x21, family, &[addresses(client), fields.clone()].concat())
                }
            };
            let bytes = [&header[..], &fields].concat();
            prop_assert_eq!(read_in(BOTH, &bytes, size), Some(Ok((Some(client), header.len()))));
        }
    }
}
