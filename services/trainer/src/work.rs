//! A rank's life: read the command, do the work, say how it ended.
//!
//! libtorch's operators panic where tch has no fallible form worth its noise: the panic is caught
//! here, once, and told as a fault.

use crate::network::import;
use crate::predict;
use crate::protocol::{self, Line, Listener};
use crate::train::{self, Ended};
use crate::{data, fault, publish};
use pomona_api::PROTOCOL;
use pomona_api::trainer::{Command, Event, TrainerWork};
use pomona_domain::task::TaskResult;
use pomona_domain::{Fault, TaskId};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Exit status after `stopped`.
pub const EXIT_STOPPED: u8 = 3;
/// Exit status after `failed`.
pub const EXIT_FAILED: u8 = 4;

/// Between two signs of life of a task.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Reads a command from `input`, carries it out, and gives the exit status.
pub fn run(line: &'static Line, mut input: impl BufRead + Send + 'static) -> u8 {
    let command = match protocol::command(&mut input) {
        Ok(command) => command,
        Err(fault) => return failed(line, fault, false),
    };
    protocol::listen(line, input);
    settle(command.threads.max(1));
    line.say(&Event::Started {
        protocol: PROTOCOL,
        rank: command.rank,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: reported_environment(&command),
    });
    match catch_unwind(AssertUnwindSafe(|| carry_out(&command, line))) {
        Ok(Ok(Ended::Finished)) => {
            line.end(&Event::Finished {});
            0
        }
        Ok(Ok(Ended::Stopped)) => {
            line.end(&Event::Stopped {});
            EXIT_STOPPED
        }
        Ok(Err(fault)) => {
            let retry = train::worth_a_retry(&fault);
            failed(line, fault, retry)
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            let fault =
                fault::from_message(&panic_message(text.unwrap_or("a panic without words")));
            let retry = train::worth_a_retry(&fault);
            failed(line, fault, retry)
        }
    }
}

/// What a resume must match, and over how many ranks the trial runs.
fn reported_environment(command: &Command) -> BTreeMap<String, String> {
    let mut all = train::environment(command, command.threads.max(1));
    all.insert("world_size".to_owned(), command.world_size.to_string());
    all
}

/// Prepares the process for tensors, once and before the first of them.
pub fn settle(threads: u32) {
    // Inter-operator threads add nothing on one stream of work, and would not be deterministic.
    tch::set_num_interop_threads(1);
    train::set_threads(threads);
    crate::dist::ffi::keep_freed_memory();
}

/// tch unwraps a `TchError`, whose text has newlines as `\n` and stands in Rust's own words.
fn panic_message(text: &str) -> String {
    let words = text
        .split_once("Torch(\"")
        .map_or(text, |(_, words)| words.trim_end_matches("\")"));
    words.replace("\\n", "\n")
}

fn failed(line: &Line, fault: Fault, retry: bool) -> u8 {
    protocol::log(&format!("error[{}]: {}", fault.code, fault.message));
    line.end(&Event::Failed { fault, retry });
    EXIT_FAILED
}

fn carry_out(command: &Command, line: &Line) -> Result<Ended, Fault> {
    let mut beats: u64 = 0;
    let mut last = Instant::now();
    let beat = || {
        if last.elapsed() >= BEAT_EVERY {
            last = Instant::now();
            beats += 1;
            line.say(&sign_of_life(command.rank, beats));
        }
    };
    let threads = command.threads.max(1) as usize;
    let (task, result) = match &command.work {
        TrainerWork::Train(work) => return train::train(command, work, line),
        TrainerWork::ImportDataset {
            task,
            archive,
            archive_digest,
            options,
            output,
        } => {
            let imported = data::import(archive, *archive_digest, options, output, threads, beat)?;
            (task, dataset_result(imported))
        }
        TrainerWork::ImportBackbone {
            task,
            arch,
            weights,
            output,
        } => (task, import::import(arch, weights, output)?),
        TrainerWork::Publish(work) => (&work.task, publish::publish(work, threads, beat)?),
        TrainerWork::Predict {
            task,
            model,
            pictures,
            top,
        } => (task, predict::predict(model, pictures, *top, beat)?),
    };
    answer(line, *task, result);
    Ok(Ended::Finished)
}

fn dataset_result(imported: data::Imported) -> TaskResult {
    TaskResult::Dataset {
        manifest: imported
            .manifest
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        digest: imported.digest,
        summary: imported.summary,
    }
}

fn answer(line: &Line, task: TaskId, result: TaskResult) {
    line.say(&Event::Result { task, result });
}

/// A task has no steps: its beats are counted instead.
fn sign_of_life(rank: u32, beats: u64) -> Event {
    Event::Progress {
        rank,
        step: beats,
        total_steps: 0,
        epoch: 0,
        samples: 0,
        data_wait_seconds: 0.0,
        step_seconds: 0.0,
    }
}
