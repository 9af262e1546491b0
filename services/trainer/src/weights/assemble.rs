//! From descriptions and storages to contiguous tensors; strides are honoured here.

use super::pickle::{Arena, Input, TensorRef};
use super::{DType, GROWTH_LIMIT, HostTensor, TOTAL_LIMIT, bomb, damaged};
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;

/// Where storages come from.
pub(super) trait Storages {
    /// Bytes under a key, if it exists.
    fn size(&self, key: &str) -> Option<u64>;
    /// The bytes under a key that exists.
    fn read(&mut self, key: &str) -> Result<Vec<u8>, Fault>;
}

/// One tensor that waits for its storage.
struct Wanted {
    name: String,
    dtype: DType,
    tensor: TensorRef,
}

/// Reads every storage that is needed once and cuts its tensors out. `file` is the size of the
/// file, which bounds what may come out of it.
pub(super) fn assemble(
    arena: &Arena,
    input: &Input<'_>,
    tensors: BTreeMap<String, TensorRef>,
    storages: &mut impl Storages,
    file: u64,
) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let limit = TOTAL_LIMIT.min(file.saturating_mul(GROWTH_LIMIT));
    let mut total = 0u64;
    let mut by_key: BTreeMap<&str, Vec<Wanted>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let storage = arena
            .storage(tensor.storage)
            .ok_or_else(|| damaged(format!("the tensor `{name}` has no storage")))?;
        let dtype = storage.dtype.ok_or_else(|| {
            let message = format!("the tensor `{name}` has a type that is not read");
            Fault::new(Code::MisshapenTensor, message)
                .hint("float, half, bfloat16, double, integer and bool tensors are read")
        })?;
        let key = input.str(storage.key)?;
        let expected = storage.elements.checked_mul(dtype.size() as u64);
        let found = storages.size(key);
        if found.is_none() || found != expected {
            return Err(damaged(format!(
                "the storage `{key}` of `{name}` is missing or cut off"
            )));
        }
        total = bytes_of(&tensor, dtype)
            .and_then(|bytes| total.checked_add(bytes))
            .filter(|total| *total <= limit)
            .ok_or_else(|| {
                bomb(format!(
                    "the tensors would take more than {limit} bytes, from `{name}` on"
                ))
            })?;
        if !fits(&tensor, storage.elements) {
            return Err(damaged(format!(
                "the tensor `{name}` reaches beyond its storage"
            )));
        }
        by_key.entry(key).or_default().push(Wanted {
            name,
            dtype,
            tensor,
        });
    }
    let mut all = BTreeMap::new();
    for (key, wanted) in by_key {
        let bytes = storages.read(key)?;
        for Wanted {
            name,
            dtype,
            tensor,
        } in wanted
        {
            all.insert(name, cut(&bytes, dtype, &tensor));
        }
    }
    Ok(all)
}

fn elements(tensor: &TensorRef) -> Option<u64> {
    tensor
        .shape
        .iter()
        .try_fold(1u64, |product, length| product.checked_mul(*length))
}

fn bytes_of(tensor: &TensorRef, dtype: DType) -> Option<u64> {
    elements(tensor)?.checked_mul(dtype.size() as u64)
}

/// Whether the last element lies in the storage.
fn fits(tensor: &TensorRef, storage: u64) -> bool {
    if tensor.shape.contains(&0) {
        return true;
    }
    tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(tensor.offset, |last, (length, stride)| {
            (length - 1)
                .checked_mul(*stride)
                .and_then(|reach| last.checked_add(reach))
        })
        .is_some_and(|last| last < storage)
}

/// A contiguous copy of a view that [`fits`].
fn cut(storage: &[u8], dtype: DType, tensor: &TensorRef) -> HostTensor {
    let size = dtype.size();
    let shape: Vec<usize> = tensor.shape.iter().map(|length| *length as usize).collect();
    let strides: Vec<usize> = tensor.strides.iter().map(|step| *step as usize).collect();
    let count: usize = shape.iter().product();
    let mut bytes = Vec::with_capacity(count * size);
    if count > 0 {
        // The longest tail of axes that is contiguous is copied in one piece.
        let mut run = 1;
        let mut outer = shape.len();
        while outer > 0 && (shape[outer - 1] == 1 || strides[outer - 1] == run) {
            outer -= 1;
            run *= shape[outer];
        }
        let mut index = vec![0usize; outer];
        loop {
            let place = tensor.offset as usize
                + index
                    .iter()
                    .zip(&strides)
                    .map(|(i, s)| i * s)
                    .sum::<usize>();
            bytes.extend_from_slice(&storage[place * size..(place + run) * size]);
            // Counts up like an odometer, the last axis fastest.
            let mut axis = outer;
            while axis > 0 {
                axis -= 1;
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
                if axis == 0 {
                    axis = usize::MAX;
                    break;
                }
            }
            if outer == 0 || axis == usize::MAX {
                break;
            }
        }
    }
    HostTensor {
        dtype,
        shape,
        bytes: bytes.into(),
    }
}
