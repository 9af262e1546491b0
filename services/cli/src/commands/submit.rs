//! Experiment files: read and checked here before anybody is asked, previewed, sent.

use pomona_api::v1::experiments::{ExperimentView, SubmitExperiment};
use pomona_domain::spec::{ExperimentSpec, MAX_FILE_BYTES, parse};
use pomona_domain::{Code, Fault};
use pomona_search::{Costs, preview as draw, preview_with};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use super::session::{Session, is_passing, key};
use super::{Done, runtime};
use crate::args::GlobalArgs;
use crate::args::experiment::FileArgs;
use crate::local::cannot;
use crate::printer::Printer;
use crate::views::preview::{Outlook, view};

/// A preview does not wait longer for a coordinator: it works without one.
const PREVIEW_PATIENCE: Duration = Duration::from_secs(3);

/// A file as it is sent, and checked.
pub fn read(args: &FileArgs) -> Result<SubmitExperiment, Fault> {
    let body = SubmitExperiment {
        file: text(&args.file)?,
        set: args.set.clone(),
    };
    check(&body, &args.file)?;
    Ok(body)
}

fn text(path: &Path) -> Result<String, Fault> {
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| cannot("read", path, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("`{}` is not UTF-8 text (at byte {at})", path.display());
        Fault::new(Code::NotYaml, message).hint("save it as UTF-8")
    })
}

fn check(body: &SubmitExperiment, path: &Path) -> Result<ExperimentSpec, Fault> {
    parse::parse(&body.file, &body.set).map_err(|faults| joined(faults, path))
}

/// All faults of a file as one: the first one's code and hint, a line for each.
fn joined(faults: Vec<Fault>, path: &Path) -> Fault {
    let file = path.display();
    let number = faults.len();
    let mut faults = faults.into_iter();
    let Some(first) = faults.next() else {
        return Fault::new(
            Code::Internal,
            format!("`{file}` was refused without a word"),
        );
    };
    if number == 1 {
        return first;
    }
    let mut message = format!("{number} faults in `{file}`\n  {}", first.message);
    let mut hints: Vec<String> = first.hint.into_iter().collect();
    for fault in faults {
        let _ = write!(message, "\n  {}", fault.message);
        if fault.code != first.code {
            let _ = write!(message, " ({})", fault.code);
        }
        if let Some(hint) = fault.hint
            && !hints.contains(&hint)
        {
            hints.push(hint);
        }
    }
    let fault = Fault::new(first.code, message);
    if hints.is_empty() {
        return fault.hint(format!(
            "`pomona explain {}` has the long story",
            first.code
        ));
    }
    fault.hint(hints.join("\n      "))
}

/// Sends a file that was read.
pub async fn send(body: &SubmitExperiment, session: &Session) -> Result<ExperimentView, Fault> {
    session.client.experiment_submit(body, &key()).await
}

/// `pomona experiment preview`.
pub fn preview(args: &FileArgs, global: &GlobalArgs, printer: &Printer) -> Result<Done, Fault> {
    let body = SubmitExperiment {
        file: text(&args.file)?,
        set: args.set.clone(),
    };
    let spec = check(&body, &args.file)?;
    let mut outlook = Outlook {
        spec: &spec,
        preview: draw(&spec)?,
        server: None,
    };
    let session = Session::new(global, printer)?;
    let asked = runtime()?.block_on(async {
        let client = session.client.clone().attempts(1);
        let asked = client.experiment_preview(&body);
        tokio::time::timeout(PREVIEW_PATIENCE, asked).await
    });
    match asked {
        Ok(Ok(answer)) => {
            // What an epoch costs, and so where trials are compared, only the coordinator knows.
            outlook.preview = preview_with(&spec, &Costs::of(answer.plan.as_ref()))?;
            outlook.server = Some(answer);
        }
        Ok(Err(fault)) if !is_passing(fault.code) => return Err(fault),
        Ok(Err(_)) | Err(_) => {}
    }
    printer.data(&outlook.data(), |style| view(style, &outlook));
    for warning in outlook.warnings() {
        printer.warning(warning);
    }
    if outlook.server.is_none() {
        printer.say(&format!(
            "no coordinator answers at `{}`: data set and backbone were not looked up",
            session.client.server()
        ));
    }
    Ok(Done::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_keeps_its_words_and_several_get_a_line_each() {
        let path = Path::new("grid.yaml");
        let first = Fault::new(Code::UnknownKey, "`a`: unknown key").hint("did you mean `b`?");
        let one = joined(vec![first.clone()], path);
        assert_eq!(one, first);

        let second = Fault::new(Code::OutOfRange, "`c`: must be above 0");
        let both = joined(vec![first, second], path);
        assert_eq!(both.code, Code::UnknownKey);
        assert_eq!(
            both.message,
            "2 faults in `grid.yaml`\n  `a`: unknown key\n  `c`: must be above 0 (E0205)"
        );
    }
}
