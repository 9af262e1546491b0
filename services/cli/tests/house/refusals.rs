//! What a user can do wrong over the wire: each refusal has its code, its status and its reason.

use serde_json::Value;
use std::collections::BTreeMap;

use super::harness::{GRID, House};
use super::verbs::SMALL;

fn code(error: &Value) -> &str {
    error["code"].as_str().expect("a code")
}

/// The exit status, the code, and whether the message says `word`.
fn check(house: &House, words: &[&str], expect: (i32, &str, &str)) {
    let (status, error) = house.refused(words);
    let typed = words.join(" ");
    assert_eq!(
        (status, code(&error)),
        (expect.0, expect.1),
        "`pomona {typed}`: {error}"
    );
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(expect.2), "`pomona {typed}`: {message}");
}

#[test]
fn what_is_not_there_is_named_with_its_code() {
    let house = House::open();
    check(
        &house,
        &["experiment", "show", "nothing"],
        (1, "E0102", "`nothing`"),
    );
    check(
        &house,
        &["trial", "show", "tri_0000"],
        (1, "E0102", "`tri_0000`"),
    );
    check(
        &house,
        &["trial", "logs", "tri_0000", "--follow"],
        (1, "E0102", "`tri_0000`"),
    );
    check(
        &house,
        &["dataset", "show", "flowers@9"],
        (1, "E0102", "`flowers@9`"),
    );
    check(&house, &["backbone", "show", "vgg"], (1, "E0102", "`vgg`"));
    check(&house, &["model", "show", "tux"], (1, "E0102", "`tux`"));
    check(
        &house,
        &["model", "promote", "tux", "1", "--alias", "x"],
        (1, "E0102", "`tux`"),
    );
    check(
        &house,
        &["model", "rollback", "tux", "--alias", "x"],
        (1, "E0102", "`tux`"),
    );
    check(
        &house,
        &["explain", "task", "tsk_0000"],
        (1, "E0102", "`tsk_0000`"),
    );
    check(
        &house,
        &["explain", "worker", "nobody"],
        (1, "E0102", "`nobody`"),
    );
    check(
        &house,
        &["worker", "drain", "nobody"],
        (1, "E0102", "`nobody`"),
    );
    let deep = ["backbone", "show", "lite", "--frozen-depth", "_blocks.99"];
    check(&house, &deep, (1, "E0509", "`_blocks.99`"));
}

#[test]
fn a_file_that_names_what_is_not_there_is_refused_before_it_costs_anything() {
    let house = House::open();
    let submit = |name: &str, text: String, expect| {
        let file = house.file(name, text);
        check(&house, &["experiment", "submit", &file], expect);
        check(&house, &["experiment", "preview", &file], expect);
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
    check(&house, &["trial", "show", &prefix], (1, "E0108", &prefix));
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
    let add = |name: &str, expect| {
        let path = house.path(name);
        check(
            &house,
            &["dataset", "add", name, path.to_str().expect("UTF-8")],
            expect,
        );
    };
    add("one", (1, "E0402", "one class"));
    add("hollow", (1, "E0403", "`daisy`"));
    add("flat", (1, "E0401", "no class folder"));
    add("nowhere", (1, "E0404", "no such file or folder"));

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
    assert!(
        err.contains("error[E0701]: the gate `test/accuracy at least 1` failed"),
        "{err}"
    );
    assert!(err.contains("measured as 0."), "{err}");
    assert!(err.contains("hint: "), "{err}");
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
    // A person may decide otherwise, and is warned.
    let (status, _, err) = house.shown(&["model", "promote", "small", "1", "--alias", "champion"]);
    assert_eq!(status, Some(0), "{err}");
    assert!(err.contains("warning: a gate of `small@1` failed"), "{err}");
}

#[test]
fn weights_that_are_no_weights_and_names_that_are_taken_are_refused() {
    let house = House::open();
    let _worker = house.worker("a", 1);
    let file = house.file("empty.pth", b"");
    let add = |name: &str, arch: &str, expect| {
        let words = ["backbone", "add", name, "--arch", arch, "--weights", &file];
        check(&house, &words, expect);
    };
    add("new", "resnet19", (1, "E0508", "`resnet19`"));
    add("new", "resnet18", (1, "E0503", "empty"));
    add("lite", "resnet18", (1, "E0103", "`lite`"));
}
