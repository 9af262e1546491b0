//! The only place that prints. Data goes to stdout, talk and errors to stderr; colour only where a
//! person looks; a reader that goes away ends the program quietly, unless it has more to do.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pomona_domain::{Code, Fault};
use serde::Serialize;
use serde_json::json;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use crate::args::{Format, GlobalArgs};

/// Columns of a table when stdout is no terminal.
const PLAIN_WIDTH: u16 = 100;
/// A wider terminal does not make tables wider than this.
const MAX_WIDTH: u16 = 160;

/// How a view is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Escape codes are welcome.
    pub color: bool,
    /// Columns.
    pub width: u16,
}

impl Style {
    /// Bold text.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Text that steps back.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Text in red.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Text in green.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Text in yellow.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Prints.
#[derive(Debug, Clone)]
pub struct Printer {
    format: Format,
    quiet: bool,
    /// How stdout is drawn.
    out: Style,
    /// How stderr is drawn.
    err: Style,
    err_is_terminal: bool,
    out_is_terminal: bool,
    /// A reader that goes away does not end the program.
    undaunted: bool,
}

impl Printer {
    /// For these arguments and this terminal.
    pub fn new(global: &GlobalArgs) -> Self {
        Self::with(global.output, global.quiet)
    }

    /// For a form, when there are no arguments (yet).
    pub fn with(format: Format, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let out_is_terminal = std::io::stdout().is_terminal();
        let err_is_terminal = std::io::stderr().is_terminal();
        let columns = console_width(out_is_terminal);
        let style = |is_terminal: bool| Style {
            color: is_terminal && !no_color,
            width: columns,
        };
        Self {
            format,
            quiet,
            out: style(out_is_terminal),
            err: style(err_is_terminal),
            err_is_terminal,
            out_is_terminal,
            undaunted: false,
        }
    }

    /// For a program that is needed when nobody reads any more.
    pub fn undaunted(self) -> Self {
        Self {
            undaunted: true,
            ..self
        }
    }

    /// Whether data is JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person looks at stdout.
    pub fn out_is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Whether a person looks at stderr, so that moving bars make sense.
    pub fn is_live(&self) -> bool {
        self.err_is_terminal && !self.quiet && !self.is_json()
    }

    /// How stdout is drawn.
    pub fn style(&self) -> Style {
        self.out
    }

    /// How stderr is drawn.
    pub fn talk_style(&self) -> Style {
        self.err
    }

    /// Data: JSON, or the view of it.
    pub fn data<T: Serialize + ?Sized>(&self, value: &T, view: impl FnOnce(Style) -> String) {
        match self.format {
            Format::Json => {
                let text = serde_json::to_string_pretty(value).unwrap_or_default();
                self.text(&text);
            }
            Format::Table => self.text(&view(self.out)),
        }
    }

    /// Data that has only one form, with a line's end.
    pub fn text(&self, text: &str) {
        let end = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        self.emit(&mut std::io::stdout().lock(), &format!("{text}{end}"));
    }

    /// One line of JSON now, for a reader that waits for it.
    pub fn json_line<T: Serialize>(&self, value: &T) {
        self.text(&serde_json::to_string(value).unwrap_or_default());
    }

    /// A picture in place of the one before.
    pub fn redraw(&self, text: &str) {
        let clear = if self.out_is_terminal {
            "\u{1b}[H\u{1b}[2J"
        } else {
            ""
        };
        self.text(&format!("{clear}{text}"));
    }

    /// Talk.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.emit(&mut std::io::stderr().lock(), &format!("{text}\n"));
        }
    }

    /// A warning: talk that is said even when it is to be quiet.
    pub fn warn(&self, text: &str) {
        let label = self.err.yellow("warning");
        self.emit(&mut std::io::stderr().lock(), &format!("{label}: {text}\n"));
    }

    /// What stands in the way of what was asked for, with what the reader can do.
    pub fn warning(&self, fault: &Fault) {
        let label = self.err.yellow(&format!("warning[{}]", fault.code));
        let text = labelled(&label, fault, self.err);
        self.emit(&mut std::io::stderr().lock(), &text);
    }

    /// An error, with what the reader can do.
    pub fn fault(&self, fault: &Fault) {
        let text = match self.format {
            Format::Json => {
                serde_json::to_string(&json!({"error": fault})).unwrap_or_default() + "\n"
            }
            Format::Table => fault_text(fault, self.err),
        };
        // The exit status tells of it even when nobody reads.
        let _ = write(&mut std::io::stderr().lock(), &text);
    }

    /// A reader that went away is no error; any other failure to write ends the program as ours.
    fn emit(&self, stream: &mut impl Write, text: &str) {
        match write(stream, text).map_err(|error| error.kind()) {
            Ok(()) => {}
            Err(ErrorKind::BrokenPipe) if self.undaunted => {}
            Err(ErrorKind::BrokenPipe) => std::process::exit(0),
            Err(_) => std::process::exit(2),
        }
    }

    /// A bar over bytes. It shows nothing when nobody looks.
    pub fn bytes_bar(&self, label: &str, total: u64) -> ProgressBar {
        let bar = self.bar(total);
        bar.set_style(template(
            "{prefix:12} {bar:32.green} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ));
        bar.set_prefix(label.to_owned());
        bar
    }

    /// A line that moves while something is waited for.
    pub fn spinner(&self, label: &str) -> ProgressBar {
        let bar = self.bar(0);
        bar.set_style(template("{spinner} {msg} ({elapsed})"));
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// Room for several bars.
    pub fn bars(&self) -> MultiProgress {
        MultiProgress::with_draw_target(self.target())
    }

    /// One more bar, drawn by a template of indicatif's.
    pub fn bar_among(bars: &MultiProgress, total: u64, text: &str) -> ProgressBar {
        bars.add(ProgressBar::new(total).with_style(template(text)))
    }

    fn bar(&self, total: u64) -> ProgressBar {
        ProgressBar::with_draw_target(Some(total), self.target())
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.is_live() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        }
    }
}

/// ``error[E0203]: …`` and ``hint: …``.
fn fault_text(fault: &Fault, style: Style) -> String {
    labelled(&style.red(&format!("error[{}]", fault.code)), fault, style)
}

fn labelled(label: &str, fault: &Fault, style: Style) -> String {
    let hint = fault.hint.clone().unwrap_or_else(|| more(fault.code));
    let message = &fault.message;
    format!("{label}: {message}\n{}: {hint}\n", style.green("hint"))
}

/// What to do about a fault that has no hint of its own.
fn more(code: Code) -> String {
    format!("`pomona explain {code}` has the long story")
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

fn console_width(is_terminal: bool) -> u16 {
    if !is_terminal {
        return PLAIN_WIDTH;
    }
    terminal_size::terminal_size_of(std::io::stdout())
        .map_or(PLAIN_WIDTH, |(width, _)| width.0.clamp(40, MAX_WIDTH))
}

fn write(stream: &mut impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests;
