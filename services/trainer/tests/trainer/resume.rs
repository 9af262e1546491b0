//! Kill at any step and resume equals never having stopped, byte for byte (T4), and what is frozen
//! stays (T5). The ranks are real trainer processes and the kills are SIGKILL.

use crate::support::{Fixture, Lease, command, fixture, slot_kind, spec, train_work};
use pomona_api::trainer::{Event, TrainWork, TrainerWork};
use pomona_domain::Code;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::spec::{Optimizer, Share};
use pomona_domain::worker::SlotKind;
use pomona_trainer::checkpoint::{self, PAUSE_ENV, State, file};
use pomona_trainer::network::{Role, host_tensor};
use pomona_trainer::protocol::Listener;
use pomona_trainer::train::{self, CHECKPOINT_STEPS, Ended, Trial};
use pomona_trainer::weights::HostTensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_mins(2);

/// Four classes of 87 images: 212 to train on, 106 steps of two an epoch. Checkpoints come at steps
/// 50 and 100 inside the first epoch, 106 at its end, 150 and 200 inside the second, 212 at the end.
const EACH: usize = 87;
const EPOCH: u64 = 106;

fn big() -> (Fixture, pomona_domain::spec::TrialSpec) {
    let mut spec = spec();
    spec.train.batch_size = 2;
    (fixture("test-resnet", 4, EACH), spec)
}

/// The checkpoint files of a folder: kind prefix and step → bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|item| {
            let path = item.unwrap().path();
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read(path).unwrap(),
            )
        })
        .collect()
}

/// The newest whole `last` checkpoint, as a worker would find it.
fn newest(folder: &Path) -> PathBuf {
    let step = |name: &str| {
        name.strip_prefix("last-")?
            .strip_suffix(".safetensors")?
            .parse::<u64>()
            .ok()
    };
    let last = files(folder)
        .keys()
        .filter_map(|name| step(name))
        .max()
        .unwrap();
    folder.join(format!("last-{last}.safetensors"))
}

/// Metrics and confusion matrix.
type Evaluation = (BTreeMap<String, f64>, Vec<Vec<u64>>);

/// What was observed, by step; a repeat must say the same.
#[derive(Default)]
struct Seen(BTreeMap<u64, Evaluation>);

impl Seen {
    fn add(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Observed {
                step,
                metrics,
                confusion,
                ..
            } = event
            {
                let new = (metrics.clone(), confusion.clone());
                if let Some(old) = self.0.insert(*step, new.clone()) {
                    assert_eq!(old, new, "step {step} was observed twice and differs");
                }
            }
        }
    }
}

fn to_the_end(work: &TrainWork, world_size: u32) -> Vec<Event> {
    let mut lease = Lease::start(work, world_size, &[]);
    let events = lease.ranks[0].events_until(|_| false);
    assert_eq!(events.last(), Some(&Event::Finished {}));
    for rank in &mut lease.ranks {
        assert_eq!(rank.exit_code(), Some(0));
    }
    events
}

fn is_checkpoint(event: &Event, kind: CheckpointKind, at: u64) -> bool {
    matches!(event, Event::Checkpoint { checkpoint, step, .. } if *checkpoint == kind && *step == at)
}

/// When the ranks die.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// Once this checkpoint was announced: the ranks are some steps further.
    After(u64),
    /// While the checkpoint of this step is on disk under its temporary name.
    Writing(u64),
}

/// Starts a trial, kills every rank, and gives what was seen until then.
fn killed(work: &TrainWork, world_size: u32, kill: Kill) -> Vec<Event> {
    let flag = work.members[0].output.with_extension("paused");
    let (step, pause) = match kill {
        Kill::After(step) => (step, String::new()),
        Kill::Writing(step) => (step, format!("{step}:{}", flag.display())),
    };
    let mut lease = Lease::start(work, world_size, &[(PAUSE_ENV, pause.as_str())]);
    let before = step - CHECKPOINT_STEPS;
    let until = if pause.is_empty() { step } else { before };
    let events =
        lease.ranks[0].events_until(|event| is_checkpoint(event, CheckpointKind::Last, until));
    if !pause.is_empty() {
        let begun = Instant::now();
        while !flag.exists() {
            assert!(
                begun.elapsed() < DEADLINE,
                "the trainer never wrote step {step}"
            );
            std::thread::yield_now();
        }
    }
    lease.kill();
    if !pause.is_empty() {
        assert!(
            files(&work.members[0].output).contains_key(&format!("last-{step}.safetensors.tmp"))
        );
    }
    events
}

