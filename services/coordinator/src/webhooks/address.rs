//! Which addresses webhooks may be delivered to: public ones, and those that the configuration allows.
//!
//! A name says nothing: what is judged is the address that a connection is made to, after it was
//! looked up. An IPv4 address inside an IPv6 one is judged as what it is.

use ipnet::IpNet;
use pomona_domain::hook::MAX_URL;
use pomona_domain::{Code, Fault};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// What may be reached besides public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Everything.
    pub allow_private: bool,
    /// These networks.
    pub networks: Vec<IpNet>,
}

impl Policy {
    /// Why an address is refused: what it is.
    pub fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let inside = embedded(address);
        let allowed = |ip: &IpAddr| self.networks.iter().any(|network| network.contains(ip));
        if self.allow_private || allowed(&address) || allowed(&inside) {
            return None;
        }
        match inside {
            IpAddr::V4(ip) => of_v4(ip),
            IpAddr::V6(ip) => of_v6(ip),
        }
    }

    /// Whether anything but public addresses may be reached.
    pub fn is_open(&self) -> bool {
        self.allow_private || !self.networks.is_empty()
    }
}

/// The IPv4 address that an IPv6 one stands for (mapped, compatible, NAT64, 6to4), else itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(ip) = address else {
        return address;
    };
    let parts = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // `::1` and `::` are IPv6's own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// Ranges in the order of their numbers (IANA's special-purpose registry), and the one public address
/// at which a cloud serves secrets of its machines.
const V4: &[([u8; 4], u8, &str)] = &[
    ([0, 0, 0, 0], 8, "an address of no machine"),
    ([10, 0, 0, 0], 8, "an address of a private network"),
    ([100, 64, 0, 0], 10, "an address of a provider's network"),
    ([127, 0, 0, 0], 8, "an address of this machine"),
    ([168, 63, 129, 16], 32, "an address of a cloud's metadata"),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, "an address of a private network"),
    ([192, 0, 0, 0], 24, "a reserved address"),
    ([192, 0, 2, 0], 24, "an address for documentation"),
    ([192, 88, 99, 0], 24, "a reserved address"),
    ([192, 168, 0, 0], 16, "an address of a private network"),
    ([198, 18, 0, 0], 15, "an address for measurements"),
    ([198, 51, 100, 0], 24, "an address for documentation"),
    ([203, 0, 113, 0], 24, "an address for documentation"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

fn of_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let number = ip.to_bits();
    let found = V4.iter().find(|(base, length, _)| {
        let shift = 32 - u32::from(*length);
        number >> shift == Ipv4Addr::from(*base).to_bits() >> shift
    });
    found.map(|(_, _, what)| *what)
}

fn of_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let parts = ip.segments();
    match parts[0] {
        _ if ip.is_unspecified() => Some("an address of no machine"),
        _ if ip.is_loopback() => Some("an address of this machine"),
        0xfe80..=0xfebf => Some("a link-local address"),
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Some("an address of a private network"),
        0xff00..=0xffff => Some("a multicast address"),
        // Teredo and others of IETF's own; documentation.
        0x2001 if parts[1] < 0x200 => Some("a reserved address"),
        0x2001 if parts[1] == 0xdb8 => Some("an address for documentation"),
        0x3fff if parts[1] < 0x1000 => Some("an address for documentation"),
        0x2000..=0x3fff => None,
        _ => Some("a reserved address"),
    }
}

/// Reads a webhook's address: `http` or `https`, a host, nobody's password. A host that is written as
/// a number is judged at once.
pub fn check(text: &str, policy: &Policy) -> Result<Url, Fault> {
    let bad = |why: String| Fault::new(Code::BadWebhook, format!("url: {why}"));
    if text.len() > MAX_URL {
        return Err(bad(format!("it is longer than {MAX_URL} bytes")));
    }
    let url = Url::parse(text).map_err(|error| {
        bad(format!("it is no address: {error}"))
            .hint("write it like `https://ci.example.org/hooks/pomona`")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        let text = format!("`{}` is not a scheme of webhooks", url.scheme());
        return Err(bad(text).hint("it begins with `https://` or `http://`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let fault = bad("it has a user or a password in it".to_owned());
        return Err(fault.hint("the signature says who sends it; a token may stand in the path"));
    }
    if url.port() == Some(0) {
        return Err(bad("port 0 is no port".to_owned()));
    }
    if let Some(ip) = literal(&url)
        && let Some(what) = policy.refuses(ip)
    {
        return Err(refused(&ip.to_string(), what));
    }
    Ok(url)
}

/// The host of an address, if it is written as a number.
pub fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
        Host::Domain(_) => None,
    }
}

/// An address that is not allowed.
pub fn refused(shown: &str, what: &str) -> Fault {
    Fault::new(Code::BadWebhook, format!("url: `{shown}` is {what}")).hint(
        "`webhooks.allow_networks` of the coordinator's configuration names networks that are allowed",
    )
}

#[cfg(test)]
mod tests;
