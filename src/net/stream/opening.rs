//! What a connection speaks, told by the first bytes of it, or of what is within its TLS.

/// The methods of HTTP that a client may begin with. A channel could have the number that two of
/// these letters make, but no client has a channel before its first request.
const METHODS: [&[u8]; 7] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS "];

/// See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::net) enum Opening {
    /// A method of HTTP.
    Http,
    /// The beginning of one.
    Undecided,
    /// TURN, or nothing that is served here.
    Other,
}

impl Opening {
    /// What a stream is that begins with these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            return Self::Http;
        }
        if METHODS.iter().any(|method| method.starts_with(bytes)) {
            return Self::Undecided;
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_and_a_space_are_http_and_less_may_become_it() {
        for method in METHODS {
            for length in 0..method.len() {
                assert_eq!(Opening::of(&method[..length]), Opening::Undecided);
            }
            assert_eq!(Opening::of(method), Opening::Http);
            assert_eq!(Opening::of(&[method, b"/ HTTP/1.1"].concat()), Opening::Http);
        }
    }

    #[test]
    fn all_else_is_decided_at_once() {
        for bytes in [
            &[0x00][..],
            b"\x00\x01\x00\x00\x21\x12\xa4\x42",
            &[0x16, 3, 1],
            b"get / HTTP/1.1",
            b"GET\t/",
            b"GETS /",
            b"PRI * HTTP/2.0",
            b"CONNECT a:1",
            b"PROXY TCP4",
            b"SSH-2.0",
            &[0x40, 0x00, 0, 0],
            &[0x47, 0x46],
        ] {
            assert_eq!(Opening::of(bytes), Opening::Other, "{bytes:02x?}");
        }
    }
}
