//! The key with which versions that were promoted are signed.
//!
//! A signature is a function of the version's files and the key, so it is made when somebody asks
//! and kept nowhere. The private key must never be answered, logged or shown.

use pomona_domain::model::Version;
use pomona_domain::{Code, Fault};
use pomona_signing::SigningKey;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The key that is made in the data folder when none is named.
const OWN: &str = "signing-key.pem";

/// Signs, if there is a key.
#[derive(Debug)]
pub struct Signer(Option<SigningKey>);

impl Signer {
    /// With the key in `file`; where none is named, with one of the data folder, which is made at
    /// the first start, unless other coordinators may be there: each would sign with its own.
    pub fn open(file: &str, data_dir: &Path, is_shared: bool) -> Result<Self, Fault> {
        if !file.is_empty() {
            return read(Path::new(file)).map(|key| Self(Some(key)));
        }
        if is_shared {
            return Ok(Self(None));
        }
        let own = data_dir.join(OWN);
        match File::open(&own) {
            Ok(_) => read(&own),
            Err(error) if error.kind() == ErrorKind::NotFound => make(&own),
            Err(error) => Err(cannot("read", &own, &error)),
        }
        .map(|key| Self(Some(key)))
    }

    fn key(&self) -> Result<&SigningKey, Fault> {
        self.0.as_ref().ok_or_else(|| {
            let text = "this coordinator has no key to sign with";
            Fault::new(Code::NotFound, text)
                .hint("name one for all coordinators with `signing.key`; `openssl ecparam -genkey -name prime256v1 -noout` makes one")
        })
    }

    /// The signature of a version, as the bytes of `model.sig`.
    pub fn sign(&self, version: &Version) -> Result<Vec<u8>, Fault> {
        let files: Vec<(&str, &str)> = (version.files.iter())
            .map(|file| (file.path.as_str(), file.sha256.as_str()))
            .collect();
        pomona_signing::sign(&files, &version.model, self.key()?)
    }

    /// The public key, as PEM.
    pub fn public(&self) -> Result<String, Fault> {
        self.key()?.verifying_key().to_pem()
    }
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Fault {
    let text = format!(
        "cannot {verb} the signing key `{}`: {error}",
        path.display()
    );
    Fault::new(Code::BadConfig, text)
}

fn read(path: &Path) -> Result<SigningKey, Fault> {
    let bytes = std::fs::read(path).map_err(|error| cannot("read", path, &error))?;
    SigningKey::from_pem(&bytes)
}

/// Draws a key and writes it, so that it is whole or not there.
fn make(path: &Path) -> Result<SigningKey, Fault> {
    let key = loop {
        // One draw in four thousand million is no key.
        if let Ok(key) = SigningKey::from_random(&rand::random()) {
            break key;
        }
    };
    let part: PathBuf = path.with_extension("part");
    let text = key.to_pem()?;
    let written = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|error| cannot("write", path, &error))?;
    tracing::info!(path = %path.display(), "made a key to sign models with");
    Ok(key)
}
