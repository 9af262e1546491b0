//! Files that are refused, and the words they are refused with. Each snapshot is one page of input
//! and answer, to be read by a person: is the place named, is it clear what to do?

use pomona_domain::Fault;
use pomona_domain::spec::{MAX_FILE_BYTES, parse};
use std::fmt::Write as _;

const BASE: &str = "name: a\nbackbone: b\ndataset: c\n";

fn render(result: Result<impl Sized, Vec<Fault>>) -> String {
    let Err(faults) = result else {
        return "    accepted\n".to_owned();
    };
    let line = |fault: &Fault| {
        let hint = fault
            .hint
            .as_ref()
            .map(|hint| format!("    hint: {hint}\n"));
        format!(
            "    error[{}]: {}\n{}",
            fault.code,
            fault.message,
            hint.unwrap_or_default()
        )
    };
    faults.iter().map(line).collect()
}

/// Each text is put below a file that is complete without it.
fn below_base(cases: &[&str]) -> String {
    let page = |case: &&str| format!("{case}\n{}\n", render(parse(&format!("{BASE}{case}"), &[])));
    cases.iter().map(page).collect()
}

/// Each text is a whole file.
fn whole(cases: &[&str]) -> String {
    let page = |case: &&str| format!("{case}\n{}\n", render(parse(case, &[])));
    cases.iter().map(page).collect()
}

/// Each line holds `--set` edits, with `;` between them, of the complete file.
fn edits(cases: &[&str]) -> String {
    let page = |case: &&str| {
        let edits: Vec<String> = case.split(';').map(str::to_owned).collect();
        format!("--set {case}\n{}\n", render(parse(BASE, &edits)))
    };
    cases.iter().map(page).collect()
}

#[test]
fn not_a_file() {
    insta::assert_snapshot!(whole(&[
        "",
        "just words",
        "- a\n- b",
        "name: [a",
        "name: a\nname: b\nbackbone: b\ndataset: c",
        "name: a\n\tbackbone: b",
        "name: a\n---\nname: b",
        "name: a\nbackbone: b\ndataset: c\ntrain: {learning_rate: .nan}",
        "name: 7\nbackbone: true\ndataset:",
        "name: my experiment\nbackbone: ../b\ndataset: c@0",
        "name: ä\nbackbone: b\ndataset: c@newest",
    ]));
}

#[test]
fn a_file_over_the_limit_is_not_even_read() {
    let text = format!("name: {}", "a".repeat(MAX_FILE_BYTES));
    insta::assert_snapshot!(render(parse(&text, &[])));
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        let items = vec![alias; 9].join(", ");
        writeln!(text, "a{level}: &a{level} [{items}]").expect("a text takes all");
    }
    let faults = parse(&text, &[]).expect_err("a bomb");
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].code.as_str(), "E0201");
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(below_base(&[
        "train: {learning_rat: 0.1}",
        "train: {learning-rate: 0.1}",
        "train: {zzz: 0.1}",
        "learning_rate: 0.1",
        "slots_per_trial: 2",
        "trian: {epochs: 3}",
        "transfer: {frozen_dept: all, head: {kind: linear, hiden: 3}}",
        "search: {space: {train.learning_rate: {valuse: [0.1]}}}",
        "resources: {gpus: 2}",
        "promote: {model: m, alias: champion, gate: []}",
    ]));
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(below_base(&[
        "train: 3",
        "train:",
        "train: [epochs]",
        "train: {epochs: ten, batch_size: 1.5, learning_rate: fast}",
        "train: {learning_rate: \"1e-3\", epochs: \"10\"}",
        "train: {optimizer: adamw}",
        "train: {optimizer: {weight_decay: 0.1}}",
        "train: {optimizer: {kind: 3}}",
        "train: {augment: {views: 2, ops: horizontal_flip}}",
        "transfer: {frozen_depth: [1]}",
        "transfer: {frozen_depth: \"3\"}",
        "transfer: {frozen_depth: \"layer 3\"}",
        "transfer: {head: linear}",
        "search: {metric: 3, space: [train.learning_rate]}",
        "search: {validation: 5}",
        "search: {validation: hold_out}",
        "time_limit: 7200",
        "time_limit: soon",
        "share: false",
        "resources: {selector: [zone, a]}",
        "resources: {selector: {zone: 3, disk: {kind: ssd}, a b: c}}",
        "resources: {selector: {zone: [a, true]}}",
        "seed: -1",
        "seed: 1.5",
        "promote: yes",
        "promote: {model: m, alias: champion, gates: {metric: test/accuracy}}",
        "promote: {model: m, alias: champion, gates: [test/accuracy]}",
    ]));
}

