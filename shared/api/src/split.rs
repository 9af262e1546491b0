//! How a machine's cores are split into processes and threads, as a worker measured it once for all
//! workers that its user starts there. The worker writes it, and `pomona doctor` reads it.

use pomona_domain::Digest;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Name of the file.
const FILE: &str = "split.json";

/// Where it is kept: in the user's cache (`$POMONA_CACHE`, `$XDG_CACHE_HOME/pomona` or
/// `~/.cache/pomona`), as it belongs to the machine; in `data` where there is none of these.
pub fn path(variable: impl Fn(&str) -> Option<OsString>, data: &Path) -> PathBuf {
    let set = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("POMONA_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("pomona")))
        .or_else(|| Some(set("HOME")?.join(".cache").join("pomona")));
    cache.unwrap_or_else(|| data.to_path_buf()).join(FILE)
}

/// So many trainers side by side, with so many threads each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Processes: slots.
    pub processes: u32,
    /// Threads of each.
    pub threads: u32,
}

/// A split and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The split.
    #[serde(flatten)]
    pub split: Split,
    /// Images in a second through frozen blocks, all processes together.
    pub images_per_s: f64,
}

/// What was measured, and on what: on anything else it is measured anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// The split that was chosen.
    pub best: Split,
    /// Everything that was tried.
    pub rates: Vec<Rate>,
}

/// What a measurement holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Its cores, as far as this process may use them.
    pub cores: u32,
    /// Digest of the trainer's file.
    pub trainer: Digest,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.processes, self.threads)
    }
}

impl Measured {
    /// `2 × 1: 101 images/s, 1 × 2: 88 images/s` (processes × threads).
    pub fn table(&self) -> String {
        let row = |rate: &Rate| format!("{}: {:.0} images/s", rate.split, rate.images_per_s);
        self.rates.iter().map(row).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_in_the_users_cache_or_with_the_data() {
        let at = |set: &[(&str, &str)]| {
            let found = |name: &str| {
                let pair = set.iter().find(|(key, _)| *key == name)?;
                Some(OsString::from(pair.1))
            };
            path(found, Path::new("/data")).display().to_string()
        };
        let (cache, home) = (("XDG_CACHE_HOME", "/c"), ("HOME", "/h"));
        assert_eq!(at(&[("POMONA_CACHE", "/p"), cache]), "/p/split.json");
        assert_eq!(at(&[cache, home]), "/c/pomona/split.json");
        assert_eq!(
            at(&[("POMONA_CACHE", ""), home]),
            "/h/.cache/pomona/split.json"
        );
        assert_eq!(at(&[]), "/data/split.json");
    }
}
