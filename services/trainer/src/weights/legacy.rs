//! PyTorch's container before version 1.6: five pickles (magic number, protocol, system, object,
//! storage keys), then the storages, each with its number of elements before it.

use super::assemble::{Storages, assemble};
use super::machine::run;
use super::pickle::{Arena, Input, Value};
use super::{DESCRIPTION_LIMIT, HostTensor, bomb, damaged, state, unknown, unreadable};
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;

pub(super) fn read(mut file: File, length: u64) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let mut bytes = Vec::new();
    file.by_ref()
        .take(DESCRIPTION_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    let mut input = Input {
        bytes: &bytes,
        at: 0,
    };
    let mut arena = Arena::default();
    match run(&mut input, &mut arena) {
        Ok(Value::Int(MAGIC)) => {}
        // A plain pickle that asks for something forbidden is told so; the rest is no format.
        Err(fault) if fault.code == Code::UnsafePickle => return Err(fault),
        Err(_) if bytes.starts_with(&[0x80, 0x02, 0x8a, 0x0a]) => {
            return Err(damaged("the weights file is cut off in its first bytes"));
        }
        Ok(_) | Err(_) => return Err(unknown("the weights file is of no known format")),
    }
    read_container(&file, length, &mut input, &mut arena).map_err(|fault| {
        let at_the_limit = bytes.len() as u64 == DESCRIPTION_LIMIT && length > DESCRIPTION_LIMIT;
        if at_the_limit && fault.code == Code::DamagedWeights && input.at >= bytes.len() {
            bomb("the description of the weights file is over 64 MiB")
        } else {
            fault
        }
    })
}

fn read_container(
    file: &File,
    length: u64,
    input: &mut Input<'_>,
    arena: &mut Arena,
) -> Result<BTreeMap<String, HostTensor>, Fault> {
    if run(input, arena)? != Value::Int(PROTOCOL) {
        return Err(unknown("the weights file has an unknown protocol"));
    }
    let system = run(input, arena)?;
    if is_big_endian(arena, input, system) {
        return Err(unknown(
            "the weights file was written on a big-endian machine",
        ));
    }
    let object = run(input, arena)?;
    let keys = run(input, arena)?;
    let keys: Vec<&str> = arena
        .sequence(keys)
        .ok_or_else(|| damaged("the weights file lists no storages"))?
        .iter()
        .map(|key| {
            let range = key
                .text()
                .ok_or_else(|| damaged("a storage has no usable key"))?;
            input.str(range)
        })
        .collect::<Result<_, _>>()?;
    let sizes = element_sizes(arena, input)?;
    let mut places = BTreeMap::new();
    let mut at = input.at as u64;
    for key in keys {
        let mut count = [0u8; 8];
        file.read_exact_at(&mut count, at)
            .map_err(|_| damaged("the weights file is cut off before a storage"))?;
        let size = sizes
            .get(key)
            .and_then(|size| u64::from_le_bytes(count).checked_mul(*size))
            .ok_or_else(|| damaged(format!("the storage `{key}` belongs to nothing")))?;
        let start = at + 8;
        at = start
            .checked_add(size)
            .filter(|end| *end <= length)
            .ok_or_else(|| damaged(format!("the weights file is cut off in storage `{key}`")))?;
        places.insert(key, (start, size));
    }
    let tensors = state::tensors(arena, input, object)?;
    let mut storages = Places { file, places };
    assemble(arena, input, tensors, &mut storages, length)
}

/// Bytes of an element by storage key; the container itself tells only the number of elements.
fn element_sizes<'a>(arena: &Arena, input: &Input<'a>) -> Result<BTreeMap<&'a str, u64>, Fault> {
    let mut sizes = BTreeMap::new();
    for storage in arena.storages() {
        let key = input.str(storage.key)?;
        let size = storage
            .dtype
            .map(|dtype| dtype.size() as u64)
            .ok_or_else(|| {
                let message = format!("the storage `{key}` has a type that is not read");
                Fault::new(Code::MisshapenTensor, message)
            })?;
        if sizes.insert(key, size).is_some_and(|other| other != size) {
            return Err(damaged(format!("the storage `{key}` has two types")));
        }
    }
    Ok(sizes)
}

fn is_big_endian(arena: &Arena, input: &Input<'_>, system: Value) -> bool {
    arena.dict(system).is_some_and(|items| {
        items.iter().any(|(key, value)| {
            let name = key.text().and_then(|range| input.str(range).ok());
            name == Some("little_endian") && *value == Value::Bool(false)
        })
    })
}

struct Places<'f, 'k> {
    file: &'f File,
    places: BTreeMap<&'k str, (u64, u64)>,
}

impl Storages for Places<'_, '_> {
    fn size(&self, key: &str) -> Option<u64> {
        self.places.get(key).map(|(_, size)| *size)
    }

    fn read(&mut self, key: &str) -> Result<Vec<u8>, Fault> {
        let (start, size) = self.places[key];
        let mut bytes = vec![0; size as usize];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(|error| unreadable(&error))?;
        Ok(bytes)
    }
}
