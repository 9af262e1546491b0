//! Metrics of a version from its outcomes, on any draw of its test samples.
//!
//! They must be those of the trainer (`trainer::metrics`), which measures them from probabilities.

use pomona_domain::gate::TestOutcomes;

/// Bins of the expected calibration error.
const BINS: usize = 15;
/// The smallest probability whose logarithm counts.
const SMALLEST: f64 = 1e-15;

/// A metric that versions are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Share of samples whose predicted class is the true one.
    Accuracy,
    /// Mean F1 over the classes that occur.
    MacroF1,
    /// Mean negative log likelihood of the true class.
    Loss,
    /// Expected calibration error, 15 equal bins.
    Ece,
}

impl Measure {
    /// The measure of a metric's name.
    pub fn parse(metric: &str) -> Option<Self> {
        match metric {
            "test/accuracy" => Some(Self::Accuracy),
            "test/macro_f1" => Some(Self::MacroF1),
            "test/loss" => Some(Self::Loss),
            "test/ece" => Some(Self::Ece),
            _ => None,
        }
    }

    /// 1 when more is better, else −1.
    pub fn sign(self) -> f64 {
        match self {
            Self::Accuracy | Self::MacroF1 => 1.0,
            Self::Loss | Self::Ece => -1.0,
        }
    }

    /// Its value on all samples.
    pub fn of(self, outcomes: &TestOutcomes) -> f64 {
        let mut sum = self.over(outcomes);
        for at in 0..outcomes.labels.len() {
            sum.add(at);
        }
        sum.value()
    }

    /// A sum over samples, to be filled.
    pub(super) fn over(self, outcomes: &TestOutcomes) -> Sum<'_> {
        let losses = outcomes.truth.iter().map(|truth| {
            let truth = f64::from(*truth).max(SMALLEST);
            -libm::log(truth)
        });
        Sum {
            measure: self,
            outcomes,
            losses: match self {
                Self::Loss => losses.collect(),
                Self::Accuracy | Self::MacroF1 | Self::Ece => Vec::new(),
            },
            samples: 0,
            right: 0,
            loss: 0.0,
            classes: vec![Tally::default(); outcomes.classes.len()],
            bins: [Bin::default(); BINS],
        }
    }
}

/// What was seen of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples of the class that were predicted so.
    pub right: u64,
    /// Samples of the class.
    pub labelled: u64,
    /// Samples that were predicted so.
    pub predicted: u64,
}

impl Tally {
    /// Share of its samples that are found; 0 without samples.
    pub fn recall(self) -> f64 {
        share(self.right, self.labelled)
    }

    /// Share of its predictions that are right; 0 without predictions.
    pub fn precision(self) -> f64 {
        share(self.right, self.predicted)
    }

    /// The harmonic mean of both; 0 where it does not occur.
    pub fn f1(self) -> f64 {
        share(2 * self.right, self.labelled + self.predicted)
    }
}

/// A tally of each class.
pub fn tallies(outcomes: &TestOutcomes) -> Vec<Tally> {
    let mut sum = Measure::MacroF1.over(outcomes);
    for at in 0..outcomes.labels.len() {
        sum.add(at);
    }
    sum.classes
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[derive(Clone, Copy, Default)]
struct Bin {
    confidence: f64,
    right: u64,
}

/// A metric over some samples.
pub(super) struct Sum<'a> {
    measure: Measure,
    outcomes: &'a TestOutcomes,
    losses: Vec<f64>,
    samples: u64,
    right: u64,
    loss: f64,
    classes: Vec<Tally>,
    bins: [Bin; BINS],
}

impl Sum<'_> {
    pub(super) fn clear(&mut self) {
        self.samples = 0;
        self.right = 0;
        self.loss = 0.0;
        self.classes.fill(Tally::default());
        self.bins = [Bin::default(); BINS];
    }

    /// Counts a sample.
    pub(super) fn add(&mut self, at: usize) {
        let (label, predicted) = (self.outcomes.labels[at], self.outcomes.predicted[at]);
        let right = u64::from(label == predicted);
        self.samples += 1;
        self.right += right;
        match self.measure {
            Measure::Accuracy => {}
            Measure::Loss => self.loss += self.losses[at],
            Measure::MacroF1 => {
                self.classes[label as usize].labelled += 1;
                self.classes[label as usize].right += right;
                self.classes[predicted as usize].predicted += 1;
            }
            Measure::Ece => {
                let confidence = f64::from(self.outcomes.confidence[at]);
                let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
                self.bins[bin].confidence += confidence;
                self.bins[bin].right += right;
            }
        }
    }

    pub(super) fn value(&self) -> f64 {
        let samples = self.samples.max(1) as f64;
        match self.measure {
            Measure::Accuracy => self.right as f64 / samples,
            Measure::Loss => self.loss / samples,
            Measure::MacroF1 => {
                let occurs = |tally: &&Tally| tally.labelled + tally.predicted > 0;
                let some = self.classes.iter().filter(occurs);
                let sum: f64 = some.clone().map(|tally| tally.f1()).sum();
                sum / some.count().max(1) as f64
            }
            Measure::Ece => {
                let off = |bin: &Bin| (bin.right as f64 - bin.confidence).abs();
                self.bins.iter().map(off).sum::<f64>() / samples
            }
        }
    }
}
