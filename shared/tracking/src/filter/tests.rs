use super::*;

fn check(filter: &str, expect: &[(RunField, Op, Value)]) {
    let read: Vec<_> = runs(filter)
        .unwrap()
        .into_iter()
        .map(|comparison| (comparison.field, comparison.op, comparison.value))
        .collect();
    assert_eq!(read, expect, "{filter}");
}

#[test]
fn a_filter_is_read() {
    let text = |text: &str| Value::Text(text.to_owned());
    check(
        "metrics.acc > 0.9 and params.lr = '0.1'",
        &[
            (
                RunField::Metric("acc".into()),
                Op::Greater,
                Value::Number(0.9),
            ),
            (RunField::Param("lr".into()), Op::Equal, text("0.1")),
        ],
    );
    check(
        "tags.`a.b c` ILIKE \"%x\" AND created >= 12 AND attr.`run name` != 'n'",
        &[
            (RunField::Tag("a.b c".into()), Op::Ilike, text("%x")),
            (
                RunField::Attribute(RunAttribute::StartTime),
                Op::GreaterOrEqual,
                Value::Integer(12),
            ),
            (
                RunField::Attribute(RunAttribute::RunName),
                Op::NotEqual,
                text("n"),
            ),
        ],
    );
    check(
        "run_id not in ('a', 'b') AND tags.t is not null AND datasets.context = 'train'",
        &[
            (
                RunField::Attribute(RunAttribute::RunId),
                Op::NotIn,
                Value::List(vec!["a".into(), "b".into()]),
            ),
            (RunField::Tag("t".into()), Op::IsNotNull, Value::Nothing),
            (
                RunField::Dataset(DatasetField::Context),
                Op::Equal,
                text("train"),
            ),
        ],
    );
    check("", &[]);
}

#[test]
fn a_filter_has_limits() {
    let many = |n: usize| vec!["metrics.a > 1"; n].join(" AND ");
    assert_eq!(runs(&many(MAX_COMPARISONS)).unwrap().len(), MAX_COMPARISONS);
    assert!(runs(&many(MAX_COMPARISONS + 1)).is_err());
    let list = |n: usize| format!("run_id IN ({})", vec!["'a'"; n].join(","));
    assert!(runs(&list(MAX_LIST_VALUES)).is_ok());
    assert!(runs(&list(MAX_LIST_VALUES + 1)).is_err());
    assert!(runs(&" ".repeat(MAX_FILTER_BYTES + 1)).is_err());
    assert!(runs(&format!("params.a = '{}", "''".repeat(50_000))).is_err());
}

#[test]
fn numbers_that_no_column_holds_are_refused() {
    for filter in [
        "metrics.a > 1e999",
        "metrics.a > 1e",
        "metrics.a > 1.2.3",
        "metrics.a > --1",
    ] {
        assert!(runs(filter).is_err(), "{filter}");
    }
    assert!(experiments("creation_time > 9223372036854775808").is_err());
    assert!(experiments("creation_time > 1.5").is_err());
}

#[test]
fn a_like_pattern_is_a_glob() {
    assert_eq!(glob("%a_b%"), "*a?b*");
    assert_eq!(glob("50*[x]?"), "50[*][[]x][?]");
}
