//! What an evaluation says: accuracy, macro F1, recall, calibration, log loss, confusion.
//!
//! Sums run in f64 in the order of the samples, so that the numbers repeat bit for bit. It must
//! never see a tensor.

#[cfg(test)]
mod tests;

/// Bins of the expected calibration error.
const BINS: usize = 15;
/// The smallest probability whose logarithm counts, so that one sure mistake stays finite.
const SMALLEST: f64 = 1e-15;

/// The evaluation of a classifier on labelled samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Share of samples whose most likely class (the first of equals) is the true one.
    pub accuracy: f64,
    /// Mean F1 over the classes that occur, as label or as prediction.
    pub macro_f1: f64,
    /// Recall of each class; 0 for a class without samples.
    pub recall: Vec<f64>,
    /// Expected calibration error of the predicted class, 15 equal bins (Guo et al. 2017, eq. 3).
    pub ece: f64,
    /// Mean negative log likelihood of the true class in nats; probabilities below 1e-15 count as
    /// 1e-15.
    pub log_loss: f64,
    /// Samples by true class (row) and predicted class (column).
    pub confusion: Vec<Vec<u64>>,
}

impl Classification {
    /// Evaluates `probabilities`, one row of `classes` values for each label. Without samples
    /// every number is 0.
    ///
    /// # Panics
    /// If the lengths do not fit or a label is not below `classes`: a fault of the caller's code.
    pub fn from_probabilities(classes: usize, labels: &[u32], probabilities: &[f32]) -> Self {
        assert_eq!(labels.len() * classes, probabilities.len());
        let mut confusion = vec![vec![0u64; classes]; classes];
        let mut bins = [Bin::default(); BINS];
        let mut loss = 0.0;
        for (row, &label) in probabilities.chunks_exact(classes.max(1)).zip(labels) {
            let label = label as usize;
            let predicted = first_largest(row);
            confusion[label][predicted] += 1;
            let confidence = f64::from(row[predicted]);
            let bin = &mut bins[bin_of(confidence)];
            bin.confidence += confidence;
            bin.correct += u64::from(predicted == label);
            let likelihood = f64::from(row[label]);
            // `max` would turn a NaN into the clip: a broken network must stay visible.
            loss -= if likelihood < SMALLEST {
                libm::log(SMALLEST)
            } else {
                libm::log(likelihood)
            };
        }
        let samples = labels.len().max(1) as f64;
        let right: u64 = (0..classes).map(|class| confusion[class][class]).sum();
        Self {
            accuracy: right as f64 / samples,
            macro_f1: macro_f1(&confusion),
            recall: (0..classes)
                .map(|class| share(confusion[class][class], confusion[class].iter().sum()))
                .collect(),
            ece: bins
                .iter()
                .map(|bin| (bin.correct as f64 - bin.confidence).abs())
                .sum::<f64>()
                / samples,
            log_loss: loss / samples,
            confusion,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Bin {
    confidence: f64,
    correct: u64,
}

/// Bins are open to the left: bin m holds ((m-1)/15, m/15].
fn bin_of(confidence: f64) -> usize {
    ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1
}

fn first_largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = class;
        }
    }
    best
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn macro_f1(confusion: &[Vec<u64>]) -> f64 {
    let mut sum = 0.0;
    let mut occurring = 0u32;
    for class in 0..confusion.len() {
        let labelled: u64 = confusion[class].iter().sum();
        let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
        if labelled + predicted > 0 {
            sum += share(2 * confusion[class][class], labelled + predicted);
            occurring += 1;
        }
    }
    sum / f64::from(occurring.max(1))
}

/// The score interval of a proportion (Wilson 1927): `z` is 1.959964 for 95 %. Without trials
/// it is all of [0, 1].
pub fn wilson(successes: u64, n: u64, z: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let n = n as f64;
    let p = successes as f64 / n;
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}
