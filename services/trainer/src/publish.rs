//! Publishing: a checkpoint as a folder that stands alone, evaluated from pixels through the very
//! files that were written: what is validated is what is served.

mod card;
pub mod folder;
mod forgetting;
mod latency;
mod mlmodel;

use crate::checkpoint;
use crate::checkpoint::file::{self, Content};
use crate::data::Dataset;
use crate::dist::Group;
use crate::fault;
use crate::metrics;
use crate::network::{Arch, HeadPlan, Network, host_tensor};
use crate::train::evaluate::{Evaluation, evaluate};
use crate::{onnx, weights};
use folder::{
    CONFIG, Config, LINEAGE, MLMODEL, MODEL, ONNX, PREPROCESSOR, Preprocessor, README, Served,
};
use pomona_api::trainer::PublishWork;
use pomona_domain::dataset::Split;
use pomona_domain::gate::TestOutcomes;
use pomona_domain::model::ModelFile;
use pomona_domain::spec::FORGETTING;
use pomona_domain::task::{TaskResult, TestPrediction};
use pomona_domain::{Code, Digest, Fault};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind};

/// The normal quantile of a 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;
/// How the names of the similarities of blocks begin.
const CKA: &str = "test/cka/";
/// Test images that the ONNX model must answer as the network does. Two, so that the batch counts.
const CHECKED: usize = 2;

/// Exports the checkpoint to `work.output` and evaluates the exported files on the test split.
/// `beat` is called now and then.
pub fn publish(
    work: &PublishWork,
    threads: usize,
    mut beat: impl FnMut(),
) -> Result<TaskResult, Fault> {
    make_empty(&work.output)?;
    let dataset = Arc::new(Dataset::open(&work.data.manifest, &work.data.archive)?);
    let (network, config) = rebuild(work, &dataset)?;
    export(work, &network, &config, &dataset)?;
    drop(network);

    let served = folder::open(&work.output, Device::Cpu)?;
    let alone = Group::alone(Device::Cpu);
    let evaluation = evaluate(
        &served.network,
        &dataset,
        Split::Test,
        &alone,
        threads,
        &mut beat,
    )?;
    let mut metrics = test_metrics(&evaluation, dataset.classes());
    let source = weights::read_checked(&work.backbone.weights, work.backbone.digest)?;
    if let Some(found) = forgetting::measure(&served, &source, &dataset, &mut beat)? {
        metrics.insert(FORGETTING.to_owned(), found.nats);
        let alike = found.alike.into_iter();
        metrics.extend(alike.map(|(block, cka)| (format!("{CKA}{block}"), cka)));
    }
    drop(source);
    refuse_nonsense(&metrics)?;
    check_onnx(&work.output, &served, &dataset)?;
    let card = card::render(work, &config, &dataset, &metrics, &evaluation.report);
    write(&work.output, README, card.as_bytes())?;
    let lineage = lineage(work, &work.output)?;
    write_json(&work.output, LINEAGE, &lineage)?;
    metrics.extend(latency::measure(&served, &dataset, beat)?);
    Ok(TaskResult::Published {
        files: list(&work.output)?,
        predictions: predictions(&evaluation, &dataset),
        outcomes: Some(Box::new(outcomes(&evaluation, &dataset))),
        confusion: evaluation.report.confusion,
        metrics,
    })
}

fn refuse_nonsense(metrics: &BTreeMap<String, f64>) -> Result<(), Fault> {
    match metrics.iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some((name, _)) => Err(Fault::new(
            Code::NotANumber,
            format!("`{name}` of the exported model is not a number"),
        )),
    }
}

fn make_empty(folder: &Path) -> Result<(), Fault> {
    let cannot = |error: &std::io::Error| fault::file("make", folder, error);
    std::fs::create_dir_all(folder).map_err(|error| cannot(&error))?;
    let mut items = std::fs::read_dir(folder).map_err(|error| cannot(&error))?;
    if items.next().is_none() {
        return Ok(());
    }
    Err(Fault::new(
        Code::LocalFile,
        format!("`{}` is not empty", folder.display()),
    ))
}

