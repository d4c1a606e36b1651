//! The URLs that clients reach the server by.

use std::net::SocketAddr;

/// The URLs of every port that is listened on, in the order in which clients should try them.
///
/// `host` is a name or an address as it is written in a URL. `tls` are the ports that speak TLS
/// only, where there are certificates; then those of `listen` speak TLS too.
#[must_use]
pub fn ice_urls(host: &str, listen: &[SocketAddr], tls: Option<&[SocketAddr]>) -> Vec<String> {
    let plain = ports(listen).into_iter().flat_map(|port| {
        [
            format!("stun:{host}:{port}"),
            format!("turn:{host}:{port}?transport=udp"),
            format!("turn:{host}:{port}?transport=tcp"),
        ]
    });
    let tls = tls.map_or_else(Vec::new, |tls| ports(&[listen, tls].concat()));
    plain.chain(tls.iter().map(|port| format!("turns:{host}:{port}?transport=tcp"))).collect()
}

/// Each port once.
fn ports(listen: &[SocketAddr]) -> Vec<u16> {
    let mut ports: Vec<u16> = listen.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_its_urls_once() {
        let listen = ["0.0.0.0:3478", "[::]:3478", "0.0.0.0:443"].map(|it| it.parse().unwrap());
        let tls = ["[::]:5349".parse().unwrap()];
        let expected = [
            "stun:h:443",
            "turn:h:443?transport=udp",
            "turn:h:443?transport=tcp",
            "stun:h:3478",
            "turn:h:3478?transport=udp",
            "turn:h:3478?transport=tcp",
            "turns:h:443?transport=tcp",
            "turns:h:3478?transport=tcp",
            "turns:h:5349?transport=tcp",
        ];
        assert_eq!(ice_urls("h", &listen, Some(&tls)), expected);
        assert_eq!(ice_urls("h", &listen, None), expected[..6]);
    }
}