#[test]
fn out_of_range() {
    insta::assert_snapshot!(below_base(&[
        "train: {epochs: 0, batch_size: 100000, learning_rate: 0}",
        "train: {learning_rate: -0.1, label_smoothing: 1}",
        "train: {optimizer: {kind: adam}}",
        "train: {optimizer: {kind: sgd, momentum: 1.0, weight_decay: -1}}",
        "train: {optimizer: {kind: adamw, beta1: 1, eps: 0}}",
        "train: {lr_schedule: {kind: step, every_epochs: 0, gamma: 2}}",
        "train: {lr_schedule: {kind: linear}}",
        "train: {precision: f16, class_weights: balance}",
        "train: {augment: {views: 3, ops: [rotate]}}",
        "train: {augment: {views: 33, ops: [random_resized_crop]}}",
        "transfer: {frozen_depth: -1}",
        "transfer: {head: {kind: mlp, hidden: 0, dropout: 1.0}}",
        "search: {strategy: gird, direction: up, max_trials: 0, replicates: 0}",
        "search: {validation: {kfold: 1, repeats: 0, seed: 3}}",
        "resources: {slots_per_trial: 0}",
        "resources: {selector: {zone: []}}",
        "priority: 101",
        "time_limit: 100ms",
        "time_limit: 10000h",
        "seed: 9007199254740992",
        "promote: {model: a b, alias: \"3\"}",
        "promote: {model: m, alias: champion, gates: [{metric: test/accuracy, at_least: 60}]}",
        "promote: {model: m, alias: champion, gates: [{metric: test/loss, at_most: -1}]}",
    ]));
}

#[test]
fn missing_keys() {
    insta::assert_snapshot!(whole(&[
        "train: {lr_schedule: {kind: step}, optimizer: {}}",
        "{name: a, backbone: b, dataset: c, promote: {gates: [{}, {metric: test/loss}]}}",
        "{name: a, backbone: b, dataset: c, search: {strategy: random, space: {seed: {int: [1, 3]}}}}",
    ]));
}

#[test]
fn contradictions() {
    insta::assert_snapshot!(below_base(&[
        "train: {epochs: 3, lr_schedule: {kind: cosine, warmup_epochs: 5}}",
        "train: {lr_schedule: {kind: cosine, every_epochs: 5}}",
        "train: {optimizer: {kind: adamw, momentum: 0.9}}",
        "train: {optimizer: {kind: sgd, beta1: 0.9, beta3: 0.9}}",
        "transfer: {head: {kind: linear, hidden: 64}}",
        "train: {augment: {views: 2}}",
        "train: {augment: {ops: [horizontal_flip]}}",
        "train: {augment: {views: 2, ops: [horizontal_flip, horizontal_flip]}}",
        "train: {augment: {views: 4, ops: [random_resized_crop, random_resized_crop]}}",
        "train: {augment: {views: 3, ops: [horizontal_flip]}}",
        "train: {augment: {views: 10}}",
        "train: {augment: {ops: [random_resized_crop, horizontal_flip]}}",
        "train: {augment: {views: 2, ops: [horizontal_flip]}}\nsearch: {space: {train.augment.views: {values: [2, 4]}}}",
        "train: {batch_size: 3}\nresources: {slots_per_trial: 4}",
        "search: {validation: {kfold: 5}}\nshare: off",
        "search: {validation: {repeats: 2}}\nresources: {slots_per_trial: 2}",
        "search: {metric: val/loss, direction: maximize}",
        "search: {max_trials: 3, replicates: 2, space: {train.epochs: {values: [1, 2]}}}",
        "promote: {model: m, alias: champion, gates: [{metric: test/ece, at_least: 0.5, at_most: 0.1}]}",
    ]));
}

