//! Trials that see the same images in the same order through heads of one shape: one gather, one
//! product for all of them in each step.

use super::cross::{self, Scores};
use super::heads::Heads;
use super::lane::{Key, Lane};
use super::loss::softmax;
use super::{Ended, Hall};
use crate::data::Loader;
use crate::metrics::Classification;
use crate::network::{HeadPlan, Network};
use crate::train::epoch::{Plan, Step};
use crate::train::evaluate::BATCH;
use crate::train::life::beat;
use crate::train::source::{Feed, Input};
use crate::train::{dropout_key, not_a_number};
use pomona_domain::dataset::Split;
use pomona_domain::spec::TrialSpec;
use pomona_domain::view::View;
use pomona_domain::{Fault, TrialId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tch::Tensor;

/// Rows of features that an evaluation takes at a time.
pub(super) const ROWS: usize = 256;

/// Lanes and their heads.
pub(super) struct Stack<'a> {
    lanes: Vec<Lane<'a>>,
    heads: Option<Heads>,
}

impl<'a> Stack<'a> {
    /// Sorts trials into stacks. Who is done already is said to be.
    pub(super) fn sort(lanes: Vec<Lane<'a>>, hall: &Hall<'a>) -> Result<Vec<Self>, Fault> {
        let mut stacks: Vec<(Key, Self)> = Vec::new();
        let mut left = lanes.len();
        let most = Heads::most(hall.network.device());
        for lane in lanes {
            if lane.is_done() {
                left -= 1;
                hall.finished(lane.record.member, left);
                continue;
            }
            let key = lane.key();
            let place = (stacks.iter_mut())
                .find(|(other, stack)| *other == key && stack.lanes.len() < most);
            if let Some((_, stack)) = place {
                stack.lanes.push(lane);
            } else {
                let lanes = vec![lane];
                stacks.push((key, Self { lanes, heads: None }));
            }
        }
        let mut stacks: Vec<Self> = stacks.into_iter().map(|(_, stack)| stack).collect();
        stacks.iter_mut().try_for_each(Self::join)?;
        Ok(stacks)
    }

    /// Lays the heads of those who are left side by side.
    fn join(&mut self) -> Result<(), Fault> {
        self.heads = None;
        if !self.lanes.is_empty() {
            let mut heads: Vec<_> = (self.lanes.iter_mut())
                .map(|lane| (&mut lane.own.head, &mut lane.own.optimizer))
                .collect();
            self.heads = Some(Heads::join(&mut heads)?);
        }
        Ok(())
    }

    /// Trials under way.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Writes all checkpoints.
    pub(super) fn save(&mut self) -> Result<(), Fault> {
        self.lanes.iter_mut().try_for_each(Lane::save)
    }

    /// What is left of the epoch under way.
    pub(super) fn run_epoch(&mut self, hall: &mut Hall<'a>) -> Result<Ended, Fault> {
        let Some(first) = self.lanes.first() else {
            return Ok(Ended::Finished);
        };
        let (plan, state) = (Plan::of(first.spec()), &first.record.state);
        let source = &hall.source;
        let steps = (plan.steps(&source.labels, state.epoch)).split_off(state.position as usize);
        let mut feed = source.feed(&steps, first.reads_features());
        for step in &steps {
            self.run_step(hall, &mut feed, step)?;
            if self.lanes.is_empty() {
                break;
            }
            if hall.listener.stop_wanted() {
                return Ok(Ended::Stopped);
            }
            let inside = |lane: &&mut Lane<'a>| !lane.is_epoch_over();
            (self.lanes.iter_mut().filter(inside)).try_for_each(Lane::save_when_due)?;
        }
        Ok(Ended::Finished)
    }

    /// One step of every trial.
    fn run_step(&mut self, hall: &mut Hall<'a>, feed: &mut Feed, step: &Step) -> Result<(), Fault> {
        let begun = Instant::now();
        let Some(heads) = &self.heads else {
            return Ok(());
        };
        let Some(input) = hall.source.input(&hall.network, feed, step)? else {
            return Ok(());
        };
        let _no_grad = tch::no_grad_guard();
        let Some(first) = self.lanes.first() else {
            return Ok(());
        };
        let place = (first.spec(), first.record.state.epoch);
        let shares: Vec<f64> = self.lanes.iter().map(|lane| lane.own.dropout()).collect();
        let masks = dropout_masks(heads, &input, place, &shares, &hall.network);
        let count = self.lanes.len();
        let loss = |lane: usize| &self.lanes[lane].own.loss;
        let losses = heads.step(&input.x, &input.labels, masks, count, loss);
        let mut failed = Vec::new();
        for (lane, (loss, weight)) in self.lanes.iter_mut().zip(losses) {
            if loss.is_finite() {
                lane.update(loss, weight)?;
            } else {
                failed.push(lane.record.member.trial);
                let step = lane.record.state.step + 1;
                let fault = not_a_number("the training loss", step);
                hall.failed(lane.record.member, fault)?;
            }
        }
        if !failed.is_empty() {
            self.lanes
                .retain(|lane| !failed.contains(&lane.record.member.trial));
            self.join()?;
        }
        hall.steps += count as u64;
        let Some(first) = self.lanes.first() else {
            return Ok(());
        };
        let lap = input.lap(count, begun);
        let at = (hall.steps, first.record.state.epoch + 1);
        hall.life
            .step(hall.listener, at, lap, first.is_epoch_over());
        Ok(())
    }

