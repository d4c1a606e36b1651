//! What peers say to each other is nobody else's business.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::server::{DEADLINE, Server, Settings};

const MARK: &str = "between-the-two-of-us";

#[test]
fn not_even_at_trace_does_the_log_hold_a_message_or_a_credential() {
    let server = Server::start(&Settings {
        auth: r#"secrets = ["north-of-everything"]"#,
        http: "listen = [\"127.0.0.1:0\"]\n[signaling]\nenabled = true\nopen = true",
        log: r#"level = "trace""#,
        ..Settings::default()
    });
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let http = server.http;
    let request = format!(
        "GET /ws?token={MARK} HTTP/1.1\r\nHost: {http}\r\nOrigin: http://{http}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let join = format!(r#"{{"type":"join","from":"a","payload":{{"token":"{MARK}"}}}}"#);
    let message = format!(r#"{{"type":"{MARK}","to":"a","payload":{{"sdp":"{MARK}"}}}}"#);
    let bad = format!(r#"{{"type":"{MARK}"#);
    for text in [join, message, bad] {
        stream.write_all(&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    }
    // The error is the last of the answers.
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.contains("malformed") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let credential = heard.split(r#""credential":""#).nth(1).unwrap();
    let credential = credential.split('"').next().unwrap().to_owned();
    let secret = heard.split(r#""secret":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    for line in server.stop() {
        for hidden in [MARK, &credential, &secret] {
            assert!(!line.contains(hidden), "{line}");
        }
    }
}
