//! Which addresses a webhook may reach: those of the public internet, and what the configuration adds.
//!
//! A server stands inside of a network, and whoever may describe a webhook must not thereby reach what listens there
//! (server-side request forgery). The tables are IANA's special-purpose address registries (RFC 6890).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IPv4 network with its name.
type Special4 = (Ipv4Net, &'static str);
type Special6 = (Ipv6Net, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const SPECIAL_V4: [Special4; 17] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    // A cloud's virtual machines reach their host here, as if it were public.
    (v4(168, 63, 129, 16, 32), "metadata"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "reserved"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Within 2000::/3; all else but what embeds an IPv4 address is special anyway.
const SPECIAL_V6: [Special6; 4] = [
    (v6(0x2001, 0, 0, 23), "reserved"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation"),
    // Carries IPv4 addresses of any kind to relays that are no more.
    (v6(0x2002, 0, 0, 16), "reserved"),
    (v6(0x3fff, 0, 0, 20), "documentation"),
];

const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const UNIQUE_LOCAL: Ipv6Net = v6(0xfc00, 0, 0, 7);
const LINK_LOCAL: Ipv6Net = v6(0xfe80, 0, 0, 10);

/// The special addresses that webhooks may reach all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Every one.
    All,
    /// Those in these networks.
    Networks(Vec<IpNet>),
}

/// An address that a webhook may not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is: `private`.
    pub kind: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, kind } = self;
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        write!(f, "{address} is {article} {kind} address: webhooks.allow_private")
    }
}

impl std::error::Error for Refused {}

impl Allowed {
    /// Whether nothing special may be reached.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Networks(networks) if networks.is_empty())
    }

    /// Whether an address was named here.
    pub fn names(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Networks(networks) => {
                let meant = meant(address);
                networks.iter().any(|network| network.contains(&meant))
            }
        }
    }

    /// Lets an address pass.
    ///
    /// # Errors
    /// [`Refused`] for a special one that isn't named here.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        match special(address) {
            Some(kind) if !self.names(address) => Err(Refused { address, kind }),
            _ => Ok(()),
        }
    }
}

/// The address that is reached: an IPv4 address may be written within an IPv6 one (RFC 4291, section 2.5.5.2; NAT64,
/// RFC 6052).
fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        address => address,
    }
}

/// What kind of special address it is; `None` for one of the public internet.
pub fn special(address: IpAddr) -> Option<&'static str> {
    match meant(address) {
        IpAddr::V4(address) => {
            let found = SPECIAL_V4.iter().find(|(network, _)| network.contains(&address));
            found.map(|(_, kind)| *kind)
        }
        IpAddr::V6(address) if GLOBAL_V6.contains(&address) => {
            let found = SPECIAL_V6.iter().find(|(network, _)| network.contains(&address));
            found.map(|(_, kind)| *kind)
        }
        IpAddr::V6(address) => Some(match address {
            Ipv6Addr::LOCALHOST => "loopback",
            Ipv6Addr::UNSPECIFIED => "unspecified",
            address if address.is_multicast() => "multicast",
            address if UNIQUE_LOCAL.contains(&address) => "private",
            address if LINK_LOCAL.contains(&address) => "link-local",
            _ => "reserved",
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> Option<&'static str> {
        special(text.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_known_in_every_disguise() {
        for (address, expected) in [
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.254", Some("loopback")),
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("unspecified")),
            ("10.1.2.3", Some("private")),
            ("172.15.255.255", None),
            ("172.16.0.0", Some("private")),
            ("172.31.255.255", Some("private")),
            ("172.32.0.0", None),
            ("192.168.1.1", Some("private")),
            ("100.63.255.255", None),
            ("100.64.0.1", Some("shared")),
            ("100.100.100.200", Some("shared")),
            ("100.128.0.0", None),
            ("169.254.169.254", Some("link-local")),
            ("168.63.129.16", Some("metadata")),
            ("192.0.0.192", Some("reserved")),
            ("198.19.255.255", Some("benchmarking")),
            ("224.0.0.1", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("broadcast")),
            ("1.1.1.1", None),
            ("93.184.216.34", None),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::7f00:1", Some("reserved")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:10.0.0.1", Some("private")),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::7f00:1", Some("loopback")),
            ("64:ff9b::a9fe:a9fe", Some("link-local")),
            ("64:ff9b::808:808", None),
            ("64:ff9b:1::a9fe:a9fe", Some("reserved")),
            ("2002:7f00:1::", Some("reserved")),
            ("2001:0:1::1", Some("reserved")),
            ("2001:db8::1", Some("documentation")),
            ("3fff::1", Some("documentation")),
            ("2606:4700:4700::1111", None),
            ("fc00::1", Some("private")),
            ("fd00:ec2::254", Some("private")),
            ("fe80::1", Some("link-local")),
            ("fec0::1", Some("reserved")),
            ("ff02::1", Some("multicast")),
            ("100::1", Some("reserved")),
            ("5f00::1", Some("reserved")),
        ] {
            assert_eq!(kind(address), expected, "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_allowed_however_it_is_written() {
        let allowed = Allowed::Networks(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for address in [
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "fd00::1",
            "1.1.1.1",
        ] {
            assert_eq!(allowed.check(address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in ["10.0.0.1", "::1", "fe80::1", "169.254.169.254"] {
            assert!(allowed.check(address.parse().unwrap()).is_err(), "{address}");
        }
        assert_eq!(Allowed::All.check("169.254.169.254".parse().unwrap()), Ok(()));
        let refused = allowed.check("10.0.0.1".parse().unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "10.0.0.1 is a private address: webhooks.allow_private"
        );
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_within_an_ipv6_one(address: u32) {
            let v4 = Ipv4Addr::from(address);
            let [a, b, c, d] = v4.octets();
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            prop_assert_eq!(special(v4.to_ipv6_mapped().into()), special(v4.into()));
            prop_assert_eq!(special(nat64.into()), special(v4.into()));
        }

        #[test]
        fn nothing_that_the_standard_library_knows_as_special_passes(address: u32) {
            let v4 = Ipv4Addr::from(address);
            let known = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!known || special(v4.into()).is_some());
        }
    }
}
