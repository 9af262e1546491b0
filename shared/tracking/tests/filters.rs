//! The filters of this crate against those of the published package: `reference/make_filters.py`
//! asked it, `reference/filters.json` holds the answers.

use pomona_tracking::filter::{
    self, Comparison, DatasetField, ExperimentAttribute, ExperimentField, LoggedModelAttribute,
    LoggedModelField, ModelVersionAttribute, ModelVersionField, RegisteredModelField, RunAttribute,
    RunField, Value,
};
use pomona_tracking::{ErrorCode, Refusal};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

type Kind = BTreeMap<String, BTreeMap<String, Json>>;

fn reference() -> BTreeMap<String, Kind> {
    serde_json::from_str(include_str!("reference/filters.json")).expect("the table is JSON")
}

/// What a filter of a kind is read as, in the form of the table.
fn read(kind: &str, text: &str) -> Result<Json, Refusal> {
    match kind {
        "runs" => filter::runs(text).map(|all| shown(&all, run)),
        "experiments" => filter::experiments(text).map(|all| shown(&all, experiment)),
        "registered_models" => filter::registered_models(text).map(|all| shown(&all, model)),
        "model_versions" => filter::model_versions(text).map(|all| shown(&all, version)),
        "logged_models" => filter::logged_models(text).map(|all| shown(&all, logged_model)),
        other => panic!("no kind {other}"),
    }
}

fn shown<F>(all: &[Comparison<F>], field: impl Fn(&F) -> (&'static str, String)) -> Json {
    all.iter()
        .map(|comparison| {
            let (entity, key) = field(&comparison.field);
            let value = match &comparison.value {
                Value::Text(text) => json!(text),
                Value::Integer(number) => json!(number),
                Value::Number(number) => json!(number),
                Value::List(texts) => json!(texts),
                Value::Nothing => Json::Null,
            };
            json!([entity, key, comparison.op.text(), value])
        })
        .collect()
}

fn run(field: &RunField) -> (&'static str, String) {
    match field {
        RunField::Metric(key) => ("metric", key.clone()),
        RunField::Param(key) => ("parameter", key.clone()),
        RunField::Tag(key) => ("tag", key.clone()),
        RunField::Dataset(field) => {
            let name = match field {
                DatasetField::Name => "name",
                DatasetField::Digest => "digest",
                DatasetField::Context => "context",
            };
            ("dataset", name.to_owned())
        }
        RunField::Attribute(attribute) => {
            let name = match attribute {
                RunAttribute::RunId => "run_id",
                RunAttribute::RunName => "run_name",
                RunAttribute::UserId => "user_id",
                RunAttribute::Status => "status",
                RunAttribute::ArtifactUri => "artifact_uri",
                RunAttribute::StartTime => "start_time",
                RunAttribute::EndTime => "end_time",
            };
            ("attribute", name.to_owned())
        }
    }
}

fn experiment(field: &ExperimentField) -> (&'static str, String) {
    match field {
        ExperimentField::Tag(key) => ("tag", key.clone()),
        ExperimentField::Attribute(attribute) => {
            let name = match attribute {
                ExperimentAttribute::Name => "name",
                ExperimentAttribute::ExperimentId => "experiment_id",
                ExperimentAttribute::CreationTime => "creation_time",
                ExperimentAttribute::LastUpdateTime => "last_update_time",
            };
            ("attribute", name.to_owned())
        }
    }
}

fn model(field: &RegisteredModelField) -> (&'static str, String) {
    match field {
        RegisteredModelField::Tag(key) => ("tag", key.clone()),
        RegisteredModelField::Name => ("attribute", "name".to_owned()),
    }
}

fn version(field: &ModelVersionField) -> (&'static str, String) {
    match field {
        ModelVersionField::Tag(key) => ("tag", key.clone()),
        ModelVersionField::Attribute(attribute) => {
            let name = match attribute {
                ModelVersionAttribute::Name => "name",
                ModelVersionAttribute::VersionNumber => "version_number",
                ModelVersionAttribute::RunId => "run_id",
                ModelVersionAttribute::SourcePath => "source_path",
            };
            ("attribute", name.to_owned())
        }
    }
}

fn logged_model(field: &LoggedModelField) -> (&'static str, String) {
    match field {
        LoggedModelField::Metric(key) => ("metric", key.clone()),
        LoggedModelField::Param(key) => ("parameter", key.clone()),
        LoggedModelField::Tag(key) => ("tag", key.clone()),
        LoggedModelField::Attribute(attribute) => {
            let name = match attribute {
                LoggedModelAttribute::ModelId => "model_id",
                LoggedModelAttribute::ExperimentId => "experiment_id",
                LoggedModelAttribute::Name => "name",
                LoggedModelAttribute::ArtifactLocation => "artifact_location",
                LoggedModelAttribute::CreationTimestamp => "creation_timestamp_ms",
                LoggedModelAttribute::LastUpdatedTimestamp => "last_updated_timestamp_ms",
                LoggedModelAttribute::Status => "status",
                LoggedModelAttribute::LifecycleStage => "lifecycle_stage",
                LoggedModelAttribute::ModelType => "model_type",
                LoggedModelAttribute::SourceRunId => "source_run_id",
                LoggedModelAttribute::StatusMessage => "status_message",
            };
            ("attribute", name.to_owned())
        }
    }
}

/// Where this crate differs from MLflow on purpose, and why.
fn on_purpose(kind: &str, text: &str) -> Option<&'static str> {
    let logged = kind == "logged_models";
    let is = |part: &str| text.contains(part);
    if logged && is("= nan") {
        return Some("nothing compares with NaN");
    }
    if logged && is("= \"x\"") {
        return Some("double quotes are quotes for every kind of entity");
    }
    if logged && (is("IN ()") || is("IN ('a', 1)") || is("IN (1, 2)")) {
        return Some("a list holds texts, at least one, for every kind of entity");
    }
    if logged && is("= 0x10") {
        return Some("a bare word is a text where MLflow takes one");
    }
    if kind == "experiments" && text.starts_with("experiment_id") {
        return Some("whether an experiment's id is a number is the store's to say");
    }
    if text.starts_with("metrics. ") {
        return Some("a metric has a name");
    }
    match text {
        "metrics.a > 1 metrics.b > 1" => Some("comparisons are joined by AND"),
        "   " => Some("white space is no filter: everything is found"),
        "version_number = '1'" => Some("read as a number here, not by the store"),
        _ => None,
    }
}

