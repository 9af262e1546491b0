//! Points into the file: the [`TrialSpec`] that a point makes, and the complete file of a spec. A
//! point goes through the same strict walk as the file itself.

use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::reach::path_fault;
use super::runner::{self, PARAMS};
use super::section::{Faults, Section};
use super::{
    ExperimentSpec, ProgramSpec, Retention, Runner, Search, Train, Transfer, TrialSpec, kinds,
    parse, paths, training, when, yaml,
};
use crate::space::Domain;
use crate::{Code, Fault, Hparams};

/// What differs between the trials of an experiment.
pub(super) struct Trained {
    transfer: Transfer,
    train: Train,
    params: Map<String, Value>,
    seed: u64,
}

impl Trained {
    /// The part of the file that it stands for, every default written out.
    pub(super) fn tree(&self) -> Option<Value> {
        Some(json!({
            "transfer": value_of(&self.transfer).ok()?,
            "train": value_of(&self.train).ok()?,
            "seed": self.seed,
        }))
    }
}

/// A file into which points are put, one after the other.
#[derive(Debug)]
pub struct Template<'a> {
    spec: &'a ExperimentSpec,
    /// The part that a point may change.
    base: Value,
}

impl Template<'_> {
    /// The trial that a point makes. Faults: a path that does not exist or cannot be searched, and
    /// every fault that the value would have in the file.
    pub fn trial_spec(&self, hparams: &Hparams, replicate: u32) -> Result<TrialSpec, Fault> {
        let trained = self.put(hparams)?;
        let spec = self.spec;
        Ok(TrialSpec {
            transfer: trained.transfer,
            train: trained.train,
            metric: spec.search.objective(),
            direction: spec.search.direction,
            validation: spec.search.folds(),
            seed: trained.seed,
            replicate,
            share: spec.share,
        })
    }

    /// The program that a point makes of the file's: its words and variables filled in. Faults: as
    /// for [`Template::trial_spec`], and a value of another type than the file's.
    pub fn program_spec(&self, hparams: &Hparams, replicate: u32) -> Result<ProgramSpec, Fault> {
        let Runner::Command(program) = &self.spec.runner else {
            let message = "the experiment runs our trainer and no program of one's own";
            return Err(Fault::new(Code::NotForRunner, message));
        };
        let trained = self.put(hparams)?;
        let point = runner::Point {
            params: &trained.params,
            seed: trained.seed,
            replicate,
        };
        Ok(ProgramSpec {
            program: program.filled(&point)?,
            params: trained.params,
            seed: trained.seed,
            replicate,
        })
    }

    /// Why a point cannot be tried, if so.
    pub fn point_fault(&self, hparams: &Hparams, replicate: u32) -> Option<Fault> {
        match &self.spec.runner {
            Runner::Trainer => self.trial_spec(hparams, replicate).err(),
            Runner::Command(_) => self.program_spec(hparams, replicate).err(),
        }
    }

    fn put(&self, hparams: &Hparams) -> Result<Trained, Fault> {
        put_point(&self.base, self.spec.resources.slots_per_trial, &hparams.0)
            .map_err(|faults| first(faults, hparams))
    }
}

