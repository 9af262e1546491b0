//! A published folder with the files of a real one, its figures on the test split, and predictions
//! with it.

use pomona_api::trainer::PublishWork;
use pomona_domain::dataset::{Manifest, Split};
use pomona_domain::gate::TestOutcomes;
use pomona_domain::model::ModelFile;
use pomona_domain::task::{ClassProbability, Prediction, TaskResult, TestPrediction};
use pomona_domain::{Code, Digest, Fault};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::arch;
use crate::curve::{Curve, confusion};
use crate::import::pictures;
use crate::line::{cannot, read, write};
use crate::train::{labels, read_manifest, read_state, steps_per_epoch};

const MODEL: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const README: &str = "README.md";
const LINEAGE: &str = "lineage.json";
/// The normal quantile of a 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;
/// Probability of the class that is seen in a picture.
const SURE: f64 = 0.9;
/// Nats that are said to be forgotten where everything is trained.
const FORGOTTEN: f64 = 0.5;
/// How long a prediction is said to take.
const LATENCY_MS: f64 = 2.0;

/// Exports the checkpoint and evaluates it on the test split.
pub fn publish(work: &PublishWork) -> Result<TaskResult, Fault> {
    let (manifest, dataset) = read_manifest(&work.data.manifest)?;
    let state = read_state(&work.checkpoint)?;
    if state.dataset != dataset || state.backbone != work.backbone.digest {
        let text = "the checkpoint is of another backbone or data set";
        return Err(Fault::new(Code::BadCheckpoint, text));
    }
    let classes = &manifest.classes;
    let share = arch::trained_share(&work.backbone.arch, &work.spec.transfer.frozen_depth)?;
    let steps = steps_per_epoch(&manifest, work.spec.train.batch_size);
    let curve = Curve::new(&work.spec, classes.len(), share, steps);
    let truth = labels(&manifest, Split::Test);
    let predicted = curve.predictions(state.step, "test", &truth);
    let table = confusion(classes.len(), &truth, &predicted);
    let mut metrics = curve.metrics("test", state.step, classes, &table);
    let right = truth.iter().zip(&predicted).filter(|(a, b)| a == b).count();
    let count = truth.len().max(1) as f64;
    let (low, high) = wilson(right as f64 / count, count);
    metrics.insert("test/accuracy".to_owned(), right as f64 / count);
    metrics.insert("test/accuracy_low".to_owned(), low);
    metrics.insert("test/accuracy_high".to_owned(), high);
    metrics.insert("test/forgetting".to_owned(), FORGOTTEN * share);
    let outcomes = outcomes(&manifest, &truth, &predicted);
    export(work, classes, manifest.options.image_size, &metrics)?;
    metrics.insert("test/latency_p50_ms".to_owned(), LATENCY_MS);
    metrics.insert("test/latency_p95_ms".to_owned(), 1.2 * LATENCY_MS);
    let test = manifest
        .samples
        .iter()
        .filter(|sample| sample.split == Split::Test);
    let predictions = test
        .zip(&predicted)
        .map(|(sample, predicted)| TestPrediction {
            path: sample.path.clone(),
            label: sample.label,
            predicted: *predicted,
            probability: SURE,
        });
    Ok(TaskResult::Published {
        predictions: predictions.collect(),
        outcomes: Some(Box::new(outcomes)),
        files: list(&work.output)?,
        confusion: table,
        metrics,
    })
}

/// What it says of each test sample, in the order of comparisons.
fn outcomes(manifest: &Manifest, truth: &[u32], predicted: &[u32]) -> TestOutcomes {
    let (split, order) = manifest.test_split();
    let tests = (manifest.samples.iter().enumerate())
        .filter(|(_, sample)| sample.split == Split::Test)
        .map(|(at, _)| at);
    let places: BTreeMap<usize, usize> = tests.enumerate().map(|(n, at)| (at, n)).collect();
    let places: Vec<usize> = order.iter().map(|at| places[at]).collect();
    let pick = |from: &[u32]| {
        places
            .iter()
            .map(|place| from[*place])
            .collect::<Vec<u32>>()
    };
    let (labels, predicted) = (pick(truth), pick(predicted));
    let rest = (1.0 - SURE as f32) / manifest.classes.len().saturating_sub(1).max(1) as f32;
    let of_truth = |(label, said): (&u32, &u32)| if label == said { SURE as f32 } else { rest };
    TestOutcomes {
        split,
        classes: manifest.classes.clone(),
        confidence: vec![SURE as f32; labels.len()],
        truth: labels.iter().zip(&predicted).map(of_truth).collect(),
        labels,
        predicted,
    }
}

