//! Names, paths, tokens and orders against those of the published package: `reference/make_names.py`
//! asked it, `reference/names.json` holds the answers.

use pomona_tracking::{Refusal, artifact_path, names, order, token};
use std::collections::BTreeMap;

type Table = BTreeMap<String, BTreeMap<String, Option<String>>>;

fn reference() -> Table {
    serde_json::from_str(include_str!("reference/names.json")).expect("the table is JSON")
}

fn ask(question: &str, text: &str) -> Result<(), Refusal> {
    match question {
        "metric_key" => names::metric_key(text, "name"),
        "param_key" => names::param_key(text, "key"),
        "tag_key" => names::tag_key(text, "key"),
        "experiment_tag" => names::experiment_tag(text, "v"),
        "registry_tag" => names::registry_tag(text, "v"),
        "run_id" => names::run_id(text, "run_id"),
        "experiment_id" => names::experiment_id(text),
        "experiment_name" => names::experiment_name(text),
        "model_name" => names::model_name(text),
        "model_version" => names::model_version(text).map(drop),
        "alias" => names::alias(text),
        "new_alias" => names::new_alias(text),
        "artifact_path" => artifact_path::file(text).map(drop),
        "token" => token::decode(text).map(drop),
        "order runs" => order::runs(&[text]).map(drop),
        "order experiments" => order::experiments(&[text]).map(drop),
        "order registered_models" => order::registered_models(&[text]).map(drop),
        "order model_versions" => order::model_versions(&[text]).map(drop),
        other => panic!("no question {other}"),
    }
}

/// Where this crate differs from MLflow on purpose, and why.
fn on_purpose(question: &str, text: &str) -> Option<&'static str> {
    match (question, text) {
        ("artifact_path", "" | "." | "./a" | "a/" | "a//b") => {
            Some("a path has one spelling, so that one file has one name")
        }
        ("artifact_path", "a\\b" | "%5ca") => Some("a backslash separates on some clients"),
        ("model_name", _) if text.len() > names::MAX_MODEL_NAME => {
            Some("MLflow leaves this one to the database")
        }
        ("model_version", "-1") => Some("no version has a negative number"),
        ("order runs", " metrics.a ") => Some("white space is no matter"),
        ("order runs", "`run name`" | "attributes.`run name`") => {
            Some("what can be searched by can be sorted by")
        }
        ("order runs", "DESC") => {
            Some("no keywords: a word is a key, and there is none of this name")
        }
        ("token", "bm9wZQ==") => Some("a text in place of Python's bytes"),
        _ => None,
    }
}

#[test]
fn mlflow_and_pomona_take_the_same() {
    let mut wrong = Vec::new();
    for (question, answers) in reference() {
        for (text, theirs) in answers {
            let ours = ask(&question, &text);
            if ours.is_ok() != theirs.is_none() && on_purpose(&question, &text).is_none() {
                wrong.push(format!(
                    "{question}: {text:?}\n  theirs {theirs:?}\n  ours   {ours:?}"
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

#[test]
fn refusals_say_what_mlflow_says() {
    let mut wrong = Vec::new();
    // Behind these words Python prints a set, whose order is random.
    let words = |message: &str| message.split(" Valid keys are").next().map(str::to_owned);
    for (question, answers) in reference() {
        for (text, theirs) in answers {
            if let (Err(ours), Some(theirs)) = (ask(&question, &text), theirs)
                && words(&ours.message) != words(&theirs)
                && on_purpose(&question, &text).is_none()
            {
                wrong.push(format!(
                    "{question}: {text:?}\n  theirs {theirs}\n  ours   {}",
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
