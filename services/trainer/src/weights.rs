//! Weights as users have them: safetensors and PyTorch's two containers, read in pure Rust.
//!
//! A `.pth` file is a program for the pickle machine. Here it is read by a machine that can only
//! build lists, dictionaries and tensor descriptions: nothing is ever called, and a global outside
//! a short list is refused by its name. Sizes are checked before memory is taken. What comes out
//! are contiguous little-endian tensors; whether they fit a network is decided elsewhere.

mod assemble;
mod legacy;
mod machine;
mod pickle;
mod state;
mod torch_zip;

use crate::dist::ffi;
use bytes::Bytes;
use pomona_domain::{Code, Digest, Fault};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of all tensors of one file.
pub(crate) const TOTAL_LIMIT: u64 = 8 << 30;
/// How many times the file's size its tensors may take (shared storages, expanded views).
pub(crate) const GROWTH_LIMIT: u64 = 20;
/// Bytes of the description of the tensors.
pub(crate) const DESCRIPTION_LIMIT: u64 = 64 << 20;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Byte.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The same type in safetensors' words.
    pub fn to_safetensors(self) -> Dtype {
        match self {
            Self::F64 => Dtype::F64,
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::I64 => Dtype::I64,
            Self::I32 => Dtype::I32,
            Self::I16 => Dtype::I16,
            Self::I8 => Dtype::I8,
            Self::U8 => Dtype::U8,
            Self::Bool => Dtype::BOOL,
        }
    }

    /// The type that safetensors calls `dtype`, if it is one of ours.
    pub fn from_safetensors(dtype: Dtype) -> Option<Self> {
        [
            Self::F64,
            Self::F32,
            Self::F16,
            Self::BF16,
            Self::I64,
            Self::I32,
            Self::I16,
            Self::I8,
            Self::U8,
            Self::Bool,
        ]
        .into_iter()
        .find(|ours| ours.to_safetensors() == dtype)
    }
}

/// A tensor in memory: contiguous, row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTensor {
    /// Type of the elements.
    pub dtype: DType,
    /// Lengths of the axes; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements; a slice of the file they were read from where that is possible.
    pub bytes: Bytes,
}

/// Reads every tensor of a file. The format is told by content.
///
/// Errors: `UnknownWeights` (no known format), `UnsafePickle` (a global outside the allow-list, by
/// name), `DamagedWeights` (cut off or contradictory), `ZipBomb` (over 8 GiB or 20 times the file),
/// `MisshapenTensor` (a type that is not read), `LocalFile`.
pub fn read(path: &Path) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let mut file = File::open(path).map_err(|error| local(path, &error))?;
    let length = file.metadata().map_err(|error| local(path, &error))?.len();
    if length > TOTAL_LIMIT {
        return Err(bomb(format!(
            "the weights file has {length} bytes, the limit is 8 GiB"
        )));
    }
    let mut start = Vec::new();
    file.by_ref()
        .take(16)
        .read_to_end(&mut start)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(|error| local(path, &error))?;
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        torch_zip::read(file, length)
    } else if start.get(8) == Some(&b'{') {
        read_safetensors(file, length)
    } else {
        legacy::read(file, length)
    }
}

/// Maps a safetensors file, a blob, that must have this digest: `BlobCorrupt` if it has another.
pub fn read_checked(path: &Path, digest: Digest) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let bytes = File::open(path).and_then(|file| ffi::map(&file));
    let bytes = bytes.map_err(|error| local(path, &error))?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(Fault::new(
            Code::BlobCorrupt,
            format!("`{}` has the digest {found}, not {digest}", path.display()),
        ));
    }
    parse_safetensors(&bytes)
}

fn read_safetensors(mut file: File, length: u64) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let mut bytes = Vec::with_capacity(length as usize);
    file.read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    parse_safetensors(&Bytes::from(bytes))
}

fn parse_safetensors(bytes: &Bytes) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|error| damaged(format!("the safetensors file is damaged: {error}")))?;
    let mut all = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let dtype = DType::from_safetensors(view.dtype()).ok_or_else(|| {
            Fault::new(
                Code::MisshapenTensor,
                format!(
                    "the tensor `{name}` has the type {:?}, which is not read",
                    view.dtype()
                ),
            )
        })?;
        let tensor = HostTensor {
            dtype,
            shape: view.shape().to_vec(),
            bytes: bytes.slice_ref(view.data()),
        };
        all.insert(name.to_owned(), tensor);
    }
    Ok(all)
}

pub(crate) fn damaged(message: impl Into<String>) -> Fault {
    Fault::new(Code::DamagedWeights, message).hint("download or save the file again")
}

pub(crate) fn unknown(message: impl Into<String>) -> Fault {
    Fault::new(Code::UnknownWeights, message).hint(
        "a safetensors file, or a state dict written by `torch.save(model.state_dict(), path)`, \
         is read",
    )
}

pub(crate) fn bomb(message: impl Into<String>) -> Fault {
    Fault::new(Code::ZipBomb, message)
}

pub(crate) fn unreadable(error: &std::io::Error) -> Fault {
    Fault::new(
        Code::LocalFile,
        format!("the weights file cannot be read: {error}"),
    )
}

fn local(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        Code::LocalFile,
        format!("`{}` cannot be used: {error}", path.display()),
    )
}
