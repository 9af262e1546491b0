//! Folders and addresses as people write them.

use pomona_domain::{Code, Fault};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A folder, `~` resolved.
pub fn folder(text: &str) -> PathBuf {
    match text.strip_prefix("~/") {
        Some(rest) => std::env::home_dir().unwrap_or_default().join(rest),
        None => PathBuf::from(text),
    }
}

/// An address to listen on; `example` is one for the hint.
pub fn address(text: &str, example: &str) -> Result<SocketAddr, Fault> {
    let address = text.replace("localhost", "127.0.0.1").parse();
    address.map_err(|_| {
        let message = format!("`{text}` is not an address of the form `host:port`");
        Fault::new(Code::BadListen, message).hint(format!("write it like `{example}`"))
    })
}

#[cfg(test)]
mod tests;
