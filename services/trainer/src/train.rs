//! Training: the loop of one trial, on one page. What a trial is and how it resumes is in `trial`, a
//! step in `learner`, the order of images in `epoch`, what a step takes in in `source`, evaluation in
//! `evaluate`. Trials whose backbone is frozen as a whole are trained side by side in `fused`.

pub mod epoch;
pub mod evaluate;
pub mod fused;
pub mod learner;
mod life;
mod record;
mod source;
mod start;
mod trial;

use crate::fault;
use crate::network::Masks;
use crate::optim::schedule;
use crate::protocol::Listener;
use crate::random::Key;
use epoch::Step;
use life::Lap;
use pomona_api::trainer::{Command, TrainWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::spec::TrialSpec;
use pomona_domain::{Code, Fault};
use source::Feed;

pub use start::{device, environment, set_threads};
pub use trial::Trial;

/// Steps between checkpoints inside an epoch.
pub const CHECKPOINT_STEPS: u64 = 50;

/// How a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// A stop was asked for; the last checkpoint was announced.
    Stopped,
}

/// Trains the trials of a lease, each from its checkpoint if it has one.
pub fn train(command: &Command, work: &TrainWork, listener: &dyn Listener) -> Result<Ended, Fault> {
    if fused::takes(command, work) {
        return fused::train(command, work, listener);
    }
    run(&mut Trial::prepare(command, work, listener)?)
}

/// Trains from where a trial stands to its end.
pub fn run(trial: &mut Trial<'_>) -> Result<Ended, Fault> {
    if trial.find_features()? == Ended::Stopped {
        return Ok(Ended::Stopped);
    }
    while trial.state().epoch < trial.spec.train.epochs {
        if run_epoch(trial)? == Ended::Stopped {
            return Ok(Ended::Stopped);
        }
        trial.end_epoch()?;
    }
    Ok(Ended::Finished)
}

/// What is left of the epoch under way.
fn run_epoch(trial: &mut Trial<'_>) -> Result<Ended, Fault> {
    let steps = trial.epoch_steps();
    let mut feed = trial.source.feed(&steps, true);
    for step in &steps {
        let stop = run_step(trial, &mut feed, step)?;
        let inside = trial.state().position < trial.steps_per_epoch;
        if stop || (inside && trial.state().step.is_multiple_of(CHECKPOINT_STEPS)) {
            trial.save(CheckpointKind::Last)?;
        }
        if stop {
            return Ok(Ended::Stopped);
        }
    }
    Ok(Ended::Finished)
}

/// One optimiser step. Says whether any rank was asked to stop.
fn run_step(trial: &mut Trial<'_>, feed: &mut Feed, step: &Step) -> Result<bool, Fault> {
    let begun = std::time::Instant::now();
    let input = trial.source.input(trial.network(), feed, step)?;
    let spec = trial.spec;
    let weight = trial.learner.weight_of(&step.labels);
    let loss = match &input {
        Some(input) => {
            let masks = Masks {
                key: dropout_key(spec, trial.state().epoch),
                samples: &input.samples,
            };
            trial
                .learner
                .gradients(&input.x, &input.labels, &masks, weight)?
        }
        None => trial.learner.no_gradients()?,
    };
    // One small sum carries the loss and any rank's wish to stop, so that all ranks know both.
    let stop = trial.record.listener.stop_wanted();
    let mut shared = [loss, f64::from(u8::from(stop))];
    trial.learner.group.sum(&mut shared)?;
    let [loss, stop] = shared;
    if !loss.is_finite() {
        return Err(not_a_number("the training loss", trial.state().step + 1));
    }
    let train = &spec.train;
    let lr = schedule::rate(
        &train.lr_schedule,
        train.learning_rate,
        trial.state().step,
        trial.steps_per_epoch,
        trial.total_steps(),
    );
    trial.learner.update(lr)?;
    trial.record.state.count_step(loss, weight);
    trial.progress(Lap {
        samples: step.local.len(),
        waited_seconds: input.map_or(0.0, |input| input.waited_seconds),
        seconds: begun.elapsed().as_secs_f64(),
    });
    Ok(stop > 0.0)
}

/// What dropout masks of a pass are drawn with.
fn dropout_key(spec: &TrialSpec, epoch: u32) -> Key {
    Key {
        seed: spec.seed,
        replicate: spec.replicate,
        purpose: "dropout",
        epoch,
    }
}

fn not_a_number(what: &str, step: u64) -> Fault {
    Fault::new(
        Code::NotANumber,
        format!("{what} is not a number at step {step}"),
    )
    .hint("lower `train.learning_rate`, or add warm-up")
}

/// Whether another attempt could end otherwise: what the machine did may not happen again, what the
/// input did will.
pub fn worth_a_retry(fault: &Fault) -> bool {
    fault::is_ours(fault.code)
        || matches!(
            fault.code,
            Code::RankLost | Code::DiskFull | Code::LocalFile | Code::Internal
        )
}
