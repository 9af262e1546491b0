//! Cross-validation of heads: what a plain loop finds, whoever is beside, and however it is stopped.

use crate::fused::{
    Ear, Life, TRIALS, alone, check_same, lease, lives, pictures, resumed, run, some_of, specs,
};
use crate::support::{Fixture, command, spec};
use pomona_api::trainer::{Event, TrainerWork};
use pomona_domain::dataset::Split;
use pomona_domain::spec::{
    Augment, ClassWeights, FrozenDepth, Head, KFold, LrSchedule, Optimizer, TrialSpec,
};
use pomona_trainer::data::{self, Dataset};
use pomona_trainer::network::{Arch, HeadPlan, Network};
use pomona_trainer::protocol::Listener;
use pomona_trainer::random::Key;
use pomona_trainer::train::{self, Ended};
use pomona_trainer::weights;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tch::{Device, Kind, Tensor};

const FOLDS: KFold = KFold {
    kfold: 3,
    repeats: 2,
};

fn crossed(spec: TrialSpec) -> TrialSpec {
    TrialSpec {
        metric: "cv/accuracy".to_owned(),
        validation: Some(FOLDS),
        ..spec
    }
}

fn crossed_specs() -> Vec<TrialSpec> {
    specs().into_iter().map(crossed).collect()
}

/// The metrics of the last observation.
fn last_metrics(events: &[Event]) -> BTreeMap<String, f64> {
    let metrics = events.iter().rev().find_map(|event| match event {
        Event::Observed { metrics, .. } => Some(metrics.clone()),
        _ => None,
    });
    metrics.unwrap()
}

#[test]
fn folds_give_a_trial_the_same_bits_beside_any_others() {
    let (fixture, specs) = (pictures(), crossed_specs());
    let expect = alone(&fixture, &specs, "alone");
    for (trial, life) in &expect {
        let (last, seen) = life.seen.last_key_value().unwrap();
        assert!(seen.contains("cv/accuracy_se"), "trial {trial}: {seen}");
        let with = life.seen.values().filter(|seen| seen.contains("cv/"));
        assert_eq!(with.count(), 1, "folds come with the last epoch alone");
        let best = format!("best-{last}.safetensors");
        assert!(life.files.contains_key(&best), "{:?}", life.files.keys());
    }
    let all: Vec<u64> = (0..TRIALS).collect();
    for (number, trials) in [all, some_of(5), some_of(18)].into_iter().enumerate() {
        let work = lease(&fixture, &specs, &trials, &format!("together-{number}"));
        let ear = Ear::new(None);
        assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
        let mut found = BTreeMap::new();
        lives(&work, &ear.said.lock().unwrap(), &mut found);
        check_same(&found, &expect, &format!("beside {trials:?}"));
    }
}

#[test]
fn folds_leave_a_trial_the_bits_that_it_has_without_them() {
    let fixture = pictures();
    let plain = alone(&fixture, &specs()[..4], "plain");
    let with = alone(&fixture, &crossed_specs()[..4], "with");
    for (trial, life) in &with {
        let tensors = |life: &Life| -> Vec<Vec<u8>> {
            let last = life
                .files
                .iter()
                .filter(|(name, _)| name.starts_with("last-"));
            // What follows the metadata, which names the spec.
            last.map(|(_, bytes)| {
                let head = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                bytes[8 + head..].to_vec()
            })
            .collect()
        };
        assert!(tensors(life) == tensors(&plain[trial]), "trial {trial}");
    }
}

#[test]
fn without_room_for_features_folds_are_trained_from_pixels() {
    let (fixture, specs) = (pictures(), crossed_specs());
    let metrics = |room: bool| {
        let mut work = lease(&fixture, &specs, &[0], if room { "room" } else { "none" });
        if !room {
            work.features.as_mut().unwrap().max_bytes = 1;
        }
        let ear = Ear::new(None);
        assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
        last_metrics(&ear.said.lock().unwrap())
    };
    let (with, without) = (metrics(true), metrics(false));
    for (name, value) in with.iter().filter(|(name, _)| name.ends_with("/loss")) {
        assert!((value - without[name]).abs() < 1e-3, "{name}: {value}");
    }
}

/// A file asks to stop after so many steps and looks.
struct Stopper {
    said: Mutex<Vec<Event>>,
    left: AtomicU64,
}

impl Listener for Stopper {
    fn say(&self, event: &Event) {
        self.said.lock().unwrap().push(event.clone());
    }

    fn stop_wanted(&self) -> bool {
        let less = |left: u64| Some(left.saturating_sub(1));
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        left == Ok(0)
    }
}

#[test]
fn a_stop_among_the_folds_leaves_no_trace() {
    let (fixture, specs) = (pictures(), crossed_specs());
    let trials = [0, 4];
    let expect = alone(&fixture, &specs[..5], "alone");
    let work = lease(&fixture, &specs, &trials, "stopped");
    let mut stopped_among_folds = 0;
    let mut found = BTreeMap::new();
    let mut now = work.clone();
    for after in [30, 17, 41, 9, 60, 200] {
        let stopper = Stopper {
            said: Mutex::default(),
            left: AtomicU64::new(after),
        };
        let command = command(TrainerWork::Train(Box::new(now.clone())));
        let ended = train::train(&command, &now, &stopper).unwrap();
        lives(&now, &stopper.said.lock().unwrap(), &mut found);
        if ended == Ended::Finished {
            check_same(&found, &expect, "after stops");
            assert!(stopped_among_folds > 0, "no stop fell among the folds");
            return;
        }
        let steps = |trial: u64| 5 * u64::from(specs[trial as usize].train.epochs);
        now = resumed(work.clone(), &trials);
        let is_over = |step: u64, trial: u64| step == steps(trial);
        stopped_among_folds += now
            .members
            .iter()
            .filter(|member| {
                let path = member.resume.as_deref();
                let step = path.map_or(0, |path| {
                    pomona_trainer::checkpoint::read(path).unwrap().1.step
                });
                let seen = &found[&member.trial.0].seen;
                is_over(step, member.trial.0) && !seen.contains_key(&step)
            })
            .count();
    }
    panic!("it never ended");
}

