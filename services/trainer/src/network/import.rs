//! Import of a backbone: the user's file, checked against its architecture, as canonical
//! safetensors.

use super::{Arch, HeadPlan, Network};
use crate::checkpoint::file::{self, Content};
use crate::weights;
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Fault};
use std::path::Path;
use tch::{Device, Kind};

/// Name of the file that an import writes.
pub const FILE: &str = "backbone.safetensors";

/// Reads `source` (safetensors or `.pth`), checks it, and writes [`FILE`] into `output`: f32, sorted
/// by name, the source head included, counters and auxiliary classifiers left out.
pub fn import(arch: &str, source: &Path, output: &Path) -> Result<TaskResult, Fault> {
    let arch = Arch::parse(arch)?;
    let tensors = weights::read(source)?;
    let head = format!("{}.weight", arch.head_name());
    let classes = tensors
        .get(&head)
        .and_then(|tensor| tensor.shape.first().copied())
        .ok_or_else(|| {
            Fault::new(
                Code::MissingTensor,
                format!("tensor `{head}` of `{}` is missing", arch.name()),
            )
            .hint("check `--arch`: the file may hold another network, or one without its head")
        })?;
    check_head(&tensors[&head].shape, arch.features() as usize, &head)?;
    let plan = HeadPlan::linear(u32::try_from(classes).unwrap_or(u32::MAX));
    let network = Network::new(arch, &plan, Kind::Float, Device::Cpu);
    network.load(&tensors)?;
    let content: Content = network
        .entries()
        .iter()
        .map(|entry| (entry.name.clone(), super::host_tensor(&entry.tensor)))
        .collect();
    std::fs::create_dir_all(output).map_err(|error| crate::fault::file("make", output, &error))?;
    let written = file::write(&output.join(FILE), &content, None)?;
    Ok(TaskResult::Backbone {
        weights: FILE.to_owned(),
        digest: written.digest,
        image_size: arch.image_size(),
        blocks: network.catalogue(),
        tensors: content.len() as u32,
        head_parameters: network.count(None),
    })
}

/// A head is allocated by its classes before its shape is compared: with as many features as the
/// network has, it is no larger than what the file already held.
fn check_head(shape: &[usize], features: usize, name: &str) -> Result<(), Fault> {
    if let [classes, wide] = *shape
        && classes > 0
        && wide == features
    {
        return Ok(());
    }
    Err(Fault::new(
        Code::MisshapenTensor,
        format!("tensor `{name}` has shape {shape:?}, the network wants [classes, {features}]"),
    ))
}
