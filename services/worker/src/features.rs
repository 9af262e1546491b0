//! Features of frozen blocks on this machine's disk, which its trainers compute and share.
//!
//! Trainers keep the budget and the order of eviction; a worker looks, and removes what it is told
//! to. It must never remove what a process uses.

use pomona_api::shard::folder::{self, Folder};
use pomona_api::shard::{Footer, WHOLE};
use pomona_api::trainer::FeatureStore;
use pomona_api::v1::features::FeatureShard;
use pomona_domain::{Digest, Timestamp};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The coordinator is told of this many at most: the whole list stands in one poll, beside reports,
/// and a poll that is too large would never be answered.
const MAX_TOLD: usize = 4_000;

/// The shards of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Features {
    folder: Arc<PathBuf>,
    max_bytes: u64,
    /// Files as they were when the coordinator was told of them last.
    told: Arc<Mutex<Option<Files>>>,
}

/// Name → time of last use and bytes.
type Files = BTreeMap<PathBuf, (SystemTime, u64)>;

impl Features {
    /// Those in `folder`, which may hold `max_bytes`; 0 keeps none.
    pub fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self {
            folder: Arc::new(folder),
            max_bytes,
            told: Arc::default(),
        }
    }

    /// What they may take.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// What trainers are told.
    pub fn store(&self) -> Option<FeatureStore> {
        (self.max_bytes > 0).then(|| FeatureStore {
            folder: self.folder.to_path_buf(),
            max_bytes: self.max_bytes,
        })
    }

    /// Where they are, unless none are kept or the folder cannot be made.
    pub fn folder(&self) -> Option<Folder> {
        let opened = (self.max_bytes > 0).then(|| Folder::open(&self.folder, self.max_bytes))?;
        opened
            .inspect_err(|error| tracing::warn!(%error, "there is no folder for features"))
            .ok()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.files().values().map(|(_, bytes)| bytes).sum()
    }

    /// All shards, when they are not those that were told of last. Of more than `MAX_TOLD` those
    /// that were used last; nobody else learns of the rest.
    pub fn news(&self) -> Option<Vec<FeatureShard>> {
        let files = self.files();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() == Some(&files) {
            return None;
        }
        let shards = newest(&files, MAX_TOLD)
            .into_iter()
            .filter_map(|(path, (used, bytes))| shard(path, *used, *bytes));
        let shards = shards.collect();
        *told = Some(files);
        Some(shards)
    }

    /// Tells everything again next time.
    pub fn forget_telling(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Removes shards that nobody uses; what is left will be told.
    pub fn evict(&self, shards: &[Digest]) {
        if !shards.is_empty() {
            self.forget_telling();
        }
        for digest in shards {
            let path = self.folder.join(format!("{}.{WHOLE}", digest.hex()));
            if path.exists() && !folder::evict(&path) {
                tracing::info!(%digest, "features in use are kept");
            }
        }
    }

    fn files(&self) -> Files {
        let Ok(entries) = std::fs::read_dir(self.folder.as_path()) else {
            // Nobody has computed any yet.
            return Files::new();
        };
        let files = entries.flatten().filter_map(|entry| {
            let (path, data) = (entry.path(), entry.metadata().ok()?);
            if path.extension()? != WHOLE {
                return None;
            }
            Some((path, (data.modified().ok()?, data.len())))
        });
        files.collect()
    }
}

/// The `most` files that were used last, by name.
fn newest(files: &Files, most: usize) -> Vec<(&PathBuf, &(SystemTime, u64))> {
    let mut all: Vec<_> = files.iter().collect();
    if all.len() > most {
        all.sort_unstable_by_key(|(path, (used, _))| (std::cmp::Reverse(*used), *path));
        all.truncate(most);
        all.sort_unstable();
    }
    all
}

fn shard(path: &Path, used: SystemTime, bytes: u64) -> Option<FeatureShard> {
    let name = path.file_stem()?.to_str()?;
    let since = used.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(FeatureShard {
        digest: format!("sha256:{name}").parse().ok()?,
        plan: Footer::read(&mut File::open(path).ok()?)?.plan,
        bytes,
        used_at: Timestamp(i64::try_from(since.as_millis()).ok()?),
    })
}

