//! Programs of one's own as trials: the example that ships, and programs that do what programs do.
//! Real Python, real kills.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::{Path, PathBuf};

use super::harness::{House, Worker, is_alive, name_of, wait};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples")
}

/// Submits the example with some edits.
fn submit_example(house: &House, edits: &[&str]) -> String {
    let file = examples().join("command.yaml");
    let cwd = examples().join("command").canonicalize().expect("a folder");
    let cwd = format!("runner.cwd={}", cwd.display());
    let mut words = vec!["experiment", "submit", file.to_str().expect("UTF-8")];
    for edit in [cwd.as_str()].iter().chain(edits) {
        words.extend(["--set", edit]);
    }
    let made = house.json(&words);
    made["id"].as_str().expect("an id").to_owned()
}

/// Submits a program that is written here; it runs in its own folder.
fn submit_script(house: &House, script: &str, space: &str, rest: &str) -> String {
    let path = house.file("program.py", script);
    house.submit(&format!(
        "name: own\nrunner: {{kind: command, argv: [python3, {path}], env: {{GREETING: 'rate {{params.rate}}'}}}}\n\
         params: {{rate: 0.5, deep: {{layers: 2}}, names: [a, b]}}\n\
         search: {{metric: score, direction: maximize, space: {{{space}}}}}\n{rest}\n"
    ))
}

fn id(trial: &Value) -> String {
    trial["id"].as_str().expect("an id").to_owned()
}

fn steps(house: &House, trial: &Value) -> Vec<u64> {
    let seen = house.observations(&id(trial));
    seen.iter()
        .filter_map(|seen| seen["step"].as_u64())
        .collect()
}

fn log(house: &House, trial: &Value) -> String {
    let (_, text, _) = house.shown(&["trial", "logs", &id(trial)]);
    text
}

/// The Python processes below a worker.
fn pythons(worker: &Worker) -> Vec<u32> {
    let mut all = worker.ranks();
    all.retain(|pid| name_of(*pid).starts_with("python"));
    all
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, signal).expect("it is ours");
}