/// Equal, and 1 is 1.0.
fn same(ours: &Json, theirs: &Json) -> bool {
    match (ours, theirs) {
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

#[test]
fn what_mlflow_accepts_is_read_as_mlflow_reads_it() {
    let mut wrong = Vec::new();
    for (kind, outcomes) in reference() {
        for (text, theirs) in &outcomes["accepted"] {
            match read(&kind, text) {
                Ok(ours) if same(&ours, theirs) => {}
                _ if on_purpose(&kind, text).is_some() => {}
                other => wrong.push(format!(
                    "{kind}: {text}\n  theirs {theirs}\n  ours   {other:?}"
                )),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_mlflow_refuses_is_refused() {
    let mut wrong = Vec::new();
    for (kind, outcomes) in reference() {
        for text in outcomes["refused"].keys().chain(outcomes["broken"].keys()) {
            match read(&kind, text) {
                Err(refusal) if refusal.code == ErrorCode::InvalidParameterValue => {}
                Ok(_) if on_purpose(&kind, text).is_some() => {}
                other => wrong.push(format!("{kind}: {text}\n  ours   {other:?}")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// MLflow's sentences hold the printed form of Python's sets and tokens; up to the first thing that
/// they quote, ours are the same.
#[test]
fn refusals_begin_with_mlflows_words() {
    let start = |message: &str| message.split('\'').next().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    // The other kinds have their own form of each sentence.
    for (kind, outcomes) in reference().into_iter().filter(|(kind, _)| kind == "runs") {
        for (text, message) in &outcomes["refused"] {
            let Some(theirs) = message.as_str().filter(|message| !message.is_empty()) else {
                continue;
            };
            if let Err(ours) = read(&kind, text)
                && !text.contains(';')
                && start(&ours.message) != start(theirs)
            {
                wrong.push(format!(
                    "{kind}: {text}\n  theirs {theirs}\n  ours   {}",
                    ours.message
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_filter_panic(text in "\\PC{0,40}") {
        for kind in ["runs", "experiments", "registered_models", "model_versions", "logged_models"] {
            let _ = read(kind, &text);
        }
    }

    #[test]
    fn no_soup_of_words_makes_a_filter_panic(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "metrics.a", "params.`b c`", "tags.\"d\"", "run_id", "name", "status", "AND", "OR", "=",
                ">=", "LIKE", "IN", "NOT", "IS", "NULL", "(", ")", ",", "'x'", "'", "\"", "`", "1", "-1.5e3",
                "\\'", "''", ".", ";", "ü", "𝄞", "\u{0}", "9999999999999999999",
            ]),
            0..12,
        ),
        glue in proptest::sample::select(vec!["", " ", "\n"]),
    ) {
        let text = words.join(glue);
        for kind in ["runs", "experiments", "registered_models", "model_versions", "logged_models"] {
            let _ = read(kind, &text);
        }
    }

    #[test]
    fn a_quoted_value_comes_back(key in "[a-z][a-z0-9_.]{0,8}[a-z]", value in "[^'\\\\]{0,20}") {
        let read = filter::runs(&format!("tags.`{key}` = '{value}'")).unwrap();
        proptest::prop_assert_eq!(&read[0].field, &RunField::Tag(key));
        proptest::prop_assert_eq!(&read[0].value, &Value::Text(value));
    }
}
