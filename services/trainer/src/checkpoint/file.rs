//! One safetensors file, written so that it is whole or not there: temporary file, sync, rename,
//! sync of the folder. Tensors are sorted and the metadata is one entry, so that bytes repeat.

use crate::fault;
use crate::weights::{DType, HostTensor};
use bytes::Bytes;
use pomona_domain::{Code, Digest, Fault};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Tensors by name.
pub type Content = BTreeMap<String, HostTensor>;

/// The one metadata entry.
const KEY: &str = "pomona";

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The file's bytes.
pub fn encode(content: &Content, metadata: Option<String>) -> Result<Vec<u8>, Fault> {
    let mut views = Vec::with_capacity(content.len());
    for (name, tensor) in content {
        let view = TensorView::new(dtype(tensor.dtype)?, tensor.shape.clone(), &tensor.bytes)
            .map_err(fault::internal)?;
        views.push((name, view));
    }
    let metadata = metadata.map(|text| HashMap::from([(KEY.to_owned(), text)]));
    safetensors::serialize(views, metadata).map_err(fault::internal)
}

/// Encodes and writes.
pub fn write(path: &Path, content: &Content, metadata: Option<String>) -> Result<Written, Fault> {
    write_bytes(path, &encode(content, metadata)?, || ())
}

/// Writes `bytes` so that `path` is whole or not there. `before_rename` is called when the
/// temporary file is on disk.
pub fn write_bytes(
    path: &Path,
    bytes: &[u8],
    before_rename: impl FnOnce(),
) -> Result<Written, Fault> {
    let cannot = |error: &std::io::Error| fault::file("write", path, error);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).map_err(|error| cannot(&error))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|error| cannot(&error))?;
    before_rename();
    std::fs::rename(&temporary, path).map_err(|error| cannot(&error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| cannot(&error))?;
    Ok(Written {
        path: path.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    })
}

/// Reads a file that [`write()`] wrote: its tensors and its metadata entry.
pub fn read(path: &Path) -> Result<(Content, Option<String>), Fault> {
    let bytes = std::fs::read(path).map_err(|error| fault::file("read", path, &error))?;
    let bytes = Bytes::from(bytes);
    let damaged = |error: &dyn std::fmt::Display| {
        Fault::new(
            Code::BadCheckpoint,
            format!("`{}` is no safetensors file: {error}", path.display()),
        )
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error))?;
    let metadata = header
        .metadata()
        .as_ref()
        .and_then(|map| map.get(KEY).cloned());
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?;
    let mut content = Content::new();
    for (name, view) in tensors.iter() {
        let dtype = [DType::F32, DType::F64]
            .into_iter()
            .find(|ours| ours.to_safetensors() == view.dtype())
            .ok_or_else(|| damaged(&format!("tensor `{name}` holds {:?}", view.dtype())))?;
        let tensor = HostTensor {
            dtype,
            shape: view.shape().to_vec(),
            bytes: bytes.slice_ref(view.data()),
        };
        content.insert(name.to_owned(), tensor);
    }
    Ok((content, metadata))
}

fn dtype(dtype: DType) -> Result<Dtype, Fault> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a network holds floats of two widths"
    )]
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::F64 => Ok(Dtype::F64),
        other => Err(fault::internal(format!("{other:?} is never written"))),
    }
}
