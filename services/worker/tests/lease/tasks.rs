//! Tasks, one after the other as a user would need them: import, train, publish, predict.

use crate::bench::{Bench, short};
use pomona_api::trainer::{PublishWork, TrainWork, TrainerWork};
use pomona_domain::dataset::{ImportOptions, Manifest, SetAside, Split};
use pomona_domain::model::{Lineage, version_digest};
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::task::TaskResult;
use pomona_domain::{Digest, ExperimentId, TaskId, TrialId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const TASK: TaskId = TaskId(9);

fn tar(files: &[(&str, &str)], target: &Path) -> Digest {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    std::fs::write(target, &bytes).unwrap();
    Digest::of(&bytes)
}

fn answer(reports: &[Report]) -> TaskResult {
    let found = reports.iter().find_map(|report| match &report.body {
        ReportBody::Result { result, .. } => Some((**result).clone()),
        ReportBody::Started { .. }
        | ReportBody::Meets { .. }
        | ReportBody::Observed { .. }
        | ReportBody::Checkpoint { .. }
        | ReportBody::TrialEnded { .. }
        | ReportBody::Exited { .. } => None,
    });
    found.expect("an answer")
}

/// Runs a task on a bench of its own.
async fn run(make: impl FnOnce(&Bench) -> TrainerWork) -> (Bench, TaskResult) {
    let bench = Bench::new(&[]);
    let outcome = bench.run(make(&bench)).await;
    assert_eq!(outcome, Outcome::Finished, "{}", short(&outcome));
    let result = answer(&bench.reports().await);
    (bench, result)
}

fn flowers() -> Vec<(String, String)> {
    let mut files = vec![("stray.png".to_owned(), "x".to_owned())];
    for class in ["daisy", "rose"] {
        for number in 0..10 {
            files.push((
                format!("{class}/{class} {number}.png"),
                format!("{class}{number}"),
            ));
        }
    }
    files
}

fn import(bench: &Bench, files: &[(&str, &str)]) -> TrainerWork {
    let archive = bench.folder.path().join("archive.tar");
    TrainerWork::ImportDataset {
        task: TASK,
        archive_digest: tar(files, &archive),
        archive,
        options: ImportOptions::default(),
        output: bench.output(),
    }
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect()
}

#[tokio::test]
async fn a_folder_becomes_a_manifest_with_a_frozen_split() {
    let (bench, result) = run(|bench| import(bench, &borrowed(&flowers()))).await;
    let TaskResult::Dataset {
        digest,
        summary,
        manifest,
    } = result
    else {
        panic!("another answer");
    };
    let bytes = std::fs::read(bench.output().join(manifest)).unwrap();
    assert_eq!(Digest::of(&bytes), digest);
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(manifest.classes, ["daisy", "rose"]);
    assert_eq!(manifest.problems[0].why, SetAside::NoClass);
    assert_eq!(summary.classes["rose"], [6, 2, 2]);
    assert!(manifest.samples.is_sorted_by(|a, b| a.path < b.path));
    let (_, again) = run(|bench| import(bench, &borrowed(&flowers()))).await;
    assert!(matches!(again, TaskResult::Dataset { digest: d, .. } if d == digest));
}

#[tokio::test]
async fn folders_that_are_no_data_set_are_refused_with_their_codes() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[("a.png", "x")], "failed E0401"),
        (&[("a/1", "1"), ("a/2", "2"), ("a/3", "3")], "failed E0402"),
        (
            &[("a/1", "1"), ("a/2", "2"), ("a/3", "3"), ("b/1", "1")],
            "failed E0403",
        ),
    ];
    for (files, expect) in table {
        let bench = Bench::new(&[]);
        let told = short(&bench.run(import(&bench, files)).await);
        assert!(told.starts_with(expect), "{told}");
    }
}

#[tokio::test]
async fn a_weights_file_becomes_a_backbone_with_blocks() {
    let (bench, result) = run(|bench| {
        let weights = bench.folder.path().join("lite.pth");
        std::fs::write(&weights, b"weights").unwrap();
        TrainerWork::ImportBackbone {
            task: TASK,
            arch: "efficientnet-lite0".into(),
            weights,
            output: bench.output(),
        }
    })
    .await;
    let TaskResult::Backbone {
        weights,
        digest,
        blocks,
        ..
    } = result
    else {
        panic!("another answer");
    };
    assert_eq!(weights, "backbone.safetensors");
    assert_eq!(
        std::fs::read(bench.output().join(weights)).unwrap(),
        b"weights"
    );
    assert_eq!(digest, Digest::of(b"weights"));
    assert!(blocks.iter().any(|block| block.name == "_blocks.14"));
}

