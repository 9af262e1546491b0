//! What a user can do wrong over the wire: each refusal has its code, its status and its reason.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use super::harness::{GRID, House, Process};
use super::shown::{Page, redacted};
use super::verbs::SMALL;

#[test]
fn what_is_not_there_is_named_with_its_code() {
    let house = House::open();
    let mut page = Page::of(&house);
    page.refused(
        &["experiment", "show", "nothing"],
        (1, "E0102", "`nothing`"),
    );
    page.refused(&["trial", "show", "tri_0000"], (1, "E0102", "`tri_0000`"));
    page.refused(
        &["trial", "logs", "tri_0000", "--follow"],
        (1, "E0102", "`tri_0000`"),
    );
    page.refused(
        &["dataset", "show", "flowers@9"],
        (1, "E0102", "`flowers@9`"),
    );
    page.refused(&["backbone", "show", "vgg"], (1, "E0102", "`vgg`"));
    page.refused(&["model", "show", "tux"], (1, "E0102", "`tux`"));
    page.refused(
        &["model", "promote", "tux", "1", "--alias", "x"],
        (1, "E0102", "`tux`"),
    );
    page.refused(
        &["model", "rollback", "tux", "--alias", "x"],
        (1, "E0102", "`tux`"),
    );
    page.refused(&["explain", "task", "tsk_0000"], (1, "E0102", "`tsk_0000`"));
    page.refused(&["explain", "worker", "nobody"], (1, "E0102", "`nobody`"));
    page.refused(&["worker", "drain", "nobody"], (1, "E0102", "`nobody`"));
    page.refused(&["feature", "show", "3f9c01"], (1, "E0102", "`3f9c01`"));
    page.refused(&["feature", "evict", "3f9c01"], (1, "E0102", "`3f9c01`"));
    let deep = ["backbone", "show", "lite", "--frozen-depth", "_blocks.99"];
    page.refused(&deep, (1, "E0509", "`_blocks.99`"));
    insta::assert_snapshot!(page.end());
}

