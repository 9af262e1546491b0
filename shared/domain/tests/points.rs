//! Points of the space put into the file, and the complete file written and read again.

use pomona_domain::space::Tree;
use pomona_domain::spec::{
    ExperimentSpec, FrozenDepth, Head, LrSchedule, Optimizer, TrialSpec, parse,
};
use pomona_domain::{Code, Fault, Hparams};
use proptest::prelude::*;
use serde_json::{Value, json};

fn spec(yaml: &str) -> ExperimentSpec {
    let text = format!("name: a\nbackbone: b\ndataset: c\n{yaml}");
    parse(&text, &[]).unwrap_or_else(|faults| panic!("{yaml}: {faults:#?}"))
}

fn point(pairs: &[(&str, Value)]) -> Hparams {
    let owned = pairs
        .iter()
        .map(|(path, value)| ((*path).to_owned(), value.clone()));
    Hparams(owned.collect())
}

fn trial(spec: &ExperimentSpec, pairs: &[(&str, Value)]) -> Result<TrialSpec, Fault> {
    spec.trial_spec(&point(pairs), 0)
}

#[test]
fn without_a_point_the_trial_is_the_file() {
    let spec = spec("train: {epochs: 3}\nseed: 5");
    let trial = spec.trial_spec(&Hparams::default(), 2).expect("a trial");
    assert_eq!(trial.train, spec.train);
    assert_eq!(trial.transfer, spec.transfer);
    assert_eq!((trial.seed, trial.replicate), (5, 2));
    assert_eq!(trial.metric, "val/accuracy");
}

