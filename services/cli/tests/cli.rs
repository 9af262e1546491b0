//! The real binary, without a server: help, errors with their hints, previews, completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An address where nobody listens: port 1 needs privileges that no coordinator has.
const NOBODY: &str = "http://127.0.0.1:1";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn typed(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pomona"));
    for name in [
        "POMONA_SERVER",
        "POMONA_DATA_DIR",
        "POMONA_TRAINER",
        "XDG_DATA_HOME",
    ] {
        command.env_remove(name);
    }
    command
        .args(words)
        .env("POMONA_SERVER", NOBODY)
        .env("NO_COLOR", "1")
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("pomona runs")
}

/// What a person sees, with the exit status.
fn seen(words: &[&str]) -> String {
    let output = typed(words);
    let status = output.status.code().expect("it was not killed");
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    format!("$ pomona {}\n{out}{err}[{status}]\n", words.join(" "))
}

fn all(lines: &[&[&str]]) -> String {
    lines
        .iter()
        .map(|words| seen(words))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A file in a folder of its own, and the path with the folder's name taken out.
fn with_file(name: &str, text: &str, words: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, text).expect("the file");
    let path = path.to_str().expect("UTF-8");
    let words: Vec<&str> = words
        .iter()
        .map(|word| if *word == "FILE" { path } else { word })
        .collect();
    seen(&words).replace(path, name)
}

/// Every command, as it is typed.
const COMMANDS: &[&str] = &[
    "up",
    "dataset",
    "dataset add",
    "dataset list",
    "dataset show",
    "backbone",
    "backbone add",
    "backbone list",
    "backbone show",
    "experiment",
    "experiment submit",
    "experiment preview",
    "experiment list",
    "experiment show",
    "experiment watch",
    "experiment pause",
    "experiment resume",
    "experiment cancel",
    "trial",
    "trial list",
    "trial show",
    "trial logs",
    "trial stop",
    "model",
    "model list",
    "model show",
    "model register",
    "model promote",
    "model rollback",
    "model history",
    "model pull",
    "model verify",
    "predict",
    "worker",
    "worker list",
    "worker drain",
    "webhook",
    "webhook add",
    "webhook list",
    "webhook show",
    "webhook test",
    "webhook deliveries",
    "webhook replay",
    "webhook disable",
    "webhook enable",
    "webhook remove",
    "top",
    "explain",
    "doctor",
    "completions",
];

#[test]
fn help_of_every_command_has_an_example() {
    let mut pages = vec![seen(&["--help"])];
    for words in COMMANDS {
        let mut command: Vec<&str> = words.split(' ').collect();
        let is_family = [
            "dataset",
            "backbone",
            "experiment",
            "trial",
            "model",
            "worker",
            "webhook",
        ];
        command.push("--help");
        let page = seen(&command);
        assert!(page.ends_with("[0]\n"), "{page}");
        let shows_how = page.contains("Example") || is_family.contains(words);
        assert!(shows_how, "`{words}` shows no example:\n{page}");
        pages.push(page);
    }
    insta::assert_snapshot!(pages.join("\n"));
}

#[test]
fn mistakes_of_the_command_line_are_coded_and_exit_with_1() {
    insta::assert_snapshot!(all(&[
        &[],
        &["dataset"],
        &["datset", "list"],
        &["dataset", "add"],
        &["dataset", "add", "flowers", ".", "--split", "60/20/10"],
        &["dataset", "add", "flowers", ".", "--split", "60/40"],
        &["dataset", "add", "flowers", ".", "--image-size", "4"],
        &["dataset", "add", "flowers", ".", "--fit", "squash"],
        &["experiment", "submit", "x.yaml", "--wach"],
        &[
            "model", "verify", ".", "--digest", "sha256:x", "--model", "tux@1"
        ],
        &["top", "--every", "0"],
        &["--output", "json", "dataset", "list", "--all"],
    ]));
}

