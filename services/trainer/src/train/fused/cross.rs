//! Repeated k-fold cross-validation of heads: what a trial would score on images that it has not
//! seen, with far less luck than one small validation split has.
//!
//! Folds are of the training split alone. The heads of all trials that are compared train side by
//! side, over the images, in the order and from the weights that do not depend on who is there. It
//! must never touch a trial's own head.

use super::Hall;
use super::heads::Heads;
use super::lane::Lane;
use super::stack::{ROWS, answers, dropout_masks};
use super::trainee::Trainee;
use crate::data::{Pick, folds};
use crate::metrics::Classification;
use crate::random::Key;
use crate::train::epoch::{Plan, Step, steps_of};
use crate::train::evaluate::BATCH;
use crate::train::life::beat;
use pomona_domain::Fault;
use pomona_domain::dataset::Split;
use pomona_domain::spec::{KFold, TrialSpec};
use pomona_domain::view::View;
use std::collections::BTreeMap;
use std::time::Instant;

/// The metrics of a trial's cross-validation.
pub(super) type Scores = BTreeMap<String, f64>;

/// The cross-validation of each of these trials, which see the same images in the same order for as
/// many epochs. Nothing when a stop was asked for meanwhile.
pub(super) fn validate(
    lanes: &[&Lane<'_>],
    folds: KFold,
    hall: &mut Hall<'_>,
) -> Result<Option<Vec<Scores>>, Fault> {
    let Some(first) = lanes.first() else {
        return Ok(Some(Vec::new()));
    };
    let begun = Instant::now();
    let specs: Vec<&TrialSpec> = lanes.iter().map(|lane| lane.spec()).collect();
    let reads_features = first.reads_features();
    if !reads_features {
        let images = folds.images(hall.source.labels.len() as u64);
        first.record.log(&format!(
            "there are no features, so {folds} run the frozen blocks for {images} images in each of \
             {} epochs",
            first.spec().train.epochs
        ));
    }
    let mut tallies = vec![Tally::default(); lanes.len()];
    for repeat in 0..folds.repeats {
        let deal = Deal::new(first.spec(), folds, repeat, hall);
        let mut rows = vec![vec![0f32; deal.labels.len() * deal.classes]; lanes.len()];
        for fold in 0..folds.kfold {
            let (held, kept) = deal.parts(fold);
            if held.is_empty() || kept.is_empty() {
                continue;
            }
            let course = Course {
                specs: &specs,
                deal: &deal,
                reads_features,
            };
            let Some(heads) = course.train(&kept, hall)? else {
                return Ok(None);
            };
            let found = course.measure(&heads, &held, hall)?;
            for ((tally, rows), found) in tallies.iter_mut().zip(&mut rows).zip(found) {
                tally.folds.push(deal.report(&held, &found).accuracy);
                for (&index, row) in held.iter().zip(found.chunks_exact(deal.classes)) {
                    rows[index * deal.classes..][..deal.classes].copy_from_slice(row);
                }
            }
        }
        for (tally, rows) in tallies.iter_mut().zip(&rows) {
            let all = Classification::from_probabilities(deal.classes, &deal.labels, rows);
            tally.repeats.push(all);
        }
    }
    let scores: Vec<Scores> = tallies.iter().map(|tally| tally.scores(folds)).collect();
    for (lane, scores) in lanes.iter().zip(&scores) {
        let of = |name: &str| scores.get(name).copied().unwrap_or(f64::NAN);
        lane.record.log(&format!(
            "{folds}: cv/accuracy {:.4} ± {:.4}, cv/loss {:.4} ({:.1} s)",
            of("cv/accuracy"),
            of("cv/accuracy_se"),
            of("cv/loss"),
            begun.elapsed().as_secs_f64()
        ));
    }
    Ok(Some(scores))
}

/// Steps of all the folds of a trial, for the progress line.
pub(super) fn steps(spec: &TrialSpec, images: usize) -> u64 {
    let Some(folds) = spec.validation else {
        return 0;
    };
    let kept = images - images / folds.kfold as usize;
    let pass = steps_of(kept, spec.train.batch_size);
    pass * u64::from(spec.train.epochs) * u64::from(folds.kfold * folds.repeats)
}

/// How a repeat cuts the training split.
struct Deal {
    fold_of: Vec<u32>,
    labels: Vec<u32>,
    classes: usize,
}

impl Deal {
    fn new(spec: &TrialSpec, count: KFold, repeat: u32, hall: &Hall<'_>) -> Self {
        let key = Key {
            seed: spec.seed,
            replicate: spec.replicate,
            purpose: "fold",
            epoch: repeat,
        };
        let dataset = &hall.source.dataset;
        let labels = hall.source.labels.clone();
        let group = |index| dataset.sample(Split::Train, index).group;
        let groups: Vec<u32> = (0..labels.len()).map(group).collect();
        Self {
            fold_of: folds(&labels, &groups, count.kfold, &key),
            labels,
            classes: dataset.classes().len(),
        }
    }

    /// The images of a fold, and all others.
    fn parts(&self, fold: u32) -> (Vec<usize>, Vec<usize>) {
        (0..self.labels.len()).partition(|&index| self.fold_of[index] == fold)
    }

    fn labels_of(&self, rows: &[usize]) -> Vec<u32> {
        rows.iter().map(|&index| self.labels[index]).collect()
    }

    fn report(&self, rows: &[usize], probabilities: &[f32]) -> Classification {
        Classification::from_probabilities(self.classes, &self.labels_of(rows), probabilities)
    }
}

/// A fold's heads, one for each trial.
struct Course<'c> {
    specs: &'c [&'c TrialSpec],
    deal: &'c Deal,
    reads_features: bool,
}