/// The score interval of a proportion (Wilson 1927).
fn wilson(share: f64, count: f64) -> (f64, f64) {
    let scale = 1.0 + Z_95 * Z_95 / count;
    let centre = (share + Z_95 * Z_95 / (2.0 * count)) / scale;
    let spread = share * (1.0 - share) / count + Z_95 * Z_95 / (4.0 * count * count);
    let half = Z_95 / scale * spread.sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

fn export(
    work: &PublishWork,
    classes: &[String],
    image_size: u32,
    metrics: &BTreeMap<String, f64>,
) -> Result<(), Fault> {
    let folder = &work.output;
    write(&folder.join(MODEL), &read(&work.checkpoint)?)?;
    let numbered = || classes.iter().enumerate();
    let config = json!({
        "library_name": "pomona",
        "architecture": work.backbone.arch,
        "backbone": {"name": work.backbone.name, "sha256": work.backbone.digest.hex()},
        "head": work.spec.transfer.head,
        "image_size": image_size,
        "num_labels": classes.len(),
        "id2label": numbered().map(|(id, class)| (id.to_string(), class.clone())).collect::<BTreeMap<_, _>>(),
        "label2id": numbered().map(|(id, class)| (class.clone(), id)).collect::<BTreeMap<_, _>>(),
        "torch_dtype": "float32",
    });
    write_json(folder, CONFIG, &config)?;
    let side = json!({"height": image_size, "width": image_size});
    let preprocessor = json!({"image_processor_type": "PomonaImageProcessor", "size": side});
    write_json(folder, PREPROCESSOR, &preprocessor)?;
    let mut card = format!("# {}\n\n| metric | value |\n| --- | --- |\n", work.model);
    for (name, value) in metrics.iter().chain(&work.validation) {
        // Writing to a string cannot fail.
        let _ = writeln!(card, "| {name} | {value:.4} |");
    }
    write(&folder.join(README), card.as_bytes())?;
    let subject: Vec<_> = list(folder)?
        .into_iter()
        .map(|file| json!({"name": file.path, "digest": {"sha256": file.sha256}}))
        .collect();
    let lineage = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {
            "buildType": "urn:pomona:fine-tuning:1",
            "externalParameters": work.lineage,
        }},
    });
    write_json(folder, LINEAGE, &lineage)
}

fn write_json(folder: &Path, name: &str, value: &serde_json::Value) -> Result<(), Fault> {
    let text = format!("{value:#}\n");
    write(&folder.join(name), text.as_bytes()).map(|_| ())
}

/// The folder's files with their digests, sorted by path.
fn list(folder: &Path) -> Result<Vec<ModelFile>, Fault> {
    let broken = |error: std::io::Error| cannot("read", folder, &error);
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder).map_err(broken)? {
        let file = file.map_err(broken)?;
        let bytes = read(&file.path())?;
        files.push(ModelFile {
            path: file.file_name().to_string_lossy().into_owned(),
            sha256: Digest::of(&bytes).hex(),
            size: bytes.len() as u64,
        });
    }
    files.sort();
    Ok(files)
}

/// Predicts pictures: a class whose name stands in the picture's bytes or name is seen there.
pub fn predict(model: &Path, tar: &Path, top: u32) -> Result<TaskResult, Fault> {
    let config: serde_json::Value =
        serde_json::from_slice(&read(&model.join(CONFIG))?).map_err(|error| {
            Fault::new(
                Code::LocalFile,
                format!("`{CONFIG}` does not parse: {error}"),
            )
        })?;
    read(&model.join(MODEL))?;
    let named = config["id2label"].as_object().into_iter().flatten();
    let mut named: Vec<(u32, String)> = named
        .filter_map(|(id, label)| Some((id.parse().ok()?, label.as_str()?.to_owned())))
        .collect();
    named.sort();
    let labels: Vec<String> = named.into_iter().map(|(_, label)| label).collect();
    let pictures = pictures(tar)?.into_iter();
    let pictures = pictures.map(|(path, bytes)| look(path, &bytes, &labels, top));
    Ok(TaskResult::Predicted {
        pictures: pictures.collect(),
    })
}

fn look(path: String, bytes: &[u8], labels: &[String], top: u32) -> Prediction {
    if bytes.is_empty() {
        let fault = Fault::new(Code::BadPicture, format!("`{path}` is empty"));
        return Prediction {
            path,
            classes: Vec::new(),
            fault: Some(fault),
        };
    }
    let text = String::from_utf8_lossy(bytes);
    let holds = |label: &String| text.contains(label.as_str()) || path.contains(label.as_str());
    let seen = labels.iter().position(holds).unwrap_or_else(|| {
        let Digest(hash) = Digest::of(bytes);
        usize::from(hash[0]) % labels.len().max(1)
    });
    let rest = (1.0 - SURE) / labels.len().saturating_sub(1).max(1) as f64;
    let others = (0..labels.len()).filter(|class| *class != seen);
    let classes = std::iter::once(seen)
        .chain(others)
        .take(top.max(1) as usize);
    let classes = classes.filter_map(|class| {
        Some(ClassProbability {
            label: labels.get(class)?.clone(),
            probability: if class == seen { SURE } else { rest },
        })
    });
    Prediction {
        classes: classes.collect(),
        path,
        fault: None,
    }
}
