//! What a worker sees of a trainer process: the order of events, exit statuses, faults with codes.

use crate::support::{
    Trainer, command, fixture, pictures, published_weights, slot_kind, spec, train_work,
};
use pomona_api::PROTOCOL;
use pomona_api::trainer::{Event, Rendezvous, TrainerWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::ImportOptions;
use pomona_domain::spec::{FrozenDepth, Head, Optimizer};
use pomona_domain::task::TaskResult;
use pomona_domain::worker::SlotKind;
use pomona_domain::{Code, Digest, Fault, Generation, TaskId};
use pomona_trainer::dist::Group;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tch::Device;

/// Runs a command to its end.
fn run(work: TrainerWork) -> (Vec<Event>, Option<i32>) {
    let mut trainer = Trainer::start(&command(work), &[]);
    let events = trainer.events_until(|_| false);
    (events, trainer.exit_code())
}

/// How a command fails.
fn failure(work: TrainerWork) -> (Fault, bool) {
    let (events, status) = run(work);
    assert_eq!(status, Some(4));
    match events.last() {
        Some(Event::Failed { fault, retry }) => (fault.clone(), *retry),
        other => panic!("not a failure: {other:?}"),
    }
}

#[test]
fn what_libraries_print_never_stands_among_the_events() {
    let fixture = fixture("test-convnet", 3, 10);
    let mut spec = spec();
    spec.train.epochs = 1;
    spec.transfer.frozen_depth = FrozenDepth::Blocks(1);
    let output = fixture.folder.path().join("trial");
    let work = train_work(&fixture, &spec, &output, None);
    // oneDNN prints a line for each primitive to stdout, or to what it was told is stdout.
    let mut trainer = Trainer::start(
        &command(TrainerWork::Train(Box::new(work))),
        &[("ONEDNN_VERBOSE", "1")],
    );
    // Reading panics at a line that is no event.
    let events = trainer.events_until(|_| false);
    assert_eq!(events.last(), Some(&Event::Finished {}));
    assert_eq!(trainer.exit_code(), Some(0));
}

#[test]
fn a_trial_tells_its_whole_life_in_order() {
    let fixture = fixture("test-resnet", 3, 20);
    let work = train_work(
        &fixture,
        &spec(),
        &fixture.folder.path().join("trial"),
        None,
    );
    let (events, status) = run(TrainerWork::Train(Box::new(work.clone())));
    assert_eq!(status, Some(0));
    let Event::Started {
        protocol,
        rank,
        environment,
        ..
    } = &events[0]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*protocol, *rank), (PROTOCOL, 0));
    match slot_kind() {
        SlotKind::Cpu => assert_eq!(environment["threads"], "1"),
        SlotKind::Cuda => assert!(!environment["gpu"].is_empty()),
    }
    assert_eq!(environment["libtorch"], "2.13.0");
    assert_eq!(events.last(), Some(&Event::Finished {}));

    // 36 images in batches of 4: 9 steps an epoch. An observation comes before its checkpoints.
    assert_eq!(
        milestones(&events),
        ["observed 1 9", "last 1 9", "observed 2 18", "last 2 18"]
    );
    let steps = |event: &Event| match event {
        Event::Progress { step, .. } => Some(*step),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(steps).max(), Some(18));
}

/// Observations and `last` checkpoints in order; every event is looked at.
fn milestones(events: &[Event]) -> Vec<String> {
    let mut told = Vec::new();
    for event in events {
        match event {
            Event::Observed {
                step,
                epoch,
                metrics,
                confusion,
                ..
            } => {
                told.push(format!("observed {epoch} {step}"));
                check_metrics(metrics, confusion);
            }
            Event::Checkpoint {
                checkpoint,
                step,
                epoch,
                path,
                digest,
                size,
                ..
            } => {
                if *epoch == 2 && *checkpoint == CheckpointKind::Last {
                    let bytes = std::fs::read(path).unwrap();
                    assert_eq!((*digest, *size), (Digest::of(&bytes), bytes.len() as u64));
                }
                if *checkpoint == CheckpointKind::Last {
                    told.push(format!("last {epoch} {step}"));
                }
            }
            Event::Progress {
                step,
                total_steps,
                samples,
                ..
            } => {
                assert_eq!(*total_steps, 18);
                assert_eq!(*samples, 4 * step);
            }
            Event::Evaluating { .. }
            | Event::FeaturesMissing { .. }
            | Event::FeaturesPace { .. }
            | Event::Features { .. }
            | Event::Started { .. }
            | Event::Finished {} => {}
            Event::Result { .. }
            | Event::TrialEnded { .. }
            | Event::Stopped {}
            | Event::Failed { .. } => panic!("{event:?}"),
        }
    }
    told
}

fn check_metrics(metrics: &std::collections::BTreeMap<String, f64>, confusion: &[Vec<u64>]) {
    let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "train/loss",
            "val/accuracy",
            "val/ece",
            "val/loss",
            "val/macro_f1",
            "val/recall/class 0",
            "val/recall/class 1",
            "val/recall/class 2",
        ]
    );
    assert_eq!(confusion.iter().flatten().sum::<u64>(), 12);
    let right: u64 = (0..3).map(|class| confusion[class][class]).sum();
    assert!((metrics["val/accuracy"] - right as f64 / 12.0).abs() < 1e-12);
    let recall = confusion[1][1] as f64 / confusion[1].iter().sum::<u64>() as f64;
    assert!((metrics["val/recall/class 1"] - recall).abs() < 1e-12);
}

