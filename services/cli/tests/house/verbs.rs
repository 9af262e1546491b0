//! Every verb of the command line over the whole house, in one long scenario: as data, and as a
//! person sees it.

use nix::sys::signal::Signal;
use pomona_testing::clients_python;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::harness::{self, House, Process};
use super::up::send;

/// Four trials of three epochs: enough for every verb.
pub const SMALL: &str = "
name: small
backbone: lite
dataset: flowers
train: {epochs: 3, batch_size: 16, optimizer: {kind: adamw}, learning_rate: 0.001}
search:
  strategy: grid
  metric: val/accuracy
  direction: maximize
  max_concurrent: 2
  space:
    train.learning_rate: {values: [0.001, 0.01]}
    transfer.frozen_depth: {values: [all, _blocks.14]}
promote: {model: small, alias: champion, gates: [{metric: test/accuracy, at_least: 0.1}]}
";

/// What a person sees of a command that succeeds; something, and nothing wider than a page.
fn seen(house: &House, words: &[&str]) -> String {
    let (code, out, err) = house.shown(words);
    assert_eq!(code, Some(0), "`pomona {}`: {out}{err}", words.join(" "));
    assert!(
        !out.trim().is_empty(),
        "`pomona {}` shows nothing",
        words.join(" ")
    );
    // A path or a digest may be longer: it is never broken.
    let wide = |line: &&str| line.chars().count() > 100 && line.split_whitespace().count() > 4;
    assert_eq!(out.lines().find(wide), None, "`pomona {}`", words.join(" "));
    out
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn every_verb_does_its_work_and_is_pleasant_to_read() {
    let house = House::open();
    let _worker = house.worker("a", 2);
    catalogue(&house);
    let trial = experiment(&house);
    registry(&house, &trial);
    pulls(&house);
    predictions(&house);
    explanations(&house, &trial);
    machines(&house);
}

fn catalogue(house: &House) {
    let listed = house.json(&["dataset", "list"]);
    assert_eq!(listed["items"][0]["name"], "flowers");
    assert!(seen(house, &["dataset", "list"]).contains("flowers"));
    let shown = house.json(&["dataset", "show", "flowers@1"]);
    assert_eq!(
        shown["summary"]["classes"]
            .as_object()
            .map(serde_json::Map::len),
        Some(3)
    );
    assert!(seen(house, &["dataset", "show", "flowers"]).contains("tulip"));
    let samples = house.json(&["dataset", "show", "flowers", "--samples", "test"]);
    let test = samples["samples"].as_array().expect("samples");
    let counted: u64 = shown["summary"]["classes"]
        .as_object()
        .expect("classes")
        .values()
        .map(|counts| counts[2].as_u64().expect("a count"))
        .sum();
    assert_eq!(test.len() as u64, counted);
    assert!(test.iter().all(|sample| sample["split"] == "test"));
    assert!(text(&test[0]["path"]).contains('/'));
    seen(house, &["dataset", "show", "flowers", "--samples", "all"]);

    let backbones = house.json(&["backbone", "list"]);
    assert_eq!(backbones["items"][0]["name"], "lite");
    assert!(seen(house, &["backbone", "list"]).contains("efficientnet-lite0"));
    let page = seen(
        house,
        &["backbone", "show", "lite", "--frozen-depth", "_blocks.14"],
    );
    assert!(page.contains("frozen") && page.contains("trains"), "{page}");
    assert_eq!(
        house.json(&["backbone", "show", "lite"])["arch"],
        "efficientnet-lite0"
    );
}

/// Submits, follows, looks; gives the best trial.
fn experiment(house: &House) -> String {
    let file = house.file("small.yaml", SMALL);
    let preview = house.json(&["experiment", "preview", &file]);
    assert_eq!(preview["resolved"], true);
    assert_eq!(preview["dataset"], "flowers@1");
    assert_eq!(preview["cuts"].as_array().map(Vec::len), Some(2));
    assert!(seen(house, &["experiment", "preview", &file]).contains("FROZEN DEPTH"));

    let (code, out, err) = house.shown(&["experiment", "submit", &file, "--watch"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("small@1 is published: `champion` points to it"),
        "{out}"
    );
    assert!(err.contains("[4/4]"), "each trial's end is told: {err}");
    assert!(err.contains("completed: best"), "{err}");

    let listed = house.json(&["experiment", "list"]);
    let id = text(&listed["items"][0]["id"]).to_owned();
    assert!(seen(house, &["experiment", "list"]).contains("small"));
    let by_name = house.json(&["experiment", "show", "small"]);
    assert_eq!(by_name["id"], id.as_str());
    assert_eq!(by_name["leaderboard"][0]["id"], by_name["best"]);
    assert!(seen(house, &["experiment", "show", &id[..12], "--all"]).contains("RANK"));
    let again = house.json(&["experiment", "watch", &id]);
    assert_eq!(
        again["version"]["number"], 1,
        "one that has ended is told at once"
    );

    let best = text(&by_name["best"]).to_owned();
    assert_eq!(house.trials("small").len(), 4);
    seen(house, &["trial", "list", &id]);
    let shown = house.json(&["trial", "show", &best]);
    assert_eq!(shown["observations"].as_array().map(Vec::len), Some(3));
    assert_eq!(shown["checkpoints"].as_array().map(Vec::len), Some(2));
    assert!(seen(house, &["trial", "show", &best]).contains("val/accuracy"));
    let log = house.json(&["trial", "logs", &best]);
    assert!(!log["items"].as_array().expect("items").is_empty());
    seen(house, &["trial", "logs", &best]);
    best
}

fn registry(house: &House, trial: &str) {
    assert_eq!(house.json(&["model", "list"])["items"][0]["name"], "small");
    assert!(seen(house, &["model", "list"]).contains("champion → 1"));
    assert!(seen(house, &["model", "show", "small"]).contains("champion"));
    assert!(seen(house, &["model", "show", "small@champion"]).contains("model.safetensors"));

    let second = house.json(&[
        "model", "register", "small", "--trial", trial, "--alias", "next",
    ]);
    assert_eq!(second["number"], 2);
    let moved = house.json(&["model", "promote", "small", "2", "--alias", "champion"]);
    assert_eq!(
        (&moved["number"], &moved["revision"]),
        (&2.into(), &2.into())
    );
    let back = house.json(&["model", "rollback", "small", "--alias", "champion"]);
    assert_eq!(back["number"], 1);
    let history = house.json(&["model", "history", "small"]);
    assert_eq!(
        history["items"].as_array().map(Vec::len),
        Some(4),
        "{history}"
    );
    let then = house.json(&["model", "history", "small", "--as-of", "2020-01-01"]);
    assert_eq!(then["items"].as_array().map(Vec::len), Some(0));
    assert!(seen(house, &["model", "history", "small", "--alias", "next"]).contains("next"));
    let moved = &history["items"][0];
    assert!(
        text(&history["items"][2]["by"]["name"]).contains('@'),
        "{history}"
    );
    let then = [
        "model",
        "show",
        "small@champion",
        "--as-of",
        text(&moved["at"]),
    ];
    assert_eq!(house.json(&then)["number"], 1);
    tidied(house);
}

/// Words, what goes, and what the audit keeps of it.
fn tidied(house: &House) {
    let said = house.json(&["model", "describe", "small", "a small one"]);
    assert_eq!(said["description"], "a small one");
    let tagged = house.json(&["model", "tag", "small@2", "checked=yes", "draft="]);
    assert_eq!(tagged["tags"], serde_json::json!({ "checked": "yes" }));
    house.json(&["model", "delete", "small@next"]);
    assert_eq!(house.json(&["model", "delete", "small@2"])["number"], 2);
    let audit = seen(house, &["audit", "--model", "small"]);
    for word in [
        "version.deleted",
        "alias.deleted",
        "version.tagged",
        "model.described",
    ] {
        assert!(audit.contains(word), "{audit}");
    }
}

/// Pulled, verified, tampered with.
fn pulls(house: &House) {
    let target = house.path("model");
    let folder = target.to_str().expect("UTF-8");
    let pulled = house.json(&["model", "pull", "small@champion", folder]);
    assert_eq!(pulled["digest"], harness::folder_digest(&target).as_str());
    let again = house.json(&["model", "pull", "small@champion", folder]);
    assert_eq!(
        again["digest"], pulled["digest"],
        "a folder that holds it is left as it is"
    );
    let digest = text(&pulled["digest"]);
    // The same trial was published twice: both versions hold these very files.
    let found = house.json(&["model", "verify", folder]);
    assert_eq!(
        (&found["model"], &found["digest"]),
        (&"small".into(), &pulled["digest"])
    );
    house.json(&["model", "verify", folder, "--model", "small@1"]);
    house.json(&["model", "verify", folder, "--digest", digest]);
    let key = signed(house, folder);
    fs::write(target.join("config.json"), "{}").expect("tampered with");
    let (code, error) = house.refused(&["model", "verify", folder, "--key", &key]);
    assert_eq!((code, text(&error["code"])), (1, "E0711"), "{error}");
    let (code, error) = house.refused(&["model", "verify", folder, "--model", "small@1"]);
    assert_eq!((code, text(&error["code"])), (1, "E0703"));
    assert!(
        text(&error["message"]).contains("`config.json` has"),
        "{error}"
    );
    let (code, error) = house.refused(&["model", "pull", "small@champion", folder]);
    assert_eq!(
        (code, text(&error["code"])),
        (1, "E0103"),
        "what is there is not overwritten"
    );
}

/// The signature that came with it holds, by our word and by the published tool's; another key made
/// none of it. Answers the key's file.
fn signed(house: &House, folder: &str) -> String {
    let pem = house.json(&["model", "key"]);
    let key = house.file("team.pub.pem", text(&pem["key"]).as_bytes());
    let found = house.json(&["model", "verify", folder, "--key", &key]);
    assert_eq!(found["model"], "small");
    let theirs = Command::new(clients_python())
        .args(["-m", "model_signing", "verify", "key", "--signature"])
        .arg(Path::new(folder).join("model.sig"))
        .args(["--public_key", &key, folder])
        .env("NO_PROXY", "*")
        .output()
        .expect("the tool runs");
    let said = String::from_utf8_lossy(&theirs.stderr);
    assert!(theirs.status.success(), "{said}");
    let other = house.file("other.pub.pem", OTHER_KEY.as_bytes());
    let (code, error) = house.refused(&["model", "verify", folder, "--key", &other]);
    assert_eq!((code, text(&error["code"])), (1, "E0709"), "{error}");
    let elsewhere = house.path("elsewhere");
    let elsewhere = elsewhere.to_str().expect("UTF-8");
    let words = ["model", "pull", "small@champion", elsewhere, "--verify"];
    let (_, error) = house.refused(&[&words[..], &[other.as_str()]].concat());
    assert_eq!(text(&error["code"]), "E0709", "{error}");
    assert!(
        !Path::new(elsewhere).exists(),
        "what does not check is not there"
    );
    house.json(&[&words[..], &[key.as_str()]].concat());
    key
}

/// A key that signed nothing.
const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEBO0ixQGD1ZHbCePV08I2RWTLikzi
sqrwxY+uG16EEA2w6rygO59sjBz7d0Qmm18comsimqYx7HsLJw+fb5jZ1A==
-----END PUBLIC KEY-----
";

fn predictions(house: &House) {
    let good = house.file("photos/ein Bär.jpg", b"bear");
    let empty = house.file("photos/cut off.jpg", b"");
    let answer = house.json(&["predict", "small@champion", &good, "--top", "2"]);
    let picture = &answer["pictures"][0];
    assert_eq!(picture["path"], good.as_str());
    assert_eq!(picture["classes"].as_array().map(Vec::len), Some(2));
    assert!(seen(house, &["predict", "small@1", &good]).contains('%'));
    let (code, out, err) = house.shown(&["predict", "small@1", &good, &empty]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("unreadable") && out.contains('%'),
        "the other is predicted: {out}"
    );
    assert!(
        err.contains("error[E0705]: 1 of 2 pictures cannot be read"),
        "{err}"
    );
}

fn explanations(house: &House, trial: &str) {
    let why = house.json(&["explain", "trial", trial]);
    assert!(text(&why["now"]).contains("completed"), "{why}");
    seen(house, &["explain", "trial", &trial[..12]]);
    let why = house.json(&["explain", "experiment", "small"]);
    assert!(!why["reasons"].as_array().expect("reasons").is_empty());
    let why = seen(house, &["explain", "model", "small@champion"]);
    assert!(why.contains("test/accuracy at least 0.1"), "{why}");
    let why = seen(house, &["explain", "worker", "a"]);
    assert!(why.contains("wrk_"), "{why}");
}

fn machines(house: &House) {
    let workers = house.json(&["worker", "list"]);
    let names: Vec<&str> = workers["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|row| text(&row["name"]))
        .collect();
    assert!(names.contains(&"a"), "{names:?}");
    assert!(seen(house, &["worker", "list"]).contains("CPU"));
    assert!(seen(house, &["top", "--once"]).contains("slots"));
    assert!(seen(house, &["feature", "list"]).contains("no features yet"));
    assert_eq!(
        house.json(&["feature", "list"])["items"],
        serde_json::json!([])
    );
    let evicted = house.json(&["feature", "evict", "--all"]);
    assert_eq!(evicted, serde_json::json!({"removed": [], "kept": []}));
    assert_eq!(house.json(&["top"])["cluster"]["workers_alive"], 1);
    let drained = house.json(&["worker", "drain", "a", "--deadline", "2h"]);
    assert_eq!(drained["state"], "draining");
    assert!(!drained["drain_by"].is_null(), "{drained}");
    let again = house.json(&["worker", "undrain", "a"]);
    assert_eq!(
        (&again["state"], again.get("drain_by")),
        (&"alive".into(), None)
    );
    let drained = house.json(&["worker", "drain", "a"]);
    assert_eq!(drained["state"], "draining");
}

#[test]
fn an_experiment_and_a_trial_can_be_ended_before_their_time() {
    let house = House::open();
    let _worker = house.slow_worker("a", 2);
    let long = house.submit(harness::GRID);
    house.wait_trials(&long, "one has an observation", |trials| {
        trials
            .iter()
            .any(|trial| trial["last_epoch"].as_u64() >= Some(1))
    });
    let trials = house.trials(&long);
    let running = trials
        .iter()
        .find(|trial| trial["state"] == "running" && trial["last_epoch"].as_u64() >= Some(1))
        .expect("one runs");
    let id = text(&running["id"]);
    house.json(&["trial", "stop", id]);
    house.wait_trials(&long, "it is completed with what it had", |trials| {
        trials
            .iter()
            .any(|trial| trial["id"] == id && trial["state"] == "completed")
    });
    let watch = || {
        let mut command = house.command(&["experiment", "watch", &long]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Process(command.spawn().expect("pomona runs"))
    };
    // Ctrl-C detaches a watcher; the experiment goes on.
    let watching = watch();
    let pid = watching.0.id();
    harness::wait("it hears Ctrl-C", || {
        harness::catches(pid, Signal::SIGINT as i32)
    });
    send(pid, Signal::SIGINT);
    let (code, err) = watching.end();
    assert_eq!(code, Some(130), "{err}");
    assert!(
        err.contains("detached; it goes on: pomona experiment watch exp_"),
        "{err}"
    );
    assert_eq!(
        house.json(&["experiment", "show", &long])["state"],
        "active"
    );
    // A watcher that is there when it is canceled ends with 1.
    let watching = watch();
    house.json(&["experiment", "cancel", &long]);
    let (code, err) = watching.end();
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("error[E0104]: experiment `flowers` was canceled"),
        "{err}"
    );
    let (code, error) = house.refused(&["experiment", "resume", &long]);
    assert_eq!((code, text(&error["code"])), (1, "E0104"));
}

#[test]
fn a_log_is_followed_until_its_trial_has_ended() {
    let house = House::open();
    let _worker = house.slow_worker("a", 1);
    let file = SMALL
        .replace("values: [0.001, 0.01]", "values: [0.001]")
        .replace("[all, _blocks.14]", "[all]");
    let experiment = house.submit(&file);
    let id = text(&house.trials(&experiment)[0]["id"]).to_owned();
    let mut following = Process(
        house
            .command(&["--output", "json", "trial", "logs", &id, "--follow"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("pomona runs"),
    );
    let stdout = following.0.stdout.take().expect("its stdout");
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().expect("a line").expect("UTF-8");
    let state = text(&house.json(&["trial", "show", &id])["state"]).to_owned();
    assert_eq!(state, "running", "lines come while it runs: {first}");
    // It ends by itself.
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert!(following.0.wait().expect("it is ours").success());
    assert_eq!(house.json(&["trial", "show", &id])["state"], "completed");
    let log = house.json(&["trial", "logs", &id]);
    let items = log["items"].as_array().expect("items");
    assert_eq!(
        items.len(),
        rest.len() + 1,
        "what is kept is what was followed"
    );
}

#[test]
fn ctrl_c_leaves_a_task_and_says_how_to_find_it_again() {
    let house = House::open();
    // No worker: the task waits.
    let weights = house.file("other.pth", b"other weights");
    let mut command = house.command(&[
        "backbone",
        "add",
        "other",
        "--arch",
        "resnet18",
        "--weights",
        &weights,
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut adding = Process(command.spawn().expect("pomona runs"));
    let mut stderr = BufReader::new(adding.0.stderr.take().expect("its stderr"));
    let mut first = String::new();
    stderr.read_line(&mut first).expect("UTF-8");
    assert!(first.contains("task tsk_"), "{first}");
    let pid = adding.0.id();
    harness::wait("it hears Ctrl-C", || {
        harness::catches(pid, Signal::SIGINT as i32)
    });
    send(pid, Signal::SIGINT);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(adding.end().0, Some(130), "{rest}");
    let line = rest.lines().last().expect("a last word");
    assert!(
        line.starts_with("detached: the task goes on; `pomona explain task tsk_"),
        "{rest}"
    );
    let words: Vec<&str> = line
        .split('`')
        .nth(1)
        .expect("a command")
        .split(' ')
        .collect();
    let why = house.json(&words[1..]);
    assert!(text(&why["now"]).starts_with("it waits"), "{why}");
}