impl Course<'_> {
    /// Trains fresh heads on some images, as the trials were. Nothing when a stop was asked for.
    fn train(&self, kept: &[usize], hall: &mut Hall<'_>) -> Result<Option<Heads>, Fault> {
        let labels = self.deal.labels_of(kept);
        let mut trainees: Vec<Trainee<'_>> = (self.specs.iter())
            .map(|spec| Trainee::new(spec, &hall.network, self.deal.classes, &labels))
            .collect();
        let mut parts: Vec<_> = (trainees.iter_mut())
            .map(|trainee| (&mut trainee.head, &mut trainee.optimizer))
            .collect();
        let heads = Heads::join(&mut parts)?;
        let spec = self.specs[0];
        let shares: Vec<f64> = trainees.iter().map(Trainee::dropout).collect();
        let _no_grad = tch::no_grad_guard();
        let mut done = 0;
        for epoch in 0..spec.train.epochs {
            let mut steps = Plan::of(spec).steps(&labels, epoch);
            for pick in steps.iter_mut().flat_map(|step| &mut step.local) {
                pick.index = kept[pick.index];
            }
            let mut feed = hall.source.feed(&steps, self.reads_features);
            for step in &steps {
                let begun = Instant::now();
                let Some(input) = hall.source.input(&hall.network, &mut feed, step)? else {
                    continue;
                };
                let masks = dropout_masks(&heads, &input, (spec, epoch), &shares, &hall.network);
                heads.step(&input.x, &input.labels, masks, trainees.len(), |head| {
                    &trainees[head].loss
                });
                for trainee in &mut trainees {
                    trainee.step(done)?;
                }
                done += 1;
                hall.steps += trainees.len() as u64;
                let lap = input.lap(trainees.len(), begun);
                let at = (hall.steps, spec.train.epochs);
                hall.life.step(hall.listener, at, lap, false);
                if hall.listener.stop_wanted() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(heads))
    }

    /// Each trial's probabilities for some images as they are.
    fn measure(
        &self,
        heads: &Heads,
        held: &[usize],
        hall: &Hall<'_>,
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let size = if self.reads_features { ROWS } else { BATCH };
        let steps: Vec<Step> = (held.chunks(size))
            .map(|rows| Step {
                labels: self.deal.labels_of(rows),
                local: rows
                    .iter()
                    .map(|&index| Pick {
                        index,
                        view: View::AS_IS,
                    })
                    .collect(),
            })
            .collect();
        let mut feed = hall.source.feed(&steps, self.reads_features);
        let inputs = steps.iter().filter_map(|step| {
            let input = hall.source.input(&hall.network, &mut feed, step);
            input.map(|input| input.map(|input| input.x)).transpose()
        });
        let shape = (self.specs.len(), held.len(), self.deal.classes);
        answers(heads, inputs, shape, beat(hall.listener, 0))
    }
}

/// What the folds of a trial found.
#[derive(Debug, Clone, Default)]
struct Tally {
    /// Of each fold.
    folds: Vec<f64>,
    /// Of each repeat: all images, each by the head that had not seen it.
    repeats: Vec<Classification>,
}

impl Tally {
    fn scores(&self, folds: KFold) -> Scores {
        let mean = |of: fn(&Classification) -> f64| {
            let sum: f64 = self.repeats.iter().map(of).sum();
            sum / self.repeats.len() as f64
        };
        BTreeMap::from([
            ("cv/loss".to_owned(), mean(|found| found.log_loss)),
            ("cv/accuracy".to_owned(), mean(|found| found.accuracy)),
            ("cv/macro_f1".to_owned(), mean(|found| found.macro_f1)),
            ("cv/ece".to_owned(), mean(|found| found.ece)),
            (
                "cv/accuracy_se".to_owned(),
                standard_error(&self.folds, folds),
            ),
        ])
    }
}

/// The standard error of the mean over folds of repeats. Folds share images, so it is not that of
/// independent ones: the variance is scaled by 1/n + 1/(k − 1) (Nadeau and Bengio 2003, eq. 9).
fn standard_error(values: &[f64], folds: KFold) -> f64 {
    let count = values.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let overlap = 1.0 / f64::from(folds.kfold - 1);
    (squares / (count - 1.0) * (1.0 / count + overlap)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_folds_is_wider_than_that_of_independent_ones() {
        let folds = KFold {
            kfold: 5,
            repeats: 1,
        };
        let values = [0.8, 0.9, 0.85, 0.95, 0.75];
        // Variance 0.00625 times (1/5 + 1/4), by hand.
        assert!((standard_error(&values, folds) - 0.053_033).abs() < 1e-6);
        assert_eq!(standard_error(&[0.8], folds), 0.0);
        assert_eq!(standard_error(&[0.8, 0.8], folds), 0.0);
    }
}
