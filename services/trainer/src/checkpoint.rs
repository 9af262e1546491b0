//! Checkpoints: what differs from the backbone, and everything a resume needs (T4).
//!
//! One safetensors file: `network.NAME` for live parameters, buffers and the head,
//! `optimizer.MOMENT.NAME` for the optimiser, and one sorted JSON entry for the rest. It must never
//! hold a time, a path or a host, so that equal trials give equal bytes.

pub mod file;

use crate::fault;
use crate::network::{Entry, host_tensor};
use crate::optim::Optimizer;
use file::{Content, Written};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::spec::TrialSpec;
use pomona_domain::{Code, Digest, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Grows when the meaning of the file changes.
pub const FORMAT: u32 = 1;

/// Set by tests alone: a file that is made when a checkpoint is on disk under its temporary name;
/// the trainer then waits to be killed.
pub const PAUSE_ENV: &str = "POMONA_TEST_PAUSE_IN_CHECKPOINT";

/// Everything but tensors. Field order does not matter: it is written with sorted keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// Architecture.
    pub arch: String,
    /// Classes of the head.
    pub classes: u32,
    /// Digest of the backbone's weights.
    pub backbone: Digest,
    /// Digest of the trial's spec as canonical JSON.
    pub spec: Digest,
    /// Digest of the data set's manifest file.
    pub dataset: Digest,
    /// Ranks.
    pub world_size: u32,
    /// Blocks frozen: the freeze plan.
    pub frozen_blocks: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Passes done.
    pub epoch: u32,
    /// Steps done of the pass that is under way.
    pub position: u64,
    /// Weighted loss summed over that pass so far.
    pub loss_sum: f64,
    /// Weights summed over that pass so far.
    pub weight_sum: f64,
    /// Best evaluation so far.
    pub best: Option<Best>,
    /// What a resume must match to continue bit for bit.
    pub environment: BTreeMap<String, String>,
    /// Digest of the features it trains on; none when its frozen blocks run in every epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Digest>,
}

impl State {
    /// A step was made.
    pub fn count_step(&mut self, loss: f64, weight: f64) {
        self.step += 1;
        self.position += 1;
        self.loss_sum += loss;
        self.weight_sum += weight;
    }
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Value of the objective.
    pub value: f64,
    /// Validation loss, which settles ties.
    pub loss: f64,
    /// Optimiser steps done.
    pub step: u64,
    /// Passes done.
    pub epoch: u32,
}

/// The bytes of a checkpoint.
pub fn encode<'a>(
    live: impl Iterator<Item = &'a Entry>,
    optimizer: &Optimizer,
    state: &State,
) -> Result<Vec<u8>, Fault> {
    let mut content = Content::new();
    for entry in live {
        content.insert(
            format!("network.{}", entry.name),
            host_tensor(&entry.tensor),
        );
    }
    for (name, tensor) in optimizer.state() {
        content.insert(name, host_tensor(tensor));
    }
    // A BTreeMap of values sorts the keys at the top; the inner ones are sorted maps or fixed.
    let value = serde_json::to_value(state).map_err(fault::internal)?;
    file::encode(&content, Some(canonical(&value)))
}

/// JSON with sorted keys and no spaces.
pub fn canonical(value: &serde_json::Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    sorted.to_string()
}

/// What a checkpoint remembers of its trial's spec.
pub fn spec_digest(spec: &TrialSpec) -> Result<Digest, Fault> {
    let value = serde_json::to_value(spec).map_err(fault::internal)?;
    Ok(Digest::of(canonical(&value).as_bytes()))
}

/// Reads a checkpoint's tensors and state.
pub fn read(path: &Path) -> Result<(Content, State), Fault> {
    let (content, metadata) = file::read(path)?;
    let bad = |why: &str| {
        Fault::new(
            Code::BadCheckpoint,
            format!("`{}` is no checkpoint: {why}", path.display()),
        )
    };
    let text = metadata.ok_or_else(|| bad("it has no state"))?;
    let state: State = serde_json::from_str(&text).map_err(|error| bad(&error.to_string()))?;
    if state.format != FORMAT {
        return Err(bad(&format!(
            "its format is {}, this trainer reads {FORMAT}",
            state.format
        )));
    }
    Ok((content, state))
}

