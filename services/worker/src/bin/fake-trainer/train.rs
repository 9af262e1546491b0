//! Trials of a lease: epochs and steps at a pace, observations, checkpoints that a resume goes on from.
//! Several trials take turns, an epoch each.

use pomona_api::trainer::{Command, Event, Member, TrainWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::{Manifest, Split};
use pomona_domain::report::Outcome;
use pomona_domain::{Code, Digest, Fault};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::curve::{Curve, confusion};
use crate::line::{Line, cannot, log, read, say, write};
use crate::{Done, Ended, arch, faults, features};

/// Steps between checkpoints inside an epoch, as in the real trainer.
const CHECKPOINT_STEPS: u64 = 50;
/// Between two signs of life.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A checkpoint: everything that a resume needs and that identifies the trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Digest of the trial's spec.
    pub spec: Digest,
    /// Digest of the data set's manifest.
    pub dataset: Digest,
    /// Digest of the backbone's weights.
    pub backbone: Digest,
    /// Ranks.
    pub world_size: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Passes done.
    pub epoch: u32,
    /// Best evaluation so far: objective and validation loss.
    pub best: Option<(f64, f64)>,
}

/// Reads a checkpoint.
pub fn read_state(path: &Path) -> Result<State, Fault> {
    serde_json::from_slice(&read(path)?).map_err(|error| {
        let text = format!("`{}` is no checkpoint: {error}", path.display());
        Fault::new(Code::BadCheckpoint, text)
    })
}

/// Reads a manifest.
pub fn read_manifest(path: &Path) -> Result<(Manifest, Digest), Fault> {
    let text = read(path)?;
    let manifest = serde_json::from_slice(&text).map_err(|error| {
        let text = format!("the manifest `{}` does not parse: {error}", path.display());
        Fault::new(Code::CorruptDataset, text).hint("add the data set again from its folder")
    })?;
    Ok((manifest, Digest::of(&text)))
}

/// Labels of a split, in its order.
pub fn labels(manifest: &Manifest, split: Split) -> Vec<u32> {
    let samples = manifest
        .samples
        .iter()
        .filter(|sample| sample.split == split);
    samples.map(|sample| sample.label).collect()
}

/// Steps of one pass.
pub fn steps_per_epoch(manifest: &Manifest, batch_size: u32) -> u64 {
    let samples = labels(manifest, Split::Train).len() as u64;
    samples.div_ceil(u64::from(batch_size.max(1)))
}

fn step_time() -> Duration {
    let text = std::env::var("FAKE_STEP_MS").unwrap_or_default();
    Duration::from_secs_f64(text.parse::<f64>().unwrap_or(1.0).clamp(0.0, 60_000.0) / 1000.0)
}

struct Trial<'a> {
    command: &'a Command,
    member: &'a Member,
    line: &'a Line,
    pace: &'a Cell<Pace>,
    manifest: Manifest,
    val: Vec<u32>,
    curve: Curve,
    state: State,
    steps_per_epoch: u64,
    step_time: Duration,
    kept: BTreeMap<CheckpointKind, Vec<PathBuf>>,
    /// Step of the newest `last` checkpoint.
    saved: u64,
    /// It was ended while others went on.
    failed: bool,
    _store: Option<TcpStream>,
}

/// What the progress line says of all trials together.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    step: u64,
    total_steps: u64,
    samples: u64,
    seconds: f64,
    said: Option<Instant>,
}

/// Trains the trials of a lease, each from its checkpoint if it has one.
pub fn train(command: &Command, work: &TrainWork, line: &Line) -> Done {
    let pace = Cell::new(Pace::default());
    let prepare = |member| Trial::prepare(command, work, member, line, &pace);
    let trials: Result<Vec<Trial<'_>>, Fault> = work.members.iter().map(prepare).collect();
    let mut trials = trials.map_err(|fault| (fault, false))?;
    if !features::get(command, work, line).map_err(|fault| (fault, true))? {
        let save = |trial: &mut Trial<'_>| trial.save_unsaved();
        let saved = trials.iter_mut().try_for_each(save);
        return saved
            .map(|()| Ended::Stopped)
            .map_err(|fault| (fault, true));
    }
    trials.retain(|trial| !trial.is_done());
    let alone = work.members.len() == 1;
    while !trials.is_empty() {
        let mut left = trials.len();
        for at in 0..trials.len() {
            match trials[at].run_epoch() {
                Ok(Ended::Finished) => {}
                Ok(Ended::Stopped) => {
                    let save = |trial: &mut Trial<'_>| trial.save_unsaved();
                    trials
                        .iter_mut()
                        .try_for_each(save)
                        .map_err(|fault| (fault, true))?;
                    return Ok(Ended::Stopped);
                }
                Err((fault, retry)) if !alone && fault.code == Code::NotANumber => {
                    left -= 1;
                    trials[at].failed = true;
                    let trial = trials[at].member.trial;
                    log(&format!(
                        "{trial}: error[{}]: {}",
                        fault.code, fault.message
                    ));
                    ended(trials[at].member, Outcome::Failed { fault, retry });
                    continue;
                }
                Err(error) => return Err(error),
            }
            trials[at].end_epoch().map_err(|fault| (fault, true))?;
            if trials[at].is_done() {
                left -= 1;
                if left > 0 {
                    ended(trials[at].member, Outcome::Finished);
                }
            }
        }
        trials.retain(|trial| !trial.failed && !trial.is_done());
    }
    Ok(Ended::Finished)
}