#[test]
fn features_that_are_not_built() {
    insta::assert_snapshot!(below_base(&[
        "transfer: {schedule: {kind: constant}, layer_decay: 1.0, regularizer: {kind: none}}",
        "transfer: {layer_decay: 1}",
        "transfer: {schedule: {kind: lp_ft, epochs: 3}, layer_decay: 0.9, regularizer: {kind: l2_sp}}",
        "transfer: {schedule: {kind: gradual}, regularizer: {kind: lwf, weight: 1}}",
        "transfer: {schedule: {kind: constant, epochs: 3}, regularizer: {kind: l1}}",
        "transfer: {layer_decay: 2.0}",
        "train: {precision: bf16}",
        "search: {space: {transfer.layer_decay: {values: [0.9, 1.0]}}}",
    ]));
}

#[test]
fn gates_that_cannot_be_meant() {
    let gate = |text: &str| format!("promote: {{model: m, alias: champion, gates: [{text}]}}");
    let cases = [
        "{better_than: champion}",
        "{better_than: challenger, metric: test/accuracy}",
        "{better_than: 3, metric: test/accuracy, confidence: 95}",
        "{better_than: champion, metric: val/accuracy, confidence: 0.4}",
        "{better_than: champion, metric: test/accuracy, margin: 0.1}",
        "{better_than: champion, metric: test/accuracy, at_least: 0.1}",
        "{better_than: champion, no_worse_than: champion, metric: test/accuracy}",
        "{no_worse_than: champion, metric: test/accuracy}",
        "{no_worse_than: champion, metric: test/accuracy, margin: 1}",
        "{no_worse_than: champion, metric: test/accuracy, margin: 2}",
        "{no_worse_than: champion, metric: test/loss, margin: 0, confidence: sure}",
        "{metric: test/accuracy, every_class_at_least: 0.5}",
        "{metric: test/recall, every_class_at_least: 50}",
        "{metric: test/recal, every_class_at_least: 0.5}",
        "{metric: test/recall, at_least: 0.5}",
        "{metric: test/latency_p95_ms}",
        "{metric: test/latency_p95_ms, at_most: -1}",
        "{forgetting: 0.1}",
        "{forgetting: {}}",
        "{forgetting: {at_most: -1, probe: imagenet}}",
        "{forgetting: {at_most: 0.1}, metric: test/accuracy}",
        "{metric: test/forgetting}",
        "{approvals: {}}",
        "{approvals: 2}",
        "{approvals: {boss: 1}}",
        "{approvals: {deployer: 0, admin: many}}",
        "{approvals: {deployer: 1}, metric: test/accuracy}",
        "{}",
    ];
    insta::assert_snapshot!(below_base(&cases.map(gate).each_ref().map(String::as_str)));
}

#[test]
fn metrics_that_may_not_choose() {
    insta::assert_snapshot!(below_base(&[
        "search: {metric: test/accuracy}",
        "search: {metric: test/recall}",
        "search: {metric: train/loss}",
        "search: {metric: cv/accuracy}",
        "search: {metric: val/acuracy}",
        "search: {metric: accuracy}",
        "promote: {model: m, alias: champion, gates: [{metric: train/loss, at_most: 1}]}",
    ]));
}

#[test]
fn strategies_and_their_sections() {
    let rate = "space: {train.learning_rate: {log_uniform: [0.001, 0.1]}}";
    let few = "space: {train.learning_rate: {values: [0.001, 0.1]}}";
    let case = |keys: &str, space: &str| format!("search: {{{keys}, {space}}}");
    let cases = [
        case("strategy: asha", rate),
        case("strategy: asha, max_trials: 9", rate),
        case("strategy: asha", few),
        case(
            "strategy: asha, asha: {eta: 1, min_epochs: 0, form: race}",
            few,
        ),
        case("strategy: asha, asha: {eta: 2, grace: 3}", few),
        case("strategy: asha, tpe: {startup: 5}", few),
        case("asha: {eta: 2}", few),
        case("strategy: hyperband, hyperband: {form: stop}", few),
        case("strategy: hyperband, validation: {kfold: 5}", few),
        case("strategy: tpe", few),
        case("strategy: tpe, max_trials: 9, tpe: {startup: 0}", rate),
        case("strategy: tpe, max_trials: 9, validation: {kfold: 5}", rate),
        case(
            "strategy: asha, warm_start: {experiments: [old, exp_7], points: 2}",
            few,
        ),
        case("strategy: asha, warm_start: {experiments: old}", few),
        case("strategy: asha, warm_start: {points: 0, from: old}", few),
        case("warm_start: {experiments: [old]}", few),
        "search: {strategy: asha}".to_owned(),
        "search: {strategy: bayes}".to_owned(),
    ];
    insta::assert_snapshot!(below_base(&cases.each_ref().map(String::as_str)));
}