impl ExperimentSpec {
    /// The file for points: what many of them have in common is worked out once.
    pub fn template(&self) -> Template<'_> {
        Template {
            spec: self,
            base: self.trained_tree(),
        }
    }

    /// [`Template::trial_spec`] of one point.
    pub fn trial_spec(&self, hparams: &Hparams, replicate: u32) -> Result<TrialSpec, Fault> {
        self.template().trial_spec(hparams, replicate)
    }

    /// [`Template::program_spec`] of one point.
    pub fn program_spec(&self, hparams: &Hparams, replicate: u32) -> Result<ProgramSpec, Fault> {
        self.template().program_spec(hparams, replicate)
    }

    /// [`Template::point_fault`] of one point.
    pub fn point_fault(&self, hparams: &Hparams, replicate: u32) -> Option<Fault> {
        self.template().point_fault(hparams, replicate)
    }

    /// The complete file as a tree: every default written out. Parsing it gives this spec again.
    pub fn to_file(&self) -> Result<Value, Fault> {
        let mut tree = Map::new();
        let mut put = |key: &str, value: Value| tree.insert(key.to_owned(), value);
        put("name", json!(self.name));
        match &self.runner {
            Runner::Trainer => {
                put("backbone", json!(self.backbone));
                put("dataset", json!(self.dataset));
                put("transfer", value_of(&self.transfer)?);
                put("train", value_of(&self.train)?);
            }
            Runner::Command(_) => {
                put("runner", value_of(&self.runner)?);
                put(PARAMS, json!(self.params));
            }
        }
        put("search", search_to_file(&self.search)?);
        put("resources", value_of(&self.resources)?);
        put("project", json!(self.project));
        put("priority", json!(self.priority));
        if self.runner.is_trainer() {
            put("share", value_of(&self.share)?);
        }
        if let Some(ms) = self.time_limit_ms {
            put("time_limit", json!(duration_to_file(ms)));
        }
        put("max_restarts", json!(self.max_restarts));
        put("seed", json!(self.seed));
        if let Some(promote) = &self.promote {
            put("promote", value_of(promote)?);
        }
        let Retention { best, last } = self.retention;
        let best = best.map_or_else(|| json!("all"), |best| json!(best));
        put("retention", json!({ "best": best, "last": last }));
        Ok(Value::Object(tree))
    }

    /// The complete file as YAML.
    pub fn to_yaml(&self) -> Result<String, Fault> {
        yaml::write(&self.to_file()?)
    }

    /// The part of the file that a point may change.
    pub(super) fn trained_tree(&self) -> Value {
        match &self.runner {
            Runner::Trainer => json!({
                "transfer": value_of(&self.transfer).unwrap_or_default(),
                "train": value_of(&self.train).unwrap_or_default(),
                "seed": self.seed,
            }),
            Runner::Command(_) => json!({ PARAMS: self.params, "seed": self.seed }),
        }
    }
}

fn value_of(part: &impl serde::Serialize) -> Result<Value, Fault> {
    serde_json::to_value(part).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("a spec does not serialise: {error}"),
        )
    })
}

fn first(faults: Vec<Fault>, hparams: &Hparams) -> Fault {
    let mut all = faults.into_iter();
    match all.next() {
        Some(fault) => Fault {
            message: format!(
                "the point {} does not fit: {}",
                hparams.canonical(),
                fault.message
            ),
            ..fault
        },
        None => Fault::new(Code::Internal, "a point was refused without a reason"),
    }
}

/// The section `search` as it stands in a file.
fn search_to_file(search: &Search) -> Result<Value, Fault> {
    let space: Map<String, Value> = search
        .space
        .iter()
        .map(|(path, domain)| {
            let set = domain_to_file(domain);
            (path.clone(), when::to_file(set, search.when.get(path)))
        })
        .collect();
    let mut section = json!({
        "strategy": value_of(&search.strategy)?,
        "metric": search.metric,
        "direction": value_of(&search.direction)?,
        "max_trials": search.max_trials,
        "max_concurrent": search.max_concurrent,
        "replicates": search.replicates,
        "space": space,
    });
    if let Some(validation) = &search.validation {
        section["validation"] = value_of(validation)?;
    }
    if let Some(asha) = &search.asha {
        section["asha"] = value_of(asha)?;
    }
    if let Some(hyperband) = &search.hyperband {
        section["hyperband"] = json!({
            "eta": hyperband.eta,
            "min_epochs": hyperband.min_epochs,
        });
    }
    if let Some(tpe) = &search.tpe {
        section["tpe"] = value_of(tpe)?;
    }
    if let Some(warm) = &search.warm_start {
        section["warm_start"] = json!({
            "experiments": warm.experiments,
            "points": warm.points,
        });
    }
    Ok(section)
}

fn domain_to_file(domain: &Domain) -> Value {
    let counted = |kind: &str, low: f64, high: f64, count: Option<u32>| match count {
        Some(count) => json!({ kind: [low, high], "count": count }),
        None => json!({ kind: [low, high] }),
    };
    match domain {
        Domain::Values(values) => json!({ "values": values }),
        Domain::Range { low, high, count } => counted("range", *low, *high, Some(*count)),
        Domain::Uniform { low, high, count } => counted("uniform", *low, *high, *count),
        Domain::LogUniform { low, high, count } => counted("log_uniform", *low, *high, *count),
        Domain::Int { low, high, step } => json!({ "int": [low, high], "step": step }),
    }
}

