//! One trial's own part of a training: where it stands, what it says of itself and what it keeps.
//!
//! It must never know how the trial is trained: alone, or beside others.

use super::evaluate::metrics;
use super::not_a_number;
use crate::checkpoint::{Best, Keeper, State};
use crate::metrics::Classification;
use crate::protocol::{self, Listener};
use pomona_api::trainer::{Event, Member};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use std::time::Instant;

/// The trial's part.
pub(super) struct Record<'a> {
    pub(super) member: &'a Member,
    pub(super) state: State,
    pub(super) listener: &'a dyn Listener,
    /// Rank 0's: two ranks that tidy one folder would trip over each other.
    keeper: Option<Keeper>,
    /// Whether a line of the log must say whose it is.
    is_one_of_many: bool,
}

impl<'a> Record<'a> {
    /// Of rank 0 when `speaks`.
    pub(super) fn open(
        member: &'a Member,
        state: State,
        listener: &'a dyn Listener,
        speaks: bool,
        is_one_of_many: bool,
    ) -> Result<Self, Fault> {
        let keeper = speaks.then(|| Keeper::open(&member.output)).transpose()?;
        Ok(Self {
            member,
            state,
            listener,
            keeper,
            is_one_of_many,
        })
    }

    /// A pass is over: says what was measured, `more` of it besides the report, and whether it is
    /// the best so far.
    pub(super) fn end_epoch(
        &mut self,
        classes: &[String],
        report: &Classification,
        more: BTreeMap<String, f64>,
    ) -> Result<bool, Fault> {
        let state = &mut self.state;
        let mut found = metrics("val", classes, report);
        let loss = state.loss_sum / state.weight_sum;
        found.insert("train/loss".to_owned(), loss);
        found.extend(more);
        if let Some((name, _)) = found.iter().find(|(_, value)| !value.is_finite()) {
            return Err(not_a_number(&format!("`{name}`"), state.step));
        }
        state.epoch += 1;
        state.position = 0;
        (state.loss_sum, state.weight_sum) = (0.0, 0.0);
        if self.keeper.is_some() {
            self.listener.say(&Event::Observed {
                trial: self.member.trial,
                step: self.state.step,
                epoch: self.state.epoch,
                metrics: found.clone(),
                confusion: report.confusion.clone(),
            });
        }
        let better = self.judge(&found)?;
        self.tell_epoch(&found, better);
        Ok(better)
    }

    /// Whether this evaluation is the best so far; ties by validation loss.
    fn judge(&mut self, metrics: &BTreeMap<String, f64>) -> Result<bool, Fault> {
        let spec = &self.member.spec;
        let name = &spec.metric;
        let Some(value) = metrics.get(name).copied() else {
            // A cross-validation comes with the last epoch.
            if spec.validation.is_some() && self.state.epoch < spec.train.epochs {
                return Ok(false);
            }
            let message = format!("there is no metric `{name}`");
            let known = pomona_domain::spec::METRICS.join(", ");
            return Err(Fault::new(Code::BadMetric, message).hint(format!("use one of {known}")));
        };
        let loss = metrics.get("val/loss").copied().unwrap_or(f64::INFINITY);
        let better = self.state.best.as_ref().is_none_or(|best| {
            spec.direction.is_better(value, best.value) || (value == best.value && loss < best.loss)
        });
        if better {
            let (step, epoch) = (self.state.step, self.state.epoch);
            self.state.best = Some(Best {
                value,
                loss,
                step,
                epoch,
            });
        }
        Ok(better)
    }

    /// A line for people.
    fn tell_epoch(&self, found: &BTreeMap<String, f64>, better: bool) {
        if self.keeper.is_none() {
            return;
        }
        let of = |name: &str| found.get(name).copied().unwrap_or(f64::NAN);
        let spec = &self.member.spec;
        let shown = if found.contains_key(&spec.metric) {
            spec.metric.as_str()
        } else {
            "val/accuracy"
        };
        self.log(&format!(
            "epoch {} of {}, step {}: train/loss {:.4}, val/loss {:.4}, {shown} {:.4}{}",
            self.state.epoch,
            spec.train.epochs,
            self.state.step,
            of("train/loss"),
            of("val/loss"),
            of(shown),
            if better { ", the best so far" } else { "" }
        ));
    }

    /// A line of the trial's log.
    pub(super) fn log(&self, line: &str) {
        if self.is_one_of_many {
            protocol::log(&format!("{}: {line}", self.member.trial));
        } else {
            protocol::log(line);
        }
    }

    /// Writes and announces a checkpoint that was taken at `step` in pass `epoch`; rank 0's work.
    pub(super) fn keep(
        &mut self,
        kind: CheckpointKind,
        (step, epoch): (u64, u32),
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let Some(keeper) = &mut self.keeper else {
            return Ok(());
        };
        let begun = Instant::now();
        let written = keeper.write(kind, step, bytes)?;
        self.listener.say(&Event::Checkpoint {
            trial: self.member.trial,
            checkpoint: kind,
            step,
            epoch,
            path: written.path.clone(),
            digest: written.digest,
            size: written.size,
            seconds: begun.elapsed().as_secs_f64(),
        });
        keeper.announced(kind, &written.path);
        Ok(())
    }

    /// Whether this rank keeps checkpoints.
    pub(super) fn keeps(&self) -> bool {
        self.keeper.is_some()
    }
}
