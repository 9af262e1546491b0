//! Text to [`ExperimentSpec`]: YAML, then `--set` edits, then a strict walk that finds every fault.

use serde_json::{Map, Value};
use std::cell::RefCell;

use super::section::{Faults, Section, describe};
use super::{
    ExperimentSpec, Runner, Share, apply, check, paths, promote, resources, retention, runner,
    search, training, yaml,
};
use crate::{Code, Fault, Hparams, name};

/// The most `--set` edits of one file.
pub const MAX_EDITS: usize = 256;

/// Where keys live that are often written one level off.
const HOMES: &[&str] = &[
    "transfer.frozen_depth",
    "transfer.head",
    "train.epochs",
    "train.batch_size",
    "train.optimizer",
    "train.optimizer.weight_decay",
    "train.optimizer.momentum",
    "train.learning_rate",
    "train.lr_schedule",
    "train.lr_schedule.warmup_epochs",
    "train.augment",
    "train.precision",
    "train.class_weights",
    "train.label_smoothing",
    "search.strategy",
    "search.metric",
    "search.direction",
    "search.max_trials",
    "search.max_concurrent",
    "search.replicates",
    "search.validation",
    "search.space",
    "resources.slots_per_trial",
    "resources.selector",
    "promote.model",
    "promote.alias",
    "promote.gates",
    "retention.best",
    "retention.last",
    "runner.argv",
    "runner.env",
    "runner.cwd",
    "runner.processes",
    "params",
    "seed",
    "priority",
    "project",
    "share",
    "time_limit",
    "max_restarts",
    "backbone",
    "dataset",
    "name",
];

/// Reads an experiment file and puts the edits (`path=value`, the value in YAML) into it. Every
/// fault is returned, in the file's order of sections, each naming its path.
pub fn parse(text: &str, edits: &[String]) -> Result<ExperimentSpec, Vec<Fault>> {
    let tree = tree(text, edits)?;
    let Value::Object(map) = &tree else {
        return Err(vec![
            Fault::new(
                Code::WrongType,
                format!(
                    "the file: expected a mapping of keys, found {}",
                    describe(&tree)
                ),
            )
            .hint("begin with `name: my-experiment`"),
        ]);
    };
    let faults = RefCell::new(Vec::new());
    let mut spec = walk(map, &faults);
    check::check_space(&mut spec.spec, spec.max_trials, &faults);
    let faults = faults.into_inner();
    if faults.is_empty() {
        Ok(spec.spec)
    } else {
        Err(faults)
    }
}

/// The file as it is submitted: the text itself, or, where there are edits, the edited tree as YAML.
pub fn source(text: &str, edits: &[String]) -> Result<String, Vec<Fault>> {
    if edits.is_empty() {
        return Ok(text.to_owned());
    }
    yaml::write(&tree(text, edits)?).map_err(|fault| vec![fault])
}

/// The YAML with the edits in it.
fn tree(text: &str, edits: &[String]) -> Result<Value, Vec<Fault>> {
    let mut tree = yaml::read("the file", text).map_err(|fault| vec![fault])?;
    if tree.is_null() {
        tree = Value::Object(Map::new());
    }
    if edits.len() > MAX_EDITS {
        return Err(vec![Fault::new(
            Code::TooLarge,
            format!("{} edits are more than {MAX_EDITS}", edits.len()),
        )]);
    }
    let faults: Vec<Fault> = edits
        .iter()
        .filter_map(|edit| put(&mut tree, edit).err())
        .collect();
    if faults.is_empty() {
        Ok(tree)
    } else {
        Err(faults)
    }
}

/// One `path=value`.
fn put(tree: &mut Value, edit: &str) -> Result<(), Fault> {
    let Some((path, text)) = edit.split_once('=') else {
        return Err(
            Fault::new(Code::BadRequest, format!("`--set {edit}` has no `=`"))
                .hint("write `--set train.epochs=5`"),
        );
    };
    let path = path.trim();
    if path.is_empty() {
        return Err(
            Fault::new(Code::BadRequest, format!("`--set {edit}` names no path"))
                .hint("write `--set train.epochs=5`"),
        );
    }
    let value = yaml::read(&format!("the value of `--set {path}`"), text)?;
    paths::set(tree, path, value)
}

/// What the walk found; `max_trials` as written.
struct Walked {
    spec: ExperimentSpec,
    max_trials: Option<u32>,
}

fn walk(map: &Map<String, Value>, faults: &Faults) -> Walked {
    let mut top = Section::top(map, faults);
    let name = named(&mut top, "name", "name: my-experiment");
    let subject = subject(&mut top, map, faults);
    let transfer = training::transfer(top.section("transfer"));
    let train = training::train(top.section("train"), faults);
    let written = search::search(top.section("search"), subject.is_command(), faults);
    let resources = resources::resources(top.section("resources"), faults);
    let project = if map.contains_key("project") {
        named(&mut top, "project", "project: default")
    } else {
        top.raw("project");
        "default".to_owned()
    };
    let priority = top.count("priority", 50, 0..=100);
    let share = match top.word("share", &["auto", "off"], &[]) {
        Some("off") => Share::Off,
        Some(_) | None => Share::Auto,
    };
    let time_limit_ms = time_limit(&mut top);
    let max_restarts = top.count("max_restarts", 3, 0..=100);
    let seed = seed(&mut top);
    let retention = retention::retention(top.section("retention"));
    let promote = top
        .raw("promote")
        .filter(|value| !value.is_null())
        .map(|value| Section::at("promote".to_owned(), Some(value), faults))
        .filter(Section::is_written)
        .map(|section| promote::promote(section, faults));
    top.finish(home);
    let spec = ExperimentSpec {
        name,
        runner: subject.runner,
        params: subject.params,
        backbone: subject.backbone,
        dataset: subject.dataset,
        transfer,
        train,
        search: written.search,
        resources,
        project,
        priority: i32::try_from(priority).unwrap_or(50),
        share,
        time_limit_ms,
        max_restarts,
        seed,
        promote,
        retention,
    };
    match &spec.runner {
        Runner::Trainer => {
            check_batch(&spec, faults);
            check_validation(&spec, faults);
        }
        Runner::Command(_) => check_places(&spec, faults),
    }
    Walked {
        spec,
        max_trials: written.max_trials,
    }
}