/// Plans of shards that no network has computed.
#[cfg(test)]
pub(crate) mod sample {
    use pomona_api::shard::{Key, Plan};
    use pomona_domain::Digest;
    use pomona_domain::dataset::Split;
    use pomona_domain::view::View;
    use std::collections::BTreeMap;
    use std::ops::Range;

    pub(crate) fn plan(arch: &str, rows: Range<u64>, width: i64) -> Plan {
        Plan {
            rows: rows.end - rows.start,
            shape: vec![width],
            key: Key {
                prefix_version: 1,
                arch: arch.to_owned(),
                cut: 2,
                block: "layer1".to_owned(),
                weights: Digest::of(b"weights"),
                mean: [0.0; 3],
                scale: [1.0; 3],
                dataset: Digest::of(b"manifest"),
                split: Split::Train,
                view: View::AS_IS,
                from: rows.start,
                to: rows.end,
                batch: 32,
                environment: BTreeMap::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn write(folder: &Path, arch: &str) -> Digest {
        let plan = sample::plan(arch, 0..3, 4);
        let digest = plan.key.digest().unwrap();
        let path = folder.join(format!("{}.{WHOLE}", digest.hex()));
        let mut file = File::create(path).unwrap();
        file.write_all(&[0; 48]).unwrap();
        let rows_sha256 = Digest::of(&[0; 48]);
        Footer { plan, rows_sha256 }.write(&mut file).unwrap();
        digest
    }

    #[test]
    fn shards_are_told_once_and_again_when_they_change_or_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let none = Features::new(folder.path().join("none"), 0);
        assert_eq!((none.store(), none.bytes()), (None, 0));
        assert_eq!(none.news(), Some(vec![]));
        let features = Features::new(folder.path().to_owned(), 1 << 20);
        assert_eq!(features.store().unwrap().max_bytes, 1 << 20);
        assert_eq!(features.news(), Some(vec![]));
        assert_eq!(features.news(), None);
        let a = write(folder.path(), "a");
        std::fs::write(folder.path().join("half.part"), "").unwrap();
        std::fs::write(folder.path().join("torn.features"), "torn").unwrap();
        let news = features.news().unwrap();
        assert_eq!(news.len(), 1);
        assert_eq!((news[0].digest, news[0].plan.rows), (a, 3));
        assert!(news[0].bytes > 48 && features.bytes() == news[0].bytes + 4);
        assert_eq!(features.news(), None);
        features.forget_telling();
        assert_eq!(features.news().unwrap(), news);
    }

    #[test]
    fn the_shards_that_were_used_last_are_told() {
        let after = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let times = [("a", 3), ("b", 1), ("c", 2)];
        let files: Files = (times.into_iter())
            .map(|(name, used)| (PathBuf::from(name), (after(used), 1)))
            .collect();
        let names = |most| -> Vec<_> {
            let all = newest(&files, most).into_iter();
            all.map(|(path, _)| path.to_str().unwrap()).collect()
        };
        assert_eq!(names(3), ["a", "b", "c"]);
        assert_eq!(names(2), ["a", "c"]);
        assert_eq!(names(1), ["a"]);
    }

    #[test]
    fn what_is_in_use_is_not_evicted() {
        let folder = tempfile::tempdir().unwrap();
        let features = Features::new(folder.path().to_owned(), 1 << 20);
        let (a, b) = (write(folder.path(), "a"), write(folder.path(), "b"));
        let reader = File::open(folder.path().join(format!("{}.{WHOLE}", a.hex()))).unwrap();
        reader.lock_shared().unwrap();
        features.evict(&[a, b, Digest::of(b"unknown")]);
        let left: Vec<Digest> = features.news().unwrap().iter().map(|s| s.digest).collect();
        assert_eq!(left, [a]);
        drop(reader);
        features.evict(&[a]);
        assert_eq!(features.news(), Some(vec![]));
    }
}
