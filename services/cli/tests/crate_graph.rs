//! The arrows between the rooms, as a snapshot: a new arrow shows up in review as one line.

use std::collections::BTreeMap;
use std::process::Command;

#[test]
fn arrows_between_rooms_are_the_ones_written_down() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let mut arrows = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let mut needs: Vec<&str> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| {
                name.starts_with("pomona-")
                    || [
                        "tch",
                        "torch-sys",
                        "sea-orm",
                        "sea-orm-migration",
                        "actix-web",
                        "reqwest",
                    ]
                    .contains(name)
            })
            .collect();
        needs.sort_unstable();
        arrows.insert(
            package["name"].as_str().expect("a name").to_owned(),
            needs.join(" "),
        );
    }
    insta::assert_yaml_snapshot!(arrows);
}
