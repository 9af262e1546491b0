//! The choice by its table, what is kept, and trainers that do not answer.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

fn splits(text: &str) -> Vec<Split> {
    let split = |word: &str| {
        let (processes, threads) = word.split_once('x').unwrap();
        Split {
            processes: processes.parse().unwrap(),
            threads: threads.parse().unwrap(),
        }
    };
    text.split_whitespace().map(split).collect()
}

#[test]
fn candidates_use_every_core_and_are_four_at_most() {
    let table = [
        (1, "1x1"),
        (2, "2x1 1x2"),
        (3, "3x1 1x3"),
        (4, "4x1 2x2 1x4"),
        (8, "8x1 4x2 2x4 1x8"),
        (12, "12x1 6x2 4x3 3x4"),
        (64, "64x1 32x2 16x4 8x8"),
    ];
    for (cores, expect) in table {
        assert_eq!(candidates(cores), splits(expect), "{cores}");
    }
}

#[test]
fn the_fastest_is_chosen_and_of_equals_the_one_with_most_processes() {
    let table: [(&str, &[f64], &str); 5] = [
        ("2x1 1x2", &[100.0, 80.0], "2x1"),
        ("2x1 1x2", &[80.0, 100.0], "1x2"),
        ("2x1 1x2", &[95.1, 100.0], "2x1"),
        ("4x1 2x2 1x4", &[90.0, 99.0, 100.0], "2x2"),
        ("4x1 2x2 1x4", &[96.0, 99.0, 100.0], "4x1"),
    ];
    for (tried, images, expect) in table {
        let rates = splits(tried).into_iter().zip(images);
        let rates: Vec<Rate> = rates
            .map(|(split, images)| Rate {
                split,
                images_per_s: *images,
            })
            .collect();
        assert_eq!(choose(&rates), splits(expect).pop(), "{tried} {images:?}");
    }
    assert_eq!(choose(&[]), None);
}

/// A trainer of one line of shell, which counts how often it was started.
fn trainer(folder: &Path, words: &str) -> PathBuf {
    let path = folder.join("trainer");
    let starts = folder.join("starts");
    let text = format!("#!/bin/sh\necho >> '{}'\n{words}\n", starts.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn starts(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("starts")).map_or(0, |text| text.lines().count())
}

/// Two threads are more than twice as fast as one.
const GOOD: &str = "echo '{}'; read go; \
                    case $3 in 1) rate=10;; *) rate=50;; esac; \
                    echo \"{\\\"images_per_second\\\": $rate}\"";

#[tokio::test]
async fn what_was_measured_is_kept_for_this_machine_and_this_trainer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache").join("split.json");
    let good = trainer(folder.path(), GOOD);
    let expect = splits("1x2").pop();
    assert_eq!(split(&file, "a processor", 2, &good).await, expect);
    assert_eq!(starts(folder.path()), 3);
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: Measured = serde_json::from_str(&text).unwrap();
    assert_eq!(kept.table(), "2 × 1: 20 images/s, 1 × 2: 50 images/s");
    assert_eq!(split(&file, "a processor", 2, &good).await, expect);
    assert_eq!(starts(folder.path()), 3, "it was kept");
    // Anything else is measured anew.
    assert_eq!(split(&file, "another", 2, &good).await, expect);
    assert_eq!(starts(folder.path()), 6);
    let newer = trainer(folder.path(), &format!("{GOOD} # newer"));
    assert_eq!(split(&file, "another", 2, &newer).await, expect);
    assert_eq!(starts(folder.path()), 9);
    std::fs::write(&file, "{\"processor\": 7}").unwrap();
    assert_eq!(split(&file, "another", 2, &newer).await, expect);
    assert_eq!(starts(folder.path()), 12);
    // One core has one split.
    assert_eq!(split(&file, "another", 1, &newer).await, None);
    assert_eq!(starts(folder.path()), 12);
}

#[tokio::test]
async fn a_trainer_that_does_not_answer_leaves_the_rule_of_one_slot_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache").join("split.json");
    let table = [
        ("exit 2", "ended without an answer"),
        ("echo '{}'; read go; kill -9 $$", "ended without an answer"),
        ("echo '{}'; read go; echo hello", "said `hello`"),
        (
            "echo '{}'; read go; echo '{\"images_per_second\": 0}'",
            "make no sense",
        ),
    ];
    for (words, expect) in table {
        let bad = trainer(folder.path(), words);
        let why = measured(&file, "a processor", 2, &bad, LIMIT).await;
        assert!(
            why.clone().unwrap_err().contains(expect),
            "{words}: {why:?}"
        );
    }
    let missing = folder.path().join("missing");
    assert_eq!(split(&file, "a processor", 2, &missing).await, None);
    let short = Duration::from_millis(100);
    for words in ["exec sleep 600", "echo '{}'; read go; exec sleep 600"] {
        let hangs = trainer(folder.path(), words);
        let begun = Instant::now();
        let why = measured(&file, "a processor", 2, &hangs, short).await;
        assert!(why.unwrap_err().contains("took more than 0.1 s"));
        assert!(begun.elapsed() < LIMIT);
    }
    assert!(!file.exists());
    // What was tried in time counts.
    let slow = trainer(
        folder.path(),
        &format!("case $3 in 2) exec sleep 600;; esac; {GOOD}"),
    );
    let found = measured(&file, "a processor", 2, &slow, Duration::from_secs(2)).await;
    assert_eq!(found.ok(), splits("2x1").pop());
}
