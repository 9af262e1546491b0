//! Learning curves as a smooth function of the point, the seed and the step: nothing is remembered
//! from step to step, so a resumed curve is the same curve. Pure.

use pomona_domain::Digest;
use pomona_domain::spec::{Head, Optimizer, TrialSpec};
use std::collections::BTreeMap;

/// Recall of each class is said up to this many classes, as by the real trainer.
const MOST_RECALLS: usize = 50;

/// A number in [0, 1) from a seed and a name: the same on every machine and at every call.
pub fn uniform(spec: &TrialSpec, what: &str, number: u64) -> f64 {
    let text = format!("{}/{}/{what}/{number}", spec.seed, spec.replicate);
    let Digest(bytes) = Digest::of(text.as_bytes());
    let head = bytes
        .iter()
        .take(6)
        .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    head as f64 / (1u64 << 48) as f64
}

/// One trial's curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    spec: TrialSpec,
    classes: usize,
    /// Accuracy it comes to in the end.
    ceiling: f64,
    /// Passes after which most of the way is made.
    pace: f64,
    steps_per_epoch: u64,
}

/// A bell around 0 that is 1 there.
fn bell(x: f64, width: f64) -> f64 {
    (-0.5 * (x / width).powi(2)).exp()
}

impl Curve {
    /// The curve of a point. `trained_share` of the backbone learns.
    pub fn new(spec: &TrialSpec, classes: usize, trained_share: f64, steps_per_epoch: u64) -> Self {
        let train = &spec.train;
        let (scale, decay) = match &train.optimizer {
            Optimizer::Adamw { weight_decay, .. } => (1.0, *weight_decay),
            Optimizer::Sgd { weight_decay, .. } => (10.0, *weight_decay),
        };
        // The more learns, the smaller the best learning rate, and the higher what can be reached.
        let best = -2.0 - 1.5 * trained_share;
        let rate = bell((train.learning_rate / scale).log10() - best, 1.0);
        let decay = bell((decay + 1e-6).log10() + 2.0, 6.0);
        let head = match &spec.transfer.head {
            Head::Linear => 0.0,
            Head::Mlp { dropout, .. } => 0.01 * bell(dropout - 0.2, 0.3),
        };
        let chance = 1.0 / classes.max(1) as f64;
        let top = (0.9 + 0.05 * trained_share + head).min(0.99);
        let luck = 0.01 * (uniform(spec, "luck", 0) - 0.5);
        Self {
            spec: spec.clone(),
            classes,
            ceiling: (chance + (top - chance) * rate * decay + luck).clamp(chance, 1.0),
            pace: 1.0 + 3.0 * (1.0 - rate),
            steps_per_epoch: steps_per_epoch.max(1),
        }
    }

    /// Accuracy on unseen images after so many steps.
    pub fn accuracy(&self, step: u64) -> f64 {
        let chance = 1.0 / self.classes.max(1) as f64;
        let epochs = step as f64 / self.steps_per_epoch as f64;
        let way = 1.0 - (-epochs / self.pace).exp();
        let noise = 0.004 * (uniform(&self.spec, "noise", step) - 0.5);
        (chance + (self.ceiling - chance) * way + noise).clamp(0.0, 1.0)
    }

    /// The training loss after so many steps.
    pub fn train_loss(&self, step: u64) -> f64 {
        0.9 * self.loss(step)
    }

    fn loss(&self, step: u64) -> f64 {
        -(self.accuracy(step) * 0.98 + 0.01).ln()
    }

    /// Whether the loss is a number: a learning rate above 1 diverges at its third step.
    pub fn diverges(&self, step: u64) -> bool {
        self.spec.train.learning_rate > 1.0 && step >= 3
    }

