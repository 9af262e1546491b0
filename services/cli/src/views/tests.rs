//! Every view with fixed rows, at a fixed width.

mod rows;

use super::preview::Outlook;
use super::{catalogue, experiment, feature, machine, model, preview, trial, watch, webhook};
use crate::printer::Style;
use crate::views::experiment::Tally;
use pomona_api::v1::experiments::{ExperimentPreview, ExperimentView, LogEntry};
use pomona_api::v1::webhooks::WebhookTested;
use pomona_domain::dataset::{Sample, Split};
use pomona_domain::experiment::ExperimentState;
use pomona_domain::metric::Direction;
use pomona_domain::plan::Spent;
use pomona_domain::trial::TrialState;
use pomona_domain::{Code, Digest, Fault, TaskId, spec};
use rows::{at, now};

const WIDTH: u16 = 100;
const PLAIN: Style = Style {
    color: false,
    width: WIDTH,
};

/// The text as it is, and a promise: no line is wider than the terminal.
#[track_caller]
fn fits(text: String) -> String {
    for line in text.lines() {
        assert!(
            line.chars().count() <= usize::from(WIDTH),
            "too wide: {line}"
        );
        assert_eq!(line, line.trim_end(), "a line ends in blanks");
    }
    text
}

#[test]
fn a_data_set_and_what_was_set_aside() {
    let row = rows::dataset();
    insta::assert_snapshot!(fits(catalogue::dataset(PLAIN, &row)));
}

#[test]
fn data_sets() {
    insta::assert_snapshot!(fits(catalogue::datasets(PLAIN, now(), &[rows::dataset()])));
}

#[test]
fn samples_of_a_split() {
    let sample = |path: &str, label, group| Sample {
        path: path.to_owned(),
        label,
        split: Split::Test,
        group,
        file: Digest::of(b"file"),
        pixels: Digest::of(b"pixels"),
    };
    let samples = [sample("daisy/a b.jpg", 0, 4), sample("rose/ä.png", 1, 9)];
    let classes = ["daisy".to_owned(), "rose".to_owned()];
    insta::assert_snapshot!(fits(catalogue::samples(PLAIN, &classes, &samples)));
}

#[test]
fn backbones() {
    insta::assert_snapshot!(fits(catalogue::backbones(
        PLAIN,
        now(),
        &[rows::backbone()]
    )));
}

#[test]
fn a_backbone_and_what_a_frozen_depth_trains() {
    let row = rows::backbone();
    let frozen = catalogue::frozen_blocks(&row, "_blocks.0").unwrap();
    insta::assert_snapshot!(fits(catalogue::backbone(PLAIN, &row, Some(frozen))));
}

#[test]
fn a_frozen_depth_is_all_a_number_a_block_or_a_stage() {
    let row = rows::backbone();
    let of = |depth| catalogue::frozen_blocks(&row, depth);
    assert_eq!(of("all"), Ok(4));
    assert_eq!(of("0"), Ok(0));
    assert_eq!(of("4"), Ok(4));
    assert_eq!(of("_blocks.0"), Ok(2));
    assert_eq!(of("_blocks"), Ok(3), "a stage stands for its last block");
    for depth in ["5", "-1", "_block", "_blocks.", ""] {
        assert_eq!(of(depth).unwrap_err().code, Code::UnknownBlock, "{depth}");
    }
}

#[test]
fn experiments() {
    let lost = Fault::new(Code::RankLost, "rank 1 of 2 was lost");
    let states = [
        ExperimentState::Active,
        ExperimentState::Promoting { task: TaskId(1) },
        ExperimentState::Failed { fault: lost },
        ExperimentState::Completed,
    ];
    let list: Vec<_> = states.into_iter().map(rows::experiment).collect();
    insta::assert_snapshot!(fits(experiment::list(PLAIN, now(), &list)));
}

#[test]
fn an_experiment_that_was_submitted() {
    let row = rows::experiment(ExperimentState::Active);
    insta::assert_snapshot!(fits(experiment::submitted(PLAIN, &row)));
}

#[test]
fn an_experiment_and_its_leaderboard() {
    let mut row = seen(ExperimentState::Active);
    row.running = Spent {
        slot_ms: 8_400,
        leases: 1,
        shared_leases: 1,
    };
    let trials = rows::trials();
    insta::assert_snapshot!(fits(experiment::show(PLAIN, now(), &row, &trials, 5)));
}

#[test]
fn an_experiment_that_has_ended_says_what_it_cost() {
    let row = seen(ExperimentState::Completed);
    insta::assert_snapshot!(fits(experiment::show(PLAIN, now(), &row, &[], 5)));
}