#[test]
fn a_file_that_names_what_is_not_there_is_refused_before_it_costs_anything() {
    let house = House::open();
    let mut page = Page::of(&house);
    let mut submit = |name: &str, text: String, expect| {
        let file = house.file(name, text);
        page.refused(&["experiment", "submit", &file], expect);
        page.refused(&["experiment", "preview", &file], expect);
    };
    let data = SMALL.replace("dataset: flowers", "dataset: tulips");
    submit(
        "data.yaml",
        data,
        (1, "E0102", "there is no data set `tulips`"),
    );
    let depth = SMALL.replace("_blocks.14", "_blocks.41");
    submit("depth.yaml", depth, (1, "E0509", "`_blocks.41`"));
    assert_eq!(
        house.json(&["experiment", "list"])["items"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    insta::assert_snapshot!(page.end());
}

#[test]
fn a_prefix_that_fits_two_trials_is_ambiguous() {
    let house = House::open();
    let experiment = house.submit(GRID);
    // 24 trials begin with 16 different digits at most. All are made as slots become free, so look
    // at as many as there are: a pair is certain once all are there.
    let _worker = house.worker("a", 2);
    let mut pair = None;
    house.wait_trials(&experiment, "two trials begin with one digit", |trials| {
        let mut seen = BTreeMap::new();
        for trial in trials {
            let id = trial["id"].as_str().expect("an id");
            *seen.entry(id[..5].to_owned()).or_insert(0) += 1;
        }
        pair = seen
            .into_iter()
            .find(|(_, count)| *count > 1)
            .map(|(prefix, _)| prefix);
        pair.is_some()
    });
    let prefix = pair.expect("it was waited for");
    let mut page = Page::of(&house);
    page.refused(&["trial", "show", &prefix], (1, "E0108", &prefix));
    insta::assert_snapshot!(page.end());
}

#[test]
fn a_data_set_without_enough_in_it_is_refused_with_its_reason() {
    let house = House::open();
    let _worker = house.worker("a", 1);
    let picture = |path: &str| house.file(path, path);
    for number in 0..3 {
        picture(&format!("one/rose/{number}.png"));
        picture(&format!("hollow/rose/{number}.png"));
        picture(&format!("hollow/tulip/{number}.png"));
        picture(&format!("linked/rose/{number}.png"));
        picture(&format!("linked/tulip/{number} ä.png"));
    }
    picture("flat/rose.png");
    std::fs::create_dir(house.path("hollow/daisy")).expect("an empty class");
    let mut page = Page::of(&house);
    let mut add = |name: &str, expect| {
        let path = house.path(name);
        let path = path.to_str().expect("UTF-8");
        page.refused(&["dataset", "add", name, path], expect);
    };
    add("one", (1, "E0402", "one class"));
    add("hollow", (1, "E0403", "`daisy`"));
    add("flat", (1, "E0401", "no class folder"));
    add("nowhere", (1, "E0404", "no such file or folder"));
    add("lite.pth", (1, "E0404", ""));
    insta::assert_snapshot!(page.end());

    // A link out of the folder is told, and not followed.
    let secret = house.file("secret.png", "secret");
    let link = house.path("linked/rose/link.png");
    std::os::unix::fs::symlink(&secret, &link).expect("a link");
    let path = house.path("linked");
    let made = house.json(&["dataset", "add", "linked", path.to_str().expect("UTF-8")]);
    assert_eq!(made["summary"]["set_aside"]["link"], 1, "{made}");
    assert_eq!(made["summary"]["problems"][0]["path"], "rose/link.png");
}

#[test]
fn a_gate_that_fails_ends_the_watch_with_1_and_its_numbers() {
    let house = House::open();
    let _worker = house.worker("a", 2);
    let file = house.file(
        "small.yaml",
        SMALL.replace("at_least: 0.1", "at_least: 1.0"),
    );
    let (status, out, err) = house.shown(&["experiment", "submit", &file, "--watch"]);
    assert_eq!(status, Some(1), "{out}{err}");
    let fault = err.find("error[E0701]: ").expect("the gate's fault");
    insta::assert_snapshot!(redacted(&err[fault..]));
    assert!(
        out.contains("a gate failed, `champion` was not moved"),
        "{out}"
    );
    let model = house.json(&["model", "show", "small"]);
    assert_eq!(
        model["aliases"].as_array().map(Vec::len),
        Some(0),
        "the alias does not exist"
    );
    assert_eq!(
        model["versions"][0]["gates_passed"], false,
        "the version is there to look at"
    );
    // The gates hold for moves by hand, too; approvals are taken whatever gates ask for.
    let promote = ["model", "promote", "small", "1", "--alias", "champion"];
    let (status, _, err) = house.shown(&promote);
    assert_eq!(status, Some(1), "{err}");
    assert!(
        err.contains("error[E0701]: the gate `test/accuracy at least 1` failed"),
        "{err}"
    );
    let approve = [
        "model", "approve", "small", "1", "--role", "deployer", "--actor", "ann",
    ];
    let (status, out, err) = house.shown(&approve);
    assert_eq!(status, Some(0), "{err}");
    assert!(
        out.contains("small@1 is approved by ann as deployer"),
        "{out}"
    );
    let (status, _, err) = house.shown(&promote);
    assert_eq!(status, Some(1), "{err}");
}

#[test]
fn weights_that_are_no_weights_and_names_that_are_taken_are_refused() {
    let house = House::open();
    let _worker = house.worker("a", 1);
    let file = house.file("empty.pth", b"");
    let mut page = Page::of(&house);
    let mut add = |name: &str, arch: &str, expect| {
        let words = ["backbone", "add", name, "--arch", arch, "--weights", &file];
        page.refused(&words, expect);
    };
    add("new", "resnet19", (1, "E0508", "`resnet19`"));
    add("new", "resnet18", (1, "E0503", "empty"));
    add("lite", "resnet18", (1, "E0103", "`lite`"));
    insta::assert_snapshot!(page.end());
}

#[test]
fn what_does_not_go_with_a_state_is_refused() {
    let house = House::open();
    let _worker = house.worker("a", 2);
    let experiment = house.submit(SMALL);
    house.wait_ended(&experiment);
    let trial = house.trials(&experiment)[0]["id"].clone();
    let trial = trial.as_str().expect("an id");
    let mut page = Page::of(&house);
    for verb in ["pause", "resume", "cancel"] {
        page.refused(&["experiment", verb, &experiment], (1, "E0104", ""));
    }
    page.refused(&["trial", "stop", trial], (1, "E0104", ""));
    page.refused(
        &["model", "rollback", "small", "--alias", "champion"],
        (1, "E0104", "never pointed to another version"),
    );
    let picture = house.file("empty.jpg", b"");
    page.refused(
        &["predict", "small@1", &picture],
        (1, "E0705", "cannot be read"),
    );
    let full = house.file("full/notes.txt", b"mine");
    let full = full.trim_end_matches("/notes.txt");
    page.refused(
        &["model", "pull", "small@1", full],
        (1, "E0103", "is not empty"),
    );
    page.refused(
        &["model", "verify", full, "--model", "small@1"],
        (1, "E0703", ""),
    );
    page.refused(
        &["backbone", "show", "lite", "--frozen-depth", "19"],
        (1, "E0509", "`19`"),
    );
    insta::assert_snapshot!(page.end());
}

#[test]
fn an_experiment_without_a_trained_trial_promotes_nothing() {
    let house = House::open();
    let _worker = house.faulty_worker("a", "refuse");
    house.wait_alive("a");
    let mut page = Page::of(&house);
    let file = house.file("small.yaml", SMALL);
    page.refused(
        &["experiment", "submit", &file, "--watch"],
        (1, "E0508", "`small` failed"),
    );
    let trial = house.trials("small")[0]["id"].clone();
    let trial = trial.as_str().expect("an id");
    page.refused(
        &["model", "register", "small", "--trial", trial],
        (1, "E0704", "no best checkpoint"),
    );
    insta::assert_snapshot!(page.end());
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_with_what_to_write() {
    let house = House::open();
    let mut page = Page::of(&house);
    let mut preview = |old: &str, new: &str, expect| {
        assert!(SMALL.contains(old), "`{old}` is in the file");
        let file = house.file("grid.yaml", SMALL.replace(old, new));
        page.refused(&["experiment", "preview", &file], expect);
    };
    preview(
        "    train.learning_rate:",
        "    learning_rate:",
        (1, "E0206", ""),
    );
    preview(
        "{values: [0.001, 0.01]}",
        "{uniform: [0.1, 1]}",
        (1, "E0207", ""),
    );
    preview("[0.001, 0.01]", "[]", (1, "E0207", ""));
    preview(
        "train: {",
        "transfer: {schedule: {kind: lp_ft}}\ntrain: {",
        (1, "E0208", ""),
    );
    preview(
        "learning_rate: 0.001}",
        "learning_rate: 0.001, lr_schedule: {kind: cosine, warmup_epochs: 9}}",
        (1, "E0210", ""),
    );
    preview("test/accuracy", "test/acuracy", (1, "E0209", ""));
    let long = format!("name: small #{}", "x".repeat(300_000));
    preview("name: small", &long, (1, "E0105", ""));
    insta::assert_snapshot!(page.end());
}

#[test]
fn a_cluster_that_is_too_small_is_a_warning() {
    let house = House::open();
    let _worker = house.worker("a", 1);
    house.wait_alive("a");
    let file = house.file(
        "wide.yaml",
        format!("resources: {{slots_per_trial: 4}}{SMALL}"),
    );
    let mut pages = Vec::new();
    for words in [
        &["experiment", "preview", &file][..],
        &["experiment", "submit", &file],
        &["experiment", "show", "small"],
    ] {
        let (status, out, err) = house.shown(words);
        assert_eq!(status, Some(0), "{out}{err}");
        pages.push(redacted(&err));
    }
    insta::assert_snapshot!(pages.join("\n"));
    // What not even the pool could run is refused, and the preview says the same.
    let file = house.file(
        "wider.yaml",
        format!("resources: {{slots_per_trial: 5}}{SMALL}"),
    );
    Page::of(&house).refused(
        &["experiment", "submit", &file],
        (1, "E0301", "pool `big` has 4 slots"),
    );
    let (status, _, err) = house.shown(&["experiment", "preview", &file]);
    assert_eq!(status, Some(0), "{err}");
    assert!(
        err.contains("warning[E0301]: no worker or pool could ever run"),
        "{err}"
    );
    // Whoever follows it is told once, too.
    let mut command = house.command(&["experiment", "watch", "small"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut watching = Process(command.spawn().expect("pomona runs"));
    let mut stderr = BufReader::new(watching.0.stderr.take().expect("its stderr"));
    let mut line = String::new();
    while !line.starts_with("hint: ") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("UTF-8") > 0, "no hint");
    }
    house.json(&["experiment", "cancel", "small"]);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(watching.end().0, Some(1), "{rest}");
    assert!(!rest.contains("warning[E0301]"), "{rest}");
}