    /// Predicted classes of samples, by their labels: as many are right as the accuracy says.
    pub fn predictions(&self, step: u64, what: &str, labels: &[u32]) -> Vec<u32> {
        let right = (self.accuracy(step) * labels.len() as f64).round() as usize;
        let mut order: Vec<(f64, usize)> = (0..labels.len())
            .map(|index| (uniform(&self.spec, what, index as u64), index))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut predicted = labels.to_vec();
        for (_, index) in order.into_iter().skip(right) {
            predicted[index] = (labels[index] + 1) % self.classes.max(1) as u32;
        }
        predicted
    }

    /// What a cross-validation of so many images says.
    pub fn folds(&self, step: u64, images: usize) -> BTreeMap<String, f64> {
        let mut found = self.metrics("cv", step, &[], &[]);
        let accuracy = self.accuracy(step);
        let error = (accuracy * (1.0 - accuracy) / images.max(1) as f64).sqrt();
        found.insert("cv/accuracy_se".to_owned(), error);
        found
    }

    /// What an evaluation of a split says.
    pub fn metrics(
        &self,
        prefix: &str,
        step: u64,
        classes: &[String],
        confusion: &[Vec<u64>],
    ) -> BTreeMap<String, f64> {
        let accuracy = self.accuracy(step);
        let mut found = BTreeMap::from([
            (format!("{prefix}/accuracy"), accuracy),
            (format!("{prefix}/loss"), self.loss(step)),
            (
                format!("{prefix}/macro_f1"),
                accuracy * (0.95 + 0.05 * accuracy),
            ),
            (format!("{prefix}/ece"), 0.1 * (1.0 - accuracy)),
        ]);
        if classes.len() <= MOST_RECALLS {
            for (index, class) in classes.iter().enumerate() {
                let row = &confusion[index];
                let all = row.iter().sum::<u64>().max(1);
                let recall = row[index] as f64 / all as f64;
                found.insert(format!("{prefix}/recall/{class}"), recall);
            }
        }
        found
    }
}

/// Samples by true class (row) and predicted class (column).
pub fn confusion(classes: usize, labels: &[u32], predicted: &[u32]) -> Vec<Vec<u64>> {
    let mut table = vec![vec![0; classes]; classes];
    for (label, predicted) in labels.iter().zip(predicted) {
        table[*label as usize][*predicted as usize] += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(learning_rate: f64, seed: u64) -> TrialSpec {
        serde_json::from_value(serde_json::json!({
            "transfer": {"frozen_depth": "all", "head": {"kind": "linear"}},
            "train": {
                "epochs": 10, "batch_size": 16, "learning_rate": learning_rate,
                "optimizer": {"kind": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
                "lr_schedule": {"kind": "constant", "warmup_epochs": 0.0},
                "augment": {"views": 1, "ops": []},
                "precision": "auto", "class_weights": "none", "label_smoothing": 0.0
            },
            "metric": "val/accuracy", "direction": "maximize", "seed": seed, "replicate": 0
        }))
        .unwrap()
    }

    #[test]
    fn a_sensible_learning_rate_wins_a_grid_whatever_the_seed() {
        for seed in 0..5 {
            let end = |rate: f64| Curve::new(&spec(rate, seed), 3, 0.0, 4).accuracy(40);
            let ends: Vec<f64> = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].map(end).into();
            let best = (0..6).max_by(|a, b| ends[*a].total_cmp(&ends[*b]));
            assert_eq!(best, Some(3), "{ends:?}");
        }
    }

    #[test]
    fn a_curve_rises_and_its_confusion_agrees_with_it() {
        let curve = Curve::new(&spec(1e-2, 7), 3, 0.0, 4);
        assert!(curve.accuracy(4) < curve.accuracy(8) && curve.accuracy(8) < curve.accuracy(40));
        let labels: Vec<u32> = (0..300).map(|n| n % 3).collect();
        let predicted = curve.predictions(40, "val", &labels);
        let table = confusion(3, &labels, &predicted);
        let right: u64 = (0..3).map(|class| table[class][class]).sum();
        assert!((right as f64 / 300.0 - curve.accuracy(40)).abs() < 0.01);
    }
}