#[test]
fn a_point_changes_what_it_names_and_nothing_else() {
    let spec = spec("");
    let trial = trial(
        &spec,
        &[
            ("train.learning_rate", json!(0.5)),
            ("train.optimizer.weight_decay", json!(0)),
            ("transfer.frozen_depth", json!("layer3.1")),
            ("seed", json!(9)),
        ],
    )
    .expect("a trial");
    let mut wanted = spec.train.clone();
    wanted.learning_rate = 0.5;
    wanted.optimizer = Optimizer::Adamw {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    assert_eq!(trial.train, wanted);
    assert_eq!(
        trial.transfer.frozen_depth,
        FrozenDepth::Named("layer3.1".to_owned())
    );
    assert_eq!(trial.seed, 9);
}

#[test]
fn a_searched_kind_keeps_the_keys_it_shares_and_drops_the_others() {
    let file = spec(
        "transfer: {head: {kind: mlp, hidden: 64}}\n\
         train: {optimizer: {kind: adamw, beta1: 0.8, weight_decay: 0.3}, \
         lr_schedule: {kind: step, every_epochs: 2, warmup_epochs: 1}}",
    );
    let trial = trial(
        &file,
        &[
            ("transfer.head.kind", json!("linear")),
            ("train.optimizer.kind", json!("sgd")),
            ("train.lr_schedule.kind", json!("cosine")),
        ],
    )
    .expect("a trial");
    assert_eq!(trial.transfer.head, Head::Linear);
    assert_eq!(
        trial.train.optimizer,
        Optimizer::Sgd {
            momentum: 0.9,
            weight_decay: 0.3
        }
    );
    assert_eq!(
        trial.train.lr_schedule,
        LrSchedule::Cosine { warmup_epochs: 1.0 }
    );
}

#[test]
fn a_key_of_the_other_kind_cannot_be_set_beside_it() {
    let file = spec("transfer: {head: {kind: mlp, hidden: 64}}");
    let fault = trial(
        &file,
        &[
            ("transfer.head.kind", json!("linear")),
            ("transfer.head.hidden", json!(32)),
        ],
    )
    .expect_err("hidden of a linear head");
    assert_eq!(fault.code, Code::Contradiction);
}

#[test]
fn a_point_that_does_not_fit_names_itself() {
    let file = spec("");
    for (path, value, code) in [
        ("train.learning_rate", json!(-1), Code::OutOfRange),
        ("train.learning_rate", json!("fast"), Code::WrongType),
        ("train.epochs", json!(1.5), Code::WrongType),
        ("train.lerning_rate", json!(1), Code::UnknownPath),
        ("train.optimizer", json!("sgd"), Code::UnknownPath),
        ("backbone", json!("vgg16"), Code::UnknownPath),
        ("transfer.layer_decay", json!(0.9), Code::NotBuilt),
    ] {
        let fault = trial(&file, &[(path, value)]).expect_err(path);
        assert_eq!(fault.code, code, "{path}: {fault}");
        assert!(fault.message.contains(path), "{fault}");
    }
}

#[test]
fn sets_take_the_type_of_their_path() {
    let file = spec(
        "search: {space: {train.learning_rate: {values: [1, 0.5]}, \
         train.batch_size: {range: [16, 64], count: 4}, \
         train.optimizer.weight_decay: {int: [0, 2]}, \
         transfer.frozen_depth: {values: [all, 0, _blocks.14]}}}",
    );
    assert_eq!(
        serde_json::to_value(&file.search.space).expect("a tree"),
        json!({
            "train.batch_size": {"int": {"low": 16, "high": 64, "step": 16}},
            "train.learning_rate": {"values": [1.0, 0.5]},
            "train.optimizer.weight_decay": {"range": {"low": 0.0, "high": 2.0, "count": 3}},
            "transfer.frozen_depth": {"values": ["all", 0, "_blocks.14"]},
        })
    );
    assert_eq!(file.search.max_trials, 2 * 4 * 3 * 3);
}

#[test]
fn a_path_with_a_condition_is_there_only_where_it_holds() {
    let file = spec(
        "search: {space: {transfer.head.kind: {values: [linear, mlp]}, \
         transfer.head.hidden: {values: [8, 16], when: {transfer.head.kind: mlp}}, \
         transfer.head.dropout: {values: [0, 0.5], when: {transfer.head.hidden: 16}}, \
         train.epochs: {values: [2, 3]}}}",
    );
    let tree = Tree::new(&file.search.space, &file.search.when);
    assert_eq!(file.search.max_trials, 2 * (1 + 1 + 2));
    let points: Vec<String> = (0..8)
        .map(|index| tree.point(index).expect("a point").canonical())
        .collect();
    insta::assert_snapshot!(points.join("\n"), @r#"
    {"train.epochs":2,"transfer.head.kind":"linear"}
    {"train.epochs":2,"transfer.head.hidden":8,"transfer.head.kind":"mlp"}
    {"train.epochs":2,"transfer.head.dropout":0.0,"transfer.head.hidden":16,"transfer.head.kind":"mlp"}
    {"train.epochs":2,"transfer.head.dropout":0.5,"transfer.head.hidden":16,"transfer.head.kind":"mlp"}
    {"train.epochs":3,"transfer.head.kind":"linear"}
    {"train.epochs":3,"transfer.head.hidden":8,"transfer.head.kind":"mlp"}
    {"train.epochs":3,"transfer.head.dropout":0.0,"transfer.head.hidden":16,"transfer.head.kind":"mlp"}
    {"train.epochs":3,"transfer.head.dropout":0.5,"transfer.head.hidden":16,"transfer.head.kind":"mlp"}
    "#);
    assert_eq!(tree.point(8), None);
    for index in 0..8 {
        let point = tree.point(index).expect("a point");
        file.trial_spec(&point, 0).expect("a trial");
    }
    let text = file.to_yaml().expect("yaml");
    assert_eq!(parse(&text, &[]).expect("the same file"), file);
}

#[test]
fn equal_points_have_equal_texts_and_digests() {
    let one = point(&[("b", json!(0.5)), ("a", json!(1))]);
    let other = point(&[("a", json!(1)), ("b", json!(0.50))]);
    assert_eq!(one.canonical(), r#"{"a":1,"b":0.5}"#);
    assert_eq!(one.digest(), other.digest());
    assert_ne!(
        one.digest(),
        point(&[("a", json!(1)), ("b", json!("0.5"))]).digest()
    );
}

#[test]
fn durations_are_read_with_their_units() {
    for (text, ms) in [
        ("2h", 7_200_000),
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1500ms", 1_500),
        ("PT5M", 300_000),
    ] {
        let file = spec(&format!("time_limit: {text}"));
        assert_eq!(file.time_limit_ms, Some(ms), "{text}");
        let again = parse(&file.to_yaml().expect("yaml"), &[]).expect("the same file");
        assert_eq!(again.time_limit_ms, Some(ms), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\\n]{0,200}") {
        let _ = parse(&text, &[]);
        let _ = parse("name: a", &[text]);
    }

    #[test]
    fn no_value_anywhere_makes_the_reader_panic(
        path in prop::sample::select(vec![
            "name", "dataset", "transfer", "transfer.frozen_depth", "transfer.head.kind", "train.epochs",
            "train.learning_rate", "train.optimizer", "train.lr_schedule.kind", "train.augment.ops",
            "search.space.train.epochs", "search.space.seed", "search.max_trials", "search.replicates",
            "search.strategy", "resources", "time_limit", "seed", "promote", "promote.gates.0",
        ]),
        value in prop::sample::select(vec![
            "", "~", "true", "-1", "0", "1e300", "99999999999999999999", "[]", "{}", "[[]]", "{a: 1}",
            "{int: [-9223372036854775808, 9223372036854775807]}", "{range: [-1e300, 1e300], count: 2}",
            "{int: [9223372036854775807, 9223372036854775807], step: 1}", "{values: [{}]}",
            "{log_uniform: [1e-300, 1e300], count: 10000}", "{range: [0, 1], step: 1e-300}",
            "\u{1F34E}", "{? [a]: b}", "!!binary aGk=", "&a [*a]",
        ]),
    ) {
        let _ = parse("{name: a, backbone: b, dataset: c}", &[format!("{path}={value}")]);
    }

    #[test]
    fn what_is_written_is_read_as_the_same(
        epochs in 1u32..100,
        rate in 1e-8f64..10.0,
        decay in 0.0f64..1.0,
        seed in 0u64..(1 << 53),
        low in 1e-6f64..1e-3,
        count in 2u32..20,
        hidden in 1u32..1000,
    ) {
        let file = spec(&format!(
            "train: {{epochs: {epochs}, learning_rate: {rate:?}, optimizer: {{kind: sgd, weight_decay: {decay:?}}}}}\n\
             transfer: {{frozen_depth: {hidden}, head: {{kind: mlp, hidden: {hidden}}}}}\n\
             search: {{space: {{train.learning_rate: {{log_uniform: [{low:?}, 0.5], count: {count}}}}}}}\n\
             seed: {seed}\ntime_limit: 61s\nmax_restarts: 0",
        ));
        prop_assert_eq!(file.train.learning_rate, rate);
        let text = file.to_yaml().expect("yaml");
        prop_assert_eq!(parse(&text, &[]).expect("the same file"), file);
    }
}

#[test]
fn a_point_is_put_into_the_words_of_a_program() {
    let spec = parse(
        "name: a\nrunner: {kind: command, argv: [train, '--lr={params.lr}', '{x}', '{', '{seed}/{replicate}'],\n\
         env: {LAYERS: '{params.net.layers}'}, cwd: /srv, processes: one}\n\
         params: {lr: 0.1, net: {layers: 2}, name: a b}\n\
         search: {metric: val/loss, space: {params.lr: {values: [0.5]}, params.net.layers: {values: [3]}, seed: {values: [9]}}}\n",
        &[],
    )
    .unwrap();
    let point = point(&[
        ("params.lr", json!(0.5)),
        ("params.net.layers", json!(3)),
        ("seed", json!(9)),
    ]);
    let made = spec.program_spec(&point, 2).unwrap();
    let argv = ["train", "--lr=0.5", "{x}", "{", "9/2"];
    assert_eq!(made.program.argv, argv);
    assert_eq!(made.program.env["LAYERS"], "3");
    assert_eq!((made.seed, made.replicate), (9, 2));
    let params = json!({"lr": 0.5, "net": {"layers": 3}, "name": "a b"});
    assert_eq!(Value::Object(made.params.clone()), params);
    let named: Vec<(String, String)> = pomona_domain::spec::variables(&made.params)
        .into_iter()
        .map(|(name, (_, text))| (name, text))
        .collect();
    let expect = [
        ("POMONA_PARAM_LR", "0.5"),
        ("POMONA_PARAM_NAME", "a b"),
        ("POMONA_PARAM_NET_LAYERS", "3"),
    ];
    assert_eq!(
        named,
        expect.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
    let odd = Hparams([("params.lr".to_owned(), json!("x"))].into());
    let fault = spec.point_fault(&odd, 0).unwrap();
    assert_eq!(fault.code, Code::WrongType);
    assert!(spec.point_fault(&Hparams::default(), 0).is_none());
}
