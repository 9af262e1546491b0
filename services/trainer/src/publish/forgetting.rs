//! What a trunk has forgotten of its source task: the source head is put back on the tuned trunk, and
//! its answers about test pictures are compared with those of the untouched source network.
//!
//! The mean Kullback-Leibler divergence of the tuned answers from the source's, in nats. Labels are
//! not asked for: pictures of the target are a probe of the source task, as in learning without
//! forgetting (Li and Hoiem 2016). It is exactly zero while the trunk is the source's.

use super::folder::Served;
use crate::data::Dataset;
use crate::fault;
use crate::network::{HeadPlan, Network, Pass};
use crate::train::evaluate::BATCH;
use crate::weights::HostTensor;
use pomona_domain::dataset::Split;
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// The most pictures that are shown to both, evenly from the test split.
const PICTURES: usize = 256;

/// The divergence in nats, at least 0; nothing without test pictures. `source` is the backbone's file,
/// head included. `beat` is called after every batch.
pub fn measure(
    served: &Served,
    source: &BTreeMap<String, HostTensor>,
    dataset: &Dataset,
    mut beat: impl FnMut(),
) -> Result<Option<f64>, Fault> {
    let pictures = dataset.len(Split::Test);
    if pictures == 0 {
        return Ok(None);
    }
    let network = source_network(served, source)?;
    let trunk = || (network.entries().iter()).filter(|entry| entry.block.is_some());
    let tuned: BTreeMap<&str, &Tensor> = (served.network.entries().iter())
        .map(|entry| (entry.name.as_str(), &entry.tensor))
        .collect();
    if trunk().all(|entry| tuned[entry.name.as_str()].equal(&entry.tensor)) {
        return Ok(Some(0.0));
    }
    let count = pictures.min(PICTURES);
    let shown: Vec<usize> = (0..count).map(|index| index * pictures / count).collect();
    let before = answers(&network, dataset, &shown, &mut beat)?;
    tch::no_grad(|| {
        for entry in trunk() {
            entry
                .tensor
                .shallow_clone()
                .copy_(tuned[entry.name.as_str()]);
        }
    });
    let after = answers(&network, dataset, &shown, &mut beat)?;
    let divergences = before.iter().zip(&after).map(|(before, after)| {
        let of_each = before.exp() * (before - after);
        of_each.sum(Kind::Double).double_value(&[])
    });
    // Rounding may take it below nothing.
    Ok(Some((divergences.sum::<f64>() / count as f64).max(0.0)))
}

/// The network that the backbone's file holds.
fn source_network(
    served: &Served,
    source: &BTreeMap<String, HostTensor>,
) -> Result<Network, Fault> {
    let arch = served.network.arch();
    let head = format!("{}.weight", arch.head_name());
    let classes = (source.get(&head)).and_then(|tensor| tensor.shape.first().copied());
    let classes = classes.ok_or_else(|| {
        let text = format!("tensor `{head}` of `{}` is missing", arch.name());
        Fault::new(Code::MissingTensor, text)
    })?;
    let plan = HeadPlan::linear(u32::try_from(classes).map_err(fault::internal)?);
    let mut network = Network::new(arch, &plan, Kind::Float, Device::Cpu);
    network.load(source)?;
    let all = network.blocks().len();
    network.freeze(all);
    Ok(network)
}

/// Logarithms of probabilities, batch by batch.
fn answers(
    network: &Network,
    dataset: &Dataset,
    shown: &[usize],
    mut beat: impl FnMut(),
) -> Result<Vec<Tensor>, Fault> {
    let _no_grad = tch::no_grad_guard();
    let batches = shown.chunks(BATCH).map(|batch| {
        let pixels = (batch.iter())
            .map(|&index| dataset.pixels(Split::Test, index))
            .collect::<Result<Vec<_>, _>>()?;
        let x = network.input(&pixels.concat(), batch.len(), dataset.size());
        let answers = network.forward(&x, Pass::Eval);
        beat();
        Ok(answers.log_softmax(-1, Kind::Double))
    });
    batches.collect()
}
