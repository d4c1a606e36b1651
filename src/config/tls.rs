//! The certificates: which files belong together, and whether they do.

use super::error::{Fault, Key};
use super::file::{File, Tls};
use super::secrets::Reader;
use super::value::Listen;
use crate::net;
use crate::net::certificates::{Files, Pair, Part};

/// Reads the certificates; none where the table names none.
pub(super) fn config(
    file: &File,
    reader: &mut Reader<'_>,
) -> Result<Option<net::tls::Config>, Fault> {
    let Tls { cert, key, listen, dtls } = &file.tls;
    let missing = |of: &str, what: &str| Err(Fault::new([Key::new(of)], format!("needs {what}")));
    match (cert.0.len(), key.0.len()) {
        (0, 0) if listen.is_empty() && !dtls => return Ok(None),
        (0, 0) if *dtls => return missing("tls.dtls", "tls.cert and tls.key"),
        (0, 0) => return missing("tls.listen", "tls.cert and tls.key"),
        (0, _) => return missing("tls.key", "tls.cert"),
        (_, 0) => return missing("tls.cert", "tls.key"),
        (certs, keys) if certs != keys => {
            let message = format!("{keys} for {certs} in tls.cert; each one needs its own key");
            return Err(Fault::new([Key::new("tls.key"), Key::new("tls.cert")], message));
        }
        _ => {}
    }
    check_listen(file)?;
    let pairs = cert.0.iter().zip(&key.0).enumerate();
    let pairs = pairs
        .map(|(at, (cert, key))| {
            let files = Files { cert: reader.path(cert), key: reader.path(key) };
            reader.note_exposed(&files.key);
            Pair::load(files).map_err(|error| {
                let part = match error.part {
                    Part::Cert => Key::new("tls.cert"),
                    Part::Key => Key::new("tls.key"),
                };
                // Where there is one, it need not be written as a list.
                Fault::new([part.clone().index(at), part], error.to_string())
            })
        })
        .collect::<Result<_, _>>()?;
    let listen = listen.iter().map(|listen| listen.0).collect();
    Ok(Some(net::tls::Config { pairs, listen, dtls: *dtls }))
}

fn check_listen(file: &File) -> Result<(), Fault> {
    for (at, own) in file.tls.listen.iter().enumerate() {
        let Listen(address) = own;
        let refuse = |problem: &str| {
            let message = format!("\"{address}\" {problem}");
            Err(Fault::new([Key::new("tls.listen").index(at)], message))
        };
        if address.port() == 0 {
            continue;
        }
        if file.listen.contains(own) {
            return refuse("is in `listen` already, where TLS is spoken too");
        }
        if file.http.listen.contains(own) {
            return refuse("is in http.listen already");
        }
        if file.tls.listen[..at].contains(own) {
            return refuse("is listed twice");
        }
    }
    Ok(())
}
