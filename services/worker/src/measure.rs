//! The best split of the cores into trainers and their threads: measured at the worker's first start
//! and kept for all that its user starts on this machine.
//!
//! It must never keep a worker from starting: whatever goes wrong, it offers as many slots as cores.

use pomona_api::client::file_digest;
use pomona_api::split::{self, Machine, Measured, Rate, Split};
use pomona_domain::Fault;
use serde::Deserialize;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::config::Config;
use crate::identity::{DataDir, write};
use crate::slots::{Slots, cores, cpu_environment, cpu_name};

#[cfg(test)]
mod tests;

/// Splits that are tried.
const MOST_CANDIDATES: usize = 4;
/// How long each is measured, in seconds.
const SECONDS: &str = "1";
/// All of it, start of the trainers included.
const LIMIT: Duration = Duration::from_secs(20);
/// What is within this share of the best is as good.
const TIE: f64 = 0.05;

/// The slots that are offered: what the configuration says, or what computes most.
pub async fn slots(config: &Config, data: &DataDir, trainer: &Path) -> Slots {
    let wanted = config.slots();
    let slots = if config.slots.cpu_only {
        Slots::cpu(wanted)
    } else {
        Slots::find(wanted, trainer).await
    };
    if wanted.is_some() || !config.slots.measure || !slots.are_cpu() {
        return slots;
    }
    let file = split::path(|name| std::env::var_os(name), &data.path(""));
    match split(&file, &cpu_name(), cores(), trainer).await {
        Some(split) => Slots::cpu(Some(split.processes)),
        None => slots,
    }
}

/// The split of this machine: as kept, or measured now. `None` when it cannot be measured.
async fn split(file: &Path, processor: &str, cores: u32, trainer: &Path) -> Option<Split> {
    if cores < 2 {
        return None;
    }
    match measured(file, processor, cores, trainer, LIMIT).await {
        Ok(split) => Some(split),
        Err(why) => {
            tracing::warn!(
                "the best split of {cores} cores cannot be measured, so there is a slot for each \
                 of them: {why} (set `slots.count` to say how many, or `slots.measure = false`)"
            );
            None
        }
    }
}

async fn measured(
    file: &Path,
    processor: &str,
    cores: u32,
    trainer: &Path,
    limit: Duration,
) -> Result<Split, String> {
    let told = |fault: Fault| fault.message;
    let machine = Machine {
        processor: processor.to_owned(),
        cores,
        trainer: file_digest(trainer).await.map_err(told)?.0,
    };
    if let Some(kept) = kept(file, &machine) {
        tracing::debug!("{} (slots × threads) was measured before", kept.best);
        return Ok(kept.best);
    }
    let rates = rates(trainer, &candidates(cores), limit).await?;
    let best = choose(&rates).ok_or("nothing was measured")?;
    let measured = Measured {
        machine,
        best,
        rates,
    };
    tracing::info!(
        "measured (slots × threads) {}: offers {best}",
        measured.table()
    );
    let text = serde_json::to_string(&measured).map_err(|error| error.to_string())?;
    // What was cut short or never tried is for this start alone.
    if measured.rates.len() < candidates(cores).len() {
        return Ok(best);
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    if let Err(error) = std::fs::create_dir_all(folder).and_then(|()| write(file, &text)) {
        let file = file.display();
        tracing::warn!("`{file}` cannot be written, so it is measured at every start: {error}");
    }
    Ok(best)
}

/// What was measured on this very machine with this very trainer.
fn kept(file: &Path, machine: &Machine) -> Option<Measured> {
    let text = std::fs::read_to_string(file).ok()?;
    let kept: Measured = serde_json::from_str(&text).ok()?;
    let fits = candidates(machine.cores).contains(&kept.best);
    (kept.machine == *machine && fits).then_some(kept)
}

/// The splits that use every core, those with the fewest threads first.
fn candidates(cores: u32) -> Vec<Split> {
    let divisors = (1..=cores).filter(|threads| cores.is_multiple_of(*threads));
    let splits = divisors.map(|threads| Split {
        processes: cores / threads,
        threads,
    });
    splits.take(MOST_CANDIDATES).collect()
}

/// The fastest; of those that are as good the one with the most processes.
fn choose(rates: &[Rate]) -> Option<Split> {
    let best = rates.iter().map(|rate| rate.images_per_s);
    let enough = best.reduce(f64::max)? * (1.0 - TIE);
    let good = rates.iter().filter(|rate| rate.images_per_s >= enough);
    good.map(|rate| rate.split)
        .max_by_key(|split| split.processes)
}

/// What the splits do, in their order, as far as the limit lets them be tried.
async fn rates(trainer: &Path, candidates: &[Split], limit: Duration) -> Result<Vec<Rate>, String> {
    let until = Instant::now() + limit;
    let mut rates = Vec::new();
    for &split in candidates {
        let rate = tokio::time::timeout_at(until, rate(trainer, split)).await;
        match rate {
            Ok(rate) => rates.push(Rate {
                split,
                images_per_s: rate?,
            }),
            Err(_) if rates.is_empty() => {
                return Err(format!(
                    "the trainer took more than {} s",
                    limit.as_secs_f64()
                ));
            }
            Err(_) => break,
        }
    }
    Ok(rates)
}

/// Images in a second of all processes of a split, which begin together.
async fn rate(trainer: &Path, split: Split) -> Result<f64, String> {
    let mut crew = Vec::new();
    for _ in 0..split.processes {
        crew.push(Trainer::start(trainer, split.threads)?);
    }
    for trainer in &mut crew {
        trainer.line().await?;
    }
    for trainer in &mut crew {
        trainer.go().await?;
    }
    let mut sum = 0.0;
    for trainer in &mut crew {
        let text = trainer.line().await?;
        let answer: Result<Answer, _> = serde_json::from_str(&text);
        let rate = answer.map_err(|_| format!("the trainer said `{}`", text.trim()))?;
        sum += rate.images_per_second;
    }
    if sum.is_finite() && sum > 0.0 {
        return Ok(sum);
    }
    Err(format!("{sum} images a second make no sense"))
}

#[derive(Deserialize)]
struct Answer {
    images_per_second: f64,
}

/// A trainer that measures; it ends with its worker, or when this is dropped.
struct Trainer {
    child: Child,
    words: BufReader<tokio::process::ChildStdout>,
}

impl Trainer {
    fn start(trainer: &Path, threads: u32) -> Result<Self, String> {
        let started = Command::new(trainer)
            .envs(cpu_environment(threads))
            .args(["measure", "--threads", &threads.to_string()])
            .args(["--seconds", SECONDS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = started.map_err(|error| format!("the trainer does not start: {error}"))?;
        let words = child.stdout.take().ok_or("the trainer has no stdout")?;
        Ok(Self {
            child,
            words: BufReader::new(words),
        })
    }

    /// Its next line: the first when it stands ready, the second with its answer.
    async fn line(&mut self) -> Result<String, String> {
        let mut text = String::new();
        match self.words.read_line(&mut text).await {
            Ok(0) => Err("the trainer ended without an answer".to_owned()),
            Ok(_) => Ok(text),
            Err(error) => Err(format!("the trainer cannot be read: {error}")),
        }
    }

    /// Lets it begin.
    async fn go(&mut self) -> Result<(), String> {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .ok_or("the trainer has no stdin")?;
        let written = stdin.write_all(b"\n").await;
        written.map_err(|error| format!("the trainer is gone: {error}"))
    }
}