/// Killed so and resumed, the trial leaves the files and observations of the uninterrupted one.
fn check(world_size: u32, share: Share) {
    let (fixture, mut spec) = big();
    spec.share = share;
    let whole = train_work(&fixture, &spec, &fixture.folder.path().join("whole"), None);
    let mut expect = Seen::default();
    expect.add(&to_the_end(&whole, world_size));
    assert_eq!(
        expect.0.keys().copied().collect::<Vec<_>>(),
        [EPOCH, 2 * EPOCH]
    );
    let expect_files = files(&whole.members[0].output);
    assert!(expect_files.contains_key(&format!("last-{}.safetensors", 2 * EPOCH)));

    for (number, kill) in [Kill::After(50), Kill::Writing(200), Kill::After(EPOCH)]
        .into_iter()
        .enumerate()
    {
        let output = fixture.folder.path().join(format!("killed-{number}"));
        let first = train_work(&fixture, &spec, &output, None);
        let mut seen = Seen::default();
        seen.add(&killed(&first, world_size, kill));
        let from = newest(&output);
        let (_, state) = checkpoint::read(&from).unwrap();
        check_kill(kill, &state);
        let resumed = train_work(&fixture, &spec, &output, Some(from));
        seen.add(&to_the_end(&resumed, world_size));
        assert_eq!(seen.0, expect.0, "{kill:?}");
        let found = files(&output);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expect_files.keys().collect::<Vec<_>>(),
            "{kill:?}"
        );
        assert!(
            found == expect_files,
            "{kill:?}: the final checkpoints are not the same bytes"
        );
    }
}

/// The kill met the trial where it was meant to.
fn check_kill(kill: Kill, state: &State) {
    match kill {
        Kill::After(EPOCH) => assert!(state.step >= EPOCH, "{state:?}"),
        Kill::After(_) => assert!(state.position > 0 && state.epoch == 0, "{state:?}"),
        Kill::Writing(step) => assert_eq!(state.step, step - CHECKPOINT_STEPS),
    }
}

#[test]
fn one_rank_killed_at_three_steps_ends_as_if_it_had_never_stopped() {
    check(1, Share::Auto);
}

#[test]
fn one_rank_without_features_killed_at_three_steps_ends_as_if_it_had_never_stopped() {
    check(1, Share::Off);
}

#[test]
fn two_ranks_killed_at_three_steps_end_as_if_they_had_never_stopped() {
    check(2, Share::Auto);
}

