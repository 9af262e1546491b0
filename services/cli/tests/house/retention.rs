//! Which checkpoints stay when an experiment has ended, and who says why.

use serde_json::Value;

use super::harness::House;
use super::verbs::SMALL;

fn checkpoints(house: &House, trial: &str) -> usize {
    let shown = house.json(&["trial", "show", trial]);
    shown["checkpoints"].as_array().expect("a list").len()
}

#[test]
fn the_best_and_the_pinned_trials_keep_their_checkpoints_and_the_others_say_why_not() {
    let house = House::open();
    let _worker = house.slow_worker("a", 1);
    let rules = "share: off\nretention: {best: 1}\nmax_restarts: 0\n";
    let (file, _) = SMALL.split_once("promote:").expect("a promotion");
    let experiment = house.submit(&format!("{file}{rules}"));
    let id = |trial: &Value| trial["id"].as_str().expect("an id").to_owned();
    house.wait_trials(&experiment, "one is completed", |trials| {
        trials.iter().any(|trial| trial["state"] == "completed")
    });
    let pinned = id(&house.trials(&experiment)[0]);
    let row = house.json(&["trial", "pin", &pinned]);
    assert_eq!(row["pinned"], true);
    house.wait_ended(&experiment);
    let shown = house.json(&["experiment", "show", &experiment]);
    let best = shown["best"].as_str().expect("a best one").to_owned();
    let trials = house.trials(&experiment);
    assert_eq!(trials.len(), 4);
    let mut gone = None;
    for trial in &trials {
        let name = id(trial);
        let stays = name == pinned || name == best;
        assert_eq!(checkpoints(&house, &name) > 0, stays, "{trial}");
        if !stays {
            gone = Some(name);
        }
    }
    let gone = gone.expect("one that went");
    let (_, text, _) = house.shown(&["trial", "show", &gone]);
    assert!(
        text.contains("not among the best 1 trial of its experiment"),
        "{text}"
    );
    let (_, text, _) = house.shown(&["explain", "trial", &gone]);
    assert!(
        text.contains("deleted its last checkpoint at step"),
        "{text}"
    );
    for words in [
        vec!["model", "register", "m", "--trial", &gone],
        vec!["trial", "pin", &gone],
    ] {
        let (code, error) = house.refused(&words);
        assert_eq!(
            (code, error["code"].as_str()),
            (1, Some("E0624")),
            "{words:?}"
        );
    }
    // Whoever is not among the best goes with its pin.
    let row = house.json(&["trial", "unpin", &pinned]);
    assert_eq!(row["pinned"], Value::Null);
    assert_eq!(checkpoints(&house, &pinned) > 0, pinned == best);
}
