//! What is said when the command line itself does not parse: help, the version, or a coded error.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ErrorKind};
use pomona_domain::{Code, Fault};
use std::process::ExitCode;

use crate::args::{Cli, Format};
use crate::exit_code;
use crate::printer::Printer;

/// Help and the version go to stdout; everything else is an error of the input.
pub fn answer(error: &clap::Error) -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .take_while(|word| word != "--")
        .collect();
    let printer = Printer::with(format(&words), false);
    let kind = error.kind();
    if kind == ErrorKind::DisplayHelp || kind == ErrorKind::DisplayVersion {
        let text = error.render();
        if printer.style().color {
            printer.text(&text.ansi().to_string());
        } else {
            printer.text(&text.to_string());
        }
        return ExitCode::SUCCESS;
    }
    let fault = fault(error, &command_of(&words));
    printer.fault(&fault);
    exit_code(&fault)
}

/// The form of the answer, before there are arguments that say it.
fn format(words: &[String]) -> Format {
    let asked = |word: &String| matches!(word.as_str(), "--output=json" | "-ojson" | "-o=json");
    let apart =
        |pair: &[String]| matches!(pair[0].as_str(), "--output" | "-o") && pair[1] == "json";
    if words.iter().any(asked) || words.windows(2).any(apart) {
        Format::Json
    } else {
        Format::Table
    }
}

/// `pomona dataset add`: the command that was meant, as far as it exists.
fn command_of(words: &[String]) -> String {
    let mut command = &Cli::command();
    let mut path = "pomona".to_owned();
    for word in words.iter().skip(1) {
        if let Some(found) = command.find_subcommand(word) {
            command = found;
            path.push(' ');
            path.push_str(word);
        }
    }
    path
}

/// clap's words as a coded error: its first paragraph is the message, its tips are the hint.
fn fault(error: &clap::Error, command: &str) -> Fault {
    let kind = error.kind();
    if kind == ErrorKind::MissingSubcommand
        || kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        return Fault::new(Code::BadRequest, format!("`{command}` needs a command"))
            .hint(format!("`{command} --help` lists them"));
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = first
        .trim_start_matches("error: ")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .replace('\'', "`");
    let tips: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "))
        .map(|tip| tip.replace('\'', "`"))
        .collect();
    let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    if kind == ErrorKind::ValueValidation
        && argument.is_some_and(|argument| argument.starts_with("--split "))
    {
        return Fault::new(Code::BadSplit, message).hint("for example `--split 60/20/20`");
    }
    let fault = Fault::new(Code::BadRequest, message);
    if tips.is_empty() {
        fault.hint(format!("`{command} --help` has examples"))
    } else {
        fault.hint(tips.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn said(words: &[&str]) -> String {
        let words = [&["pomona"], words].concat();
        let error = Cli::try_parse_from(&words).unwrap_err();
        let fault = fault(&error, &command_of(&owned(&words)));
        format!(
            "{}: {}\n{}",
            fault.code,
            fault.message,
            fault.hint.unwrap_or_default()
        )
    }

    #[test]
    fn the_first_paragraph_is_the_message_and_tips_are_the_hint() {
        assert_eq!(
            said(&["experiment", "submit", "x", "--wach"]),
            "E0101: unexpected argument `--wach` found\na similar argument exists: `--watch`"
        );
    }

    #[test]
    fn what_is_missing_is_named_in_one_line() {
        let text = said(&["dataset", "add"]);
        assert!(
            text.ends_with("<NAME> <PATH>\n`pomona dataset add --help` has examples"),
            "{text}"
        );
        assert_eq!(
            said(&["--quiet", "model"]),
            "E0101: `pomona model` needs a command\n`pomona model --help` lists them"
        );
    }

    #[test]
    fn the_form_of_an_error_is_known_before_the_arguments_are() {
        let of = |words: &[&str]| format(&owned(words));
        assert_eq!(
            of(&["pomona", "--output", "json", "nonsense"]),
            Format::Json
        );
        assert_eq!(of(&["pomona", "-ojson"]), Format::Json);
        assert_eq!(of(&["pomona", "--output=table"]), Format::Table);
    }
}
