//! A trainer without tensors: the protocol of `pomona-trainer`, files under the same names, and
//! learning curves that are drawn from the seed instead of trained.
//!
//! The whole platform is tested end to end with it. It must never be installed where people train.
//!
//! - `FAKE_STEP_MS`: pace of a step in milliseconds (default 1).
//! - `FAKE_FAULT`: `KIND` or `KIND@STEP` or `KIND@STEP#RANK`, see [`faults`]; `FAKE_FAULT_ONCE` names
//!   a file that is made when the fault strikes, and while it is there none does.
//! - `FAKE_FEATURE_MS`: milliseconds that a shard of features takes; without it there are none.
//! - A learning rate above 1 diverges: its loss is not a number.

mod arch;
mod curve;
mod faults;
mod features;
mod import;
mod line;
mod publish;
mod train;

use line::{Line, log, say};
use pomona_api::PROTOCOL;
use pomona_api::trainer::{Command, Event, TrainerWork};
use pomona_domain::task::TaskResult;
use pomona_domain::{Fault, TaskId};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;

/// Exit status after `stopped`.
const EXIT_STOPPED: u8 = 3;
/// Exit status after `failed`.
const EXIT_FAILED: u8 = 4;

/// How work ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All of it is done.
    Finished,
    /// A stop was asked for; the last checkpoint was announced.
    Stopped,
}

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    match role.as_deref() {
        None => run(),
        Some("store") => store(),
        Some("measure") => measure(),
        Some(other) => {
            log(&format!(
                "there is no role `{other}`: give none, `store` or `measure`"
            ));
            ExitCode::from(2)
        }
    }
}

/// A place to meet: it listens until stdin closes, and prints its port first.
fn store() -> ExitCode {
    let host = std::env::args().skip_while(|word| word != "--host").nth(1);
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let bound = TcpListener::bind((host, 0)).and_then(|listener| {
        let port = listener.local_addr()?.port();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{{\"port\":{port}}}")?;
        out.flush()?;
        Ok(listener)
    });
    let Ok(listener) = bound else {
        log("the store cannot listen");
        return ExitCode::from(1);
    };
    // Ranks that connect stay connected: the backlog holds them.
    let mut sink = Vec::new();
    let _end = std::io::stdin().read_to_end(&mut sink);
    drop(listener);
    ExitCode::SUCCESS
}

/// Nothing is computed here: each core is as good as another.
fn measure() -> ExitCode {
    line::print("{\"ready\":true}");
    let _go = std::io::stdin().read_line(&mut String::new());
    line::print("{\"images_per_second\":100}");
    ExitCode::SUCCESS
}

fn run() -> ExitCode {
    let (line, command) = match Line::open() {
        Ok(opened) => opened,
        Err(fault) => return failed(fault, false),
    };
    log(&format!(
        "rank {} of {} begins",
        command.rank, command.world_size
    ));
    faults::at_start(command.rank);
    let environment = [
        ("threads", command.threads.to_string()),
        ("precision", "f32".to_owned()),
        ("libtorch", "none".to_owned()),
        ("cpu_capability", "drawn".to_owned()),
        ("world_size", command.world_size.to_string()),
    ];
    say(&Event::Started {
        protocol: PROTOCOL,
        rank: command.rank,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: environment
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
    });
    match carry_out(&command, &line) {
        Ok(Ended::Finished) => {
            say(&Event::Finished {});
            ExitCode::SUCCESS
        }
        Ok(Ended::Stopped) => {
            say(&Event::Stopped {});
            ExitCode::from(EXIT_STOPPED)
        }
        Err((fault, retry)) => failed(fault, retry),
    }
}

fn failed(fault: Fault, retry: bool) -> ExitCode {
    log(&format!("error[{}]: {}", fault.code, fault.message));
    say(&Event::Failed { fault, retry });
    ExitCode::from(EXIT_FAILED)
}

/// What is done, or why not and whether to try again.
type Done = Result<Ended, (Fault, bool)>;

fn carry_out(command: &Command, line: &Line) -> Done {
    let never = |fault: Fault| (fault, false);
    faults::refuse(command.rank).map_err(never)?;
    let (task, result) = match &command.work {
        TrainerWork::Train(work) => return train::train(command, work, line),
        TrainerWork::ImportDataset {
            task,
            archive,
            archive_digest,
            options,
            output,
        } => {
            let imported = import::dataset(archive, *archive_digest, options, output);
            (*task, imported.map_err(never)?)
        }
        TrainerWork::ImportBackbone {
            task,
            arch,
            weights,
            output,
        } => (
            *task,
            import::backbone(arch, weights, output).map_err(never)?,
        ),
        TrainerWork::Publish(work) => (work.task, publish::publish(work).map_err(never)?),
        TrainerWork::Predict {
            task,
            model,
            pictures,
            top,
        } => (
            *task,
            publish::predict(model, pictures, *top).map_err(never)?,
        ),
    };
    answer(task, result);
    Ok(Ended::Finished)
}

fn answer(task: TaskId, result: TaskResult) {
    faults::before_answer();
    say(&Event::Result { task, result });
}
