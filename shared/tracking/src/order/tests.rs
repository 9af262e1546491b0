use super::*;
use RunAttribute::{RunId, RunName, StartTime};
use RunOrder::{Attribute, Metric, Param, Tag};

const NONE: [&str; 0] = [];

fn check(order_by: &[&str], expect: &[(RunOrder, bool)]) {
    let read: Vec<_> = runs(order_by)
        .unwrap()
        .into_iter()
        .map(|order| (order.field, order.descending))
        .collect();
    assert_eq!(read, expect, "{order_by:?}");
}

#[test]
fn runs_are_sorted_as_asked_and_then_by_start_and_id() {
    let start = (Attribute(StartTime), true);
    let id = (Attribute(RunId), false);
    check(&[], &[start.clone(), id.clone()]);
    check(
        &["metrics.acc DESC"],
        &[(Metric("acc".into()), true), start.clone(), id.clone()],
    );
    check(
        &["params.`learning rate` asc", " tags.\"a b\" "],
        &[
            (Param("learning rate".into()), false),
            (Tag("a b".into()), false),
            start.clone(),
            id.clone(),
        ],
    );
    check(&["created"], &[(Attribute(StartTime), false), id.clone()]);
    check(
        &["attribute.`run name` Desc", "run_id desc"],
        &[(Attribute(RunName), true), (Attribute(RunId), true), start],
    );
}

#[test]
fn what_is_no_order_is_refused() {
    let cases: [(&[&str], &str); 10] = [
        (
            &["metrics.a ACS"],
            "Invalid ordering key in order_by clause",
        ),
        (&["metrics.a b c"], "Invalid order_by clause"),
        (&[""], "Invalid order_by clause"),
        (&["metrics.a, metrics.b"], "Invalid order_by clause"),
        (&["metrics.a > 1"], "Invalid order_by clause"),
        (&["nope"], "Invalid attribute key 'nope' specified."),
        (&["foo.bar"], "Invalid entity type 'foo'."),
        (&["dataset.name"], "Invalid identifier type 'dataset'"),
        (
            &["metrics.a", "metric.`a` DESC"],
            "`order_by` contains duplicate fields: ['metrics.a',",
        ),
        (
            &["start_time", "created DESC"],
            "`order_by` contains duplicate fields",
        ),
    ];
    for (order_by, start) in cases {
        let message = runs(order_by).unwrap_err().message;
        assert!(message.starts_with(start), "{order_by:?}: {message}");
    }
    assert!(runs(&["metrics.a"; MAX_ORDERS + 1]).is_err());
}

#[test]
fn experiments_have_their_default_and_their_tie_breaker() {
    use ExperimentAttribute::{CreationTime, ExperimentId, Name};
    assert_eq!(
        experiments(&NONE).unwrap(),
        [Order::down(CreationTime), Order::up(ExperimentId)]
    );
    assert_eq!(
        experiments(&["attribute.name"]).unwrap(),
        [Order::up(Name), Order::down(ExperimentId)]
    );
    assert!(experiments(&["tags.a"]).is_err());
}

#[test]
fn the_registry_has_its_defaults() {
    use ModelVersionOrder as Version;
    use RegisteredModelOrder::{LastUpdated, Name};
    assert_eq!(registered_models(&NONE).unwrap(), [Order::up(Name)]);
    assert_eq!(
        registered_models(&["timestamp DESC"]).unwrap(),
        [Order::down(LastUpdated), Order::up(Name)]
    );
    assert!(registered_models(&["timestamp", "last_updated_timestamp"]).is_err());
    assert!(registered_models(&["creation_timestamp"]).is_err());
    assert_eq!(
        model_versions(&NONE).unwrap(),
        [
            Order::down(Version::LastUpdated),
            Order::up(Version::Name),
            Order::down(Version::VersionNumber)
        ]
    );
    assert_eq!(
        model_versions(&["version_number ASC"]).unwrap(),
        [Order::up(Version::VersionNumber), Order::up(Version::Name)]
    );
}

#[test]
fn logged_models_are_sorted_by_a_list() {
    use LoggedModelAttribute::{CreationTimestamp, ModelId};
    let column = |field: &str| LoggedModelColumn {
        field_name: field.to_owned(),
        ascending: Some(false),
        dataset_name: Some("d".to_owned()),
        dataset_digest: None,
    };
    let metric = LoggedModelOrder::Metric {
        key: "a.b".to_owned(),
        dataset_name: Some("d".to_owned()),
        dataset_digest: None,
    };
    assert_eq!(
        logged_models(&[column("metrics.a.b")]).unwrap(),
        [
            Order::down(metric),
            Order::down(LoggedModelOrder::Attribute(CreationTimestamp)),
            Order::up(LoggedModelOrder::Attribute(ModelId)),
        ]
    );
    for wrong in ["params.a", "nope", "metrics.", ""] {
        assert!(logged_models(&[column(wrong)]).is_err(), "{wrong}");
    }
    assert!(logged_models(&[column("creation_time"), column("creation_timestamp")]).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_an_order_panic(text in "\\PC{0,30}") {
        let _ = runs(&[&text]);
        let _ = experiments(&[&text]);
        let _ = registered_models(&[&text]);
        let _ = model_versions(&[&text]);
    }
}
