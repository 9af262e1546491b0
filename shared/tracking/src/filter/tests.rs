use super::*;

#[test]
fn a_filter_is_read() {
    let read = runs("metrics.acc > 0.9 and params.lr = '0.1'").unwrap();
    assert_eq!(
        read,
        [
            Comparison {
                field: RunField::Metric("acc".into()),
                op: Op::Greater,
                value: Value::Number(0.9)
            },
            Comparison {
                field: RunField::Param("lr".into()),
                op: Op::Equal,
                value: Value::Text("0.1".into())
            },
        ]
    );
}
