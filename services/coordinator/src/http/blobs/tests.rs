//! Ranges as headers write them.

use super::*;

#[test]
fn ranges_of_ten_bytes() {
    let check = |text: &str| match range(text, 10) {
        None => format!("{text}: whole"),
        Some(Err(())) => format!("{text}: refused"),
        Some(Ok(range)) => format!("{text}: {range:?}"),
    };
    let cases = [
        "bytes=0-0",
        "bytes=2-5",
        "bytes=2-",
        "bytes=-3",
        "bytes=-30",
        "bytes=9-99",
        "bytes=10-",
        "bytes=-0",
        "bytes=5-2",
        "bytes=1-2,4-5",
        "bytes=x-",
        "bytes=",
        "items=0-1",
        "bytes=0-18446744073709551615",
    ];
    insta::assert_snapshot!(cases.map(check).join("\n"));
}
