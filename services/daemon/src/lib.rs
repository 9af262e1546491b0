//! What coordinator and worker have in common as long-running programs: a configuration that is a
//! table of keys, a log, words to people, requests to stop.
//!
//! It must never know what any key means: it sees names, types, defaults and sentences. What a
//! value does, what it may be beside its type, and what of it is a secret, the program says.

mod keys;
mod log;
mod place;
mod signals;
mod words;

pub use keys::{Key, Keys, key, read};
pub use log::{check_log, start_log};
pub use place::{address, folder};
pub use signals::Signals;
pub use toml::{Table, Value};
pub use words::{arguments, ended, say};

use pomona_domain::{Code, Fault};

/// A configuration that is refused.
pub fn bad(message: impl Into<String>) -> Fault {
    Fault::new(Code::BadConfig, message)
}
