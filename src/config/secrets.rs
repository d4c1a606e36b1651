//! Secrets that live outside the configuration file. Nothing here may ever be shown.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{Fault, Key};

/// A shorter secret can be found by trying: everyone who was given a credential may try offline.
pub(super) const MIN_SECRET_BYTES: usize = 16;
/// Thousands of secrets fit; what is larger is another file.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Reads files relative to the configuration, and remembers which ones others can read too.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    directory: &'a Path,
    pub(super) exposed: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory, exposed: Vec::new() }
    }

    /// The secrets of a file, one in each line that is neither blank nor a comment.
    pub(super) fn secrets(&mut self, name: &str, key: &Key) -> Result<Vec<String>, Fault> {
        let bytes = self.read(name, key)?;
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(Fault::new([key.clone()], format!("{name:?} is not a text file")));
        };
        let mut secrets = Vec::new();
        for (at, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            long_enough(line).map_err(|problem| {
                let message = format!("{name:?}, line {}: {problem}", at + 1);
                Fault::new([key.clone()], message)
            })?;
            secrets.push(line.to_owned());
        }
        if secrets.is_empty() {
            return Err(Fault::new([key.clone()], format!("{name:?} holds no secret")));
        }
        Ok(secrets)
    }

    /// The nonce key made of a file's bytes, all of them.
    pub(super) fn nonce_key(&mut self, name: &str, key: &Key) -> Result<[u8; 32], Fault> {
        let bytes = self.read(name, key)?;
        if bytes.len() < MIN_SECRET_BYTES {
            let message = format!("{name:?} has fewer than {MIN_SECRET_BYTES} bytes");
            return Err(Fault::new([key.clone()], message));
        }
        Ok(Sha256::digest(&bytes).into())
    }

    /// Where a file is; a relative path starts at the configuration.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Remembers a file that somebody else reads, if everyone can.
    pub(super) fn note_exposed(&mut self, path: &Path) {
        if fs::metadata(path).is_ok_and(|metadata| readable_by_others(&metadata)) {
            self.exposed.push(path.to_owned());
        }
    }

    /// A file that everyone may read.
    pub(super) fn public(&self, name: &str, key: &Key) -> Result<Vec<u8>, Fault> {
        let read = read_bounded(&self.path(name));
        read.map(|(bytes, _)| bytes)
            .map_err(|error| Fault::new([key.clone()], format!("cannot read {name:?}: {error}")))
    }

    fn read(&mut self, name: &str, key: &Key) -> Result<Vec<u8>, Fault> {
        let path = self.path(name);
        let (bytes, exposed) = read_bounded(&path)
            .map_err(|error| Fault::new([key.clone()], format!("cannot read {name:?}: {error}")))?;
        if exposed {
            self.exposed.push(path);
        }
        Ok(bytes)
    }
}

/// Refuses secrets that can be guessed.
pub(super) fn long_enough(secret: &str) -> Result<(), String> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("a secret needs at least {MIN_SECRET_BYTES} bytes"));
    }
    Ok(())
}

/// The content of a file, and whether everyone on the machine can read it.
fn read_bounded(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let file = fs::File::open(path)?;
    let exposed = readable_by_others(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok((bytes, exposed))
}

#[cfg(unix)]
fn readable_by_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;

    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn readable_by_others(_: &fs::Metadata) -> bool {
    false
}
