//! The table, and which methods a path has.

use super::*;

#[test]
fn the_table_of_routes() {
    let lines: Vec<String> = table()
        .iter()
        .map(|route| format!("{:4} {} => {}", route.method, route.path, route.handler))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_the_leaders_to_answer() {
    let is_led = |route: &Route| {
        let method = route.method.to_uppercase();
        is_led(&method.parse().unwrap(), route.path)
    };
    let led: Vec<String> = (table().iter().filter(|route| is_led(route)))
        .map(|route| format!("{:5}{}", route.method, route.path))
        .collect();
    insta::assert_snapshot!(led.join("\n"));
    let gets = led.iter().filter(|line| line.starts_with("get "));
    assert_eq!(gets.count(), REMEMBERED.len(), "each of them is a route");
    // Tracking decides nothing: whoever is asked answers.
    assert!(!super::is_led(
        &Method::POST,
        "/api/2.0/mlflow/runs/log-batch"
    ));
}

#[test]
fn a_path_knows_its_methods() {
    let check = |path: &str| methods(path).join(" ");
    assert_eq!(check("/api/v1/blobs/sha256:00"), "PUT HEAD GET");
    assert_eq!(check("/api/v1/experiments/preview"), "POST GET");
    assert_eq!(check("/api/v1/experiments/exp_1/pause"), "POST");
    assert_eq!(check("/api/v1/experiments/"), "");
    assert_eq!(check("/api/v1/experiments/exp_1/pause/now"), "");
    assert_eq!(check("/"), "");
}