#[test]
fn conditions() {
    let case = |sets: &str| format!("search: {{space: {{{sets}}}}}");
    let kind = "transfer.head.kind: {values: [linear, mlp]}";
    let cases = [
        format!("{kind}, transfer.head.hidden: {{values: [8, 16], when: {{transfer.head.kind: mlp}}}}"),
        format!("{kind}, transfer.head.hidden: {{values: [8, 16]}}"),
        format!("{kind}, transfer.head.hidden: {{values: [8], when: {{transfer.head.kind: mpl}}}}"),
        format!("{kind}, transfer.head.hidden: {{values: [8], when: {{transfer.head.kin: mlp}}}}"),
        format!("{kind}, train.epochs: {{values: [8], when: mlp}}"),
        format!("{kind}, train.epochs: {{values: [8], when: {{}}}}"),
        format!("{kind}, train.epochs: {{values: [8], when: {{transfer.head.kind: {{a: 1}}}}}}"),
        format!("{kind}, train.epochs: {{values: [8], when: {{train.epochs: 8}}}}"),
        "train.epochs: {values: [8], when: {seed: 1}}, seed: {values: [1], when: {train.epochs: 8}}"
            .to_owned(),
        "train.epochs: {int: [2, 4]}, train.learning_rate: {uniform: [0.1, 1], count: 2, \
         when: {train.epochs: [2, 5]}}"
            .to_owned(),
    ];
    let cases = cases.each_ref().map(|sets| case(sets));
    insta::assert_snapshot!(below_base(&cases.each_ref().map(String::as_str)));
}

#[test]
fn spaces() {
    insta::assert_snapshot!(below_base(&[
        "search: {space: {train.learning_rat: {values: [0.1]}}}",
        "search: {space: {learning_rate: {values: [0.1]}}}",
        "search: {space: {train.optimizer: {values: [sgd]}}}",
        "search: {space: {train.optimizer.momentum: {values: [0.5, 0.9]}}}",
        "search: {space: {train.augment.ops: {values: [horizontal_flip]}}}",
        "search: {space: {backbone: {values: [vgg16, resnet18]}, resources.slots_per_trial: {values: [1, 2]}}}",
        "search: {space: {zzz: {values: [1]}}}",
        "search: {space: {train.learning_rate: 0.1, train.epochs: [1, 2]}}",
        "search: {space: {train.learning_rate: {values: [fast, 0.1, -1]}}}",
        "search: {space: {train.learning_rate: {values: []}}}",
        "search: {space: {train.learning_rate: {values: [[0.1], null]}}}",
        "search: {space: {train.learning_rate: {values: [0.1, 0.10]}}}",
        "search: {space: {train.optimizer.weight_decay: {values: [0, 0.0]}}}",
        "search: {space: {train.learning_rate: {}}}",
        "search: {space: {train.learning_rate: {values: [0.1], range: [0, 1], count: 3}}}",
        "search: {space: {train.learning_rate: {values: [0.1], count: 3}}}",
        "search: {space: {train.epochs: {values: [1, 20], }}, max_trials: 1}",
        "train: {epochs: 10, lr_schedule: {kind: cosine, warmup_epochs: 3}}\nsearch: {space: {train.epochs: {values: [1, 20]}}}",
        "search: {space: {transfer.frozen_depth: {values: [all, 3, \"layer 3\", -1]}}}",
        "search: {space: {transfer.head.kind: {values: [linear, mpl]}}}",
    ]));
}