fn ended(member: &Member, outcome: Outcome) {
    let trial = member.trial;
    say(&Event::TrialEnded { trial, outcome });
}

impl<'a> Trial<'a> {
    fn prepare(
        command: &'a Command,
        work: &TrainWork,
        member: &'a Member,
        line: &'a Line,
        pace: &'a Cell<Pace>,
    ) -> Result<Self, Fault> {
        let (manifest, dataset) = read_manifest(&work.data.manifest)?;
        read(&work.backbone.weights)?;
        let spec = serde_json::to_vec(&member.spec).map_err(|error| {
            Fault::new(
                Code::Internal,
                format!("the spec cannot be written: {error}"),
            )
        })?;
        let fresh = State {
            spec: Digest::of(&spec),
            dataset,
            backbone: work.backbone.digest,
            world_size: command.world_size,
            step: 0,
            epoch: 0,
            best: None,
        };
        let state = match &member.resume {
            Some(path) => resumed(&fresh, read_state(path)?)?,
            None => fresh,
        };
        let share = arch::trained_share(&work.backbone.arch, &member.spec.transfer.frozen_depth)?;
        let steps_per_epoch = steps_per_epoch(&manifest, member.spec.train.batch_size);
        let total = steps_per_epoch * u64::from(member.spec.train.epochs);
        let before = pace.get();
        pace.set(Pace {
            step: before.step + state.step,
            total_steps: before.total_steps + total,
            ..before
        });
        let curve = Curve::new(&member.spec, manifest.classes.len(), share, steps_per_epoch);
        Ok(Self {
            val: labels(&manifest, Split::Val),
            curve,
            saved: state.step,
            failed: false,
            state,
            steps_per_epoch,
            step_time: step_time(),
            kept: kept(&member.output)?,
            _store: meet(command)?,
            command,
            member,
            line,
            pace,
            manifest,
        })
    }

