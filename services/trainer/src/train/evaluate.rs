//! Evaluation from pixels or features: each sample counts once, however many ranks share the work.

use crate::data::{Dataset, Loader};
use crate::dist::{self, Group};
use crate::features::Features;
use crate::metrics::Classification;
use crate::network::{Network, Pass};
use pomona_domain::Fault;
use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Images a forward pass takes.
pub const BATCH: usize = 32;
/// Recall of each class is reported up to this many classes.
const MOST_RECALLS: usize = 50;

/// What an evaluation found.
pub struct Evaluation {
    /// True classes, in the split's order.
    pub labels: Vec<u32>,
    /// Probabilities, one row for each sample.
    pub probabilities: Vec<f32>,
    /// The numbers.
    pub report: Classification,
}

/// Evaluates a split from its pixels. `beat` is called after every batch.
pub fn evaluate(
    network: &Network,
    dataset: &Arc<Dataset>,
    split: Split,
    group: &Group,
    threads: usize,
    beat: impl FnMut(),
) -> Result<Evaluation, Fault> {
    let mine = dist::part(dataset.len(split), group.rank(), group.world_size());
    let mine = (mine, View::AS_IS);
    let batches = Loader::in_order(Arc::clone(dataset), split, mine, BATCH, threads);
    let logits = batches.map(|batch| {
        let batch = batch?;
        let x = network.input(&batch.pixels, batch.labels.len(), dataset.size());
        Ok(network.forward(&x, Pass::Eval))
    });
    report(network, dataset, split, group, logits, beat)
}

/// Evaluates the validation split from its features. `beat` is called after every batch.
pub fn evaluate_features(
    network: &Network,
    features: &Features,
    dataset: &Dataset,
    group: &Group,
    beat: impl FnMut(),
) -> Result<Evaluation, Fault> {
    let mine = dist::part(dataset.len(Split::Val), group.rank(), group.world_size());
    let logits = mine.clone().step_by(BATCH).map(|from| {
        let count = BATCH.min(mine.end - from);
        let x = features.validation(from, count, network.device());
        Ok(network.above_cut(&x, Pass::Eval))
    });
    report(network, dataset, Split::Val, group, logits, beat)
}

/// The report of this rank's logits, batch by batch in the split's order, and of all other ranks'.
fn report(
    network: &Network,
    dataset: &Dataset,
    split: Split,
    group: &Group,
    logits: impl Iterator<Item = Result<Tensor, Fault>>,
    mut beat: impl FnMut(),
) -> Result<Evaluation, Fault> {
    let (labels, classes) = (dataset.labels(split), dataset.classes().len());
    let mine = dist::part(labels.len(), group.rank(), group.world_size());
    let mut rows = vec![0f32; labels.len() * classes];
    let mut at = mine.start * classes;
    let _no_grad = tch::no_grad_guard();
    for logits in logits {
        let probabilities = logits?.softmax(-1, Kind::Float);
        let count = probabilities.numel();
        probabilities.copy_data(&mut rows[at..at + count], count);
        at += count;
        beat();
    }
    if group.world_size() > 1 {
        // Zeros where other ranks have values: the sum is exact.
        let all = Tensor::from_slice(&rows).to_device(network.device());
        group.sum_tensor(&all)?;
        all.to_kind(Kind::Float)
            .copy_data(&mut rows, labels.len() * classes);
    }
    let report = Classification::from_probabilities(classes, &labels, &rows);
    Ok(Evaluation {
        labels,
        probabilities: rows,
        report,
    })
}

/// Metrics under `PREFIX/`.
pub fn metrics(prefix: &str, classes: &[String], report: &Classification) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::from([
        (format!("{prefix}/loss"), report.log_loss),
        (format!("{prefix}/accuracy"), report.accuracy),
        (format!("{prefix}/macro_f1"), report.macro_f1),
        (format!("{prefix}/ece"), report.ece),
    ]);
    if classes.len() <= MOST_RECALLS {
        for (class, recall) in classes.iter().zip(&report.recall) {
            metrics.insert(format!("{prefix}/recall/{class}"), *recall);
        }
    }
    metrics
}
