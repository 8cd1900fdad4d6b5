use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    pub(crate) const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Self {
        Self { first: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), prefix }
    }

    /// The range of one address.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self { first: address, prefix: bits(address) }
    }

    /// Checked: the prefix is not longer than the address, and nothing is set beyond it.
    pub(crate) fn new(first: IpAddr, prefix: u8) -> Result<Self, String> {
        if prefix > bits(first) {
            return Err(format!("has a prefix longer than /{}", bits(first)));
        }
        let host_bits = u32::from(bits(first) - prefix);
        if number(first) != 0 && number(first).trailing_zeros() < host_bits {
            return Err(format!("has bits set beyond /{prefix}; clear them, or write /{}", bits(first)));
        }
        Ok(Self { first, prefix })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.masked(address) == self.masked(self.first)
    }

    /// The bits of the prefix, at the bottom.
    fn masked(&self, address: IpAddr) -> u128 {
        number(address).checked_shr(u32::from(bits(address) - self.prefix)).unwrap_or(0)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// IPv4 that is not the public internet (IANA special-purpose address registry, RFC 6890), and one that is but should not be.
const SPECIAL_V4: [Network; 15] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    // Multicast, reserved and broadcast.
    Network::v4(224, 0, 0, 0, 3),
    // Looks public, but is the platform's own endpoint on every machine of Azure.
    Network::v4(168, 63, 129, 16, 32),
];

/// Only this part of IPv6 is global unicast (RFC 4291 §2.4) …
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 0, 3);

/// … less protocol assignments with Teredo and ORCHID (RFC 2928), and documentation (RFC 3849, RFC 9637).
const SPECIAL_V6: [Network; 3] =
    [Network::v6(0x2001, 0, 0, 23), Network::v6(0x2001, 0xdb8, 0, 32), Network::v6(0x3fff, 0, 0, 20)];

/// The same address without the disguise of an IPv4-mapped one (RFC 4291 §2.5.5.2), which sockets take as IPv4.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether an address is on the public internet, looking through every way of wrapping IPv4 in IPv6.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match wrapped_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => {
                let address = IpAddr::V6(address);
                GLOBAL_V6.contains(address) && !SPECIAL_V6.iter().any(|special| special.contains(address))
            }
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|special| special.contains(IpAddr::V4(address)))
}

/// The IPv4 address that NAT64 (RFC 6052) or a 6to4 relay (RFC 3056) would send this to.
fn wrapped_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        [0x20, 0x02, a, b, c, d, ..] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// Addresses that nobody means by a name: a name that resolves to one was bent (cloud metadata, group addresses).
pub(crate) fn is_never_meant_by_a_name(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets().first() == Some(&0)
                || Network::v4(168, 63, 129, 16, 32).contains(IpAddr::V4(v4))
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()
                // Amazon's metadata endpoint.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || wrapped_v4(v6).is_some_and(|inner| !is_public_v4(inner))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_public_internet_is_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(ip(text)), "{text}");
        }
    }

    #[test]
    fn networks_contain_their_range_and_no_more() {
        let network = Network::new(ip("10.1.0.0"), 16).unwrap();
        assert!(network.contains(ip("10.1.255.255")) && !network.contains(ip("10.2.0.0")));
        assert!(!network.contains(ip("::")));
        assert!(Network::new(ip("0.0.0.0"), 0).unwrap().contains(ip("255.1.2.3")));
        assert!(Network::new(ip("::"), 0).unwrap().contains(ip("ffff::")));
        assert!(Network::of(ip("::1")).contains(ip("::1")) && !Network::of(ip("::1")).contains(ip("::2")));
        assert!(Network::new(ip("10.1.0.1"), 16).is_err());
        assert!(Network::new(ip("10.0.0.0"), 33).is_err());
    }
}
