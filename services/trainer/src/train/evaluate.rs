//! Evaluation from pixels: each sample counts once, however many ranks share the work.

use super::learner::Learner;
use crate::data::{Dataset, Loader, Pick};
use crate::dist::{self, Group};
use crate::metrics::Classification;
use crate::network::Network;
use pomona_domain::Fault;
use pomona_domain::dataset::Split;
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

/// Evaluates a split. `beat` is called after every batch.
pub fn evaluate(
    network: &Network,
    dataset: &Arc<Dataset>,
    split: Split,
    group: &Group,
    threads: usize,
    mut beat: impl FnMut(),
) -> Result<Evaluation, Fault> {
    let classes = dataset.classes().len();
    let labels = dataset.labels(split);
    let mine = dist::part(labels.len(), group.rank(), group.world_size());
    let picks: Vec<Pick> = mine
        .clone()
        .map(|index| Pick { index, flip: false })
        .collect();
    let sizes: Vec<usize> = picks.chunks(BATCH).map(<[Pick]>::len).collect();
    let mut rows = vec![0f32; labels.len() * classes];
    let mut at = mine.start * classes;
    let preprocess = network.arch().preprocess();
    for batch in Loader::new(Arc::clone(dataset), split, picks, sizes, threads) {
        let batch = batch?;
        let count = batch.labels.len();
        let x = preprocess.apply(
            &batch.pixels,
            count,
            dataset.size(),
            network.kind(),
            network.device(),
        );
        let rows_of = Learner::probabilities(network, &x);
        rows_of.copy_data(&mut rows[at..at + count * classes], count * classes);
        at += count * classes;
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