/// The trained network: backbone, then checkpoint.
fn rebuild(work: &PublishWork, dataset: &Dataset) -> Result<(Network, Config), Fault> {
    let classes = dataset.classes();
    let arch = Arch::parse(&work.backbone.arch)?;
    let (content, state) = checkpoint::read(&work.checkpoint)?;
    let wrong = [
        (
            "backbone",
            state.backbone != work.backbone.digest || state.arch != arch.name(),
        ),
        (
            "data set",
            state.dataset != dataset.digest() || state.classes as usize != classes.len(),
        ),
        ("spec", state.spec != checkpoint::spec_digest(&work.spec)?),
    ];
    if let Some((what, _)) = wrong.iter().find(|(_, wrong)| *wrong) {
        let message = format!("the checkpoint is of another {what}");
        return Err(Fault::new(Code::BadCheckpoint, message));
    }
    let plan = HeadPlan {
        head: work.spec.transfer.head.clone(),
        classes: state.classes,
    };
    let mut network = Network::new(arch, &plan, Kind::Float, Device::Cpu);
    network.load_backbone(&weights::read_checked(
        &work.backbone.weights,
        work.backbone.digest,
    )?)?;
    network.freeze(state.frozen_blocks as usize);
    checkpoint::load_live(&content, network.live())?;
    let config = Config::new(work, &network, classes, dataset.size());
    Ok((network, config))
}

fn export(
    work: &PublishWork,
    network: &Network,
    config: &Config,
    dataset: &Dataset,
) -> Result<(), Fault> {
    let content: Content = network
        .entries()
        .iter()
        .map(|entry| (entry.name.clone(), host_tensor(&entry.tensor)))
        .collect();
    file::write(&work.output.join(MODEL), &content, None)?;
    drop(content);
    let model = onnx::model(network, dataset.size(), dataset.classes())?;
    write(&work.output, ONNX, &onnx::encode(&model)?)?;
    drop(model);
    let mlmodel = mlmodel::render(config, &work.lineage)?;
    write(&work.output, MLMODEL, mlmodel.as_bytes())?;
    let config = serde_json::to_value(config).map_err(fault::internal)?;
    write_json(&work.output, CONFIG, &config)?;
    let preprocessor = Preprocessor::new(network.arch(), &dataset.manifest().options);
    let preprocessor = serde_json::to_value(preprocessor).map_err(fault::internal)?;
    write_json(&work.output, PREPROCESSOR, &preprocessor)
}

/// The ONNX model that was written is the network that was written beside it.
fn check_onnx(folder: &Path, served: &Served, dataset: &Dataset) -> Result<(), Fault> {
    let path = folder.join(ONNX);
    let bytes = std::fs::read(&path).map_err(|error| fault::file("read", &path, &error))?;
    let model = onnx::decode(bytes.into())?;
    let count = CHECKED.min(dataset.len(Split::Test));
    let pixels: Vec<Vec<u8>> = (0..count)
        .map(|index| dataset.pixels(Split::Test, index))
        .collect::<Result<_, _>>()?;
    let x = served
        .network
        .input(&pixels.concat(), count, dataset.size());
    onnx::check(&model, &served.network, &x).map(|_| ())
}

fn write_json(folder: &Path, name: &str, value: &serde_json::Value) -> Result<(), Fault> {
    let mut text = serde_json::to_string_pretty(value).map_err(fault::internal)?;
    text.push('\n');
    write(folder, name, text.as_bytes())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    file::write_bytes(&folder.join(name), bytes, || ()).map(|_| ())
}

/// Metrics on the test split, with Wilson's interval (1927) for the accuracy.
fn test_metrics(evaluation: &Evaluation, classes: &[String]) -> BTreeMap<String, f64> {
    let mut found = crate::train::evaluate::metrics("test", classes, &evaluation.report);
    let right: u64 = (0..classes.len())
        .map(|class| evaluation.report.confusion[class][class])
        .sum();
    let (low, high) = metrics::wilson(right, evaluation.labels.len() as u64, Z_95);
    found.insert("test/accuracy_low".to_owned(), low);
    found.insert("test/accuracy_high".to_owned(), high);
    found
}

