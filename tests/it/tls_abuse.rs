//! What clients do wrong within TLS: conformance group G, 94.

use std::io::{Read, Write};
use std::sync::Arc;

use hairpin::net::certificates::Pair;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::client::{DEADLINE, binding_request};
use super::tls::{Tls, handshake, read_to_end, shown};
use super::trust::TrustsAnyone;

/// Where none is for the host, the first one serves, and the client may think of it what it likes.
#[tokio::test]
async fn an_unknown_host_is_shown_the_first_certificate() {
    let server = Tls::start(80, |config| {
        let other = Pair::self_signed(&["turn.test"]).unwrap();
        config.net.tls.as_mut().unwrap().pairs.push(other);
    });
    for version in [&TLS12, &TLS13] {
        for host in ["unknown.test", "sub.turn.test", "turn.test.evil.test", "127.0.0.9"] {
            let mut config = server.config(&[version], server.trusting());
            config.dangerous().set_certificate_verifier(Arc::new(TrustsAnyone));
            let mut tls = handshake(config, host, server.tcp().await).await.unwrap();
            assert_eq!(shown(&tls), server.shown[0], "{host}");
            tls.write_all(&binding_request()).await.unwrap();
            let mut answer = [0; 2];
            timeout(DEADLINE, tls.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(answer, [1, 1], "{host}");
        }
        // Who does verify it refuses.
        let config = server.config(&[version], server.trusting());
        let refused = handshake(config, "unknown.test", server.tcp().await).await.unwrap_err();
        assert!(refused.to_string().contains("not valid for name"), "{refused}");
    }
}

/// The server asks for no certificate. Whoever sends one all the same, and 100 KB of it, is told
/// so and closed before the server has kept it.
#[tokio::test]
async fn a_chain_of_100_kilobytes_that_nobody_asked_for_ends_the_handshake() {
    let server = Tls::start(81, |_| {});
    let config = server.config(&[&TLS12], server.trusting());
    let host = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), host).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut tcp = server.tcp().await;
    tcp.write_all(&hello).await.unwrap();
    // ServerHello to ServerHelloDone, in the clear; the last message has no content.
    let mut flight = Vec::new();
    while !flight.ends_with(&[14, 0, 0, 0]) {
        let read = timeout(DEADLINE, tcp.read_buf(&mut flight)).await.unwrap().unwrap();
        assert!(read > 0, "{flight:?}");
    }
    let list = vec![0x30; 100 * 1024];
    let length = |bytes: usize| (bytes as u32).to_be_bytes()[1..].to_vec();
    let chain = [length(list.len()), list].concat();
    let certificates = [length(chain.len()), chain].concat();
    let message = [vec![11], length(certificates.len()), certificates].concat();
    for part in message.chunks(1 << 14) {
        let [high, low] = (part.len() as u16).to_be_bytes();
        // It may have closed by now.
        let _ = tcp.write_all(&[&[22, 3, 3, high, low], part].concat()).await;
    }
    let answer = read_to_end(&mut tcp).await;
    // A fatal alert, or the reset that a close with unread bytes is.
    let is_alert = matches!(answer[..], [] | [21, 3, 3, 0, 2, 2, _]);
    assert!(is_alert, "{answer:?}");
    server.server.until_refused("handshake_failed", 1.0).await;
    let mut client = server.any_client().await;
    assert_eq!(client.allocate().await, 200);
}

/// What comes in 0-RTT could have been recorded and sent again by anybody. No ticket of the server
/// allows it, and with one of somebody else's it is passed over unread.
#[tokio::test]
async fn early_data_is_never_taken() {
    let server = Tls::start(82, |_| {});
    let mut config = server.config(&[&TLS13], server.trusting());
    config.enable_early_data = true;
    config.dangerous().set_certificate_verifier(Arc::new(TrustsAnyone));
    let config = Arc::new(config);
    // With the server's own tickets nothing early can be said.
    for _ in 0..2 {
        let (early, answers) = ask_early(&config, server.tcp().await).await;
        assert_eq!((early, answers), (None, 1));
    }
    // A ticket of another server, under the same name, that allows 0-RTT.
    let config = Arc::new({
        let mut config = server.config(&[&TLS13], server.trusting());
        config.enable_early_data = true;
        config.dangerous().set_certificate_verifier(Arc::new(TrustsAnyone));
        config
    });
    visit_a_server_with_early_data(&config).await;
    let (early, answers) = ask_early(&config, server.tcp().await).await;
    assert_eq!(early, Some(false), "it was sent, and not taken");
    assert_eq!(answers, 1, "what was said afterwards is answered, and that alone");
}

/// Sends a request as early as it can be sent, and one after the handshake. Whether early data was
/// accepted, if there was any, and how many answers came.
async fn ask_early(config: &Arc<ClientConfig>, mut tcp: TcpStream) -> (Option<bool>, usize) {
    let host = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), host).unwrap();
    let sent = client.early_data().map(|mut early| early.write_all(&binding_request()).unwrap());
    let mut answers = Vec::new();
    let mut asked = false;
    loop {
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).unwrap();
        }
        tcp.write_all(&out).await.unwrap();
        if !client.is_handshaking() && !asked {
            asked = true;
            client.writer().write_all(&binding_request()).unwrap();
            client.send_close_notify();
            continue;
        }
        let mut bytes = vec![0; 16 * 1024];
        let read = timeout(DEADLINE, tcp.read(&mut bytes)).await.expect("the server goes on");
        let Ok(read @ 1..) = read else { break };
        let mut rest = &bytes[..read];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            let state = client.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            client.reader().read_exact(&mut plain).unwrap();
            answers.extend(plain);
        }
    }
    let each = 20 + 12;
    assert_eq!(answers.len() % each, 0, "{answers:?}");
    (sent.map(|()| client.is_early_data_accepted()), answers.len() / each)
}

async fn visit_a_server_with_early_data(client: &Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.max_early_data_size = 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let serving = tokio::spawn(async move {
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        // The tickets are sent with the first answer.
        tls.write_all(b"x").await.unwrap();
        tls.shutdown().await.unwrap();
    });
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
    let host = ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut tls = timeout(DEADLINE, connector.connect(host, tcp)).await.unwrap().unwrap();
    let mut heard = Vec::new();
    timeout(DEADLINE, tls.read_to_end(&mut heard)).await.unwrap().unwrap();
    serving.await.unwrap();
}