#[test]
fn an_experiment_from_before_there_were_plans() {
    let mut row = seen(ExperimentState::Active);
    row.experiment.plan = None;
    row.experiment.spent = Spent::default();
    let text = experiment::show(PLAIN, now(), &row, &[], 5);
    assert!(
        !text.contains("predicted") && !text.contains("so far"),
        "{text}"
    );
}

/// As `GET /api/v1/experiments/{id}` answers.
fn seen(state: ExperimentState) -> ExperimentView {
    ExperimentView {
        experiment: rows::experiment(state),
        running: Spent::default(),
        warnings: Vec::new(),
    }
}

#[test]
fn a_preview_without_a_server() {
    let spec = spec::parse(rows::GRID, &[]).unwrap();
    let outlook = Outlook {
        spec: &spec,
        preview: pomona_search::preview(&spec).unwrap(),
        server: None,
    };
    insta::assert_snapshot!(fits(preview::view(PLAIN, &outlook)));
}

#[test]
fn a_preview_with_what_the_server_knows() {
    let spec = spec::parse(rows::GRID, &[]).unwrap();
    let outlook = Outlook {
        spec: &spec,
        preview: pomona_search::preview(&spec).unwrap(),
        server: Some(ExperimentPreview {
            name: spec.name.clone(),
            backbone: spec.backbone.clone(),
            dataset: "tux@1".to_owned(),
            trials: 24,
            max_concurrent: 2,
            slots_per_trial: 1,
            epochs: 240,
            validation: Some(spec::Validation::KFold(spec::KFold::DEFAULT)),
            points: Vec::new(),
            plan: Some(rows::plan()),
            warnings: Vec::new(),
        }),
    };
    insta::assert_snapshot!(fits(preview::view(PLAIN, &outlook)));
}

#[test]
fn a_preview_of_random_points() {
    let spec = rows::random_spec();
    let outlook = Outlook {
        spec: &spec,
        preview: pomona_search::preview(&spec).unwrap(),
        server: None,
    };
    insta::assert_snapshot!(fits(preview::view(PLAIN, &outlook)));
}

#[test]
fn trials_by_number() {
    insta::assert_snapshot!(fits(trial::list(PLAIN, now(), &rows::trials())));
}

#[test]
fn a_trial_with_its_curve() {
    let row = &rows::trials()[2];
    let owner = rows::experiment(ExperimentState::Active);
    let text = trial::show(
        PLAIN,
        now(),
        row,
        &owner,
        &rows::curve(row),
        &rows::checkpoints(row),
    );
    insta::assert_snapshot!(fits(text));
}

#[test]
fn a_trial_that_failed_before_it_measured_anything() {
    let mut row = rows::trials().swap_remove(3);
    row.best = None;
    let owner = rows::experiment(ExperimentState::Active);
    insta::assert_snapshot!(fits(trial::show(PLAIN, now(), &row, &owner, &[], &[])));
}

#[test]
fn a_line_of_a_log() {
    let entry = LogEntry {
        seq: 1,
        rank: 1,
        at: at(3),
        line: "epoch 1: val/accuracy 0.31".to_owned(),
    };
    let text = trial::log_line(PLAIN, &entry);
    assert_eq!(text, "12:00:03 rank 1 epoch 1: val/accuracy 0.31");
}

#[test]
fn models() {
    insta::assert_snapshot!(fits(model::list(PLAIN, now(), &[rows::model()])));
}

#[test]
fn a_model_and_its_versions() {
    insta::assert_snapshot!(fits(model::show(PLAIN, now(), &rows::model())));
}

#[test]
fn why_an_alias_stands_there_with_the_numbers_of_its_gates() {
    let explanation = pomona_api::v1::cluster::Explanation {
        subject: "tux@champion".to_owned(),
        now: "it points to version 3".to_owned(),
        reasons: Vec::new(),
    };
    for (verdict, decision) in [("allowed", true), ("refused", false)] {
        let text = machine::explanation(PLAIN, &explanation)
            + "\n"
            + &model::gates(PLAIN, &rows::judgement(decision).gates);
        insta::assert_snapshot!(format!("explain_model_{verdict}"), fits(text));
    }
}

#[test]
fn a_version_whose_test_split_is_worn_out_says_so() {
    let text = model::version(PLAIN, &rows::worn());
    assert!(
        text.contains("used for 22 promotion decisions, more than 20"),
        "{text}"
    );
}

