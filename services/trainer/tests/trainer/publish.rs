//! What is published is what was validated: a folder that stands alone, its figures, its card, its
//! lineage, and predictions with it.

use crate::support::{Fixture, Trainer, command, fixture, spec, train_work};
use pomona_api::trainer::{Event, PublishWork, TrainerWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::{Manifest, Split};
use pomona_domain::gate::TestOutcomes;
use pomona_domain::model::{Lineage, ModelFile};
use pomona_domain::spec::{FrozenDepth, TrialSpec};
use pomona_domain::task::{Prediction, TaskResult, TestPrediction};
use pomona_domain::{Code, Digest, ExperimentId, TaskId, TrialId};
use pomona_trainer::data;
use pomona_trainer::network::{Arch, HeadPlan, Network, Pass};
use pomona_trainer::{onnx, weights};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A trained trial: its files and its best checkpoint.
struct Trained {
    fixture: Fixture,
    spec: TrialSpec,
    checkpoint: PathBuf,
}

fn trained() -> Trained {
    trained_above(&spec().transfer.frozen_depth)
}

fn trained_above(frozen: &FrozenDepth) -> Trained {
    let fixture = fixture("test-resnet", 3, 20);
    let mut spec = spec();
    spec.transfer.frozen_depth = frozen.clone();
    // Quiet batches, so that it learns in a few steps.
    (spec.train.batch_size, spec.train.epochs) = (8, 3);
    let work = train_work(&fixture, &spec, &fixture.folder.path().join("trial"), None);
    let mut trainer = Trainer::start(&command(TrainerWork::Train(Box::new(work))), &[]);
    let events = trainer.events_until(|_| false);
    let best = events.iter().rev().find_map(|event| match event {
        Event::Checkpoint {
            checkpoint: CheckpointKind::Best,
            path,
            ..
        } => Some(path.clone()),
        _ => None,
    });
    Trained {
        fixture,
        spec,
        checkpoint: best.unwrap(),
    }
}

impl Trained {
    fn work(&self, output: &str) -> PublishWork {
        PublishWork {
            task: TaskId(9),
            spec: self.spec.clone(),
            data: self.fixture.data.clone(),
            backbone: self.fixture.backbone.clone(),
            checkpoint: self.checkpoint.clone(),
            lineage: Lineage {
                experiment: ExperimentId(2),
                trial: TrialId(1),
                step: 15,
                seed: 7,
                checkpoint: Digest::of(&std::fs::read(&self.checkpoint).unwrap()),
                dataset: Digest::of(&std::fs::read(&self.fixture.data.manifest).unwrap()),
                backbone: self.fixture.backbone.digest,
                code: "0.1.0".into(),
            },
            model: "flowers".into(),
            validation: BTreeMap::from([("val/accuracy".to_owned(), 0.75)]),
            output: self.fixture.folder.path().join(output),
        }
    }
}

/// What a published folder was said to be.
struct Published {
    files: Vec<ModelFile>,
    metrics: BTreeMap<String, f64>,
    confusion: Vec<Vec<u64>>,
    predictions: Vec<TestPrediction>,
    outcomes: TestOutcomes,
}

fn task(work: TrainerWork) -> Vec<Event> {
    Trainer::start(&command(work), &[]).events_until(|_| false)
}

fn publish(work: &PublishWork) -> Published {
    let events = task(TrainerWork::Publish(Box::new(work.clone())));
    let result = events.iter().find_map(|event| match event {
        Event::Result { result, .. } => Some(result.clone()),
        _ => None,
    });
    match result {
        Some(TaskResult::Published {
            files,
            metrics,
            confusion,
            predictions,
            outcomes,
        }) => Published {
            files,
            metrics,
            confusion,
            predictions,
            outcomes: *outcomes.unwrap(),
        },
        other => panic!("{other:?} after {events:?}"),
    }
}

fn predict(model: &Path, pictures: &Path, top: u32) -> Vec<Prediction> {
    let events = task(TrainerWork::Predict {
        task: TaskId(9),
        model: model.to_owned(),
        pictures: pictures.to_owned(),
        top,
    });
    match &events[events.len() - 2] {
        Event::Result {
            result: TaskResult::Predicted { pictures },
            ..
        } => pictures.clone(),
        other => panic!("not a prediction: {other:?}"),
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
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

#[test]
fn a_published_folder_stands_alone_and_repeats_byte_for_byte() {
    let trained = trained();
    let work = trained.work("one");
    let published = publish(&work);
    let on_disk = bytes_of(&work.output);
    let names: Vec<&str> = on_disk.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "MLmodel",
            "README.md",
            "config.json",
            "lineage.json",
            "model.onnx",
            "model.safetensors",
            "preprocessor_config.json"
        ]
    );
    for (file, (name, bytes)) in published.files.iter().zip(&on_disk) {
        assert_eq!(
            (&file.path, &file.sha256, file.size),
            (name, &Digest::of(bytes).hex(), bytes.len() as u64)
        );
    }
    let again = trained.work("two");
    assert_eq!(publish(&again).files, published.files);
    assert!(bytes_of(&again.output) == on_disk);

    check_config(&work.output);
    check_lineage(&work, &published.files);
    check_card(&on_disk["README.md"], &published.metrics);
    check_weights(&trained, &work.output);
    check_onnx(&work.output);
    let events = task(TrainerWork::Publish(Box::new(work)));
    let Some(Event::Failed { fault, .. }) = events.last() else {
        panic!("published over files")
    };
    assert_eq!(fault.code, Code::LocalFile);
}

/// What gates compare is what was measured, in an order that follows from the pictures alone; and a
/// prediction takes a time.
fn check_outcomes(published: &Published, manifest: &Manifest) {
    let found = &published.outcomes;
    assert!(found.is_sound());
    let (split, order) = manifest.test_split();
    assert_eq!((found.split, &found.classes), (split, &manifest.classes));
    let labels: Vec<u32> = order.iter().map(|at| manifest.samples[*at].label).collect();
    assert_eq!(found.labels, labels);
    let mut renamed = manifest.clone();
    for (at, sample) in renamed.samples.iter_mut().enumerate() {
        sample.path = format!("{:03}", 999 - at);
    }
    renamed.samples.reverse();
    assert_eq!(renamed.test_split().0, split, "paths do not make a split");
    renamed.samples.retain(|sample| sample.split == Split::Test);
    assert_eq!(
        renamed.test_split().0,
        split,
        "nor does the rest of the data"
    );
    renamed.samples[0].label = (renamed.samples[0].label + 1) % 3;
    assert_ne!(renamed.test_split().0, split, "labels do");
    let told: BTreeMap<&str, u32> = published
        .predictions
        .iter()
        .map(|told| (told.path.as_str(), told.predicted))
        .collect();
    for (at, predicted) in order.iter().zip(&found.predicted) {
        assert_eq!(told[manifest.samples[*at].path.as_str()], *predicted);
    }
    let samples = labels.len() as f64;
    let right = labels.iter().zip(&found.predicted).filter(|(a, b)| a == b);
    let accuracy = right.count() as f64 / samples;
    assert!((accuracy - published.metrics["test/accuracy"]).abs() < 1e-12);
    let loss: f64 = found
        .truth
        .iter()
        .map(|truth| -f64::from(*truth).ln())
        .sum();
    assert!((loss / samples - published.metrics["test/loss"]).abs() < 1e-6);
    let [median, slow] =
        ["test/latency_p50_ms", "test/latency_p95_ms"].map(|name| published.metrics[name]);
    assert!(
        median > 0.0 && median <= slow && slow.is_finite(),
        "{median} {slow}"
    );
}

fn check_config(folder: &Path) {
    let config = json(&folder.join("config.json"));
    assert_eq!(config["architecture"], "test-resnet");
    assert_eq!(config["id2label"]["2"], "class 2");
    assert_eq!(config["label2id"]["class 1"], 1);
    assert_eq!(
        (config["num_labels"].as_u64(), config["image_size"].as_u64()),
        (Some(3), Some(32))
    );
    assert_eq!(config["frozen_through"], "layer1.0");
    assert_eq!(config["head"]["hidden"], 16);
    let preprocessor = json(&folder.join("preprocessor_config.json"));
    assert_eq!(preprocessor["size"]["height"], 32);
    assert_eq!(
        (&preprocessor["fit"], &preprocessor["interpolation"]),
        (&"pad".into(), &"bilinear".into())
    );
    assert!((preprocessor["image_mean"][0].as_f64().unwrap() - 0.485).abs() < 1e-12);
}

/// An in-toto statement over all files but itself.
fn check_lineage(work: &PublishWork, files: &[ModelFile]) {
    let statement = json(&work.output.join("lineage.json"));
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    let subjects: BTreeMap<&str, &str> = statement["subject"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subject| {
            (
                subject["name"].as_str().unwrap(),
                subject["digest"]["sha256"].as_str().unwrap(),
            )
        })
        .collect();
    let expect: BTreeMap<&str, &str> = files
        .iter()
        .filter(|file| file.path != "lineage.json")
        .map(|file| (file.path.as_str(), file.sha256.as_str()))
        .collect();
    assert_eq!(subjects, expect);
    let sources = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        .as_array()
        .unwrap();
    let digests: BTreeSet<&str> = sources
        .iter()
        .map(|source| source["digest"]["sha256"].as_str().unwrap())
        .collect();
    let from = &work.lineage;
    let wanted = [
        from.dataset.hex(),
        from.backbone.hex(),
        from.checkpoint.hex(),
    ];
    assert_eq!(digests, wanted.iter().map(String::as_str).collect());
}

fn check_card(card: &[u8], metrics: &BTreeMap<String, f64>) {
    let card = std::str::from_utf8(card).unwrap();
    assert!(
        card.contains(&format!(
            "Test accuracy {:.1} %",
            100.0 * metrics["test/accuracy"]
        )),
        "{card}"
    );
    assert!(card.contains("| val/accuracy | 0.7500 |"), "{card}");
    assert!(card.contains("\n# flowers\n"), "{card}");
    assert!(card.contains("| class 2 | 12 | 4 |"), "{card}");
    assert!(
        card.contains("`pixel_values`: 32-bit floats [N, 3, 32, 32]"),
        "{card}"
    );
}

/// The ONNX model has the tensors that stand beside it and the classes' names; MLflow is told where
/// it is.
fn check_onnx(folder: &Path) {
    let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
    let model = onnx::decode(bytes.into()).unwrap();
    let labels = model.metadata_props.iter().find(|it| it.key == "labels");
    assert_eq!(labels.unwrap().value, r#"["class 0","class 1","class 2"]"#);
    let beside = weights::read(&folder.join("model.safetensors")).unwrap();
    let tensors = model.graph.unwrap().initializer;
    let named = tensors.iter().map(|it| (it.name.as_str(), &it.raw_data));
    let beside = beside.iter().map(|(name, it)| (name.as_str(), &it.bytes));
    assert_eq!(named.collect::<BTreeMap<_, _>>(), beside.collect());
    let text = std::fs::read_to_string(folder.join("MLmodel")).unwrap();
    assert_eq!(text.matches("data: model.onnx\n").count(), 2, "{text}");
}

/// Frozen tensors are the backbone's, the others the checkpoint's.
fn check_weights(trained: &Trained, folder: &Path) {
    let model = weights::read(&folder.join("model.safetensors")).unwrap();
    let backbone = weights::read(&trained.fixture.backbone.weights).unwrap();
    let checkpoint = weights::read(&trained.checkpoint).unwrap();
    let mut frozen = 0;
    for (name, tensor) in &model {
        if let Some(live) = checkpoint.get(&format!("network.{name}")) {
            assert!(tensor == live, "{name}");
        } else {
            assert!(tensor == &backbone[name], "{name}");
            frozen += 1;
        }
    }
    assert!(frozen > 0 && frozen < model.len());
}

#[test]
fn test_figures_come_from_the_test_split_and_prediction_repeats_them() {
    let trained = trained();
    let work = trained.work("published");
    let published = publish(&work);
    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(&work.data.manifest).unwrap()).unwrap();
    let test: Vec<(&str, u32)> = manifest
        .samples
        .iter()
        .filter(|sample| sample.split == Split::Test)
        .map(|sample| (sample.path.as_str(), sample.label))
        .collect();
    let told: Vec<(&str, u32)> = published
        .predictions
        .iter()
        .map(|told| (told.path.as_str(), told.label))
        .collect();
    assert_eq!(told, test);
    let right = published
        .predictions
        .iter()
        .filter(|told| told.label == told.predicted)
        .count();
    let accuracy = published.metrics["test/accuracy"];
    assert!((accuracy - right as f64 / test.len() as f64).abs() < 1e-12);
    assert!(
        accuracy > 0.5,
        "a network that learned beats chance: {accuracy}"
    );
    assert!(
        published.metrics["test/accuracy_low"] < accuracy
            && accuracy <= published.metrics["test/accuracy_high"]
    );
    assert_eq!(
        published.confusion.iter().flatten().sum::<u64>(),
        test.len() as u64
    );
    check_outcomes(&published, &manifest);
    assert!(
        published
            .metrics
            .keys()
            .all(|name| name.starts_with("test/"))
    );
    let pictures = trained.fixture.folder.path().join("some.tar");
    let wanted: BTreeSet<&str> = test.iter().map(|(path, _)| *path).collect();
    some_pictures(&work.data.archive, &wanted, &pictures);
    let predicted = predict(&work.output, &pictures, 2);
    assert_eq!(predicted.len(), test.len() + 1);
    check_predictions(&predicted, &published.predictions, &manifest.classes);
}

/// The wanted pictures of an archive as files, one that is none among them.
fn some_pictures(archive: &Path, wanted: &BTreeSet<&str>, pictures: &Path) {
    let mut tar = tar::Builder::new(std::fs::File::create(pictures).unwrap());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    add("no picture.txt", b"hello");
    for (path, bytes) in data::read_pictures(archive).unwrap() {
        if wanted.contains(path.as_str()) {
            add(&path, &bytes);
        }
    }
    tar.into_inner().unwrap();
}

fn check_predictions(predicted: &[Prediction], published: &[TestPrediction], classes: &[String]) {
    let (bad, good): (Vec<&Prediction>, Vec<&Prediction>) = predicted
        .iter()
        .partition(|picture| picture.path == "no picture.txt");
    let fault = bad[0].fault.as_ref().unwrap();
    assert_eq!((fault.code, bad[0].classes.len()), (Code::BadPicture, 0));
    for (picture, told) in good.iter().zip(published) {
        assert_eq!(picture.path, told.path);
        assert_eq!(picture.classes.len(), 2);
        let best = &picture.classes[0];
        assert_eq!(best.label, classes[told.predicted as usize]);
        assert_eq!(
            best.probability, told.probability,
            "validated bytes are served bytes"
        );
        assert!(best.probability >= picture.classes[1].probability);
    }
}

/// The test pictures as the network takes them.
fn test_input(fixture: &Fixture, network: &Network) -> Tensor {
    let (data, dataset) = (&fixture.data, data::Dataset::open);
    let dataset = dataset(&data.manifest, &data.archive).unwrap();
    let count = dataset.len(Split::Test);
    let pixels = |index| dataset.pixels(Split::Test, index).unwrap();
    let pixels: Vec<u8> = (0..count).flat_map(pixels).collect();
    network.input(&pixels, count, dataset.size())
}

#[test]
fn what_was_forgotten_is_how_far_the_source_heads_answers_moved() {
    let none = trained_above(&FrozenDepth::Named("all".to_owned()));
    let work = none.work("published");
    let published = publish(&work);
    assert_eq!(published.metrics["test/forgetting"], 0.0);
    let card = std::fs::read_to_string(work.output.join("README.md")).unwrap();
    assert!(card.contains("has forgotten nothing"), "{card}");

    let some = trained_above(&FrozenDepth::Blocks(0));
    let work = some.work("published");
    let metrics = publish(&work).metrics;
    let told = metrics["test/forgetting"];
    // Both networks whole, in doubles, by the definition.
    let source = weights::read(&work.backbone.weights).unwrap();
    let tuned = weights::read(&work.output.join("model.safetensors")).unwrap();
    let head = |name: &str| name.starts_with("fc.");
    let back = (source.iter())
        .map(|(name, tensor)| (name, if head(name) { tensor } else { &tuned[name] }))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let classes = source["fc.weight"].shape[0] as u32;
    let network = |tensors: &BTreeMap<String, weights::HostTensor>| {
        let plan = HeadPlan::linear(classes);
        let mut network = Network::new(Arch::TestResnet, &plan, Kind::Double, Device::Cpu);
        network.load(tensors).unwrap();
        network.freeze(network.blocks().len());
        network
    };
    let (source, back) = (network(&source), network(&back));
    let x = test_input(&some.fixture, &source);
    let answers = |network: &Network| -> Vec<f64> {
        let logits = network.forward(&x, Pass::Eval);
        Vec::try_from(logits.softmax(-1, Kind::Double).flatten(0, -1)).unwrap()
    };
    let (before, after) = (answers(&source), answers(&back));
    let terms = before.iter().zip(&after).map(|(p, q)| p * (p / q).ln());
    let expected = terms.sum::<f64>() / (before.len() / classes as usize) as f64;
    assert!(expected > 1e-4, "it was trained: {expected}");
    assert!((told / expected - 1.0).abs() < 1e-3, "{told} {expected}");
    // CKA by the other of its two formulas: of products of features, not of pictures.
    let features = |network: &Network| -> Vec<Tensor> {
        let mut seen = Vec::new();
        let _ = network.forward_with(&x, |_, given| {
            let given = given.mean_dim([2i64, 3].as_slice(), false, Kind::Double);
            seen.push(&given - given.mean_dim([0i64].as_slice(), true, Kind::Double));
        });
        seen
    };
    let norm = |a: &Tensor, b: &Tensor| a.tr().matmul(b).norm().double_value(&[]);
    let blocks = source.blocks().iter().map(|block| &block.name);
    for (name, (x, y)) in blocks.zip(features(&source).iter().zip(&features(&back))) {
        let told = metrics[&format!("test/cka/{name}")];
        let expected = norm(x, y).powi(2) / (norm(x, x) * norm(y, y));
        assert!((told - expected).abs() < 1e-4, "{name}: {told} {expected}");
        assert!(told > 0.0 && told < 1.0, "{name} was trained: {told}");
    }
}

#[test]
fn a_checkpoint_of_another_backbone_is_not_published() {
    let trained = trained();
    let mut work = trained.work("published");
    work.backbone.digest = Digest::of(b"another");
    let events = task(TrainerWork::Publish(Box::new(work)));
    let Some(Event::Failed {
        fault,
        retry: false,
    }) = events.last()
    else {
        panic!("{events:?}")
    };
    assert_eq!(fault.code, Code::BadCheckpoint);
}