#[test]
fn sets_of_numbers() {
    insta::assert_snapshot!(below_base(&[
        "search: {space: {train.learning_rate: {log_uniform: [1.0e-4, 1.0e-1]}}}",
        "search: {space: {train.learning_rate: {log_uniform: [0, 0.1], count: 3}}}",
        "search: {space: {train.learning_rate: {uniform: [0.1, 0.01], count: 3}}}",
        "search: {space: {train.learning_rate: {uniform: [0.1, 0.1], count: 3}}}",
        "search: {space: {train.learning_rate: {uniform: [0.1], count: 1}}}",
        "search: {space: {train.learning_rate: {uniform: [a, b], count: 3, step: 2}}}",
        "search: {space: {train.learning_rate: {uniform: [0.5, 500], count: 3}}}",
        "search: {space: {train.label_smoothing: {range: [0, 0.5]}}}",
        "search: {space: {train.label_smoothing: {range: [0, 0.5], step: 0.2}}}",
        "search: {space: {train.label_smoothing: {range: [0, 0.5], step: 1}}}",
        "search: {space: {train.label_smoothing: {range: [0, 0.5], step: 0.1, count: 6}}}",
        "search: {space: {train.label_smoothing: {range: [0, 0.5], step: 1.0e-9}}}",
        "search: {space: {train.batch_size: {range: [16, 64], count: 3}}}",
        "search: {space: {train.batch_size: {range: [16, 64], count: 4}}}",
        "search: {space: {train.batch_size: {range: [16, 65], count: 4}}}",
        "search: {space: {train.batch_size: {log_uniform: [16, 64], count: 4}}}",
        "search: {space: {train.batch_size: {int: [16, 64], step: 0}}}",
        "search: {space: {train.batch_size: {int: [16, 64], count: 5, step: 16}}}",
        "search: {space: {train.batch_size: {int: [16, 64], count: 6}}}",
        "search: {space: {train.batch_size: {int: [1.5, 64]}}}",
        "search: {space: {train.batch_size: {int: [0, 64]}}}",
        "search: {space: {train.batch_size: {int: [64, 16]}}}",
        "search: {space: {seed: {int: [0, 10000]}}}",
        "search: {space: {seed: {int: [0, 999]}, train.epochs: {int: [1, 11]}}}",
        "search: {strategy: random, max_trials: 3}",
        "search: {strategy: random, max_trials: 20000, space: {seed: {int: [0, 3]}}}",
        "search: {strategy: random, max_trials: 3, space: {train.batch_size: {uniform: [1, 9]}}}",
    ]));
}

#[test]
fn edits_on_the_command_line() {
    insta::assert_snapshot!(edits(&[
        "train.epochs=3",
        "train.epochs",
        "train.epochs=",
        "train.epochs=three",
        "train.epoch=3",
        "name.first=x",
        "train..epochs=3",
        "=3",
        "train={epochs: 3, batch_size: 16}",
        "train.epochs=[",
        "search.space.train.learning_rate={values: [0.1, 0.2]}",
        "search.space.train.learning_rat={values: [0.1, 0.2]}",
        "promote={model: m, alias: a, gates: [{metric: test/loss, at_most: 1}]};promote.gates.0.at_most=2",
        "promote={model: m, alias: a, gates: [{metric: test/loss, at_most: 1}]};promote.gates.3.at_most=2",
    ]));
}

