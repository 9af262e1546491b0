//! Texts of numbers.

use super::*;
use serde_json::json;

#[test]
fn durations_use_two_units_at_most() {
    let texts: Vec<String> = [0, 850, 12_450, 185_000, 7_620_000, 273_600_000]
        .into_iter()
        .map(duration)
        .collect();
    assert_eq!(
        texts,
        [
            "0 ms",
            "850 ms",
            "12.4 s",
            "3 min 05 s",
            "2 h 07 min",
            "3 d 04 h"
        ]
    );
}

#[test]
fn bytes_never_show_four_digits() {
    let texts: Vec<String> = [0, 1023, 1024, 18_874_368, 1_048_575, 5_368_709_120]
        .into_iter()
        .map(bytes)
        .collect();
    assert_eq!(
        texts,
        ["0 B", "1023 B", "1.0 KiB", "18.0 MiB", "1.0 MiB", "5.0 GiB"]
    );
}

#[test]
fn scalars_are_short_but_not_wrong() {
    let texts: Vec<String> = [
        json!(0.006_309_573_444_801_93),
        json!(0.0),
        json!(1e-7),
        json!(64),
        json!("all"),
        json!(true),
        json!(12_345_678.0),
    ]
    .iter()
    .map(scalar)
    .collect();
    assert_eq!(
        texts,
        ["0.0063096", "0", "1e-7", "64", "all", "true", "1.2346e7"]
    );
}

#[test]
fn a_date_means_its_end_in_utc() {
    let at = parse_moment("2026-05-03").unwrap();
    assert_eq!(at.to_string(), "2026-05-03T23:59:59.999Z");
    let at = parse_moment("2026-05-03T12:00:00+02:00").unwrap();
    assert_eq!(moment(at), "2026-05-03 10:00:00 UTC");
    assert_eq!(parse_moment("yesterday"), None);
}

#[test]
fn counts_and_ages() {
    assert_eq!(count(999), "999");
    assert_eq!(count(4_652_008), "4.65 M");
    assert_eq!(count(999_960), "1.00 M");
    assert_eq!(count(999_994_999_999), "999.99 G");
    assert_eq!(count(999_995_000_000), "1.00 T");
    assert_eq!(plural(1, "trial"), "1 trial");
    assert_eq!(ago(Timestamp(0), Timestamp(125_000)), "2 min ago");
    assert_eq!(ago(Timestamp(5_000), Timestamp(0)), "now");
    assert_eq!(short_id("tri_0123456789abcdef"), "tri_01234567");
}
