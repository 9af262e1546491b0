//! Loading tensors by name: nothing missing, nothing extra, every shape as it should be.

use super::{Entry, Network};
use crate::fault;
use crate::weights::{DType, HostTensor};
use pomona_domain::{Code, Digest, Fault};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

impl Network {
    /// Loads a published state dict, the head included.
    pub fn load(&self, tensors: &BTreeMap<String, HostTensor>) -> Result<(), Fault> {
        self.refuse_extra(tensors, |_| false)?;
        self.fill(tensors, |_| true)
    }

    /// Loads all but the head; the source head in `tensors` is left aside.
    pub fn load_backbone(&self, tensors: &BTreeMap<String, HostTensor>) -> Result<(), Fault> {
        let head = self.arch().head_name();
        self.refuse_extra(tensors, |name| {
            name.strip_prefix(head)
                .is_some_and(|rest| rest.starts_with('.'))
        })?;
        self.fill(tensors, |entry| entry.block.is_some())
    }

    /// Loads what `what` picks, from a file that has at least these.
    pub fn fill(
        &self,
        tensors: &BTreeMap<String, HostTensor>,
        what: impl Fn(&Entry) -> bool,
    ) -> Result<(), Fault> {
        for entry in self.entries().iter().filter(|entry| what(entry)) {
            let tensor = tensors
                .get(&entry.name)
                .ok_or_else(|| self.missing(&entry.name))?;
            copy(&entry.name, tensor, &entry.tensor)?;
        }
        Ok(())
    }

    fn refuse_extra(
        &self,
        tensors: &BTreeMap<String, HostTensor>,
        aside: impl Fn(&str) -> bool,
    ) -> Result<(), Fault> {
        let known: std::collections::BTreeSet<&str> = self
            .entries()
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        let extra = tensors.keys().find(|name| {
            !known.contains(name.as_str()) && !self.arch().is_ignored(name) && !aside(name)
        });
        match extra {
            None => Ok(()),
            Some(name) => Err(Fault::new(
                Code::ExtraTensor,
                format!("tensor `{name}` is not part of `{}`", self.arch().name()),
            )
            .hint("check `--arch`: the file may hold another network, or more than a state dict")),
        }
    }

    fn missing(&self, name: &str) -> Fault {
        Fault::new(
            Code::MissingTensor,
            format!("tensor `{name}` of `{}` is missing", self.arch().name()),
        )
        .hint("check `--arch`: the file may hold another network")
    }
}

/// Copies host bytes into a tensor of the same shape, whatever its own float type.
pub fn copy(name: &str, from: &HostTensor, to: &Tensor) -> Result<(), Fault> {
    let shape: Vec<i64> = from.shape.iter().map(|&side| side as i64).collect();
    if shape != to.size() {
        return Err(Fault::new(
            Code::MisshapenTensor,
            format!(
                "tensor `{name}` has shape {shape:?}, the network wants {:?}",
                to.size()
            ),
        ));
    }
    let kind = float_kind(from.dtype).ok_or_else(|| {
        Fault::new(
            Code::MisshapenTensor,
            format!(
                "tensor `{name}` holds {:?}, the network wants floats",
                from.dtype
            ),
        )
    })?;
    let tensor = Tensor::f_from_data_size(&from.bytes, &shape, kind)
        .map_err(|error| fault::torch(&error))?;
    tch::no_grad(|| to.shallow_clone().f_copy_(&tensor).map(drop))
        .map_err(|error| fault::torch(&error))
}

fn float_kind(dtype: DType) -> Option<Kind> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every type but four is no float"
    )]
    match dtype {
        DType::F16 => Some(Kind::Half),
        DType::BF16 => Some(Kind::BFloat16),
        DType::F32 => Some(Kind::Float),
        DType::F64 => Some(Kind::Double),
        _ => None,
    }
}

/// The digest of a tensor's bytes, read piece by piece: a copy of the whole would be memory that was
/// never touched, which costs more than the hash.
pub fn digest(tensor: &Tensor) -> Digest {
    const PIECE: i64 = 1 << 14;
    let flat = tensor.detach().to_device(tch::Device::Cpu).reshape(-1);
    let width = flat.kind().elt_size_in_bytes();
    let mut hash = Sha256::new();
    let mut bytes = vec![0; PIECE as usize * width];
    for piece in flat.split(PIECE, 0) {
        let count = piece.numel();
        piece.copy_data_u8(&mut bytes, count);
        hash.update(&bytes[..count * width]);
    }
    Digest(hash.finalize().into())
}

/// A tensor's bytes on the host. Floats of 32 and 64 bits are the only kinds a network has.
pub fn host_tensor(tensor: &Tensor) -> HostTensor {
    let flat = tensor.detach().to_device(tch::Device::Cpu).contiguous();
    let (dtype, width) = if flat.kind() == Kind::Double {
        (DType::F64, 8)
    } else {
        (DType::F32, 4)
    };
    let mut bytes = vec![0; flat.numel() * width];
    flat.copy_data_u8(&mut bytes, flat.numel());
    HostTensor {
        dtype,
        shape: flat.size().iter().map(|&side| side as usize).collect(),
        bytes: bytes.into(),
    }
}
