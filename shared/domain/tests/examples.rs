//! Every example that ships is read, complete, and survives being written and read again.

use pomona_domain::metric::Direction;
use pomona_domain::spec::{ExperimentSpec, FrozenDepth, Gate, parse};
use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config/examples")
}

fn example(name: &str) -> ExperimentSpec {
    let text = read(name);
    parse(&text, &[]).unwrap_or_else(|faults| panic!("{name}: {faults:#?}"))
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_example_is_read_and_round_trips() {
    let mut seen = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let spec = example(path.file_name().unwrap().to_str().unwrap());
        let written = spec.to_yaml().unwrap();
        let again = parse(&written, &[]).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert_eq!(again, spec, "{written}");
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} examples");
}

#[test]
fn the_demo_grid_is_what_the_demo_promises() {
    let spec = example("demo-grid.yaml");
    assert_eq!(spec.search.max_trials, 24);
    assert_eq!(spec.search.max_concurrent, 24);
    assert_eq!(spec.train.epochs, 10);
    assert_eq!(spec.train.batch_size, 32);
    assert_eq!(spec.search.direction, Direction::Maximize);
    let promote = spec.promote.as_ref().unwrap();
    assert_eq!(
        (promote.model.as_str(), promote.alias.as_str()),
        ("tux", "champion")
    );
    let Gate::Threshold { at_least, .. } = &promote.gates[0] else {
        panic!("{:?}", promote.gates);
    };
    assert_eq!(*at_least, Some(0.6));
}

#[test]
fn the_two_rank_demo_promotes_nothing() {
    let spec = example("demo-two-ranks.yaml");
    assert_eq!(spec.resources.slots_per_trial, 2);
    assert_eq!(spec.search.max_trials, 1);
    assert_eq!(
        spec.transfer.frozen_depth,
        FrozenDepth::Named("all".to_owned())
    );
    assert_eq!(spec.promote, None);
}

#[test]
fn the_files_in_the_readme_are_read() {
    let readme = fs::read_to_string(folder().join("../../README.md")).expect("README.md");
    let blocks: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        parse(block, &[]).unwrap_or_else(|faults| panic!("{block}\n{faults:#?}"));
    }
}

#[test]
fn the_smallest_file_gets_every_default() {
    let spec = parse("{name: a, backbone: b, dataset: c}", &[]).unwrap();
    insta::assert_snapshot!(spec.to_yaml().unwrap());
}

#[test]
fn an_example_is_read_with_edits() {
    let edits = [
        "train.epochs=3",
        "search.space.train.learning_rate={values: [0.1, 0.2]}",
        "promote=null",
        "seed=9",
        "dataset=other@2",
        "train.augment.ops=[horizontal_flip]",
    ]
    .map(str::to_owned);
    let text = read("demo-grid.yaml");
    let spec = parse(&text, &edits).unwrap();
    assert_eq!(spec.train.epochs, 3);
    assert_eq!(spec.search.max_trials, 8);
    assert_eq!(spec.promote, None);
    assert_eq!(spec.dataset, "other@2");
    let source = pomona_domain::spec::source(&text, &edits).unwrap();
    assert_eq!(parse(&source, &[]).unwrap(), spec);
}

/// Every key of the file there is, with the one gate that is not built yet.
const EVERYTHING: &str = "
name: emoji-topics
backbone: efficientnet-lite0
dataset: emoji-noto@1
transfer:
  frozen_depth: all
  head: {kind: linear}
  schedule: {kind: constant}
  layer_decay: 1.0
  regularizer: {kind: none}
train:
  epochs: 10
  batch_size: 64
  optimizer: {kind: adamw, weight_decay: 0.01}
  learning_rate: 0.001
  lr_schedule: {kind: cosine, warmup_epochs: 1}
  augment: {views: 2, ops: [horizontal_flip]}
  precision: auto
search:
  strategy: grid
  metric: val/accuracy
  direction: maximize
  max_trials: 24
  max_concurrent: 8
  replicates: 1
  space:
    train.learning_rate: {log_uniform: [1.0e-4, 1.0e-1], count: 6}
    train.optimizer.weight_decay: {values: [0.0, 0.01]}
    transfer.frozen_depth: {values: [all, _blocks.14]}
resources: {slots_per_trial: 1, selector: {zone: a, disk: [nvme, ssd]}}
project: default
priority: 50
share: auto
time_limit: 2h
max_restarts: 3
seed: 7
promote:
  model: emoji-topics
  alias: champion
  gates:
    - {metric: test/accuracy, at_least: 0.6}
";

#[test]
fn a_file_with_every_key_is_read() {
    let spec = parse(EVERYTHING, &[]).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!((spec.search.max_trials, spec.search.space.len()), (24, 3));
    assert_eq!(spec.time_limit_ms, Some(7_200_000));
    assert_eq!((spec.seed, spec.priority, spec.max_restarts), (7, 50, 3));
    let selector = &spec.resources.selector;
    assert_eq!(selector["zone"], ["a"]);
    assert_eq!(selector["disk"], ["nvme", "ssd"]);
    let written = spec.to_yaml().expect("a file");
    assert_eq!(parse(&written, &[]).as_ref(), Ok(&spec), "{written}");
    let edit = ["resources.selector.zone=[b, c]".to_owned()];
    let edited = parse(EVERYTHING, &edit).expect("a file");
    assert_eq!(edited.resources.selector["zone"], ["b", "c"]);
}

#[test]
fn every_kind_of_gate_is_read_and_written_again_as_it_was() {
    let gates = "    - {better_than: champion, metric: test/accuracy, confidence: 0.95}
    - {no_worse_than: champion, metric: test/macro_f1, margin: 0.01}
    - {metric: test/recall, every_class_at_least: 0.5}
    - {metric: test/latency_p95_ms, at_most: 80}
    - {metric: test/ece, at_most: 0.05}
    - {approvals: {deployer: 1, admin: 2}}
";
    let spec = parse(&format!("{EVERYTHING}{gates}"), &[]).expect("a file");
    let promote = spec.promote.as_ref().expect("a promotion");
    let kinds: Vec<&str> = promote
        .gates
        .iter()
        .map(|gate| gate.kind().name())
        .collect();
    let said = kinds[kinds.len() - 6..].join(" ");
    assert_eq!(
        said,
        "better_than no_worse_than class_floor threshold threshold approvals"
    );
    let uses: Vec<bool> = promote.gates[promote.gates.len() - 6..]
        .iter()
        .map(Gate::uses_test_labels)
        .collect();
    assert_eq!(uses, [true, true, true, false, true, false]);
    let written = spec.to_yaml().expect("a file");
    assert_eq!(parse(&written, &[]).as_ref(), Ok(&spec), "{written}");
    let text = serde_json::to_string(&spec).expect("JSON");
    let read: pomona_domain::spec::ExperimentSpec = serde_json::from_str(&text).expect("a spec");
    assert_eq!(read, spec);
}

#[test]
fn a_gate_that_an_older_version_wrote_is_read() {
    let old = r#"{"metric": "test/accuracy", "at_least": 0.6}"#;
    let gate: Gate = serde_json::from_str(old).expect("a gate");
    assert_eq!(gate.kind().name(), "threshold");
    let old =
        r#"{"gate": "test/accuracy at least 0.6", "passed": true, "measured": 0.7, "wanted": 0.6}"#;
    let outcome: pomona_domain::model::GateOutcome = serde_json::from_str(old).expect("an outcome");
    assert_eq!((outcome.kind.name(), outcome.compared), ("threshold", None));
}
