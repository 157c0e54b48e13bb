//! Networks as administrators write them, `10.0.0.0/8`: from where clients reach an executor.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits are the same.
    bits: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address in its IPv6 form counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, width) = number(self.address);
        let (other, other_width) = number(address.to_canonical());
        let rest = u32::from(width - self.bits);
        width == other_width && own.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
    }
}

/// The bits of an address, and how many there are.
fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

impl FromStr for Network {
    type Err = Error;

    /// Reads `10.0.0.0/8`, `fd00::/8`, or one address.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::InvalidConfig, format!("'{}' is not a network", text.escape_debug()))
                .with_help("write it as 10.0.0.0/8 or fd00::/8, or give one address")
        };
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_why| wrong())?)),
            None => (text.trim(), None),
        };
        let address = address.parse::<IpAddr>().map_err(|_why| wrong())?.to_canonical();
        let (_, width) = number(address);
        let bits = bits.unwrap_or(width);
        if bits > width { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.1", "10.255.255.255", "::ffff:10.1.2.3"][..], &["11.0.0.0", "9.255.255.255", "::a00:1"][..]),
            ("192.168.7.0/24", &["192.168.7.0", "192.168.7.255"], &["192.168.8.0", "192.168.6.255"]),
            ("192.168.7.9/25", &["192.168.7.127"], &["192.168.7.128"]),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1", "fd00::1"]),
            ("fd00::/8", &["fd00::1", "fdff::"], &["fe00::", "10.0.0.1"]),
            ("::/0", &["::1", "ffff::"], &["127.0.0.1"]),
            ("::1", &["::1"], &["::2"]),
        ] {
            let network: Network = network.parse().unwrap();
            let holds = |address: &&str| network.contains(address.parse().unwrap());
            assert!(inside.iter().all(holds), "{network}");
            assert!(!outside.iter().any(holds), "{network}");
            assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/", "example.org", "/8"] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.kind == ErrorKind::InvalidConfig && error.context.help.is_some(), "{text}");
        }
    }
}