fn duration_to_file(ms: u64) -> String {
    let whole = i64::try_from(ms).unwrap_or(i64::MAX);
    format!("{:#}", jiff::SignedDuration::from_millis(whole))
}

/// The contradiction of a batch that has fewer images than there are ranks.
pub(super) fn batch_fault(batch_size: u32, slots: u32) -> Option<Fault> {
    (batch_size < slots).then(|| {
        Fault::new(
            Code::Contradiction,
            format!("train.batch_size: a batch of {batch_size} cannot be shared by {slots} ranks"),
        )
        .hint("raise `train.batch_size`, or lower `resources.slots_per_trial`")
    })
}

/// Puts values into the tree, kinds first, and reads it again.
pub(super) fn put_point(
    base: &Value,
    slots: u32,
    point: &BTreeMap<String, Value>,
) -> Result<Trained, Vec<Fault>> {
    let in_params = |path: &&String| path.split('.').next() == Some(PARAMS);
    let misfits = point.iter().filter(|(path, _)| in_params(path));
    let misfits: Vec<Fault> = misfits
        .filter_map(|(path, value)| runner::type_fault(path, paths::get(base, path)?, value))
        .collect();
    if !misfits.is_empty() {
        return Err(misfits);
    }
    let mut tree = base.clone();
    let (kinds, others): (Vec<_>, Vec<_>) = point
        .iter()
        .partition(|(path, _)| kinds::owner(path).is_some());
    let mut unknown: Vec<Fault> = (kinds.iter())
        .filter_map(|(path, _)| path_fault(base, path))
        .collect();
    for (path, value) in kinds {
        paths::set(&mut tree, path, value.clone()).map_err(|fault| vec![fault])?;
        drop_foreign_keys(&mut tree, path, value);
    }
    unknown.extend(unknown_paths(
        base,
        &tree,
        others.iter().map(|(path, _)| path.as_str()),
    ));
    if !unknown.is_empty() {
        return Err(unknown);
    }
    for (path, value) in others {
        paths::set(&mut tree, path, value.clone()).map_err(|fault| vec![fault])?;
    }
    let faults = RefCell::new(Vec::new());
    let trained = read(&tree, &faults);
    if faults.borrow().is_empty()
        && base.get(PARAMS).is_none()
        && let Some(fault) = batch_fault(trained.train.batch_size, slots)
    {
        return Err(vec![fault]);
    }
    let faults = faults.into_inner();
    if faults.is_empty() {
        Ok(trained)
    } else {
        Err(faults)
    }
}

/// Paths that are neither in the file nor in what the kinds of a point make of it.
fn unknown_paths<'a>(
    base: &Value,
    tree: &Value,
    paths: impl Iterator<Item = &'a str>,
) -> Vec<Fault> {
    let missing = |path| path_fault(base, path).map(|fault| (path, fault));
    let missing: Vec<(&str, Fault)> = paths.filter_map(missing).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    // The keys that another kind brings stand in the complete file only.
    let complete = read(tree, &RefCell::new(Vec::new())).tree();
    let is_there =
        |path: &str| (complete.as_ref()).is_some_and(|tree| path_fault(tree, path).is_none());
    let unknown = missing.into_iter().filter(|(path, _)| !is_there(path));
    unknown.map(|(_, fault)| fault).collect()
}

/// A searched kind keeps only its own keys: those of the file's kind do not apply to it.
fn drop_foreign_keys(tree: &mut Value, path: &str, kind: &Value) {
    let Some(kinds) = kinds::owner(path) else {
        return;
    };
    let keys = kinds.keys(kind.as_str().unwrap_or_default());
    let pointer = format!("/{}", kinds.path.replace('.', "/"));
    if let Some(map) = tree.pointer_mut(&pointer).and_then(Value::as_object_mut) {
        map.retain(|key, _| key == "kind" || keys.contains(&key.as_str()));
    }
}

fn read(tree: &Value, faults: &Faults) -> Trained {
    let empty = Map::new();
    let mut top = Section::top(tree.as_object().unwrap_or(&empty), faults);
    let transfer = training::transfer(top.section("transfer"));
    let train = training::train(top.section("train"), faults);
    let params = runner::params(&top.section(PARAMS), faults);
    let seed = parse::seed(&mut top);
    top.finish(|_| None);
    Trained {
        transfer,
        train,
        params,
        seed,
    }
}
