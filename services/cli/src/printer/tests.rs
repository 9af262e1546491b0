//! Errors as text.

use super::*;

const PLAIN: Style = Style {
    color: false,
    width: 100,
};

#[test]
fn an_error_shows_code_message_and_hint() {
    let fault = Fault::new(Code::Unreachable, "no coordinator answers").hint("start one");
    assert_eq!(
        fault_text(&fault, PLAIN),
        "error[E0002]: no coordinator answers\nhint: start one\n"
    );
}

#[test]
fn an_error_without_a_hint_points_to_its_section() {
    let fault = Fault::new(Code::NotFound, "there is no task `tsk_0`");
    assert_eq!(
        fault_text(&fault, PLAIN),
        "error[E0102]: there is no task `tsk_0`\nhint: `pomona explain E0102` has the long story\n"
    );
}

#[test]
fn colour_is_only_there_when_it_is_welcome() {
    let style = Style {
        color: true,
        ..PLAIN
    };
    assert_eq!(style.red("x"), "\u{1b}[31mx\u{1b}[0m");
    assert_eq!(PLAIN.red("x"), "x");
}