fn predictions(evaluation: &Evaluation, dataset: &Dataset) -> Vec<TestPrediction> {
    let classes = dataset.classes().len().max(1);
    let rows = evaluation.probabilities.chunks_exact(classes);
    rows.zip(&evaluation.labels)
        .enumerate()
        .map(|(index, (row, &label))| {
            let (predicted, probability) = folder::ranked(row)[0];
            TestPrediction {
                path: dataset.sample(Split::Test, index).path.clone(),
                label,
                predicted: predicted as u32,
                probability: f64::from(probability),
            }
        })
        .collect()
}

/// The same for comparisons: in the order of the samples' pixels, whatever the data set's paths.
fn outcomes(evaluation: &Evaluation, dataset: &Dataset) -> TestOutcomes {
    let manifest = dataset.manifest();
    let classes = manifest.classes.len().max(1);
    let (split, order) = manifest.test_split();
    // Places among the test samples, which are evaluated in the manifest's order.
    let mut places = vec![0; manifest.samples.len()];
    let mut last = 0;
    for (place, sample) in places.iter_mut().zip(&manifest.samples) {
        *place = last;
        last += usize::from(sample.split == Split::Test);
    }
    let mut found = TestOutcomes {
        split,
        classes: manifest.classes.clone(),
        labels: Vec::with_capacity(order.len()),
        predicted: Vec::with_capacity(order.len()),
        confidence: Vec::with_capacity(order.len()),
        truth: Vec::with_capacity(order.len()),
    };
    for place in order.into_iter().map(|at| places[at]) {
        let label = evaluation.labels[place];
        let row = &evaluation.probabilities[place * classes..][..classes];
        let (predicted, confidence) = folder::ranked(row)[0];
        found.labels.push(label);
        found.predicted.push(predicted as u32);
        found.confidence.push(confidence.min(1.0));
        found.truth.push(row[label as usize].min(1.0));
    }
    found
}

/// An in-toto statement (v1) with SLSA's provenance predicate (v1), without a time so that equal
/// inputs give equal bytes.
fn lineage(work: &PublishWork, folder: &Path) -> Result<serde_json::Value, Fault> {
    let subject: Vec<serde_json::Value> = list(folder)?
        .iter()
        .map(|file| json!({"name": file.path, "digest": {"sha256": file.sha256}}))
        .collect();
    let source =
        |name: &str, digest: &Digest| json!({"name": name, "digest": {"sha256": digest.hex()}});
    let from = &work.lineage;
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:pomona:fine-tuning:1",
                "externalParameters": {
                    "experiment": from.experiment,
                    "trial": from.trial,
                    "step": from.step,
                    "seed": from.seed,
                    "spec": work.spec,
                },
                "resolvedDependencies": [
                    source("dataset", &from.dataset),
                    source(&format!("backbone/{}", work.backbone.name), &from.backbone),
                    source("checkpoint", &from.checkpoint),
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:pomona:trainer", "version": {"pomona": from.code}},
            },
        },
    }))
}

/// The folder's files with their digests, sorted by path.
fn list(folder: &Path) -> Result<Vec<ModelFile>, Fault> {
    let cannot = |error: &std::io::Error| fault::file("read", folder, error);
    let mut files = Vec::new();
    for item in std::fs::read_dir(folder).map_err(|error| cannot(&error))? {
        let item = item.map_err(|error| cannot(&error))?;
        let bytes = std::fs::read(item.path()).map_err(|error| cannot(&error))?;
        files.push(ModelFile {
            path: item.file_name().to_string_lossy().into_owned(),
            sha256: Digest::of(&bytes).hex(),
            size: bytes.len() as u64,
        });
    }
    files.sort();
    Ok(files)
}
