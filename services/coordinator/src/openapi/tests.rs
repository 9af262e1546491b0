//! The description against the table of routes.

use super::*;
use std::collections::BTreeSet;

fn written() -> serde_json::Value {
    serde_json::to_value(document()).unwrap()
}

#[test]
fn the_description_is_the_one_that_was_reviewed() {
    insta::assert_json_snapshot!(written());
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let paths = written()["paths"].as_object().unwrap().clone();
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.clone(), path.clone()))
        })
        .collect();
    let served: BTreeSet<(String, String)> = routes::table()
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    assert_eq!(described, served);
}

#[test]
fn every_reference_has_its_schema() {
    let document = written();
    let mut seen = 0;
    references(&document, &mut |name| {
        let schema = &document["components"]["schemas"][name];
        assert!(schema.is_object(), "`{name}` is not described");
        seen += 1;
    });
    assert!(seen > routes::table().len());
}

fn references(value: &serde_json::Value, found: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(target) = field.as_str().filter(|_| name == "$ref") {
                    found(target.strip_prefix("#/components/schemas/").unwrap());
                }
                references(field, found);
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                references(item, found);
            }
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}
