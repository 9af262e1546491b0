//! Trials side by side in one process: each gets the bits that it gets alone, whoever is beside it, who
//! fails, who ends early, and however often the lease is stopped, killed or made again in halves.

use crate::support::{Fixture, Trainer, command, device, fixture, spec, train_work};
use pomona_api::trainer::{Event, Member, TrainWork, TrainerWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::Outcome;
use pomona_domain::spec::{
    Augment, AugmentOp, ClassWeights, FrozenDepth, Head, LrSchedule, Optimizer, Precision, Share,
    TrialSpec,
};
use pomona_domain::{Code, Fault, TrialId};
use pomona_trainer::checkpoint::{self, PAUSE_ENV, file};
use pomona_trainer::network::{Arch, Entry, HeadPlan};
use pomona_trainer::optim;
use pomona_trainer::protocol::Listener;
use pomona_trainer::random::Key;
use pomona_trainer::train::fused::{Heads, SAVE_ENV};
use pomona_trainer::train::{self, Ended, set_threads};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

pub const TRIALS: u64 = 16;

/// Sixteen head-only trials: every kind of head, optimiser and schedule, sizes that differ.
pub fn specs() -> Vec<TrialSpec> {
    let point = |number: u64| {
        let mut spec = spec();
        spec.transfer.frozen_depth = FrozenDepth::Named("all".into());
        spec.transfer.head = match number % 3 {
            0 => Head::Linear,
            1 => Head::Mlp {
                hidden: 7,
                dropout: 0.1 * (number % 4) as f64,
            },
            _ => Head::Mlp {
                hidden: 33,
                dropout: 0.5,
            },
        };
        spec.train.batch_size = if number % 4 == 3 { 5 } else { 16 };
        spec.train.epochs = 2 + u32::from(number.is_multiple_of(5));
        spec.train.learning_rate = 0.001 * (1 + number) as f64;
        spec.train.label_smoothing = if number.is_multiple_of(2) { 0.0 } else { 0.1 };
        spec.train.optimizer = match number % 4 {
            0 | 1 => spec.train.optimizer,
            2 => Optimizer::Sgd {
                momentum: 0.9,
                weight_decay: 0.001 * number as f64,
            },
            _ => Optimizer::Sgd {
                momentum: 0.0,
                weight_decay: 0.0,
            },
        };
        if number % 5 == 1 {
            spec.train.lr_schedule = LrSchedule::Constant { warmup_epochs: 0.0 };
            spec.train.class_weights = ClassWeights::None;
        }
        spec.replicate = u32::from(number % 7 == 6);
        spec
    };
    (0..TRIALS).map(point).collect()
}

/// Four classes of 30 images: 72 to train on, 5 steps of 16 an epoch or 15 of 5.
pub fn pictures() -> Fixture {
    fixture("test-resnet", 4, 30)
}

/// A lease of these trials, whose checkpoints go to folders below `name`.
pub fn lease(fixture: &Fixture, specs: &[TrialSpec], trials: &[u64], name: &str) -> TrainWork {
    let folder = fixture.folder.path().join(name);
    let member = |&trial: &u64| Member {
        trial: TrialId(trial),
        spec: specs[trial as usize].clone(),
        output: folder.join(trial.to_string()),
        resume: None,
    };
    TrainWork {
        members: trials.iter().map(member).collect(),
        ..train_work(fixture, &specs[0], &folder, None)
    }
}

/// Hears everything, and asks to stop after so many steps.
pub struct Ear {
    pub said: Mutex<Vec<Event>>,
    stop_after: Option<u64>,
}

impl Ear {
    pub fn new(stop_after: Option<u64>) -> Self {
        let said = Mutex::default();
        Self { said, stop_after }
    }
}

impl Listener for Ear {
    fn say(&self, event: &Event) {
        self.said.lock().unwrap().push(event.clone());
    }

    fn stop_wanted(&self) -> bool {
        // A wish is asked for after every step and while features are computed.
        let seen = self.said.lock().unwrap();
        let observed = seen.iter().filter(|event| is_observed(event)).count() as u64;
        self.stop_after.is_some_and(|after| observed >= after)
    }
}

fn is_observed(event: &Event) -> bool {
    matches!(event, Event::Observed { .. })
}

pub fn run(work: &TrainWork, ear: &Ear) -> Result<Ended, Fault> {
    train::train(
        &command(TrainerWork::Train(Box::new(work.clone()))),
        work,
        ear,
    )
}

/// What became of a trial: its files, and its observations by step.
#[derive(Debug, Default, PartialEq, Clone)]
pub struct Life {
    pub files: BTreeMap<String, Vec<u8>>,
    pub seen: BTreeMap<u64, String>,
}

pub fn lives(work: &TrainWork, events: &[Event], lives: &mut BTreeMap<u64, Life>) {
    for member in &work.members {
        let life = lives.entry(member.trial.0).or_default();
        life.files = files(&member.output);
        for event in events {
            if let Event::Observed {
                trial,
                step,
                metrics,
                confusion,
                ..
            } = event
                && *trial == member.trial
            {
                let new = format!("{metrics:?} {confusion:?}");
                if let Some(old) = life.seen.insert(*step, new.clone()) {
                    assert_eq!(old, new, "trial {} at step {step}", trial.0);
                }
            }
        }
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let items = std::fs::read_dir(folder).unwrap();
    items
        .map(|item| {
            let path = item.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

/// Each trial on a lease of its own.
pub fn alone(fixture: &Fixture, specs: &[TrialSpec], name: &str) -> BTreeMap<u64, Life> {
    let mut all = BTreeMap::new();
    for trial in 0..specs.len() as u64 {
        let work = lease(fixture, specs, &[trial], name);
        let ear = Ear::new(None);
        assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
        lives(&work, &ear.said.lock().unwrap(), &mut all);
    }
    for (trial, life) in &all {
        let epochs = specs[*trial as usize].train.epochs as usize;
        assert_eq!(life.seen.len(), epochs, "trial {trial}");
        assert_eq!(
            life.files.len(),
            2,
            "best and last: {:?}",
            life.files.keys()
        );
    }
    all
}

pub fn check_same(found: &BTreeMap<u64, Life>, expect: &BTreeMap<u64, Life>, what: &str) {
    for (trial, life) in found {
        assert_eq!(life.seen, expect[trial].seen, "trial {trial}, {what}");
        let names = |life: &Life| life.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(life), names(&expect[trial]), "trial {trial}, {what}");
        assert!(
            life.files == expect[trial].files,
            "trial {trial}, {what}: the checkpoints are not the same bytes"
        );
    }
}

/// A draw of trials.
pub fn some_of(number: u64) -> Vec<u64> {
    let key = Key {
        seed: number,
        replicate: 0,
        purpose: "members",
        epoch: 0,
    };
    let mut order = key.permutation(TRIALS as usize);
    order.truncate(2 + number as usize % (TRIALS as usize - 2));
    order.into_iter().map(|trial| trial as u64).collect()
}

#[test]
fn a_trial_gets_the_same_bits_beside_any_others() {
    let (fixture, specs) = (pictures(), specs());
    let expect = alone(&fixture, &specs, "alone");
    let mut distinct = BTreeSet::new();
    for life in expect.values() {
        distinct.insert(format!("{:?}", life.seen));
    }
    assert!(distinct.len() > 12, "the trials differ: {}", distinct.len());
    let all: Vec<u64> = (0..TRIALS).collect();
    let draws = (1..=6).map(|number| some_of(number * 5));
    for (number, trials) in [all].into_iter().chain(draws).enumerate() {
        let work = lease(&fixture, &specs, &trials, &format!("together-{number}"));
        let ear = Ear::new(None);
        assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
        let events = ear.said.into_inner().unwrap();
        let mut found = BTreeMap::new();
        lives(&work, &events, &mut found);
        check_same(&found, &expect, &format!("beside {trials:?}"));
        ended_one_by_one(&specs, &trials, &events);
    }
}

/// Who is done while others go on says so, once, after its last checkpoint; the last ones need not.
fn ended_one_by_one(specs: &[TrialSpec], trials: &[u64], events: &[Event]) {
    let ended: Vec<u64> = (events.iter())
        .filter_map(|event| match event {
            Event::TrialEnded { trial, outcome } => {
                assert_eq!(*outcome, Outcome::Finished);
                Some(trial.0)
            }
            _ => None,
        })
        .collect();
    let distinct: BTreeSet<u64> = ended.iter().copied().collect();
    assert_eq!(distinct.len(), ended.len(), "{ended:?}");
    assert!(ended.len() < trials.len(), "{ended:?} of {trials:?}");
    let epochs = |trial: u64| specs[trial as usize].train.epochs;
    let longest = trials.iter().map(|trial| epochs(*trial)).max().unwrap();
    for &trial in trials.iter().filter(|trial| epochs(**trial) < longest) {
        assert!(distinct.contains(&trial), "trial {trial} ended early");
    }
    for &trial in &ended {
        let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().rposition(wanted).unwrap();
        let over =
            place(&|event| matches!(event, Event::TrialEnded { trial: t, .. } if t.0 == trial));
        let kept = place(
            &|event| matches!(event, Event::Checkpoint { trial: t, checkpoint: CheckpointKind::Last, .. } if t.0 == trial),
        );
        assert!(kept < over);
    }
}

#[test]
fn with_two_threads_a_trial_gets_the_same_bits_beside_any_others() {
    let (fixture, specs) = (pictures(), specs());
    let two = |work: &TrainWork| {
        let mut command = command(TrainerWork::Train(Box::new(work.clone())));
        command.threads = 2;
        let ear = Ear::new(None);
        assert_eq!(train::train(&command, work, &ear).unwrap(), Ended::Finished);
        let mut found = BTreeMap::new();
        lives(work, &ear.said.lock().unwrap(), &mut found);
        found
    };
    let mut expect = BTreeMap::new();
    for trial in 0..TRIALS {
        expect.extend(two(&lease(&fixture, &specs, &[trial], "alone")));
    }
    let all: Vec<u64> = (0..TRIALS).collect();
    check_same(&two(&lease(&fixture, &specs, &all, "all")), &expect, "all");
    let some = some_of(9);
    check_same(
        &two(&lease(&fixture, &specs, &some, "some")),
        &expect,
        "some",
    );
}

#[test]
fn with_ten_views_a_trial_gets_the_same_bits_beside_any_others() {
    let (fixture, mut specs) = (pictures(), specs());
    for spec in &mut specs {
        spec.train.augment = Augment {
            views: 10,
            ops: vec![AugmentOp::HorizontalFlip, AugmentOp::RandomResizedCrop],
        };
    }
    let expect = alone(&fixture, &specs[..6], "alone");
    let work = lease(&fixture, &specs, &[0, 1, 2, 3, 4, 5], "together");
    let ear = Ear::new(None);
    assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
    let mut found = BTreeMap::new();
    lives(&work, &ear.said.lock().unwrap(), &mut found);
    check_same(&found, &expect, "ten views");
}

#[test]
fn without_room_for_features_a_trial_gets_the_same_bits_beside_any_others() {
    let (fixture, specs) = (pictures(), specs());
    let trials = [0, 1, 4, 7, 8];
    let on_pixels = |trials: &[u64], name: &str| {
        let mut work = lease(&fixture, &specs, trials, name);
        work.features.as_mut().unwrap().max_bytes = 1;
        let ear = Ear::new(None);
        assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
        let mut found = BTreeMap::new();
        lives(&work, &ear.said.lock().unwrap(), &mut found);
        found
    };
    let mut expect = BTreeMap::new();
    for trial in trials {
        expect.extend(on_pixels(&[trial], "alone"));
    }
    check_same(&on_pixels(&trials, "together"), &expect, "pixels");
}

#[test]
fn a_trial_that_is_not_a_number_fails_alone() {
    let (fixture, mut specs) = (pictures(), specs());
    let expect = alone(&fixture, &specs[..6], "alone");
    let wild = Optimizer::Sgd {
        momentum: 0.0,
        weight_decay: 0.0,
    };
    // One between others of its shape, one that fails while it is evaluated or later.
    for (trial, rate) in [(3, 1e38), (4, 1e20)] {
        specs[trial].train.optimizer = wild.clone();
        specs[trial].train.learning_rate = rate;
        specs[trial].train.lr_schedule = LrSchedule::Constant { warmup_epochs: 0.0 };
    }
    let work = lease(&fixture, &specs, &[0, 1, 2, 3, 4, 5], "together");
    let ear = Ear::new(None);
    assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
    let events = ear.said.into_inner().unwrap();
    let mut found = BTreeMap::new();
    lives(&work, &events, &mut found);
    for trial in [3, 4] {
        found.remove(&trial);
        let code = events.iter().find_map(|event| match event {
            Event::TrialEnded {
                trial: t,
                outcome: Outcome::Failed { fault, retry },
            } if t.0 == trial => Some((fault.code, *retry)),
            _ => None,
        });
        assert_eq!(code, Some((Code::NotANumber, false)), "trial {trial}");
    }
    check_same(&found, &expect, "beside two that failed");

    let lonely = lease(&fixture, &specs, &[3], "lonely");
    let fault = run(&lonely, &Ear::new(None)).unwrap_err();
    assert_eq!(fault.code, Code::NotANumber);
}

/// The newest whole `last` checkpoint of each member becomes what it resumes from.
pub fn resumed(mut work: TrainWork, trials: &[u64]) -> TrainWork {
    let step = |name: &str| -> Option<u64> {
        let step = name.strip_prefix("last-")?.strip_suffix(".safetensors")?;
        step.parse().ok()
    };
    for member in &mut work.members {
        let newest = files(&member.output)
            .keys()
            .filter_map(|name| step(name))
            .max();
        let path = |step| member.output.join(format!("last-{step}.safetensors"));
        member.resume = newest.map(path);
    }
    (work.members).retain(|member| trials.contains(&member.trial.0));
    work
}

#[test]
fn a_lease_that_stops_and_is_made_again_in_halves_leaves_no_trace() {
    let (fixture, specs) = (pictures(), specs());
    let expect = alone(&fixture, &specs, "alone");
    let all: Vec<u64> = (0..TRIALS).collect();
    let whole = lease(&fixture, &specs, &all, "halves");
    let mut found = BTreeMap::new();
    let ear = Ear::new(Some(7));
    assert_eq!(run(&whole, &ear).unwrap(), Ended::Stopped);
    lives(&whole, &ear.said.lock().unwrap(), &mut found);
    let kept = resumed(whole.clone(), &all);
    let steps: BTreeSet<u64> = (kept.members.iter())
        .filter_map(|member| member.resume.as_deref())
        .map(|path| checkpoint::read(path).unwrap().1.step)
        .collect();
    assert!(steps.len() > 1, "they stopped at several steps: {steps:?}");
    // The first half is stopped once more, and goes on beside others than before.
    let (first, second): (Vec<u64>, Vec<u64>) = all.iter().partition(|trial| **trial % 2 == 0);
    let ear = Ear::new(Some(3));
    let half = resumed(whole.clone(), &first);
    assert_eq!(run(&half, &ear).unwrap(), Ended::Stopped);
    lives(&half, &ear.said.lock().unwrap(), &mut found);
    let (third, fourth) = first.split_at(3);
    for trials in [third.to_vec(), [fourth, second.as_slice()].concat()] {
        let work = resumed(whole.clone(), &trials);
        let ear = Ear::new(None);
        assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
        lives(&work, &ear.said.lock().unwrap(), &mut found);
    }
    check_same(&found, &expect, "after two stops");
}

#[test]
fn a_lease_killed_while_it_writes_a_checkpoint_resumes_without_a_trace() {
    let (fixture, specs) = (pictures(), specs());
    let expect = alone(&fixture, &specs, "alone");
    let all: Vec<u64> = (0..TRIALS).collect();
    let work = lease(&fixture, &specs, &all, "killed");
    let flag = fixture.folder.path().join("paused");
    let pause = format!("8:{}", flag.display());
    let environment = [(PAUSE_ENV, pause.as_str()), (SAVE_ENV, "0")];
    let command = command(TrainerWork::Train(Box::new(work.clone())));
    let mut trainer = Trainer::start(&command, &environment);
    let begun = Instant::now();
    while !flag.exists() {
        assert!(begun.elapsed() < Duration::from_mins(2), "it never paused");
        std::thread::sleep(Duration::from_millis(5));
    }
    trainer.kill();
    let torn = |folder: &PathBuf| {
        files(folder)
            .keys()
            .any(|name| name.contains(".safetensors.tmp"))
    };
    let torn = work.members.iter().filter(|member| torn(&member.output));
    assert_eq!(torn.count(), 1, "one checkpoint was being written");

    let mut found = BTreeMap::new();
    let again = resumed(work, &all);
    assert!(again.members.iter().any(|member| member.resume.is_some()));
    let ear = Ear::new(None);
    assert_eq!(run(&again, &ear).unwrap(), Ended::Finished);
    lives(&again, &ear.said.lock().unwrap(), &mut found);
    for (trial, life) in &found {
        assert!(life.files == expect[trial].files, "trial {trial}");
    }
}

#[test]
fn trials_side_by_side_are_those_that_autograd_trains_from_pixels() {
    let (fixture, specs) = (pictures(), specs());
    let all: Vec<u64> = (0..TRIALS).collect();
    let work = lease(&fixture, &specs, &all, "together");
    assert_eq!(run(&work, &Ear::new(None)).unwrap(), Ended::Finished);
    let unshared: Vec<TrialSpec> = (specs.iter().cloned())
        .map(|spec| TrialSpec {
            share: Share::Off,
            ..spec
        })
        .collect();
    for trial in 0..TRIALS {
        let oracle = lease(&fixture, &unshared, &[trial], "oracle");
        assert_eq!(run(&oracle, &Ear::new(None)).unwrap(), Ended::Finished);
        let last = |work: &TrainWork, member: usize| {
            let resumed = resumed(work.clone(), &[trial]);
            assert_eq!(resumed.members.len(), 1, "{member}");
            file::read(resumed.members[0].resume.as_ref().unwrap())
                .unwrap()
                .0
        };
        let (ours, theirs) = (last(&work, trial as usize), last(&oracle, 0));
        let names = |content: &file::Content| content.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "trial {trial}");
        for (name, ours) in ours.iter().filter(|(name, _)| name.starts_with("network.")) {
            let values = |bytes: &[u8]| -> Vec<f32> {
                let words = bytes.chunks_exact(4);
                words
                    .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
                    .collect()
            };
            let pairs = values(&ours.bytes)
                .into_iter()
                .zip(values(&theirs[name].bytes));
            let far = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 2e-4, "trial {trial}, {name}: {far}");
        }
    }
}

#[test]
fn only_what_can_share_shares() {
    let (fixture, specs) = (pictures(), specs());
    let refused = |change: &dyn Fn(&mut TrialSpec)| {
        let mut work = lease(&fixture, &specs, &[0, 1], "refused");
        change(&mut work.members[1].spec);
        run(&work, &Ear::new(None)).unwrap_err()
    };
    for change in [
        &|spec: &mut TrialSpec| spec.share = Share::Off,
        &|spec: &mut TrialSpec| spec.transfer.frozen_depth = FrozenDepth::Blocks(1),
        &|spec: &mut TrialSpec| {
            spec.train.augment = Augment {
                views: 1,
                ops: vec![],
            };
        },
        &|spec: &mut TrialSpec| spec.train.precision = Precision::Auto,
    ] as [&dyn Fn(&mut TrialSpec); 4]
    {
        assert_eq!(refused(change).code, Code::BadRequest);
    }
    // A checkpoint of another trial fails its member, and nobody else.
    let mut work = lease(&fixture, &specs, &[0, 1], "fault");
    let other = fixture.folder.path().join("other.safetensors");
    std::fs::write(&other, b"no checkpoint").unwrap();
    work.members[0].resume = Some(other);
    let ear = Ear::new(None);
    assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
    let events = ear.said.into_inner().unwrap();
    let failed = events.iter().any(|event| matches!(event, Event::TrialEnded { trial: TrialId(0), outcome: Outcome::Failed { fault, retry: false } } if fault.code == Code::BadCheckpoint));
    assert!(failed, "{events:?}");
    assert_eq!(events.iter().filter(|event| is_observed(event)).count(), 2);
}

/// A head whose tensors are noise, and an optimiser of it.
fn head(plan: &HeadPlan, number: u64) -> (Vec<Entry>, optim::Optimizer) {
    let entries = plan.alone(Arch::TestResnet, device(0), number, 0);
    let parameters = entries
        .iter()
        .map(|e| (e.name.clone(), e.tensor.shallow_clone()));
    let rule = Optimizer::Sgd {
        momentum: 0.0,
        weight_decay: 0.0,
    };
    let optimizer = optim::Optimizer::new(&rule, parameters.collect());
    (entries, optimizer)
}

/// Logits and moved tensors of the heads with these numbers, after one step.
fn step(plan: &HeadPlan, numbers: &[u64], x: &Tensor) -> Vec<Vec<Vec<f32>>> {
    let _no_grad = tch::no_grad_guard();
    let mut heads: Vec<_> = numbers.iter().map(|number| head(plan, *number)).collect();
    let mut pairs: Vec<_> = heads.iter_mut().map(|(head, rule)| (head, rule)).collect();
    let joined = Heads::join(&mut pairs).unwrap();
    let forward = joined.forward(x, None);
    let values = |tensor: &Tensor| -> Vec<f32> {
        Vec::<f32>::try_from(tensor.contiguous().flatten(0, -1)).unwrap()
    };
    joined.backward(&forward, forward.logits.tanh());
    let count = numbers.len();
    let mut all = Vec::with_capacity(count);
    for (lane, (head, rule)) in heads.iter_mut().enumerate() {
        rule.step(0.1).unwrap();
        let mut found = vec![values(&forward.logits.select(0, lane as i64))];
        found.extend(head.iter().map(|entry| values(&entry.tensor)));
        all.push(found);
    }
    all
}

#[test]
fn a_head_gets_the_same_bits_beside_any_heads_of_any_shape() {
    let noise = Key {
        seed: 4,
        replicate: 0,
        purpose: "shapes",
        epoch: 0,
    };
    for round in 0..120u64 {
        let below = |place: u64, n: u64| noise.stream().below(8 * round + place, n);
        let classes = [2, 3, 7, 10, 17, 33, 100][below(0, 7) as usize];
        let hidden = [1, 5, 16, 31, 64, 257][below(1, 6) as usize];
        let samples = [1, 2, 7, 16, 31, 33, 64][below(2, 7) as usize];
        let head = match below(3, 2) {
            0 => Head::Linear,
            _ => Head::Mlp {
                hidden,
                dropout: 0.0,
            },
        };
        let plan = HeadPlan { head, classes };
        let x = Tensor::from_slice(
            &(0..samples * 64)
                .map(|at| noise.named("x").normal(at) as f32)
                .collect::<Vec<_>>(),
        )
        .reshape([samples as i64, 64])
        .to_kind(Kind::Float)
        .to_device(device(0));
        set_threads(1 + below(4, 3) as u32);
        let count = 1 + below(5, 16);
        let all: Vec<u64> = (0..count).collect();
        let together = step(&plan, &all, &x);
        let one = below(6, count);
        let some: Vec<u64> = all.iter().copied().filter(|n| n % 2 == one % 2).collect();
        assert!(
            step(&plan, &[one], &x)[0] == together[one as usize],
            "{plan:?}, {samples} samples, {count} heads, alone"
        );
        for (found, number) in step(&plan, &some, &x).iter().zip(&some) {
            assert!(
                *found == together[*number as usize],
                "{plan:?}, {samples} samples, {count} heads, some of them"
            );
        }
    }
}