/// Puts a checkpoint's tensors into what lives under the checkpoint's freeze plan.
pub fn load_live<'a>(
    content: &Content,
    live: impl Iterator<Item = &'a Entry>,
) -> Result<(), Fault> {
    for entry in live {
        load(content, &format!("network.{}", entry.name), &entry.tensor)?;
    }
    Ok(())
}

/// Puts a checkpoint's moments into an optimiser.
pub fn load_optimizer(
    content: &Content,
    state: &State,
    optimizer: &mut Optimizer,
) -> Result<(), Fault> {
    for (name, tensor) in optimizer.state() {
        load(content, &name, tensor)?;
    }
    optimizer.resume(state.step);
    Ok(())
}

fn load(content: &Content, name: &str, to: &tch::Tensor) -> Result<(), Fault> {
    let fits = |why: String| {
        Fault::new(
            Code::BadCheckpoint,
            format!("the checkpoint does not fit: {why}"),
        )
    };
    let tensor = content
        .get(name)
        .ok_or_else(|| fits(format!("`{name}` is missing")))?;
    crate::network::copy_tensor(name, tensor, to).map_err(|fault| fits(fault.message))
}

/// Checkpoints of a trial in its folder: a newer one replaces an older one of its kind, but only
/// once the newer one was announced.
pub struct Keeper {
    folder: PathBuf,
    stale: BTreeMap<CheckpointKind, Vec<PathBuf>>,
}

impl Keeper {
    /// Opens the folder and removes what an earlier process left half-written.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let cannot = |error: &std::io::Error| fault::file("use", folder, error);
        std::fs::create_dir_all(folder).map_err(|error| cannot(&error))?;
        let mut stale: BTreeMap<CheckpointKind, Vec<PathBuf>> = BTreeMap::new();
        for item in std::fs::read_dir(folder).map_err(|error| cannot(&error))? {
            let path = item.map_err(|error| cannot(&error))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with(".safetensors.tmp") {
                std::fs::remove_file(&path).map_err(|error| cannot(&error))?;
            }
            for kind in [CheckpointKind::Last, CheckpointKind::Best] {
                if name.starts_with(prefix(kind)) && name.ends_with(".safetensors") {
                    stale.entry(kind).or_default().push(path.clone());
                }
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            stale,
        })
    }

    /// Writes a checkpoint. Call [`Keeper::announced`] once it was announced.
    pub fn write(&self, kind: CheckpointKind, step: u64, bytes: &[u8]) -> Result<Written, Fault> {
        let path = self
            .folder
            .join(format!("{}{step}.safetensors", prefix(kind)));
        file::write_bytes(&path, bytes, || pause_for_test(step))
    }

    /// The checkpoint was announced: older ones of its kind go.
    pub fn announced(&mut self, kind: CheckpointKind, path: &Path) {
        let older = self
            .stale
            .insert(kind, vec![path.to_owned()])
            .unwrap_or_default();
        for old in older.iter().filter(|old| old.as_path() != path) {
            // A file that cannot be removed costs space only.
            let _ignored = std::fs::remove_file(old);
        }
    }
}

fn prefix(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Last => "last-",
        CheckpointKind::Best => "best-",
    }
}

/// `STEP:FILE` in [`PAUSE_ENV`]: at that step, makes the file and never returns.
fn pause_for_test(step: u64) {
    let Ok(value) = std::env::var(PAUSE_ENV) else {
        return;
    };
    let Some((wanted, path)) = value.split_once(':') else {
        return;
    };
    if wanted.parse() == Ok(step) && std::fs::write(path, b"").is_ok() {
        loop {
            std::thread::park();
        }
    }
}