#[test]
fn a_version_with_its_gates_and_files() {
    insta::assert_snapshot!(fits(model::version(PLAIN, &rows::version(true))));
}

#[test]
fn moves_of_an_alias() {
    insta::assert_snapshot!(fits(model::history(PLAIN, &rows::history())));
}

#[test]
fn predictions_and_a_picture_that_cannot_be_read() {
    insta::assert_snapshot!(fits(model::predictions(PLAIN, &rows::predictions())));
}

#[test]
fn pictures_of_one_absolute_folder_are_shown_from_there() {
    let shown = |paths: &[&str]| -> Vec<String> {
        let row = &rows::predictions()[0];
        let of = |path: &&str| pomona_domain::task::Prediction {
            path: (*path).to_owned(),
            ..row.clone()
        };
        let rows: Vec<_> = paths.iter().map(of).collect();
        let text = model::predictions(PLAIN, &rows);
        let name = |line: &str| line.split_whitespace().next().unwrap_or("").to_owned();
        text.lines().skip(1).map(name).collect()
    };
    assert_eq!(shown(&["/a/b/x.png", "/a/c/y.png"]), ["b/x.png", "c/y.png"]);
    assert_eq!(shown(&["/a/b/x.png"]), ["x.png"]);
    assert_eq!(shown(&["/a/b/x.png", "c/y.png"]), ["/a/b/x.png", "c/y.png"]);
    assert_eq!(shown(&["a/b/x.png", "a/y.png"]), ["a/b/x.png", "a/y.png"]);
}

#[test]
fn workers() {
    insta::assert_snapshot!(fits(machine::workers(PLAIN, now(), &rows::workers())));
}

#[test]
fn an_explanation() {
    insta::assert_snapshot!(fits(machine::explanation(PLAIN, &rows::explanation())));
}

#[test]
fn the_cluster_at_a_glance() {
    let running = rows::trials().swap_remove(4);
    let top = machine::Top {
        cluster: rows::cluster(),
        workers: rows::workers(),
        experiments: vec![rows::experiment(ExperimentState::Active)],
        running: vec![("tux-grid".to_owned(), running)],
    };
    let text = machine::top(PLAIN, now(), "http://127.0.0.1:7878", &top);
    insta::assert_snapshot!(fits(text));
}

#[test]
fn checks_of_a_machine() {
    let check = |name, verdict, found: &str, hint: Option<&str>| machine::Check {
        name,
        verdict,
        found: found.to_owned(),
        hint: hint.map(str::to_owned),
    };
    let checks = [
        check(
            "processor",
            machine::Verdict::Ok,
            "2 cores, AMD EPYC 7B13, avx2",
            None,
        ),
        check(
            "memory",
            machine::Verdict::Warn,
            "1.0 GiB free",
            Some("start fewer slots"),
        ),
        check(
            "trainer",
            machine::Verdict::Fail,
            "there is no `pomona-trainer`",
            Some("build it"),
        ),
    ];
    insta::assert_snapshot!(fits(machine::checks(PLAIN, &checks)));
}

#[test]
fn what_is_said_of_trials_while_an_experiment_is_followed() {
    let trials = rows::trials();
    let mut again = trials[4].clone();
    again.leases = 2;
    let mut waits = trials[5].clone();
    waits.state = TrialState::Waiting {
        since: at(1),
        not_before: at(2),
    };
    let lines: Vec<String> = [
        (None, &trials[0]),
        (None, &trials[3]),
        (None, &trials[4]),
        (Some(&trials[5]), &again),
        (Some(&trials[4]), &waits),
        (None, &trials[5]),
    ]
    .into_iter()
    .map(|(before, row)| {
        watch::change(PLAIN, (3, 24), before, row).unwrap_or_else(|| "(nothing)".to_owned())
    })
    .collect();
    insta::assert_snapshot!(fits(lines.join("\n")));
}

#[test]
fn the_headline_names_the_best_trial_so_far() {
    let trials = rows::trials();
    let row = rows::experiment(ExperimentState::Active);
    let leader = watch::leader(trials.iter(), Direction::Maximize);
    assert_eq!(leader.map(|trial| trial.number), Some(3));
    let worst = watch::leader(trials.iter(), Direction::Minimize);
    assert_eq!(worst.map(|trial| trial.number), Some(4));
    assert_eq!(
        watch::headline(&row, Tally::of(&trials), leader),
        "best val/accuracy 0.9174 (trial 3)  1 running, 1 waiting, 1 failed"
    );
    assert_eq!(watch::headline(&row, Tally::default(), None), "");
    assert_eq!(
        watch::running(PLAIN, &row, &trials[4]),
        "val/accuracy 0.6900  learning_rate 0.0030639, weight_decay 0, frozen_depth all"
    );
}