    fn run_epoch(&mut self) -> Done {
        let end = u64::from(self.state.epoch + 1) * self.steps_per_epoch;
        while self.state.step < end {
            let next = self.state.step + 1;
            faults::before_step(self.command.rank, next, || self.progress())
                .map_err(|fault| (fault, false))?;
            let begun = Instant::now();
            std::thread::sleep(self.step_time);
            if self.curve.diverges(next) {
                return Err((faults::not_a_number(next), false));
            }
            self.state.step = next;
            let mut pace = self.pace.get();
            pace.step += 1;
            pace.samples += u64::from(self.member.spec.train.batch_size)
                / u64::from(self.command.world_size.max(1));
            pace.seconds += begun.elapsed().as_secs_f64();
            let due = (pace.said).is_none_or(|said| said.elapsed() >= PROGRESS_EVERY);
            if due || next == end {
                pace.said = Some(Instant::now());
            }
            self.pace.set(pace);
            if due || next == end {
                self.progress();
            }
            let stop = self.line.stop_wanted() && !faults::is_deaf(self.command.rank);
            if stop || (next < end && next.is_multiple_of(CHECKPOINT_STEPS)) {
                self.save(CheckpointKind::Last)
                    .map_err(|fault| (fault, true))?;
            }
            if stop {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Finished)
    }

    fn progress(&self) {
        let pace = self.pace.get();
        say(&Event::Progress {
            rank: self.command.rank,
            step: pace.step,
            total_steps: pace.total_steps,
            epoch: self.state.epoch + 1,
            samples: pace.samples,
            data_wait_seconds: 0.0,
            step_seconds: pace.seconds,
        });
    }

    fn is_done(&self) -> bool {
        self.state.epoch >= self.member.spec.train.epochs
    }

    /// Writes a checkpoint unless there is one of this step.
    fn save_unsaved(&mut self) -> Result<(), Fault> {
        if self.state.step == self.saved {
            return Ok(());
        }
        self.save(CheckpointKind::Last)
    }

    /// Evaluates, says so, and keeps the checkpoints, in the real trainer's order.
    fn end_epoch(&mut self) -> Result<(), Fault> {
        let (step, classes) = (self.state.step, &self.manifest.classes);
        let predicted = self.curve.predictions(step, "val", &self.val);
        let table = confusion(classes.len(), &self.val, &predicted);
        let mut metrics = self.curve.metrics("val", step, classes, &table);
        metrics.insert("train/loss".to_owned(), self.curve.train_loss(step));
        self.state.epoch += 1;
        if self.member.spec.validation.is_some() && self.is_done() {
            metrics.extend(self.curve.folds(step, self.manifest.samples.len()));
        }
        let better = self.judge(&metrics)?;
        if self.command.rank == 0 {
            say(&Event::Observed {
                trial: self.member.trial,
                step,
                epoch: self.state.epoch,
                metrics,
                confusion: table,
            });
        }
        if better {
            self.save(CheckpointKind::Best)?;
        }
        self.save(CheckpointKind::Last)
    }

    fn judge(&mut self, metrics: &BTreeMap<String, f64>) -> Result<bool, Fault> {
        let spec = &self.member.spec;
        let name = &spec.metric;
        let value = match metrics.get(name) {
            Some(value) => *value,
            None if spec.validation.is_some() && !self.is_done() => return Ok(false),
            None => {
                let message = format!("there is no metric `{name}`");
                return Err(Fault::new(Code::BadMetric, message));
            }
        };
        let loss = metrics.get("val/loss").copied().unwrap_or(f64::INFINITY);
        let direction = self.member.spec.direction;
        let better = self.state.best.is_none_or(|(best, tie)| {
            direction.is_better(value, best) || (value == best && loss < tie)
        });
        if better {
            self.state.best = Some((value, loss));
        }
        Ok(better)
    }

    fn save(&mut self, kind: CheckpointKind) -> Result<(), Fault> {
        if self.command.rank != 0 {
            return Ok(());
        }
        let begun = Instant::now();
        let bytes = serde_json::to_vec(&self.state).map_err(|error| {
            Fault::new(
                Code::Internal,
                format!("the checkpoint cannot be written: {error}"),
            )
        })?;
        let name = format!("{}{}.safetensors", prefix(kind), self.state.step);
        let path = self.member.output.join(name);
        let digest = write(&path, &bytes)?;
        say(&Event::Checkpoint {
            trial: self.member.trial,
            checkpoint: kind,
            step: self.state.step,
            epoch: self.state.epoch,
            path: path.clone(),
            digest,
            size: bytes.len() as u64,
            seconds: begun.elapsed().as_secs_f64(),
        });
        if kind == CheckpointKind::Last {
            self.saved = self.state.step;
        }
        let older = self
            .kept
            .insert(kind, vec![path.clone()])
            .unwrap_or_default();
        for old in older.iter().filter(|old| **old != path) {
            // A file that cannot be removed costs space only.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }
}

fn prefix(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Last => "last-",
        CheckpointKind::Best => "best-",
    }
}

/// Checkpoints of an earlier process in the folder.
fn kept(folder: &Path) -> Result<BTreeMap<CheckpointKind, Vec<PathBuf>>, Fault> {
    let broken = |error: std::io::Error| cannot("use", folder, &error);
    std::fs::create_dir_all(folder).map_err(broken)?;
    let mut kept: BTreeMap<CheckpointKind, Vec<PathBuf>> = BTreeMap::new();
    for file in std::fs::read_dir(folder).map_err(broken)? {
        let file = file.map_err(broken)?;
        let name = file.file_name().to_string_lossy().into_owned();
        for kind in [CheckpointKind::Last, CheckpointKind::Best] {
            if name.starts_with(prefix(kind)) {
                kept.entry(kind).or_default().push(file.path());
            }
        }
    }
    Ok(kept)
}

/// Where a resumed trial stands, if the checkpoint is its own.
fn resumed(fresh: &State, saved: State) -> Result<State, Fault> {
    let same = [
        ("spec", saved.spec == fresh.spec),
        ("data set", saved.dataset == fresh.dataset),
        ("backbone", saved.backbone == fresh.backbone),
        ("world size", saved.world_size == fresh.world_size),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(saved),
        Some((what, _)) => {
            let text = format!("the checkpoint is of another {what}");
            Err(Fault::new(Code::BadCheckpoint, text))
        }
    }
}

/// Ranks of one lease meet at its store.
fn meet(command: &Command) -> Result<Option<TcpStream>, Fault> {
    let lost = |why: String| Fault::new(Code::RankLost, format!("the store was not found: {why}"));
    match &command.rendezvous {
        None if command.world_size > 1 => Err(lost("no rendezvous was given".to_owned())),
        None => Ok(None),
        Some(at) => {
            let met = TcpStream::connect((at.host.as_str(), at.port));
            met.map(Some).map_err(|error| lost(error.to_string()))
        }
    }
}