#[test]
fn names_and_references_are_refused_before_anybody_is_asked() {
    insta::assert_snapshot!(all(&[
        &["dataset", "add", "bad name", "."],
        &["dataset", "show", "flowers@zero"],
        &[
            "backbone",
            "add",
            "-x",
            "--arch",
            "resnet18",
            "--weights",
            "missing.pth"
        ],
        &[
            "backbone",
            "add",
            "r18",
            "--arch",
            "resnet18",
            "--weights",
            "missing.pth"
        ],
        &["model", "pull", "tux", "there"],
        &["model", "history", "tux", "--as-of", "yesterday"],
        &["model", "promote", "tux", "1", "--alias", "7"],
        &["model", "verify", "missing", "--digest", "sha256:0"],
        &["predict", "tux", "a.jpg"],
        &["explain", "model"],
        &["explain", "E0000"],
        &["explain", "model", "tux@3"],
        &["--server", "127.0.0.1", "worker", "list"],
        &["experiment", "preview", "missing.yaml"],
    ]));
}

#[test]
fn no_coordinator_is_told_with_what_to_do() {
    for words in [
        &["dataset", "list"][..],
        &["dataset", "add", "flowers", "config"],
        &["backbone", "show", "lite0"],
        &["experiment", "list"],
        &["experiment", "watch", "x"],
        &["experiment", "submit", "config/examples/demo-grid.yaml"],
        &["trial", "show", "tri_0"],
        &["model", "list"],
        &["worker", "list"],
        &["explain", "trial", "tri_0"],
        &["top", "--once"],
        &["predict", "tux@champion", "README.md"],
    ] {
        let page = seen(words);
        assert!(
            page.contains("error[E0002]: cannot reach the coordinator at `http://127.0.0.1:1`"),
            "{page}"
        );
        assert!(page.contains("hint: start one with `pomona up`"), "{page}");
        assert!(page.ends_with("[2]\n"), "{page}");
    }
}

#[test]
fn an_error_as_json_is_the_body_of_the_api() {
    let output = typed(&["--output", "json", "worker", "list"]);
    assert!(output.stdout.is_empty());
    let body: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON on stderr");
    assert_eq!(body["error"]["code"], "E0002");
    assert!(body["error"]["hint"].is_string());
}

#[test]
fn every_example_can_be_previewed_without_a_server() {
    let mut pages = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("config/examples"))
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    for file in files {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        pages.push(seen(&[
            "experiment",
            "preview",
            &format!("config/examples/{name}"),
        ]));
    }
    insta::assert_snapshot!(pages.join("\n"));
}

#[test]
fn a_preview_as_json_has_every_trial() {
    let output = typed(&[
        "-ojson",
        "experiment",
        "preview",
        "config/examples/demo-grid.yaml",
    ]);
    assert!(output.status.success());
    let body: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(body["name"], "tux-grid");
    assert_eq!(body["resolved"], false);
    assert_eq!(body["trials"], 24);
    assert_eq!(body["points"].as_array().map(Vec::len), Some(24));
    assert_eq!(body["points"][0]["hparams"]["transfer.frozen_depth"], "all");
}

#[test]
fn a_change_on_the_command_line_is_part_of_the_preview() {
    let page = seen(&[
        "experiment",
        "preview",
        "config/examples/demo-grid.yaml",
        "--set",
        "search.strategy=random",
        "--set",
        "search.max_trials=5",
    ]);
    assert!(page.contains("5 (5 random points)"), "{page}");
}

#[test]
fn faults_of_a_file_name_their_place_and_suggest() {
    let grid = fs::read_to_string(root().join("config/examples/demo-grid.yaml")).expect("the demo");
    let preview = ["experiment", "preview", "FILE"];
    let pages = [
        with_file(
            "grid.yaml",
            &grid.replace("learning_rate: 0.001", "learning_rat: 0.001"),
            &preview,
        ),
        with_file(
            "grid.yaml",
            &grid.replace("epochs: 10", "epochs: ten"),
            &preview,
        ),
        with_file(
            "grid.yaml",
            &grid.replace("metric: val", "metric: test"),
            &preview,
        ),
        with_file("grid.yaml", &grid.replace("name: tux-grid\n", ""), &preview),
        with_file(
            "grid.yaml",
            &grid
                .replace("kind: linear", "kind: linar")
                .replace("32", "0"),
            &preview,
        ),
        with_file("grid.yaml", "a: [", &preview),
        with_file(
            "grid.yaml",
            &grid,
            &["experiment", "submit", "FILE", "--set", "train.epochs"],
        ),
        with_file(
            "grid.yaml",
            &grid,
            &["experiment", "submit", "FILE", "--set", "train.epoch=3"],
        ),
    ];
    insta::assert_snapshot!(pages.join("\n"));
}