#[test]
fn the_example_is_a_grid_of_programs_whose_best_is_found() {
    let house = House::open();
    let _worker = house.worker("a", 2);
    let experiment = submit_example(&house, &[]);
    house.wait_ended(&experiment);
    let trials = house.trials(&experiment);
    assert_eq!(trials.len(), 6);
    for trial in &trials {
        assert_eq!(trial["state"], "completed", "{trial}");
        assert_eq!(steps(&house, trial), (1..=20).collect::<Vec<_>>());
    }
    let losses: Vec<f64> = trials
        .iter()
        .map(|trial| trial["best"]["value"].as_f64().expect("a loss"))
        .collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let shown = house.json(&["experiment", "show", &experiment]);
    let best = trials
        .iter()
        .position(|trial| trial["id"] == shown["best"])
        .expect("the best is one of them");
    assert_eq!(losses[best], least, "{losses:?}");
    assert!(least < 0.1 && losses[0] > 1.0, "{losses:?}");
    let checkpoints = house.json(&["trial", "show", &id(&trials[best])]);
    let kinds: Vec<&str> = checkpoints["checkpoints"]
        .as_array()
        .expect("checkpoints")
        .iter()
        .filter_map(|row| row["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["last", "best"], "{checkpoints}");
}

#[test]
fn a_program_that_is_killed_goes_on_from_its_checkpoint_and_one_that_is_stopped_ends() {
    let house = House::open();
    let worker = house.worker("a", 1);
    let edits = [
        "params.pause_s=0.1",
        "params.epochs=40",
        "search.space={}",
        "params.rate=0.05",
    ];
    let experiment = submit_example(&house, &edits);
    house.wait_trials(&experiment, "it has a checkpoint", |trials| {
        trials[0]["last_step"].as_u64() >= Some(5)
    });
    for pid in pythons(&worker) {
        signal(pid, Signal::SIGKILL);
    }
    house.wait_trials(&experiment, "it is tried again", |trials| {
        trials[0]["restarts"] == 1 && trials[0]["leases"] == 2
    });
    let trial = house.trials(&experiment).remove(0);
    wait("it goes on where it was", || {
        log(&house, &trial).contains("goes on after epoch")
    });
    house.wait_trials(&experiment, "it gets on", |trials| {
        trials[0]["last_step"].as_u64() >= Some(12)
    });
    house.json(&["trial", "stop", &id(&trial)]);
    house.wait_ended(&experiment);
    let trial = house.trials(&experiment).remove(0);
    assert_eq!(trial["state"], "completed");
    let seen = steps(&house, &trial);
    let last = *seen.last().expect("steps");
    assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "each step once");
    assert!(last < 40, "it was stopped before its end: {last}");
    assert!(log(&house, &trial).contains("asked to stop"));
    let why = house.json(&["explain", "trial", &id(&trial)]).to_string();
    assert!(why.contains("ended by signal 9 (SIGKILL)"), "{why}");
}

#[test]
fn a_program_learns_its_point_in_every_way_and_may_report_over_the_api() {
    const SCRIPT: &str = r#"
import json, os, sys, urllib.request
env = os.environ
params = json.loads(env["POMONA_HPARAMS"])
assert json.load(open(env["POMONA_HPARAMS_FILE"])) == params
assert params == {"rate": 0.25, "deep": {"layers": 3}, "names": ["a", "b"]}, params
assert float(env["POMONA_PARAM_RATE"]) == 0.25
assert env["POMONA_PARAM_DEEP_LAYERS"] == "3"
assert json.loads(env["POMONA_PARAM_NAMES"]) == ["a", "b"]
assert env["GREETING"] == "rate 0.25"
assert "POMONA_TEST_SECRET" not in env, "the worker's environment is not inherited"
rank, world = int(env["RANK"]), int(env["WORLD_SIZE"])
assert (world, env["LOCAL_WORLD_SIZE"], env["LOCAL_RANK"]) == (2, "2", str(rank))
assert env["MASTER_ADDR"] and int(env["MASTER_PORT"]) > 0
assert env["CUDA_VISIBLE_DEVICES"] == "", "slots of a processor have no GPU"
assert os.getcwd() == env["POMONA_SCRATCH_DIR"] and os.listdir(".") == []
def post(generation, step):
    url = f"{env['POMONA_COORDINATOR_URL']}/api/v1/trials/{env['POMONA_TRIAL_ID']}/observations"
    body = json.dumps({"generation": generation, "step": step, "metrics": {"score": step}})
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request).status
if rank == 1:
    print(json.dumps({"pomona": {"step": 99, "metrics": {"score": 99}}}))
    sys.exit(0)
generation = int(env["POMONA_GENERATION"])
assert post(generation, 1) == 200 and post(generation, 1) == 200
try:
    post(generation - 1, 2)
    sys.exit("an old generation was taken")
except urllib.error.HTTPError as error:
    assert error.code == 409 and b"E0623" in error.read()
print('{"pomona": {"stepp": 3}}')
print('{"pomona": {"step": 4, "metrics": {"score": NaN}}}')
print('{"step": 5}')
print(json.dumps({"pomona": {"step": 7, "metrics": {"score": 0.5, "loss": 2}}}))
"#;
    let house = House::open();
    let _worker = house.worker_from("a", 2, &[("POMONA_TEST_SECRET", "hunter2")]);
    let experiment = submit_script(
        &house,
        SCRIPT,
        "params.rate: {values: [0.25]}, params.deep.layers: {values: [3]}",
        "resources: {slots_per_trial: 2}\nmax_restarts: 0",
    );
    house.wait_ended(&experiment);
    let trial = house.trials(&experiment).remove(0);
    assert_eq!(trial["state"], "completed", "{trial}");
    assert_eq!(
        steps(&house, &trial),
        [1, 7],
        "what is told, once, by rank 0"
    );
    assert_eq!(trial["best"]["step"], 1);
    let log = log(&house, &trial);
    assert_eq!(
        log.matches("Pomona cannot read the next line").count(),
        2,
        "{log}"
    );
    assert!(
        log.contains("stepp") && log.contains("{\"step\": 5}"),
        "{log}"
    );
}

#[test]
fn nothing_that_a_program_started_outlives_its_agent() {
    const SCRIPT: &str = r#"
import json, os, subprocess, time
inner = "import time; time.sleep(600)"
subprocess.Popen(["python3", "-c", inner])
print(json.dumps({"pomona": {"step": 1, "metrics": {"score": 1}}}))
time.sleep(600)
"#;
    let house = House::open();
    let worker = house.worker("a", 1);
    let experiment = submit_script(&house, SCRIPT, "", "");
    house.wait_trials(&experiment, "it runs", |trials| trials[0]["last_step"] == 1);
    let all = worker.ranks();
    assert_eq!(pythons(&worker).len(), 2, "the program and its child");
    worker.kill();
    wait("nothing is left of it", || {
        all.iter().all(|pid| !is_alive(*pid))
    });
}

#[test]
fn a_program_that_fails_says_how_and_is_not_tried_for_ever() {
    let house = House::open();
    let _worker = house.worker("a", 1);
    let script = "import sys\nprint('to the log')\nsys.exit('no such data')\n";
    let experiment = submit_script(&house, script, "", "max_restarts: 1");
    house.wait_trials(&experiment, "it is given up", |trials| {
        trials[0]["state"] == "failed"
    });
    let trial = house.trials(&experiment).remove(0);
    assert_eq!(trial["fault"]["code"], "E0304");
    let message = trial["fault"]["message"].as_str().expect("a message");
    let expect = "it crashed 2 times, the last time: the program ended with status 1; \
                  its log ends with: no such data";
    assert_eq!(message, expect);
    wait("its log is there", || {
        log(&house, &trial).contains("to the log")
    });
}