#[test]
fn a_stop_is_answered_at_the_next_step_and_resumes_without_a_trace() {
    let (fixture, spec) = big();
    let whole = train_work(&fixture, &spec, &fixture.folder.path().join("whole"), None);
    let _events = to_the_end(&whole, 2);
    let output = fixture.folder.path().join("stopped");
    let first = train_work(&fixture, &spec, &output, None);
    let mut lease = Lease::start(&first, 2, &[]);
    let _begun = lease.ranks[0].events_until(|event| matches!(event, Event::Progress { .. }));
    // One rank alone is asked: all of them stop at the same step.
    lease.ranks[1].say(r#"{"signal":"stop"}"#);
    let events = lease.ranks[0].events_until(|_| false);
    assert_eq!(events.last(), Some(&Event::Stopped {}));
    let Some(Event::Checkpoint {
        checkpoint: CheckpointKind::Last,
        step,
        path,
        ..
    }) = events.iter().rev().nth(1)
    else {
        panic!("no checkpoint before the end: {events:?}");
    };
    assert!(*step < 2 * EPOCH);
    for rank in &mut lease.ranks {
        assert_eq!(rank.exit_code(), Some(3));
    }
    let resumed = train_work(&fixture, &spec, &output, Some(path.clone()));
    let _events = to_the_end(&resumed, 2);
    assert!(
        files(&output) == files(&whole.members[0].output),
        "the final checkpoints are not the same bytes"
    );
}

#[test]
fn a_checkpoint_of_another_trial_is_refused_by_what_differs() {
    let fixture = fixture("test-convnet", 3, 10);
    let spec = spec_of_a_short_trial();
    let work = train_work(&fixture, &spec, &fixture.folder.path().join("first"), None);
    let _events = to_the_end(&work, 1);
    let from = newest(&work.members[0].output);
    let mut other_spec = work.clone();
    other_spec.members[0].spec.train.learning_rate = 0.5;
    let mut other_backbone = work.clone();
    other_backbone.backbone.digest = pomona_domain::Digest::of(b"another");
    let other = crate::support::fixture("test-convnet", 3, 11);
    let mut other_data = work.clone();
    other_data.data = other.data.clone();
    let truncated = fixture.folder.path().join("truncated.safetensors");
    std::fs::write(&truncated, &std::fs::read(&from).unwrap()[..4000]).unwrap();
    // The spec decides the freeze plan, unless blocks are counted otherwise.
    let frozen = altered(&from, "frozen", |state| state.frozen_blocks += 1);
    for (mut work, resume, world_size, word) in [
        (other_spec, &from, 1, "another spec"),
        (other_backbone, &from, 1, "another backbone"),
        (other_data, &from, 1, "another data set"),
        (work.clone(), &from, 2, "another world size"),
        (work.clone(), &frozen, 1, "another freeze plan"),
        (work.clone(), &truncated, 1, "safetensors"),
        (work.clone(), &fixture.backbone.weights, 1, "no state"),
    ] {
        work.members[0].resume = Some(resume.clone());
        let mut command = command(TrainerWork::Train(Box::new(work.clone())));
        command.world_size = world_size;
        let Err(fault) = Trial::prepare(&command, &work, &Quiet) else {
            panic!("resumed, though: {word}")
        };
        assert_eq!(fault.code, Code::BadCheckpoint, "{word}");
        assert!(fault.message.contains(word), "{}", fault.message);
    }
}

/// A copy of a checkpoint beside it, with another state.
fn altered(from: &Path, name: &str, change: impl Fn(&mut State)) -> PathBuf {
    let (content, mut state) = checkpoint::read(from).unwrap();
    change(&mut state);
    let text = checkpoint::canonical(&serde_json::to_value(&state).unwrap());
    let path = from.with_file_name(format!("{name}.safetensors"));
    file::write(&path, &content, Some(text)).unwrap().path
}

#[test]
fn a_checkpoint_of_another_machine_is_refused_and_says_what_both_are() {
    let fixture = fixture("test-convnet", 3, 10);
    let spec = spec_of_a_short_trial();
    let mut work = train_work(&fixture, &spec, &fixture.folder.path().join("first"), None);
    assert_eq!(here(&work, 1, &Quiet), Ended::Finished);
    let from = newest(&work.members[0].output);
    let mut prepare = |resume: PathBuf| {
        work.members[0].resume = Some(resume);
        let command = command(TrainerWork::Train(Box::new(work.clone())));
        Trial::prepare(&command, &work, &Quiet).err()
    };
    let device = match slot_kind() {
        SlotKind::Cpu => "cpu_capability",
        SlotKind::Cuda => "gpu",
    };
    for key in ["libtorch", device, "precision"] {
        let other = altered(&from, key, |state| {
            let old = state.environment.insert(key.into(), "another".into());
            assert!(old.is_some_and(|old| old != "another"), "no `{key}`");
        });
        let fault = prepare(other).unwrap();
        assert_eq!(fault.code, Code::ResumeMismatch, "{key}: {fault}");
        let said = format!("{key:?}: \"another\"");
        assert_eq!(fault.message.matches(&said).count(), 1, "{fault}");
        assert_eq!(fault.message.matches(key).count(), 2, "{fault}");
    }
    // What one machine sets and the other does not is a difference, too.
    let other = altered(&from, "more", |state| {
        state.environment.insert("mkl_cbwr".into(), "AVX2".into());
    });
    assert_eq!(prepare(other).unwrap().code, Code::ResumeMismatch);
    let same = altered(&from, "same", |_| ());
    assert!(prepare(same).is_none());
}

/// Trains in this process.
fn here(work: &TrainWork, threads: u32, listener: &dyn Listener) -> Ended {
    let mut command = command(TrainerWork::Train(Box::new(work.clone())));
    command.threads = threads;
    train::train(&command, work, listener).unwrap()
}

/// Asks for a stop at a step; it is asked once a step.
struct StopAt(AtomicU64);

impl Listener for StopAt {
    fn say(&self, _: &Event) {}

    fn stop_wanted(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Stopped in its first epoch and again in its second, a trial ends as if it had never stopped.
fn stopped_twice(momentum: f64) {
    let fixture = fixture("test-resnet", 3, 20);
    let mut spec = spec();
    spec.train.optimizer = Optimizer::Sgd {
        momentum,
        weight_decay: 1e-4,
    };
    let path = |name| fixture.folder.path().join(name);
    let whole = train_work(&fixture, &spec, &path("whole"), None);
    assert_eq!(here(&whole, 1, &Quiet), Ended::Finished);
    let mut work = train_work(&fixture, &spec, &path("stopped"), None);
    // Nine steps an epoch. Threads are those that the trial began with, whatever a worker says.
    for (steps, threads, at) in [(4, 1, 4), (9, 2, 13)] {
        let stop = StopAt(steps.into());
        assert_eq!(here(&work, threads, &stop), Ended::Stopped);
        let from = newest(&work.members[0].output);
        let (content, state) = checkpoint::read(&from).unwrap();
        assert_eq!((state.step, state.position), (at, at % 9));
        // A moment for each parameter, and none for running statistics.
        let (mut kept, mut parameters) = (0, 0);
        for name in content.keys() {
            kept += usize::from(name.starts_with("optimizer."));
            parameters += usize::from(name.starts_with("network.") && !name.contains("running_"));
        }
        assert_eq!(kept, if momentum > 0.0 { parameters } else { 0 });
        work.members[0].resume = Some(from);
    }
    assert_eq!(here(&work, 2, &Quiet), Ended::Finished);
    let (found, expect) = (
        files(&work.members[0].output),
        files(&whole.members[0].output),
    );
    assert!(expect.contains_key("last-18.safetensors"));
    assert!(
        found == expect,
        "the final checkpoints are not the same bytes"
    );
}

#[test]
fn sgd_with_momentum_resumes_without_a_trace() {
    stopped_twice(0.9);
}

#[test]
fn sgd_without_momentum_resumes_without_a_trace() {
    stopped_twice(0.0);
}

fn spec_of_a_short_trial() -> pomona_domain::spec::TrialSpec {
    let mut spec = spec();
    spec.transfer.frozen_depth = pomona_domain::spec::FrozenDepth::Blocks(1);
    spec.train.epochs = 1;
    spec
}

struct Quiet;

impl Listener for Quiet {
    fn say(&self, _: &Event) {}

    fn stop_wanted(&self) -> bool {
        false
    }
}

#[test]
fn frozen_parameters_and_statistics_do_not_move_by_a_bit_in_a_whole_trial() {
    let fixture = fixture("test-resnet", 3, 20);
    let mut spec = spec();
    spec.train.batch_size = 8;
    spec.train.epochs = 3;
    let work = train_work(&fixture, &spec, &fixture.folder.path().join("trial"), None);
    let command = command(TrainerWork::Train(Box::new(work.clone())));
    let mut trial = Trial::prepare(&command, &work, &Quiet).unwrap();
    let tensors = |trial: &Trial<'_>| -> Vec<HostTensor> {
        trial
            .network()
            .entries()
            .iter()
            .map(|entry| host_tensor(&entry.tensor))
            .collect()
    };
    let before = tensors(&trial);
    assert_eq!(train::run(&mut trial).unwrap(), Ended::Finished);
    let network = trial.network();
    let mut counts = BTreeMap::new();
    for ((entry, before), after) in network.entries().iter().zip(before).zip(tensors(&trial)) {
        let live = network.is_live(entry);
        assert_eq!(before != after, live, "{} is live: {live}", entry.name);
        let statistics = entry.role == Role::Buffer;
        *counts.entry((live, statistics)).or_insert(0) += 1;
    }
    // Frozen and live, parameters and statistics: each kind was there to be looked at.
    assert_eq!(counts.len(), 4, "{counts:?}");
}