    /// Evaluates every trial and keeps its checkpoints; who is done leaves.
    pub(super) fn end_epoch(&mut self, hall: &mut Hall<'a>) -> Result<Ended, Fault> {
        if self.lanes.is_empty() {
            return Ok(Ended::Finished);
        }
        let Some(mut scores) = self.cross_validate(hall)? else {
            return Ok(Ended::Stopped);
        };
        let labels = hall.validation_labels();
        let classes = hall.source.dataset.classes();
        let rows = self.evaluate(hall, labels.len(), classes.len())?;
        let before = self.lanes.len();
        let mut left = before + hall.others;
        let mut kept = Vec::new();
        for (mut lane, rows) in std::mem::take(&mut self.lanes).into_iter().zip(rows) {
            let report = Classification::from_probabilities(classes.len(), &labels, &rows);
            let scores = scores.remove(&lane.record.member.trial).unwrap_or_default();
            if let Err(fault) = lane.end_epoch(classes, &report, scores) {
                left -= 1;
                hall.failed(lane.record.member, fault)?;
            } else if lane.is_done() {
                lane.save()?;
                left -= 1;
                hall.finished(lane.record.member, left);
            } else {
                lane.save_when_due()?;
                kept.push(lane);
            }
        }
        self.lanes = kept;
        if self.lanes.len() < before {
            self.join()?;
        }
        Ok(Ended::Finished)
    }

    /// The cross-validation of each trial whose last pass this is. Nothing when a stop was asked for.
    fn cross_validate(
        &self,
        hall: &mut Hall<'a>,
    ) -> Result<Option<BTreeMap<TrialId, Scores>>, Fault> {
        let is_due = |lane: &&Lane<'a>| lane.is_in_last_epoch() && lane.spec().validation.is_some();
        let due: Vec<&Lane<'a>> = self.lanes.iter().filter(is_due).collect();
        let Some(folds) = due.first().and_then(|lane| lane.spec().validation) else {
            return Ok(Some(BTreeMap::new()));
        };
        let scores = cross::validate(&due, folds, hall)?;
        let trials = due.iter().map(|lane| lane.record.member.trial);
        Ok(scores.map(|scores| trials.zip(scores).collect()))
    }

    /// Probabilities of the validation split for every trial, one row of classes for each sample.
    fn evaluate(
        &self,
        hall: &Hall<'a>,
        samples: usize,
        classes: usize,
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let Some(heads) = &self.heads else {
            return Ok(Vec::new());
        };
        let shape = (self.lanes.len(), samples, classes);
        answers(
            heads,
            self.validation(hall, samples),
            shape,
            beat(hall.listener, 0),
        )
    }

    /// The validation split at the cut, in its order.
    fn validation<'h>(
        &self,
        hall: &'h Hall<'a>,
        samples: usize,
    ) -> Box<dyn Iterator<Item = Result<Tensor, Fault>> + 'h> {
        let reads = self.lanes.first().is_some_and(Lane::reads_features);
        let (source, network) = (&hall.source, &hall.network);
        if let Some(features) = source.features.as_ref().filter(|_| reads) {
            return Box::new((0..samples).step_by(ROWS).map(move |from| {
                let count = ROWS.min(samples - from);
                Ok(features.validation(from, count, network.device()))
            }));
        }
        let dataset = Arc::clone(&source.dataset);
        let rows = (0..samples, View::AS_IS);
        let loader = Loader::in_order(dataset, Split::Val, rows, BATCH, source.threads);
        Box::new(loader.map(move |batch| {
            let batch = batch?;
            let side = source.dataset.size();
            Ok(network.at_cut(&network.input(&batch.pixels, batch.labels.len(), side)))
        }))
    }
}

/// Probabilities of samples for each of the first heads, one row of classes for each sample; `inputs`
/// are what stands at the cut, batch by batch. `beat` is called after every batch.
pub(super) fn answers(
    heads: &Heads,
    inputs: impl Iterator<Item = Result<Tensor, Fault>>,
    (count, samples, classes): (usize, usize, usize),
    mut beat: impl FnMut(),
) -> Result<Vec<Vec<f32>>, Fault> {
    let _no_grad = tch::no_grad_guard();
    let mut rows = vec![vec![0f32; samples * classes]; count];
    let mut at = 0;
    for x in inputs {
        let logits = heads.forward(&x?, None).on_host();
        let part = logits.len() / heads.width();
        for (rows, logits) in rows.iter_mut().zip(logits.chunks_exact(part)) {
            let rows = rows[at..at + part].chunks_exact_mut(classes);
            for (p, z) in rows.zip(logits.chunks_exact(classes)) {
                softmax(z, p);
            }
        }
        at += part;
        beat();
    }
    Ok(rows)
}

/// Dropout masks, \[heads, samples, hidden\], of a step in an epoch: one draw for a sample and a unit,
/// which every head compares with its own share.
pub(super) fn dropout_masks(
    heads: &Heads,
    input: &Input,
    (spec, epoch): (&TrialSpec, u32),
    shares: &[f64],
    network: &Network,
) -> Option<Tensor> {
    let hidden = heads.hidden()?;
    if shares.iter().all(|share| *share == 0.0) {
        return None;
    }
    let stream = dropout_key(spec, epoch).named(&HeadPlan::dropout_name(network.arch()));
    let draws: Vec<f64> = (input.samples.iter())
        .flat_map(|&sample| {
            let first = sample as u64 * hidden as u64;
            (0..hidden as u64).map(move |unit| stream.uniform(first + unit))
        })
        .collect();
    let mut masks = Vec::with_capacity(heads.width() * draws.len());
    for share in shares {
        let kept = (1.0 / (1.0 - share)) as f32;
        let mask = |draw: &f64| if draw < share { 0.0 } else { kept };
        masks.extend(draws.iter().map(mask));
    }
    masks.resize(heads.width() * draws.len(), 0.0);
    let shape = [heads.width(), input.samples.len(), hidden].map(|side| side as i64);
    let masks = Tensor::from_slice(&masks).reshape(shape);
    Some(masks.to_device(input.x.device()))
}
