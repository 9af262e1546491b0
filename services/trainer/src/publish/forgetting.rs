//! What a trunk has forgotten of its source task: the source head is put back on the tuned trunk, and
//! its answers about test pictures are compared with those of the untouched source network.
//!
//! The mean Kullback-Leibler divergence of the tuned answers from the source's, in nats. Labels are
//! not asked for: pictures of the target are a probe of the source task, as in learning without
//! forgetting (Li and Hoiem 2016). It is exactly zero while the trunk is the source's.
//!
//! Where it was forgotten is said by the linear CKA of each block (Kornblith et al. 2019): how alike
//! the block's features are, averaged over positions, before and after; 1 is alike but for a rotation
//! and a scale.

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

/// What became of a trunk.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// The divergence in nats, at least 0.
    pub nats: f64,
    /// The CKA of each block, from the input; none while the trunk is the source's.
    pub alike: Vec<(String, f64)>,
}

/// Compares; nothing without test pictures. `source` is the backbone's file, head included. `beat` is
/// called after every batch.
pub fn measure(
    served: &Served,
    source: &BTreeMap<String, HostTensor>,
    dataset: &Dataset,
    mut beat: impl FnMut(),
) -> Result<Option<Forgotten>, Fault> {
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
        return Ok(Some(Forgotten::default()));
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
    let of_each = before.logs.exp() * (&before.logs - &after.logs);
    let nats = of_each.sum(Kind::Double).double_value(&[]) / count as f64;
    let features = before.features.iter().zip(&after.features);
    let names = network.blocks().iter().map(|block| block.name.clone());
    Ok(Some(Forgotten {
        // Rounding may take it below nothing.
        nats: nats.max(0.0),
        alike: names
            .zip(features.map(|(before, after)| cka(before, after)))
            .collect(),
    }))
}

/// Linear CKA of two sets of features of the same pictures, [N, C] and [N, D]. Features that do not
/// tell the pictures apart are alike if both do not.
fn cka(before: &Tensor, after: &Tensor) -> f64 {
    let gram = |features: &Tensor| {
        let centred = features - features.mean_dim([0i64].as_slice(), true, Kind::Double);
        centred.matmul(&centred.tr())
    };
    let (before, after) = (gram(before), gram(after));
    let product = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    let norms = product(&before, &before) * product(&after, &after);
    if norms > 0.0 {
        return product(&before, &after) / norms.sqrt();
    }
    f64::from(u8::from(before.equal(&after)))
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

/// What a network says about pictures, in doubles.
struct Answers {
    /// Logarithms of probabilities, [N, classes].
    logs: Tensor,
    /// What each block gives, averaged over positions: [N, C].
    features: Vec<Tensor>,
}

fn answers(
    network: &Network,
    dataset: &Dataset,
    shown: &[usize],
    mut beat: impl FnMut(),
) -> Result<Answers, Fault> {
    let _no_grad = tch::no_grad_guard();
    let mut logs = Vec::new();
    let mut features: Vec<Vec<Tensor>> = (network.blocks().iter()).map(|_| Vec::new()).collect();
    for batch in shown.chunks(BATCH) {
        let pixels = (batch.iter())
            .map(|&index| dataset.pixels(Split::Test, index))
            .collect::<Result<Vec<_>, _>>()?;
        let x = network.input(&pixels.concat(), batch.len(), dataset.size());
        let pooled = network.forward_with(&x, |block, given| {
            // [N, C, H, W], or [N, C] from a block of a classifier.
            let places: Vec<i64> = (2..given.dim() as i64).collect();
            features[block].push(if places.is_empty() {
                given.to_kind(Kind::Double)
            } else {
                given.mean_dim(places, false, Kind::Double)
            });
        });
        // Every block is frozen: what is above is the head.
        let answers = network.above_cut(&pooled, Pass::Eval);
        logs.push(answers.log_softmax(-1, Kind::Double));
        beat();
    }
    let features = features.iter().map(|given| Tensor::cat(given, 0));
    Ok(Answers {
        logs: Tensor::cat(&logs, 0),
        features: features.collect(),
    })
}