/// Whether a key may stand at the top of the file.
pub(super) fn is_top_key(key: &str) -> bool {
    HOMES
        .iter()
        .any(|home| home.split('.').next().is_some_and(|first| first == key))
}

/// Reads `seed`: whole numbers that every JSON reader keeps exactly.
pub(super) fn seed(top: &mut Section<'_>) -> u64 {
    top.whole("seed", 0, 0..=(1 << 53) - 1)
}

/// What a trial runs, and on what.
struct Subject {
    runner: Runner,
    params: Map<String, Value>,
    backbone: String,
    dataset: String,
}

impl Subject {
    fn is_command(&self) -> bool {
        !self.runner.is_trainer()
    }
}

fn subject(top: &mut Section<'_>, map: &Map<String, Value>, faults: &Faults) -> Subject {
    let runner = runner::runner(top.section("runner"), faults);
    let is_command = !runner.is_trainer();
    runner::check_keys(map, is_command, faults);
    let params = runner::params(&top.section(runner::PARAMS), faults);
    let (backbone, dataset) = if is_command {
        (unwanted(top, "backbone"), unwanted(top, "dataset"))
    } else {
        (named(top, "backbone", "backbone: NAME"), dataset(top))
    };
    Subject {
        runner,
        params,
        backbone,
        dataset,
    }
}

/// A key that `runner::check_keys` has told about already.
fn unwanted(top: &mut Section<'_>, key: &'static str) -> String {
    top.raw(key);
    String::new()
}

/// Every place of the program's words that is to be filled in must be there.
fn check_places(spec: &ExperimentSpec, faults: &Faults) {
    if faults.borrow().is_empty()
        && let Err(fault) = spec.program_spec(&Hparams::default(), 0)
    {
        faults.borrow_mut().push(fault);
    }
}

/// A batch must give every rank an image.
fn check_batch(spec: &ExperimentSpec, faults: &Faults) {
    let slots = spec.resources.slots_per_trial;
    if let Some(fault) = apply::batch_fault(spec.train.batch_size, slots) {
        faults.borrow_mut().push(fault);
    }
}

/// Cross-validation trains heads side by side over features: who shares nothing has none.
fn check_validation(spec: &ExperimentSpec, faults: &Faults) {
    let hint = match (spec.share, spec.resources.slots_per_trial) {
        _ if spec.search.folds().is_none() => return,
        (Share::Off, _) => "leave `share: off` out",
        (Share::Auto, 2..) => "write `slots_per_trial: 1`",
        (Share::Auto, _) => return,
    };
    faults.borrow_mut().push(
        Fault::new(
            Code::Contradiction,
            "search.validation: cross-validation trains heads over features that are computed once, \
             in one process"
                .to_owned(),
        )
        .hint(format!("{hint}, or write `validation: holdout`")),
    );
}

fn named(top: &mut Section<'_>, key: &'static str, example: &str) -> String {
    let text = match top.required(key, example) {
        None => return String::new(),
        Some(value) => match top.as_text(key, value) {
            None => return String::new(),
            Some(text) => text,
        },
    };
    if let Err(fault) = name::check(key, text) {
        top.fault(fault);
    }
    text.to_owned()
}

fn dataset(top: &mut Section<'_>) -> String {
    let Some(text) = top
        .required("dataset", "dataset: NAME")
        .and_then(|value| top.as_text("dataset", value))
    else {
        return String::new();
    };
    if let Err(fault) = name::dataset_reference("dataset", text) {
        top.fault(fault);
    }
    text.to_owned()
}

fn time_limit(top: &mut Section<'_>) -> Option<u64> {
    const KEY: &str = "time_limit";
    const LONGEST_S: i64 = 30 * 24 * 3600;
    let value = top.raw(KEY).filter(|value| !value.is_null())?;
    let duration = match value {
        Value::String(text) => text.parse::<jiff::SignedDuration>().ok(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    };
    let Some(duration) = duration else {
        let hint = if value.is_number() {
            format!("say the unit: `{value}s`, `{value}m` or `{value}h`")
        } else {
            "write it as `2h`, `90s` or `1h30m`".to_owned()
        };
        let message = format!("expected a duration, found {}", describe(value));
        top.advise(Code::WrongType, KEY, message, hint);
        return None;
    };
    if !(1..=LONGEST_S).contains(&duration.as_secs()) {
        top.complain(
            Code::OutOfRange,
            KEY,
            format_args!(
                "`{}` is out of range, it must be from 1 second to 30 days",
                value.as_str().unwrap_or_default()
            ),
        );
        return None;
    }
    u64::try_from(duration.as_millis()).ok()
}

/// A key at the top that belongs further down.
fn home(key: &str) -> Option<Fault> {
    let home = HOMES
        .iter()
        .find(|home| home.rsplit_once('.').is_some_and(|(_, last)| last == key))?;
    let (section, _) = home.rsplit_once('.')?;
    Some(
        Fault::new(
            Code::UnknownKey,
            format!("{key}: unknown key at the top of the file"),
        )
        .hint(format!("`{key}` belongs under `{section}:`")),
    )
}
