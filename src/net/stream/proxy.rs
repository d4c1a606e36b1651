//! Version 2 of the PROXY protocol: how a load balancer says whose connection it passes on, in a
//! header in front of everything else. Version 1 is text and not spoken here.
//!
//! Only from sources that the operator has named: anybody else could claim to be anybody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, and the length of what follows.
const FIXED_LEN: usize = 16;
/// Addresses take 36 bytes; the rest is what load balancers add, which nobody here reads.
const VARIABLE_LEN_MAX: usize = 2048;

/// The two ends of a connection as they are in front of the load balancer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ends {
    /// Who connected.
    pub(super) client: SocketAddr,
    /// Where to.
    pub(super) server: SocketAddr,
}

/// Not a header of version 2 that names the ends of a TCP connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

/// Reads a header, and not one byte more. `None` is a connection of the load balancer's own, such
/// as a health check.
pub(super) async fn read(tcp: &TcpStream) -> io::Result<Result<Option<Ends>, Malformed>> {
    let mut fixed = [0; FIXED_LEN];
    read_exact(tcp, &mut fixed).await?;
    let Ok(length) = variable_len(&fixed) else { return Ok(Err(Malformed)) };
    let mut variable = vec![0; length];
    read_exact(tcp, &mut variable).await?;
    Ok(ends(&fixed, &variable))
}

async fn read_exact(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        tcp.readable().await?;
        match tcp.try_read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How much follows the fixed part.
fn variable_len(fixed: &[u8; FIXED_LEN]) -> Result<usize, Malformed> {
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    match fixed.starts_with(&SIGNATURE) && length <= VARIABLE_LEN_MAX {
        true => Ok(length),
        false => Err(Malformed),
    }
}

/// Takes the ends out of a header. What stands behind the addresses is not read.
fn ends(fixed: &[u8; FIXED_LEN], variable: &[u8]) -> Result<Option<Ends>, Malformed> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    const TCP_OVER_IPV4: u8 = 0x11;
    const TCP_OVER_IPV6: u8 = 0x21;
    let (client, server): (IpAddr, IpAddr);
    let ports: &[u8];
    match (fixed[12], fixed[13]) {
        (LOCAL, _) => return Ok(None),
        (PROXY, TCP_OVER_IPV4) => {
            let (&source, rest) = variable.split_first_chunk::<4>().ok_or(Malformed)?;
            let (&destination, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            (client, server) = (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into());
            ports = rest;
        }
        (PROXY, TCP_OVER_IPV6) => {
            let (&source, rest) = variable.split_first_chunk::<16>().ok_or(Malformed)?;
            let (&destination, rest) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            (client, server) = (Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into());
            ports = rest;
        }
        _ => return Err(Malformed),
    }
    let Some(&[c0, c1, s0, s1]) = ports.first_chunk() else { return Err(Malformed) };
    // Limits and policy know IPv4 in one form only.
    let client = SocketAddr::new(client.to_canonical(), u16::from_be_bytes([c0, c1]));
    let server = SocketAddr::new(server.to_canonical(), u16::from_be_bytes([s0, s1]));
    let impossible = client.ip().is_unspecified() || client.ip().is_multicast();
    if impossible || client.port() == 0 {
        return Err(Malformed);
    }
    Ok(Some(Ends { client, server }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let length = (variable.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, variable].concat()
    }

    fn parse(bytes: &[u8]) -> Result<Option<Ends>, Malformed> {
        let (fixed, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
        let length = variable_len(fixed)?;
        ends(fixed, rest.get(..length).ok_or(Malformed)?)
    }

    const IPV4: [u8; 12] = [198, 51, 100, 7, 203, 0, 113, 1, 0xC0, 0x01, 0x01, 0xBB];

    fn ipv6(client: &str) -> Vec<u8> {
        let [client, server] = [client, "2001:db8::2"].map(|ip| ip.parse::<Ipv6Addr>().unwrap());
        [&client.octets()[..], &server.octets(), &[0xC0, 0x01, 0x01, 0xBB]].concat()
    }

    #[test]
    fn ends_are_those_of_the_header() {
        for (bytes, client, server) in [
            (header(0x21, 0x11, &IPV4), "198.51.100.7:49153", "203.0.113.1:443"),
            (header(0x21, 0x21, &ipv6("2001:db8::1")), "[2001:db8::1]:49153", "[2001:db8::2]:443"),
        ] {
            let expected =
                Ends { client: client.parse().unwrap(), server: server.parse().unwrap() };
            assert_eq!(parse(&bytes), Ok(Some(expected)));
        }
    }

    #[test]
    fn ipv4_within_ipv6_is_ipv4() {
        let ends = parse(&header(0x21, 0x21, &ipv6("::ffff:198.51.100.7"))).unwrap().unwrap();
        assert_eq!(ends.client, "198.51.100.7:49153".parse().unwrap());
    }

    #[test]
    fn a_local_connection_has_its_own_ends_whatever_else_it_says() {
        for (family, variable) in [(0x00, &[][..]), (0x11, &IPV4), (0xFF, &[1, 2, 3])] {
            assert_eq!(parse(&header(0x20, family, variable)), Ok(None));
        }
    }

    #[test]
    fn what_follows_the_addresses_is_skipped_and_bounded() {
        let more = |length: usize| [&IPV4[..], &vec![0xEE; length]].concat();
        for length in [0, 1, 3, 4, VARIABLE_LEN_MAX - IPV4.len()] {
            assert!(matches!(parse(&header(0x21, 0x11, &more(length))), Ok(Some(_))), "{length}");
        }
        let beyond = more(VARIABLE_LEN_MAX - IPV4.len() + 1);
        assert_eq!(parse(&header(0x21, 0x11, &beyond)), Err(Malformed));
    }

    #[test]
    fn what_is_no_header_of_a_tcp_connection_is_malformed() {
        let good = header(0x21, 0x11, &IPV4);
        for at in 0..12 {
            let mut wrong = good.clone();
            wrong[at] ^= 1;
            assert_eq!(parse(&wrong), Err(Malformed), "signature byte {at}");
        }
        for command in (0..=0xFF).filter(|command| !matches!(command, 0x20 | 0x21)) {
            assert_eq!(parse(&header(command, 0x11, &IPV4)), Err(Malformed), "{command:#04x}");
        }
        for family in (0..=0xFF).filter(|family| !matches!(family, 0x11 | 0x21)) {
            assert_eq!(parse(&header(0x21, family, &IPV4)), Err(Malformed), "{family:#04x}");
        }
        for length in 0..IPV4.len() {
            assert_eq!(parse(&header(0x21, 0x11, &IPV4[..length])), Err(Malformed), "{length}");
        }
        for length in 0..36 {
            let cut = &ipv6("2001:db8::1")[..length];
            assert_eq!(parse(&header(0x21, 0x21, cut)), Err(Malformed), "{length}");
        }
        for (at, bytes) in [(0, &[0, 0, 0, 0][..]), (0, &[224, 0, 0, 1]), (8, &[0, 0])] {
            let mut nobody = IPV4;
            nobody[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(parse(&header(0x21, 0x11, &nobody)), Err(Malformed), "{nobody:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 198.51.100.7 203.0.113.1 1 2\r\n"), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let [command, family, ..] = bytes[..] else { return Ok(()) };
            let _ = parse(&header(command, family, &bytes));
            let _ = parse(&header(0x20 | command & 1, 0x11 << (family & 1), &bytes));
        }
    }
}
