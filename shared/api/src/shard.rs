//! The file in which a trainer keeps features and a worker looks for them.
//!
//! Rows of f32 from offset 0 (so that they can be mapped), then the [`Footer`] as JSON, then its
//! length as 8 little-endian bytes and [`MAGIC`]. A whole shard is named `DIGEST.features` by the
//! hexadecimal digest of its key, one that is being written `DIGEST.part`. Who uses a file holds a
//! lock on it (`flock`): its builder an exclusive one, its readers shared ones.

pub mod folder;

use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use pomona_domain::{Digest, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use utoipa::ToSchema;

/// Ending of a whole shard.
pub const WHOLE: &str = "features";
/// Ending of one that is being written.
pub const PART: &str = "part";
/// Last bytes of a whole shard.
pub const MAGIC: &[u8; 8] = b"POMFEAT1";
/// The largest footer in bytes.
const LIMIT: u64 = 1 << 16;

/// Everything that decides the bytes of a shard: what the features are of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Grows when the same key would give other bytes.
    pub prefix_version: u32,
    /// Architecture.
    pub arch: String,
    /// Frozen blocks.
    pub cut: u32,
    /// Name of the last one.
    pub block: String,
    /// Digest of everything in them: names, shapes, bytes, statistics included.
    #[schema(value_type = String)]
    pub weights: Digest,
    /// From bytes to what the network takes: mean and scale for each channel.
    pub mean: [f64; 3],
    /// See `mean`.
    pub scale: [f64; 3],
    /// Digest of the data set's manifest: every picture, the split, size, fit and filter.
    #[schema(value_type = String)]
    pub dataset: Digest,
    /// Which part of it.
    #[schema(value_type = String)]
    pub split: Split,
    /// Which version of the images: `mirrored` or not, or which `crop` and whether it `flips`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub view: View,
    /// The rows: images `from..to` of that part. Trainers compute those of one part side by side.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// Images of one pass; the last may have fewer.
    pub batch: u32,
    /// The machine and how it computes: precision, threads, instruction set or GPU, libtorch.
    pub environment: BTreeMap<String, String>,
}

impl Key {
    /// The shard's name.
    pub fn digest(&self) -> Result<Digest, Fault> {
        let text = serde_json::to_vec(self).map_err(|error| {
            Fault::new(
                pomona_domain::Code::Internal,
                format!("a key is no JSON: {error}"),
            )
        })?;
        Ok(Digest::of(&text))
    }
}

/// What a shard holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// What the features are of.
    pub key: Key,
    /// Images: `key.to - key.from`.
    pub rows: u64,
    /// Shape of a row in memory order (`[H, W, C]`, or `[F]` when pooled).
    pub shape: Vec<i64>,
}

impl Plan {
    /// Bytes of its rows.
    pub fn bytes(&self) -> u64 {
        let row: i64 = self.shape.iter().product();
        self.rows * row.max(0) as u64 * 4
    }
}

/// What stands behind the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Footer {
    /// What they are.
    pub plan: Plan,
    /// Their digest.
    pub rows_sha256: Digest,
}

impl Footer {
    /// Writes it, its length and the magic word.
    pub fn write(&self, file: &mut impl Write) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        file.write_all(&text)?;
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(MAGIC)
    }

    /// Reads it from the end of a file; `None` when that is no whole shard.
    pub fn read(file: &mut (impl Read + Seek)) -> Option<Self> {
        let mut tail = [0; 16];
        let size = file.seek(SeekFrom::End(0)).ok()?;
        file.seek(SeekFrom::Start(size.checked_sub(16)?)).ok()?;
        file.read_exact(&mut tail).ok()?;
        let (length, magic) = tail.split_at(8);
        let length = u64::from_le_bytes(length.try_into().ok()?);
        if magic != MAGIC || length > LIMIT {
            return None;
        }
        let begin = size.checked_sub(16 + length)?;
        file.seek(SeekFrom::Start(begin)).ok()?;
        let mut text = vec![0; usize::try_from(length).ok()?];
        file.read_exact(&mut text).ok()?;
        let footer: Self = serde_json::from_slice(&text).ok()?;
        (footer.plan.bytes() == begin).then_some(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards that are on disks are found again under their names.
    #[test]
    fn a_key_is_written_as_it_was_when_images_had_two_views() {
        let mut key = Key {
            prefix_version: 2,
            arch: "resnet18".to_owned(),
            cut: 3,
            block: "layer2".to_owned(),
            weights: Digest::of(b"w"),
            mean: [0.485, 0.456, 0.406],
            scale: [0.1, 0.2, 0.3],
            dataset: Digest::of(b"d"),
            split: Split::Train,
            view: View::Whole { mirrored: true },
            from: 0,
            to: 64,
            batch: 32,
            environment: BTreeMap::from([("threads".to_owned(), "1".to_owned())]),
        };
        let text = |key: &Key| serde_json::to_string(key).unwrap_or_default();
        let expect = format!(
            r#"{{"prefix_version":2,"arch":"resnet18","cut":3,"block":"layer2","weights":"{}","mean":[0.485,0.456,0.406],"scale":[0.1,0.2,0.3],"dataset":"{}","split":"train","mirrored":true,"from":0,"to":64,"batch":32,"environment":{{"threads":"1"}}}}"#,
            key.weights, key.dataset
        );
        assert_eq!(text(&key), expect);
        for view in [
            key.view,
            View::Crop {
                crop: 3,
                flips: true,
            },
        ] {
            key.view = view;
            let read: Result<Key, _> = serde_json::from_str(&text(&key));
            assert_eq!(read.ok().as_ref(), Some(&key));
        }
    }
}