#[test]
fn two_trials_of_one_seed_are_one_trial() {
    let fixture = fixture("test-convnet", 3, 20);
    let mut spec = spec();
    spec.transfer.frozen_depth = FrozenDepth::Blocks(0);
    let lives: Vec<(Vec<Event>, Vec<u8>)> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let work = train_work(&fixture, &spec, &fixture.folder.path().join(name), None);
            let (events, _) = run(TrainerWork::Train(Box::new(work.clone())));
            let observed = events
                .into_iter()
                .filter(|event| matches!(event, Event::Observed { .. }))
                .collect();
            (
                observed,
                std::fs::read(work.members[0].output.join("last-18.safetensors")).unwrap(),
            )
        })
        .collect();
    assert!(lives[0] == lives[1]);
}

#[test]
fn what_is_no_command_is_refused_with_its_code() {
    let whole = serde_json::to_value(command(TrainerWork::Predict {
        task: TaskId(1),
        model: "/nowhere".into(),
        pictures: "/nowhere".into(),
        top: 1,
    }))
    .unwrap();
    let changed = |changes: &[(&str, serde_json::Value)]| {
        let mut line = whole.clone();
        for (key, value) in changes {
            line[*key] = value.clone();
        }
        line.to_string()
    };
    let meeting = serde_json::json!({"host": "127.0.0.1", "port": 1});
    for (line, code) in [
        ("tea, please".to_owned(), Code::BadRequest),
        (String::new(), Code::BadRequest),
        (
            changed(&[("protocol", (PROTOCOL + 1).into())]),
            Code::VersionMismatch,
        ),
        // A rank that trained beside its group would write over what the group writes.
        (changed(&[("rank", 1.into())]), Code::BadRequest),
        (changed(&[("world_size", 0.into())]), Code::BadRequest),
        (changed(&[("world_size", 2.into())]), Code::BadRequest),
        (
            changed(&[("world_size", 2.into()), ("rendezvous", meeting)]),
            Code::BadRequest,
        ),
        (whole.to_string(), Code::LocalFile),
    ] {
        let mut trainer = Trainer::start_line(&line, &[]);
        let events = trainer.events_until(|_| false);
        let Some(Event::Failed { fault, .. }) = events.last() else {
            panic!("{line}: {events:?}")
        };
        assert_eq!(fault.code, code, "{line}");
        assert_eq!(trainer.exit_code(), Some(4));
    }
}

#[test]
fn weights_of_another_digest_are_not_trained() {
    let fixture = fixture("test-resnet", 3, 20);
    let mut work = train_work(
        &fixture,
        &spec(),
        &fixture.folder.path().join("trial"),
        None,
    );
    work.backbone.digest = Digest::of(b"other weights");
    let (fault, _) = failure(TrainerWork::Train(Box::new(work)));
    assert_eq!(fault.code, Code::BlobCorrupt, "{fault}");
}

#[test]
fn a_head_of_other_features_is_refused_before_it_is_made() {
    // Made, it would take 8 GiB.
    let folder = tempfile::tempdir().unwrap();
    let head = pomona_trainer::weights::HostTensor {
        dtype: pomona_trainer::weights::DType::F32,
        shape: vec![1 << 20, 1],
        bytes: vec![0; 4 << 20].into(),
    };
    let content = [("fc.weight".to_owned(), head)].into();
    let weights = folder.path().join("wide.safetensors");
    pomona_trainer::checkpoint::file::write(&weights, &content, None).unwrap();
    let (fault, _) = failure(TrainerWork::ImportBackbone {
        task: TaskId(1),
        arch: "resnet50".into(),
        weights,
        output: folder.path().join("out"),
    });
    assert_eq!(fault.code, Code::MisshapenTensor, "{fault}");
    assert!(fault.message.contains("[classes, 2048]"), "{fault}");
}

#[test]
fn a_trainer_whose_worker_is_gone_ends_at_once() {
    let fixture = fixture("test-resnet", 3, 20);
    let mut spec = spec();
    spec.train.epochs = 10_000;
    let work = train_work(&fixture, &spec, &fixture.folder.path().join("trial"), None);
    let mut trainer = Trainer::start(&command(TrainerWork::Train(Box::new(work))), &[]);
    let _begun = trainer.events_until(|event| matches!(event, Event::Progress { .. }));
    drop(trainer.stdin.take());
    assert_eq!(trainer.exit_code(), Some(5));
}

