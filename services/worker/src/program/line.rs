//! Lines by which a program tells what it did. Everything else that it prints is its log.
//!
//! ```text
//! {"pomona": {"step": 100, "epoch": 1, "metrics": {"val/accuracy": 0.9}}}
//! {"pomona": {"checkpoint": {"step": 100}}}
//! {"pomona": {"step": 120}}
//! ```

use pomona_api::v1::experiments::AddObservation;
use pomona_domain::Generation;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How every such line begins, whatever blanks there are.
const BEGINS: &str = "{\"pomona\":";

/// What a program says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Steps done.
    #[serde(default)]
    pub step: Option<u64>,
    /// Passes over the data done.
    #[serde(default)]
    pub epoch: Option<u32>,
    /// What it measured at that step.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Its checkpoint folder is complete.
    #[serde(default)]
    pub checkpoint: Option<Saved>,
}

/// A folder that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Steps done.
    pub step: u64,
    /// Passes over the data done.
    #[serde(default)]
    pub epoch: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    pomona: Told,
}

/// Reads a line: `None` when it is one of the log, an error in words when it was meant for us and
/// cannot be read.
pub fn read(line: &[u8]) -> Option<Result<Told, String>> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let head: String = text
        .chars()
        .take(BEGINS.len() + 8)
        .filter(|c| !c.is_whitespace())
        .collect();
    if !head.starts_with(BEGINS) {
        return None;
    }
    let told = serde_json::from_str::<Line>(text).map_err(|error| error.to_string());
    Some(told.and_then(|line| check(line.pomona)))
}

fn check(told: Told) -> Result<Told, String> {
    if told.metrics.is_empty() {
        return Ok(told);
    }
    let Some(step) = told.step else {
        return Err("metrics need a `step`".to_owned());
    };
    // The same rules as over the API.
    let body = AddObservation {
        generation: Generation(0),
        step,
        epoch: told.epoch.unwrap_or(0),
        metrics: told.metrics.clone(),
    };
    body.check().map_err(|fault| fault.message)?;
    Ok(told)
}