#[test]
fn what_an_experiment_came_to() {
    let row = rows::experiment(ExperimentState::Completed);
    let trials = rows::trials();
    let version = rows::version(true);
    insta::assert_snapshot!(fits(watch::summary(
        PLAIN,
        now(),
        &row,
        &trials,
        Some(&version)
    )));
}

#[test]
fn how_an_experiment_ended_is_a_verdict() {
    let of = |state, version: Option<bool>| {
        let version = version.map(rows::version);
        let fault = watch::verdict(&rows::experiment(state), version.as_ref())?;
        Some((fault.code, fault.message))
    };
    assert_eq!(of(ExperimentState::Completed, Some(true)), None);
    let (code, message) = of(ExperimentState::Completed, Some(false)).unwrap();
    assert_eq!(code, Code::GateFailed);
    assert_eq!(
        message,
        "the gate `test/accuracy at least 0.6` failed: it was measured as 0.5521"
    );
    let (code, _) = of(ExperimentState::Completed, None).unwrap();
    assert_eq!(code, Code::NothingToPromote);
    let (code, _) = of(ExperimentState::Canceled, None).unwrap();
    assert_eq!(code, Code::WrongState);
    let fault = Fault::new(Code::TimeLimit, "over its limit");
    let (code, message) = of(ExperimentState::Failed { fault }, None).unwrap();
    assert_eq!(code, Code::TimeLimit);
    assert_eq!(message, "experiment `tux-grid` failed: over its limit");
}

#[test]
fn a_narrow_terminal_leaves_out_columns_and_breaks_no_id() {
    let style = Style {
        color: false,
        width: 60,
    };
    let row = rows::experiment(ExperimentState::Active);
    let trials = rows::trials();
    let pages = [
        experiment::list(style, now(), std::slice::from_ref(&row)),
        experiment::show(style, now(), &seen(ExperimentState::Active), &trials, 3),
        trial::list(style, now(), &trials),
        catalogue::backbones(style, now(), &[rows::backbone()]),
        catalogue::backbone(style, &rows::backbone(), Some(2)),
        catalogue::datasets(style, now(), &[rows::dataset()]),
    ];
    for page in &pages {
        // A digest is longer than such a line, and whole; then other texts are not narrower.
        let digest = page.lines().find(|line| line.contains("sha256:"));
        let widest = digest.map_or(60, |line| line.chars().count());
        for line in page.lines() {
            assert!(line.chars().count() <= widest, "too wide: {line}");
        }
    }
    insta::assert_snapshot!(pages.join("\n"));
}

#[test]
fn a_trial_without_a_point_starts_without_a_colon() {
    let mut trial = rows::trials().remove(4);
    trial.hparams.0.clear();
    trial.leases = 1;
    let line = watch::change(PLAIN, (0, 1), None, &trial).expect("it started");
    assert!(line.ends_with(" started"), "{line}");
    let beside = watch::running(PLAIN, &rows::experiment(ExperimentState::Active), &trial);
    assert_eq!(beside, beside.trim_end());
}

#[test]
fn features_of_two_workers() {
    let copies = rows::features();
    let names = rows::dataset_names();
    let text = feature::list(PLAIN, now(), &copies, &names);
    insta::assert_snapshot!(fits(text));
}

#[test]
fn one_shard_of_features_and_who_keeps_it() {
    let copies = rows::features();
    let names = rows::dataset_names();
    let text = feature::card(PLAIN, now(), &copies[..2], &names);
    insta::assert_snapshot!(fits(text));
}

#[test]
fn webhooks_and_what_they_were_told() {
    let rows = [rows::webhook(1, "ci"), rows::webhook(2, "chat")];
    insta::assert_snapshot!(fits(webhook::list(PLAIN, &rows)));
    let shown = webhook::show(PLAIN, now(), &rows[0], Some("whsec_c2VjcmV0"));
    insta::assert_snapshot!(fits(shown));
    let deliveries = [rows::delivery(9, None), rows::delivery(8, Some(503))];
    insta::assert_snapshot!(fits(webhook::deliveries(PLAIN, now(), &deliveries)));
    let answer = WebhookTested {
        success: false,
        status: Some(500),
        body: Some("no\u{1b}[31m room".to_owned()),
        error: None,
    };
    insta::assert_snapshot!(fits(webhook::tested(PLAIN, &answer)));
}
