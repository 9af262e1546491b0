//! Training: the loop, on one page. What a trial is and how it resumes is in `trial`, a step in
//! `learner`, the order of images in `epoch`, what a step takes in in `inputs`, evaluation in `evaluate`.

pub mod epoch;
pub mod evaluate;
mod inputs;
pub mod learner;
mod trial;

use crate::fault;
use crate::network::Masks;
use crate::optim::schedule;
use crate::protocol::Listener;
use crate::random::Key;
use epoch::Step;
use inputs::Feed;
use pomona_api::trainer::{Command, TrainWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Code, Fault};

pub use trial::{Trial, device, environment, set_threads};

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

/// Trains a trial, from its checkpoint if it has one.
pub fn train(command: &Command, work: &TrainWork, listener: &dyn Listener) -> Result<Ended, Fault> {
    run(&mut Trial::prepare(command, work, listener)?)
}

/// Trains from where a trial stands to its end.
pub fn run(trial: &mut Trial<'_>) -> Result<Ended, Fault> {
    if trial.find_features()? == Ended::Stopped {
        return Ok(Ended::Stopped);
    }
    while trial.state.epoch < trial.spec.train.epochs {
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
    let mut feed = trial.feed(&steps);
    for step in &steps {
        let stop = run_step(trial, &mut feed, step)?;
        let inside = trial.state.position < trial.steps_per_epoch;
        if stop || (inside && trial.state.step.is_multiple_of(CHECKPOINT_STEPS)) {
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
    let input = trial.input(feed, step)?;
    let spec = trial.spec;
    let key = Key {
        seed: spec.seed,
        replicate: spec.replicate,
        purpose: "dropout",
        epoch: trial.state.epoch,
    };
    let weight = trial.learner.weight_of(&step.labels);
    let loss = match &input {
        Some(input) => {
            let masks = Masks {
                key,
                samples: &input.samples,
            };
            trial
                .learner
                .gradients(&input.x, &input.labels, &masks, weight)?
        }
        None => trial.learner.no_gradients()?,
    };
    // One small sum carries the loss and any rank's wish to stop, so that all ranks know both.
    let mut shared = [loss, f64::from(u8::from(trial.listener.stop_wanted()))];
    trial.learner.group.sum(&mut shared)?;
    let [loss, stop] = shared;
    if !loss.is_finite() {
        return Err(not_a_number("the training loss", trial.state.step + 1));
    }
    let train = &spec.train;
    let lr = schedule::rate(
        &train.lr_schedule,
        train.learning_rate,
        trial.state.step,
        trial.steps_per_epoch,
        trial.total_steps(),
    );
    trial.learner.update(lr)?;
    trial.state.step += 1;
    trial.state.position += 1;
    trial.state.loss_sum += loss;
    trial.state.weight_sum += weight;
    let waited = input.map_or(0.0, |input| input.waited_seconds);
    trial.progress(step.local.len(), waited, begun.elapsed().as_secs_f64());
    Ok(stop > 0.0)
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
