//! The processes of a program of one's own, and what their lines mean.
//!
//! A program knows no protocol: that it started, finished or stopped is read from its processes.
//! It must never take a checkpoint that the program did not announce, or that changed meanwhile.

use pomona_api::PROTOCOL;
use pomona_api::client::file_digest;
use pomona_api::trainer::Event;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Code, Digest, Fault};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fetch::blocking;
use crate::program::folder::{self, Packed};
use crate::program::line::{self, Saved, Told};
use crate::program::{Folders, ProgramWork};

/// A folder that changes while it is packed is packed again so often.
const ATTEMPTS: u32 = 3;
/// After this long.
const PAUSE: Duration = Duration::from_millis(50);
/// Tars that stay after a newer one was announced: they are kept by links before they go.
const KEPT: u64 = 2;

/// What a line of a program is.
#[derive(Debug)]
pub enum Heard {
    /// A line of its log.
    Log,
    /// News, and what is to be said about them in the log.
    News(Vec<Event>, Option<String>),
}

/// What rank 0 of a program has told so far.
#[derive(Debug)]
pub struct Script {
    work: Arc<ProgramWork>,
    folders: Folders,
    step: u64,
    epoch: u32,
    tars: u64,
    newest: Option<Digest>,
}

impl Script {
    pub fn new(work: Arc<ProgramWork>, folders: Folders) -> Self {
        let from = work.resume.as_ref();
        Self {
            step: from.map_or(0, |from| from.step),
            epoch: from.map_or(0, |from| from.epoch),
            work,
            folders,
            tars: 0,
            newest: None,
        }
    }

    /// Takes a line. A fault ends the lease.
    pub async fn hear(&mut self, line: &[u8]) -> Result<Heard, Fault> {
        match line::read(line) {
            None => Ok(Heard::Log),
            Some(Ok(told)) => self.told(told).await,
            Some(Err(why)) => {
                let text = format!("(Pomona cannot read the next line: {why})");
                Ok(Heard::News(Vec::new(), Some(text)))
            }
        }
    }

    async fn told(&mut self, told: Told) -> Result<Heard, Fault> {
        let mut events = Vec::new();
        if let Some(step) = told.step {
            self.reached(step, told.epoch);
            events.push(self.progress());
        }
        if !told.metrics.is_empty() {
            events.push(Event::Observed {
                trial: self.work.trial,
                step: told.step.unwrap_or(self.step),
                epoch: told.epoch.unwrap_or(0),
                metrics: told.metrics,
                confusion: Vec::new(),
            });
        }
        let mut said = None;
        if let Some(Saved { step, epoch }) = told.checkpoint {
            self.reached(step, epoch);
            match self.checkpoint(step, epoch.unwrap_or(self.epoch)).await? {
                Ok(event) => events.push(event),
                Err(why) => said = Some(format!("(no checkpoint of step {step}: {why})")),
            }
        }
        Ok(Heard::News(events, said))
    }

    /// At a clean end the folder is what the program wants to leave.
    pub async fn conclude(&mut self) -> Result<Option<Event>, Fault> {
        let before = self.newest;
        let taken = self.checkpoint(self.step, self.epoch).await?;
        Ok(taken.ok().filter(|_| self.newest != before))
    }

    fn reached(&mut self, step: u64, epoch: Option<u32>) {
        self.step = self.step.max(step);
        self.epoch = epoch.map_or(self.epoch, |epoch| self.epoch.max(epoch));
    }

    fn progress(&self) -> Event {
        Event::Progress {
            rank: 0,
            step: self.step,
            total_steps: 0,
            epoch: self.epoch,
            samples: 0,
            data_wait_seconds: 0.0,
            step_seconds: 0.0,
        }
    }

    /// Packs the folder; why there is no checkpoint, if there is none.
    async fn checkpoint(
        &mut self,
        step: u64,
        epoch: u32,
    ) -> Result<Result<Event, &'static str>, Fault> {
        let begun = Instant::now();
        self.tars += 1;
        let tar = self.tar(self.tars);
        let mut packed = Packed::Changed;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let (from, to) = (self.folders.checkpoint.clone(), tar.clone());
            let limit = self.work.checkpoint_max_bytes;
            packed = blocking(move || folder::pack(&from, &to, limit)).await??;
            if packed != Packed::Changed {
                break;
            }
        }
        match packed {
            Packed::Done => {}
            Packed::Empty => return Ok(Err("its folder is empty")),
            Packed::Changed => return Ok(Err("its folder changed while it was packed")),
        }
        let (digest, size) = file_digest(&tar).await?;
        if let Some(old) = self.tars.checked_sub(KEPT) {
            let _ = tokio::fs::remove_file(self.tar(old)).await;
        }
        self.newest = Some(digest);
        self.tell(step).await?;
        Ok(Ok(Event::Checkpoint {
            trial: self.work.trial,
            checkpoint: CheckpointKind::Last,
            step,
            epoch,
            path: tar,
            digest,
            size,
            seconds: begun.elapsed().as_secs_f64(),
        }))
    }

    fn tar(&self, number: u64) -> PathBuf {
        self.folders.output.join(format!("{number}.tar"))
    }

    /// Tells the program that its folder was read and may change again.
    async fn tell(&self, step: u64) -> Result<(), Fault> {
        let taken = &self.folders.taken;
        let part = taken.with_extension("part");
        let done = async {
            tokio::fs::write(&part, format!("{step}\n")).await?;
            tokio::fs::rename(&part, taken).await
        };
        let told: std::io::Result<()> = done.await;
        told.map_err(|error| crate::work::cannot("write", taken, &error))
    }
}

/// A program's process runs.
pub fn started(rank: u32) -> Event {
    Event::Started {
        protocol: PROTOCOL,
        rank,
        version: String::new(),
        environment: BTreeMap::new(),
    }
}

/// The fault of a folder that is not there, or a keeper that cannot be started.
pub fn cannot_start(cwd: &std::path::Path, error: &std::io::Error) -> Fault {
    let text = format!(
        "a program cannot be started in the folder `{}` of this worker: {error}",
        cwd.display()
    );
    Fault::new(Code::MissingProgram, text).hint("`runner.cwd` must be there on every worker")
}