#[test]
fn all_faults_of_a_file_are_found_at_once() {
    insta::assert_snapshot!(whole(&["\
name: flowers!
backbone: efficientnet-lite0
transfer:
  frozen_depth: -2
  head: {kind: mpl, hidden: 256}
train:
  epoch: 10
  learning_rate: 0.001s
search:
  strategy: asha
  metric: test/accuracy
  space:
    train.lerning_rate: {values: [0.1]}
    train.epochs: {int: [5, 1]}
promote:
  model: flowers
  gates:
    - {metric: test/accuracy, at_least: 85}
"]));
}

/// Each text is put below a file with a program that is complete without it.
fn below_program(cases: &[&str]) -> String {
    const PROGRAM: &str = "name: a\nrunner: {kind: command, argv: [train]}\n\
                           params: {lr: 0.1, net: {layers: 2}, kind: a}\n\
                           search: {metric: score, direction: maximize}\n";
    let page = |case: &&str| {
        format!(
            "{case}\n{}\n",
            render(parse(&format!("{PROGRAM}{case}"), &[]))
        )
    };
    cases.iter().map(page).collect()
}

#[test]
fn what_a_program_of_ones_own_has_no_use_for() {
    insta::assert_snapshot!(below_program(&[
        "seed: 1",
        "backbone: b",
        "dataset: c",
        "transfer: {frozen_depth: all}",
        "train: {epochs: 3}",
        "share: off",
        "promote: {model: m, alias: champion}",
        "promote:",
        "retention: {best: 1}",
    ]));
    insta::assert_snapshot!(below_base(&["params: {lr: 1}", "runner: {kind: trainer}"]));
}

#[test]
fn a_program_that_cannot_be_one() {
    let file = |runner: &str, rest: &str| {
        format!("name: a\nrunner: {runner}\nsearch: {{metric: score, direction: minimize}}\n{rest}")
    };
    let cases = [
        file("", ""),
        file("command", ""),
        file("{argv: [a]}", ""),
        file("{kind: shell}", ""),
        file("{kind: command}", ""),
        file("{kind: command, argv: train}", ""),
        file("{kind: command, argv: []}", ""),
        file("{kind: command, argv: [a, 3]}", ""),
        file("{kind: command, argv: [''], arg: x}", ""),
        file("{kind: command, argv: [a], cwd: here}", ""),
        file("{kind: command, argv: [a], processes: two}", ""),
        file(
            "{kind: command, argv: [a], env: {RANK: '1', POMONA_X: '', 1A: x, OK: 3}}",
            "",
        ),
        file("{kind: command, argv: ['{params.lr}']}", ""),
        file(
            "{kind: command, argv: ['{params.lr}{params.net}{seed}{other}', '{\"a\": 1}']}",
            "params: {lrr: 1, net: {layers: 2}}",
        ),
        file(
            "{kind: command, argv: [a, '{params.net}']}",
            "params: {net: {layers: 2}}",
        ),
        file(
            "{kind: command, argv: ['{params.lr}{params.net.layers}{seed}{other}', '{\"a\": 1}']}",
            "params: {lr: 1, net: {layers: 2}}",
        ),
        file(
            "{kind: command, argv: [a]}",
            "params: {1a: 1, b: , c: [[x: 1]], a-b: 1, a_b: 2}",
        ),
        file(
            "{kind: command, argv: [a]}",
            "params: {a-b: 1, a_b: 2, A: {B: 3}, d: {d: {d: {d: {d: 1}}}}}",
        ),
        file("{kind: command, argv: [a]}", "params: {a-b: 1, a_b: 2}"),
    ];
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    insta::assert_snapshot!(whole(&cases));
}

#[test]
fn what_a_program_reports_and_how_its_hyperparameters_are_searched() {
    let file = |search: &str| {
        format!(
            "name: a\nrunner: {{kind: command, argv: [train]}}\n\
             params: {{lr: 0.1, net: {{layers: 2}}, kind: a, on: true, sizes: [1, 2]}}\n\
             search: {search}\n"
        )
    };
    let cases = [
        file("{}"),
        file("{metric: score}"),
        file("{metric: val/accuracy}"),
        file("{metric: val/loss, direction: maximize}"),
        file("{metric: test/score, direction: maximize}"),
        file("{metric: my score, direction: maximize}"),
        file("{metric: val/loss, validation: holdout}"),
        file("{metric: val/loss, space: {params.lr: {log_uniform: [0.001, 1], count: 3}}}"),
        file("{metric: val/loss, space: {params.lrr: {values: [1]}}}"),
        file("{metric: val/loss, space: {lr: {values: [1]}}}"),
        file("{metric: val/loss, space: {train.epochs: {values: [1]}}}"),
        file("{metric: val/loss, space: {params.net: {values: [1]}}}"),
        file("{metric: val/loss, space: {params.sizes: {values: [1]}}}"),
        file("{metric: val/loss, space: {params.lr: {values: [a]}}}"),
        file("{metric: val/loss, space: {params.net.layers: {values: [2, 2.5]}}}"),
        file("{metric: val/loss, space: {params.net.layers: {uniform: [1, 3], count: 3}}}"),
        file("{metric: val/loss, space: {params.kind: {values: [a, b, 3]}}}"),
        file("{metric: val/loss, space: {params.on: {values: [true, false]}}}"),
    ];
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    insta::assert_snapshot!(whole(&cases));
}