#[test]
fn a_trial_that_cannot_be_says_why_and_whether_to_try_again() {
    let fixture = fixture("test-resnet", 3, 20);
    let base = train_work(
        &fixture,
        &spec(),
        &fixture.folder.path().join("trial"),
        None,
    );
    let mut no_block = base.clone();
    no_block.members[0].spec.transfer.frozen_depth = FrozenDepth::Named("layer9".into());
    let mut diverging = base.clone();
    diverging.members[0].spec.train.learning_rate = 1e30;
    diverging.members[0].spec.train.optimizer = Optimizer::Sgd {
        momentum: 0.9,
        weight_decay: 0.0,
    };
    let mut small = base.clone();
    small.backbone.arch = "inception_v3".into();
    let mut no_arch = base.clone();
    no_arch.backbone.arch = "alexnet".into();
    let mut no_metric = base.clone();
    no_metric.members[0].spec.metric = "val/charm".into();
    let mut no_file = base.clone();
    no_file.data.archive = fixture.folder.path().join("gone.tar");
    let cases = [
        (no_block, Code::UnknownBlock, false),
        (diverging, Code::NotANumber, false),
        (small, Code::BadImageSize, false),
        (no_arch, Code::UnknownArch, false),
        (no_metric, Code::BadMetric, false),
        (no_file, Code::LocalFile, true),
    ];
    for (work, code, retry) in cases {
        let (fault, again) = failure(TrainerWork::Train(Box::new(work)));
        assert_eq!((fault.code, again), (code, retry), "{}", fault.message);
    }
}

#[test]
fn a_backbone_is_imported_as_a_task() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("backbone");
    let (events, status) = run(TrainerWork::ImportBackbone {
        task: TaskId(4),
        arch: "efficientnet-lite0".into(),
        weights: published_weights(),
        output: output.clone(),
    });
    assert_eq!(status, Some(0));
    let [
        Event::Started { .. },
        Event::Result {
            task: TaskId(4),
            result,
        },
        Event::Finished {},
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    let TaskResult::Backbone {
        weights, digest, ..
    } = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(
        Digest::of(&std::fs::read(output.join(weights)).unwrap()),
        *digest
    );
}

#[test]
fn a_data_set_is_imported_as_a_task() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("pictures.tar");
    pictures(&archive, 2, 10);
    let output = folder.path().join("data");
    let options = ImportOptions {
        image_size: 32,
        ..ImportOptions::default()
    };
    let import = |options: &ImportOptions| {
        run(TrainerWork::ImportDataset {
            task: TaskId(5),
            archive: archive.clone(),
            archive_digest: Digest::of(b"pictures"),
            options: options.clone(),
            output: output.clone(),
        })
    };
    let (events, _) = import(&options);
    let Event::Result {
        result:
            TaskResult::Dataset {
                manifest,
                digest,
                summary,
            },
        ..
    } = &events[1]
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        Digest::of(&std::fs::read(output.join(manifest)).unwrap()),
        *digest
    );
    assert_eq!(summary.classes["class 0"], [6, 2, 2]);
    let (events, status) = import(&ImportOptions {
        split: [90, 10, 0],
        ..options
    });
    assert_eq!(status, Some(4));
    let Some(Event::Failed {
        fault,
        retry: false,
    }) = events.last()
    else {
        panic!("{events:?}")
    };
    assert_eq!(fault.code, Code::BadSplit);
}

/// The addresses, as the kernel writes them, at which somebody listens on a port.
fn listening_at(port: u64) -> Vec<String> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let mut found = Vec::new();
    for line in tables.iter().flatten().flat_map(|table| table.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTEN, ..] = words[..] else {
            continue;
        };
        if let Some((address, at)) = local.split_once(':')
            && u64::from_str_radix(at, 16) == Ok(port)
        {
            found.push(address.to_owned());
        }
    }
    found
}

#[test]
fn the_store_tells_its_port_serves_ranks_and_ends_with_its_worker() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pomona-trainer"))
        .args(["store", "--host", "127.0.0.1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = serde_json::from_str::<serde_json::Value>(&line).unwrap()["port"]
        .as_u64()
        .unwrap();
    assert_eq!(listening_at(port), ["0100007F"], "127.0.0.1 alone");
    let at = Rendezvous {
        host: "127.0.0.1".into(),
        port: port as u16,
    };
    let group = Group::join(&at, Generation(3), 0, 1, Device::Cpu).unwrap();
    let mut values = [1.5, 2.0];
    group.sum(&mut values).unwrap();
    assert_eq!(values, [1.5, 2.0]);
    drop(group);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_rank_whose_peer_dies_says_so_and_wants_another_attempt() {
    let fixture = fixture("test-resnet", 3, 20);
    let mut spec = spec();
    spec.train.epochs = 10_000;
    spec.transfer.head = Head::Linear;
    let work = train_work(&fixture, &spec, &fixture.folder.path().join("trial"), None);
    let mut lease = crate::support::Lease::start(&work, 2, &[]);
    let _begun = lease.ranks[0].events_until(|event| matches!(event, Event::Progress { .. }));
    lease.ranks[1].kill();
    let events = lease.ranks[0].events_until(|_| false);
    let Some(Event::Failed { fault, retry: true }) = events.last() else {
        panic!("{:?}", events.last())
    };
    assert_eq!(fault.code, Code::RankLost, "{}", fault.message);
    assert_eq!(lease.ranks[0].exit_code(), Some(4));
}