#[test]
fn a_file_may_come_from_stdin() {
    let file = fs::File::open(root().join("config/examples/demo-grid.yaml")).expect("the demo");
    let output = Command::new(env!("CARGO_BIN_EXE_pomona"))
        .args(["--server", NOBODY, "--quiet", "experiment", "preview", "-"])
        .stdin(file)
        .output()
        .expect("pomona runs");
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "--quiet says nothing");
    assert!(String::from_utf8_lossy(&output.stdout).contains("24 (grid of 6 × 2 × 2)"));
}

#[test]
fn a_code_is_explained_offline() {
    insta::assert_snapshot!(all(&[
        &["explain", "E0203"],
        &["-ojson", "explain", "e0002"]
    ]));
}

#[test]
fn every_code_can_be_explained() {
    for code in pomona_domain::Code::ALL {
        let page = seen(&["explain", code.as_str()]);
        assert!(page.contains("What to do:"), "{page}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let page = seen(&["completions", shell]);
        assert!(
            page.contains("experiment") && page.contains("frozen-depth"),
            "{shell}"
        );
        assert!(page.ends_with("[0]\n"));
    }
}

#[test]
fn a_folder_is_verified_against_a_digest_offline() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.json"), "{}").expect("a file");
    let path = folder.path().to_str().expect("UTF-8");
    let zero = format!("sha256:{}", "0".repeat(64));
    let page = seen(&["model", "verify", path, "--digest", &zero]);
    assert!(page.contains("error[E0703]"), "{page}");
    let digest = page
        .split('`')
        .nth(3)
        .expect("the message names the digest")
        .to_owned();
    let page = seen(&["model", "verify", path, "--digest", &digest]);
    assert!(page.ends_with("[0]\n"), "{page}");
}

#[test]
fn up_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lone = folder.path().join("pomona");
    fs::copy(env!("CARGO_BIN_EXE_pomona"), &lone).expect("a copy without its neighbours");
    let output = Command::new(&lone)
        .args(["up", "--data-dir"])
        .arg(folder.path().join("data"))
        .env("PATH", "")
        .output()
        .expect("pomona runs");
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("error[E0902]: there is no `pomona-coordinator`"),
        "{err}"
    );
    assert!(err.contains("hint: "), "{err}");
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[test]
fn doctor_fails_when_a_program_is_missing_and_says_which() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lone = folder.path().join("pomona");
    fs::copy(env!("CARGO_BIN_EXE_pomona"), &lone).expect("a copy without its neighbours");
    let output = Command::new(&lone)
        .args([
            "--server",
            NOBODY,
            "--output",
            "json",
            "doctor",
            "--data-dir",
        ])
        .arg(folder.path())
        .env("PATH", "")
        .output()
        .expect("pomona runs");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let of = |name: &str| {
        checks
            .iter()
            .find(|check| check["name"] == name)
            .expect("a check")
    };
    assert_eq!(of("trainer")["verdict"], "fail");
    assert_eq!(of("processor")["verdict"], "ok");
    assert_eq!(of("coordinator at")["verdict"], "warn");
}

#[test]
fn a_tethered_program_ends_with_its_parent() {
    // The parent is a shell that is killed; what it tethered must go with it.
    let mut shell = Command::new("/bin/sh")
        .arg("-c")
        .arg("\"$0\" tether $$ /bin/sleep 1000 & echo $!; wait")
        .arg(env!("CARGO_BIN_EXE_pomona"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(shell.stdout.take().expect("its stdout"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("the child's id");
    let comm = format!("/proc/{}/comm", line.trim());
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while fs::read_to_string(&comm).is_ok_and(|name| name.trim() != "sleep") {
        assert!(
            std::time::Instant::now() < end,
            "it did not become the program"
        );
        std::thread::yield_now();
    }
    shell.kill().expect("the shell is ours");
    shell.wait().expect("the shell is ours");
    // Its end is seen when the pipe that it inherited is closed.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("the end of the pipe");
}

#[test]
fn a_tether_to_somebody_else_refuses() {
    let page = seen(&["tether", "1", "/bin/true"]);
    assert!(
        page.contains("error[E0001]: cannot tether: the parent is gone"),
        "{page}"
    );
}