/// A linear head trained by plain gradient descent over all images at once.
fn gradient_spec() -> TrialSpec {
    let mut spec = spec();
    spec.transfer.frozen_depth = FrozenDepth::Named("all".into());
    spec.transfer.head = Head::Linear;
    spec.train.batch_size = 4096;
    spec.train.epochs = 12;
    spec.train.learning_rate = 0.05;
    spec.train.lr_schedule = LrSchedule::Constant { warmup_epochs: 0.0 };
    spec.train.label_smoothing = 0.0;
    spec.train.class_weights = ClassWeights::None;
    spec.train.optimizer = Optimizer::Sgd {
        momentum: 0.0,
        weight_decay: 0.0,
    };
    spec.train.augment = Augment {
        views: 1,
        ops: vec![],
    };
    crossed(spec)
}

/// Pooled features of the training images by a forward pass.
fn features(fixture: &Fixture, dataset: &Dataset) -> Tensor {
    let arch = Arch::parse("test-resnet").unwrap();
    let mut network = Network::new(arch, &HeadPlan::linear(1), Kind::Float, Device::Cpu);
    let weights = weights::read_checked(&fixture.backbone.weights, fixture.backbone.digest);
    network.load_backbone(&weights.unwrap()).unwrap();
    network.freeze(network.blocks().len());
    let _no_grad = tch::no_grad_guard();
    let rows: Vec<Tensor> = (0..dataset.len(Split::Train))
        .map(|index| {
            let pixels = dataset.pixels(Split::Train, index).unwrap();
            network.at_cut(&network.input(&pixels, 1, dataset.size()))
        })
        .collect();
    Tensor::cat(&rows, 0)
}

#[test]
fn folds_find_what_a_plain_loop_finds() {
    let fixture = pictures();
    let spec = gradient_spec();
    let work = lease(&fixture, std::slice::from_ref(&spec), &[0], "ours");
    let ear = Ear::new(None);
    assert_eq!(run(&work, &ear).unwrap(), Ended::Finished);
    let ours = last_metrics(&ear.said.lock().unwrap());

    let dataset = Dataset::open(&fixture.data.manifest, &fixture.data.archive).unwrap();
    let (x, labels) = (features(&fixture, &dataset), dataset.labels(Split::Train));
    let groups: Vec<u32> = (0..labels.len())
        .map(|index| dataset.sample(Split::Train, index).group)
        .collect();
    let rows = |held: &dyn Fn(usize) -> bool| -> Tensor {
        let all: Vec<i64> = (0..labels.len())
            .filter(|i| held(*i))
            .map(|i| i as i64)
            .collect();
        Tensor::from_slice(&all)
    };
    let y = Tensor::from_slice(&labels.iter().map(|&y| i64::from(y)).collect::<Vec<_>>());
    let (mut loss, mut right) = (0.0, 0.0);
    for repeat in 0..FOLDS.repeats {
        let key = Key {
            seed: spec.seed,
            replicate: 0,
            purpose: "fold",
            epoch: repeat,
        };
        let fold_of = data::folds(&labels, &groups, FOLDS.kfold, &key);
        for fold in 0..FOLDS.kfold {
            let (held, kept) = (rows(&|i| fold_of[i] == fold), rows(&|i| fold_of[i] != fold));
            let plan = HeadPlan::linear(4);
            let head = plan.alone(Arch::TestResnet, Device::Cpu, spec.seed, 0);
            let leaf = |at: usize| head[at].tensor.detach().copy().set_requires_grad(true);
            let (mut weight, mut bias) = (leaf(0), leaf(1));
            let logits = |rows: &Tensor, weight: &Tensor, bias: &Tensor| {
                x.index_select(0, rows).linear(weight, Some(bias))
            };
            for _ in 0..spec.train.epochs {
                let found = logits(&kept, &weight, &bias)
                    .cross_entropy_for_logits(&y.index_select(0, &kept));
                found.backward();
                tch::no_grad(|| {
                    for tensor in [&mut weight, &mut bias] {
                        let step = tensor.grad() * spec.train.learning_rate;
                        let _same = tensor.subtract_(&step);
                        tensor.zero_grad();
                    }
                });
            }
            let (answers, truth) = (logits(&held, &weight, &bias), y.index_select(0, &held));
            let count = held.size()[0] as f64;
            loss += answers.cross_entropy_for_logits(&truth).double_value(&[]) * count;
            let hits = answers.argmax(-1, false).eq_tensor(&truth).sum(Kind::Int64);
            right += hits.int64_value(&[]) as f64;
        }
    }
    let count = labels.len() as f64 * f64::from(FOLDS.repeats);
    let (loss, accuracy) = (loss / count, right / count);
    assert!((ours["cv/loss"] - loss).abs() < 1e-4, "{loss}: {ours:?}");
    assert!(
        (ours["cv/accuracy"] - accuracy).abs() < 1e-9,
        "{accuracy}: {ours:?}"
    );
    assert!(ours["cv/accuracy_se"] > 0.0, "{ours:?}");
}
