use super::{PAGE, explain, sections};
use crate::error::Code;

#[test]
fn every_code_has_exactly_one_section_in_order() {
    let headed: Vec<&str> = sections().map(|section| &section[..5]).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(headed, codes);
}

#[test]
fn codes_are_in_order_and_different() {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
}

#[test]
fn every_section_has_a_title_an_example_and_advice() {
    for section in sections() {
        let (heading, body) = section.split_once('\n').unwrap();
        assert!(heading[5..].starts_with(" — "), "{heading}");
        assert!(!heading.ends_with('.'), "{heading}");
        let example = format!("    error[{}]: ", &heading[..5]);
        assert!(body.contains(&example), "{heading}: no example");
        assert!(body.contains("**What to do:** "), "{heading}: no advice");
    }
}

#[test]
fn lines_fit_a_page() {
    for line in PAGE.lines().filter(|line| !line.starts_with("    ")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn a_code_is_found_however_it_is_written() {
    assert_eq!(Code::parse("e0203"), Some(Code::MissingKey));
    assert!(explain(Code::MissingKey).starts_with("E0203 — missing key"));
    assert_eq!(Code::parse("E9999"), None);
}
