//! PyTorch's container since version 1.6: a zip of stored entries, `NAME/data.pkl` and
//! `NAME/data/KEY`.

use super::assemble::{Storages, assemble};
use super::machine::run;
use super::pickle::{Arena, Input};
use super::{
    DESCRIPTION_LIMIT, GROWTH_LIMIT, HostTensor, TOTAL_LIMIT, bomb, damaged, state, unknown,
};
use pomona_domain::Fault;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use zip::{CompressionMethod, ZipArchive};

type Zip = ZipArchive<BufReader<File>>;

pub(super) fn read(file: File, length: u64) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let mut zip = ZipArchive::new(BufReader::new(file))
        .map_err(|error| damaged(format!("the weights file is no whole zip: {error}")))?;
    let sizes = checked_sizes(&mut zip, length)?;
    let root = sizes
        .keys()
        .find_map(|name| match name.strip_suffix("data.pkl") {
            Some(root) if root.is_empty() || root.ends_with('/') => Some(root.to_owned()),
            _ => None,
        })
        .ok_or_else(|| unknown("the weights file is a zip without `data.pkl`"))?;
    if sizes.contains_key(&format!("{root}byteorder")) {
        let order = entry(&mut zip, &format!("{root}byteorder"), 64)?;
        if order != b"little" {
            return Err(unknown(
                "the weights file was written on a big-endian machine",
            ));
        }
    }
    let description = entry(&mut zip, &format!("{root}data.pkl"), DESCRIPTION_LIMIT)?;
    let mut input = Input {
        bytes: &description,
        at: 0,
    };
    let mut arena = Arena::default();
    let value = run(&mut input, &mut arena)?;
    let tensors = state::tensors(&arena, &input, value)?;
    let mut storages = Entries { zip, sizes, root };
    assemble(&arena, &input, tensors, &mut storages, length)
}

/// Declared sizes by name, when they are within the limits. PyTorch stores and never compresses,
/// so a compressed entry is either foreign or a bomb.
fn checked_sizes(zip: &mut Zip, length: u64) -> Result<BTreeMap<String, u64>, Fault> {
    let limit = TOTAL_LIMIT.min(length.saturating_mul(GROWTH_LIMIT));
    let mut sizes = BTreeMap::new();
    let mut total = 0u64;
    let mut compressed = None;
    for index in 0..zip.len() {
        let entry = zip
            .by_index_raw(index)
            .map_err(|error| damaged(format!("the weights file is no whole zip: {error}")))?;
        let name = entry
            .name()
            .map_err(|_| damaged("an entry of the weights file has a damaged name"))?
            .into_owned();
        total = total
            .checked_add(entry.size())
            .filter(|total| *total <= limit)
            .ok_or_else(|| {
                bomb(format!(
                    "the weights file of {length} bytes would unpack to more than {limit} bytes"
                ))
            })?;
        if entry.compression() != CompressionMethod::Stored {
            compressed = Some(name.clone());
        } else if entry.size() != entry.compressed_size() {
            return Err(damaged(format!("the entry `{name}` contradicts itself")));
        }
        sizes.insert(name, entry.size());
    }
    match compressed {
        Some(name) => Err(unknown(format!(
            "the entry `{name}` of the weights file is compressed, which PyTorch never does"
        ))),
        None => Ok(sizes),
    }
}

/// The bytes of an entry, at most `limit`; its checksum is checked.
fn entry(zip: &mut Zip, name: &str, limit: u64) -> Result<Vec<u8>, Fault> {
    let cut_off = |error: &dyn std::fmt::Display| {
        damaged(format!(
            "the entry `{name}` of the weights file is damaged: {error}"
        ))
    };
    let mut entry = zip.by_name(name).map_err(|error| cut_off(&error))?;
    let size = entry.size();
    if size > limit {
        return Err(bomb(format!("the entry `{name}` is over {limit} bytes")));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // One byte more than declared is enough to see a lie; the checksum is checked at the end.
    entry
        .by_ref()
        .take(size + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cut_off(&error))?;
    if bytes.len() as u64 != size {
        return Err(cut_off(&"its size is not the declared one"));
    }
    Ok(bytes)
}

struct Entries {
    zip: Zip,
    sizes: BTreeMap<String, u64>,
    root: String,
}

impl Storages for Entries {
    fn size(&self, key: &str) -> Option<u64> {
        self.sizes.get(&format!("{}data/{key}", self.root)).copied()
    }

    fn read(&mut self, key: &str) -> Result<Vec<u8>, Fault> {
        let name = format!("{}data/{key}", self.root);
        entry(&mut self.zip, &name, TOTAL_LIMIT)
    }
}