#[tokio::test]
async fn an_answer_about_a_file_that_is_not_there_is_a_crash() {
    let bench = Bench::new(&[("FAKE_FAULT", "no_file")]);
    let told = short(&bench.run(import(&bench, &borrowed(&flowers()))).await);
    assert!(
        told.starts_with("crashed E0906: the trainer did not write"),
        "{told}"
    );
}

fn published(bench: &Bench, train: TrainWork, checkpoint: PathBuf) -> TrainerWork {
    let from = Digest::of(&std::fs::read(&checkpoint).unwrap());
    TrainerWork::Publish(Box::new(PublishWork {
        task: TASK,
        spec: train.members[0].spec.clone(),
        data: train.data,
        lineage: Lineage {
            experiment: ExperimentId(1),
            trial: TrialId(1),
            step: 12,
            seed: 7,
            checkpoint: from,
            dataset: Digest::of(b"d"),
            backbone: train.backbone.digest,
            code: "0".into(),
        },
        backbone: train.backbone,
        checkpoint,
        model: "flowers".into(),
        validation: BTreeMap::from([("val/accuracy".to_owned(), 0.5)]),
        output: bench.output(),
    }))
}

#[tokio::test]
async fn the_best_checkpoint_becomes_a_folder_that_predicts() {
    let trained = Bench::new(&[]);
    assert_eq!(trained.run(trained.trial()).await, Outcome::Finished);
    let mut best: Vec<PathBuf> = std::fs::read_dir(trained.output())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("best-")
        })
        .collect();
    assert_eq!(best.len(), 1, "older ones are removed");
    let best = best.remove(0);
    let (bench, result) = run(|bench| published(bench, trained.train(), best)).await;
    let TaskResult::Published {
        files,
        metrics,
        confusion,
        predictions,
        outcomes,
    } = result
    else {
        panic!("another answer");
    };
    let names: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    let all = [
        "README.md",
        "config.json",
        "lineage.json",
        "model.safetensors",
        "preprocessor_config.json",
    ];
    assert_eq!(names, all);
    for file in &files {
        let bytes = std::fs::read(bench.output().join(&file.path)).unwrap();
        assert_eq!(
            (Digest::of(&bytes).hex(), bytes.len() as u64),
            (file.sha256.clone(), file.size)
        );
    }
    assert_ne!(version_digest(&files), version_digest(&files[1..]));
    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(trained.train().data.manifest).unwrap()).unwrap();
    let test = manifest
        .samples
        .iter()
        .filter(|sample| sample.split == Split::Test)
        .count();
    assert_eq!(predictions.len(), test);
    let right = confusion[0][0] + confusion[1][1];
    assert_eq!(metrics["test/accuracy"], right as f64 / test as f64);
    assert!(metrics["test/accuracy_low"] <= metrics["test/accuracy"]);
    let outcomes = outcomes.unwrap();
    assert!(outcomes.is_sound());
    assert_eq!(outcomes.split, manifest.test_split().0);
    let hits = outcomes.labels.iter().zip(&outcomes.predicted);
    let hits = hits.filter(|(a, b)| a == b).count() as u64;
    assert_eq!(hits, right, "what gates compare is what was measured");

    predicts(&bench.output()).await;
}

async fn predicts(model: &Path) {
    let (_, predicted) = run(|there| {
        let pictures = there.folder.path().join("pictures.tar");
        tar(
            &[("00000/a cat.png", "meow"), ("00001/empty.png", "")],
            &pictures,
        );
        TrainerWork::Predict {
            task: TASK,
            model: model.to_owned(),
            pictures,
            top: 1,
        }
    })
    .await;
    let TaskResult::Predicted { pictures } = predicted else {
        panic!("another answer");
    };
    assert_eq!(pictures[0].classes[0].label, "cat");
    assert_eq!(pictures[0].classes.len(), 1);
    assert!(pictures[1].fault.is_some());
}
