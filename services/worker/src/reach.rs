//! The address at which other workers reach this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{UdpSocket, lookup_host};

/// Port that is asked about where an address names none: only the route matters.
const ANY_PORT: u16 = 80;

/// The address that is configured, or else the one from which this machine reaches the first
/// coordinator that has a name here; loopback when there is none. Nothing is sent.
pub async fn address(configured: &str, servers: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    for server in servers.split(',') {
        let Ok(mut found) = lookup_host(authority(server)).await else {
            continue;
        };
        if let Some(at) = found.next()
            && let Ok(own) = towards(at).await
        {
            return own.to_string();
        }
    }
    Ipv4Addr::LOCALHOST.to_string()
}

/// `http://host:port/path` → `host:port`.
fn authority(server: &str) -> String {
    let rest = server.trim().split_once("://");
    let rest = rest.map_or(server.trim(), |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:{ANY_PORT}")
    }
}

/// A datagram socket knows its own address once it knows its peer's.
async fn towards(at: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = match at {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(at).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_what_is_said_or_what_leads_to_the_coordinator() {
        for (configured, servers, expect) in [
            ("10.0.0.7", "http://127.0.0.1:7878", "10.0.0.7"),
            ("", "http://127.0.0.1:7878", "127.0.0.1"),
            ("", "http://127.0.0.1/", "127.0.0.1"),
            (
                "",
                "http://no.such.host.invalid, http://127.0.0.1:1",
                "127.0.0.1",
            ),
            ("", "nonsense", "127.0.0.1"),
        ] {
            assert_eq!(address(configured, servers).await, expect, "{servers}");
        }
        assert_eq!(authority("https://[::1]:7878/x"), "[::1]:7878");
        assert_eq!(authority("https://[::1]"), "[::1]:80");
        assert_eq!(authority("name"), "name:80");
    }
}
