//! Reading `runner` and `params`, and refusing what does not go with them.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::{PARAM_PREFIX, PARAMS, Processes, Program, Runner, each, variables};
use crate::spec::paths::join;
use crate::spec::section::{Faults, Section, describe, shorten};
use crate::{Code, Fault};

/// The most of them.
const MAX_PARAMS: usize = 256;
/// How deep they nest.
const MAX_DEPTH: usize = 4;
/// The longest text that a program is handed, in bytes.
const MAX_TEXT: usize = 32 * 1024;
/// The most words of a command.
const MAX_ARGV: usize = 256;
/// The most variables of one's own.
const MAX_ENV: usize = 256;
/// Keys that say how our trainer trains.
const TRAINER_KEYS: [&str; 5] = ["backbone", "dataset", "transfer", "train", "share"];
/// Variables that Pomona sets itself, beside all that begin with [`PREFIX`].
const RESERVED: [&str; 15] = [
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
    "WORLD_SIZE",
];
/// What our own variables begin with.
const PREFIX: &str = "POMONA_";

/// Reads `runner`.
pub(in crate::spec) fn runner(mut section: Section<'_>, faults: &Faults) -> Runner {
    if !section.is_written() {
        return Runner::Trainer;
    }
    match section.word("kind", &["trainer", "command"], &[]) {
        Some("command") => Runner::Command(program(section, faults)),
        Some(_) => {
            section.finish(|_| None);
            Runner::Trainer
        }
        None => {
            if section.child("kind").is_none() {
                let hint = "write `runner: {kind: command, argv: [python3, train.py]}`";
                section.advise(Code::MissingKey, "kind", "missing key", hint);
            }
            Runner::Trainer
        }
    }
}

fn program(mut section: Section<'_>, faults: &Faults) -> Program {
    let argv = argv(&mut section);
    let env = env(&section.section("env"));
    let cwd = section
        .optional("cwd")
        .and_then(|value| section.as_text("cwd", value))
        .map(str::to_owned);
    if let Some(cwd) = cwd.as_deref().filter(|cwd| !cwd.starts_with('/')) {
        section.advise(
            Code::OutOfRange,
            "cwd",
            format_args!("`{}` is not a whole path", shorten(cwd)),
            "write it from `/`: the folder must be there on every worker",
        );
    }
    let processes = match section.word("processes", &["per_slot", "one"], &[]) {
        Some("one") => Processes::One,
        Some(_) | None => Processes::PerSlot,
    };
    section.finish(|_| None);
    let program = Program {
        argv,
        env,
        cwd,
        processes,
    };
    let texts = program.argv.iter().chain(program.env.values());
    if texts.into_iter().any(|text| text.contains('\0')) {
        let message = "runner: a program cannot be handed a text with a zero byte";
        faults
            .borrow_mut()
            .push(Fault::new(Code::OutOfRange, message));
    }
    program
}

fn argv(section: &mut Section<'_>) -> Vec<String> {
    const KEY: &str = "argv";
    let Some(value) = section.required(KEY, "argv: [python3, train.py]") else {
        return Vec::new();
    };
    let Value::Array(items) = value else {
        section.advise(
            Code::WrongType,
            KEY,
            format_args!("expected a list of words, found {}", describe(value)),
            "write each word by itself: `argv: [python3, train.py]`; no shell reads them",
        );
        return Vec::new();
    };
    if items.is_empty() || items.len() > MAX_ARGV {
        let count = items.len();
        section.complain(
            Code::OutOfRange,
            KEY,
            format_args!("has {count} words, it must have from 1 to {MAX_ARGV}"),
        );
        return Vec::new();
    }
    let mut words = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let key = format!("{KEY}.{index}");
        let Some(text) = section.as_text(&key, item) else {
            continue;
        };
        if text.len() > MAX_TEXT || (index == 0 && text.is_empty()) {
            let length = text.len();
            section.complain(
                Code::OutOfRange,
                &key,
                format_args!("has {length} bytes, it must have from 1 to {MAX_TEXT}"),
            );
        }
        words.push(text.to_owned());
    }
    words
}

fn env(section: &Section<'_>) -> BTreeMap<String, String> {
    let names: Vec<String> = section.keys().cloned().collect();
    if names.len() > MAX_ENV {
        let message = format!(
            "runner.env: {} variables are more than {MAX_ENV}",
            names.len()
        );
        section.fault(Fault::new(Code::OutOfRange, message));
        return BTreeMap::new();
    }
    let mut all = BTreeMap::new();
    for name in names {
        let shown = shorten(&name);
        if !is_variable(&name) {
            let message = format!("runner.env.{shown}: is not a name of a variable");
            section.fault(Fault::new(Code::BadName, message));
        } else if name.starts_with(PREFIX) || RESERVED.contains(&name.as_str()) {
            let message = format!("runner.env.{shown}: Pomona sets this variable itself");
            let hint = "take another name, or read what Pomona says";
            section.fault(Fault::new(Code::ReservedVariable, message).hint(hint));
        }
        let Some(value) = section.child(&name) else {
            continue;
        };
        let Some(text) = section.as_text(&name, value) else {
            continue;
        };
        if text.len() > MAX_TEXT {
            let message = format_args!("has {} bytes, the limit is {MAX_TEXT}", text.len());
            section.complain(Code::OutOfRange, &name, message);
        }
        all.insert(name, text.to_owned());
    }
    all
}

fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= 128
        && name.bytes().all(fits)
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}

/// Reads `params`.
pub(in crate::spec) fn params(section: &Section<'_>, faults: &Faults) -> Map<String, Value> {
    let mut map = Map::new();
    for key in section.keys() {
        if let Some(value) = section.child(key) {
            map.insert(key.clone(), value.clone());
        }
    }
    let before = faults.borrow().len();
    check(&map, PARAMS, 1, faults);
    let mut count = 0;
    each(&map, "", &mut |_, _| count += 1);
    if count > MAX_PARAMS {
        let message = format!("params: {count} values are more than {MAX_PARAMS}");
        faults
            .borrow_mut()
            .push(Fault::new(Code::OutOfRange, message));
    } else if faults.borrow().len() == before {
        check_names(&map, faults);
    }
    map
}

fn check(map: &Map<String, Value>, path: &str, depth: usize, faults: &Faults) {
    let say = |code, message: String| faults.borrow_mut().push(Fault::new(code, message));
    for (key, value) in map {
        let path = join(path, &shorten(key));
        if !is_key(key) {
            let message = format!("{path}: is not a name of a hyperparameter");
            let fault = Fault::new(Code::BadName, message)
                .hint("letters, digits, `_` and `-`, a letter or `_` first");
            faults.borrow_mut().push(fault);
        }
        match value {
            Value::Object(inner) if depth < MAX_DEPTH => check(inner, &path, depth + 1, faults),
            Value::Object(_) => say(
                Code::OutOfRange,
                format!("{path}: mappings go {MAX_DEPTH} deep at most"),
            ),
            Value::Null => say(Code::WrongType, format!("{path}: has no value")),
            Value::String(text) if text.len() > MAX_TEXT || text.contains('\0') => say(
                Code::OutOfRange,
                format!("{path}: has more than {MAX_TEXT} bytes, or a zero byte"),
            ),
            Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_null()) => {
                say(Code::WrongType, format!("{path}: lists hold single values"));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {}
        }
    }
}

fn is_key(key: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let first = key.bytes().next();
    key.len() <= 64
        && key.bytes().all(fits)
        && first.is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
}

/// Two hyperparameters must not have one variable.
fn check_names(map: &Map<String, Value>, faults: &Faults) {
    let named = variables(map);
    each(map, "", &mut |path, _| {
        let name = path.to_ascii_uppercase().replace(['.', '-'], "_");
        let name = format!("{PARAM_PREFIX}{name}");
        if let Some((other, _)) = named.get(&name).filter(|(other, _)| other != path) {
            let message =
                format!("params.{path}: has the same variable `{name}` as `params.{other}`");
            let fault = Fault::new(Code::SameVariable, message).hint("rename one of them");
            faults.borrow_mut().push(fault);
        }
    });
}

/// What a file with a program must not say, and what one without must not.
pub(in crate::spec) fn check_keys(map: &Map<String, Value>, is_command: bool, faults: &Faults) {
    let say = |code, key: &str, message: &str, hint: &str| {
        let fault = Fault::new(code, format!("{key}: {message}")).hint(hint);
        faults.borrow_mut().push(fault);
    };
    if !is_command {
        if map.contains_key(PARAMS) {
            say(
                Code::NotForRunner,
                PARAMS,
                "our trainer takes no hyperparameters of this kind",
                "they are for `runner: {kind: command, …}`; what our trainer takes stands under \
                 `transfer` and `train`",
            );
        }
        return;
    }
    for key in TRAINER_KEYS.iter().filter(|key| map.contains_key(**key)) {
        say(
            Code::NotForRunner,
            key,
            "says nothing to a program of one's own",
            "leave the key out; what the program takes stands under `params`, or in `runner.argv`",
        );
    }
    let search = map.get("search").and_then(Value::as_object);
    if search.is_some_and(|search| search.contains_key("validation")) {
        say(
            Code::NotForRunner,
            "search.validation",
            "a program of one's own measures as it likes",
            "leave the key out, and report the metric that trials are compared by",
        );
    }
    if map.get("promote").is_some_and(|value| !value.is_null()) {
        say(
            Code::CannotPublish,
            "promote",
            "what a program of one's own writes cannot be exported and measured on a test split",
            "leave the key out; `pomona trial show` names the best trial's checkpoint, a tar",
        );
    }
}
