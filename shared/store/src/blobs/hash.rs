//! SHA-256 of what streams through files: in `ring`'s assembly, twice as fast as `sha2` on a
//! processor without instructions for it. Where a hash's state is kept (uploads into a bucket) it
//! is `sha2`, which can say it.

use pomona_domain::Digest;
use ring::digest::{Context, SHA256};

/// The SHA-256 of bytes that come one after the other.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of what came so far.
    pub fn found(&self) -> Digest {
        let found = self.0.clone().finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(found.as_ref());
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}
