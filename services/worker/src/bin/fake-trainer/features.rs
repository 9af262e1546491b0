//! Features as the real trainer keeps them, at a pace and with rows that are drawn: shards that are
//! missing are told, computed from the first on, and waited for where another process is at them.
//!
//! Only where `FAKE_FEATURE_MS` says how long a shard takes.

use pomona_api::shard::folder::{Folder, Unfinished, check, opened};
use pomona_api::shard::{Footer, Key, Plan};
use pomona_api::trainer::{Command, Event, FeatureResult, MissingShard, TrainWork};
use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use pomona_domain::{Digest, Fault};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::line::{Line, cannot, log, say};
use crate::train::read_manifest;

const SHARDS: u64 = 8;
const ROWS: u64 = 32;
const BATCHES: u32 = 4;
/// Values of a row.
const WIDTH: i64 = 512;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Finds or computes the features of the work. Says `false` when a stop was asked for.
pub fn get(command: &Command, work: &TrainWork, line: &Line) -> Result<bool, Fault> {
    let Ok(pace) = std::env::var("FAKE_FEATURE_MS") else {
        return Ok(true);
    };
    let Some(place) = &work.features else {
        return Ok(true);
    };
    let begun = Instant::now();
    let broken = |error: std::io::Error| cannot("use", &place.folder, &error);
    let folder = Folder::open(&place.folder, place.max_bytes).map_err(broken)?;
    let (_, dataset) = read_manifest(&work.data.manifest)?;
    let mut left: Vec<(Digest, Plan)> = Vec::new();
    for number in 0..SHARDS {
        let plan = plan(command, work, dataset, number);
        left.push((plan.key.digest()?, plan));
    }
    let wait = Duration::from_secs_f64(pace.parse::<f64>().unwrap_or(1.0) / 1000.0);
    let ear = Ear {
        rank: command.rank,
        line,
        wait: wait / BATCHES,
    };
    ear.miss(&folder, &left);
    let all: u64 = left.iter().map(|(_, plan)| plan.bytes()).sum();
    let mut computed = 0;
    while !left.is_empty() {
        let mut busy = Vec::new();
        for (shard, plan) in left {
            let path = folder.whole(shard);
            let found = opened(&path).map_err(broken)?;
            if found.is_some_and(|mut file| check(&mut file, shard).is_some()) {
                continue;
            }
            match folder.claim(shard).map_err(broken)? {
                None => busy.push((shard, plan)),
                Some(unfinished) => {
                    if !ear.build(&plan, unfinished).map_err(broken)? {
                        return Ok(false);
                    }
                    computed += plan.bytes();
                }
            }
        }
        left = busy;
        if line.stop_wanted() {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    log(&format!("computed {computed} of {all} bytes of features"));
    let result = if computed == 0 {
        FeatureResult::Hit
    } else {
        FeatureResult::Built
    };
    say(&Event::Features {
        rank: command.rank,
        result,
        bytes: all,
        seconds: begun.elapsed().as_secs_f64(),
    });
    Ok(true)
}

struct Ear<'a> {
    rank: u32,
    line: &'a Line,
    /// For each batch.
    wait: Duration,
}

impl Ear<'_> {
    fn miss(&self, folder: &Folder, wanted: &[(Digest, Plan)]) {
        let missing = wanted
            .iter()
            .filter(|(shard, _)| !folder.whole(*shard).exists());
        let shards = missing.map(|(shard, plan)| MissingShard {
            shard: *shard,
            bytes: plan.bytes(),
        });
        let (rank, shards) = (self.rank, shards.collect::<Vec<_>>());
        if !shards.is_empty() {
            say(&Event::FeaturesMissing { rank, shards });
        }
    }

    /// Writes a shard. Says `false` when a stop was asked for.
    fn build(&self, plan: &Plan, mut unfinished: Unfinished) -> std::io::Result<bool> {
        if !unfinished.reserve(plan.bytes())? {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let begun = Instant::now();
        let name = plan.key.digest().unwrap_or(plan.key.weights);
        let rows = name.0.repeat(plan.bytes() as usize / name.0.len());
        for batch in rows.chunks(rows.len() / BATCHES as usize) {
            std::thread::sleep(self.wait);
            if self.line.stop_wanted() {
                return Ok(false);
            }
            unfinished.file.write_all(batch)?;
            say(&Event::FeaturesPace {
                rank: self.rank,
                bytes_per_s: batch.len() as f64 / self.wait.as_secs_f64().max(1e-6),
            });
        }
        let footer = Footer {
            plan: plan.clone(),
            rows_sha256: Digest::of(&rows),
        };
        footer.write(&mut unfinished.file)?;
        unfinished.finish()?;
        log(&format!(
            "a shard took {:.3} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(true)
    }
}

fn plan(command: &Command, work: &TrainWork, dataset: Digest, number: u64) -> Plan {
    Plan {
        key: Key {
            prefix_version: 1,
            arch: work.backbone.arch.clone(),
            cut: 1,
            block: "drawn".to_owned(),
            weights: work.backbone.digest,
            mean: [0.0; 3],
            scale: [1.0; 3],
            dataset,
            split: Split::Train,
            view: View::AS_IS,
            from: number * ROWS,
            to: (number + 1) * ROWS,
            batch: ROWS as u32 / BATCHES,
            environment: BTreeMap::from([("threads".to_owned(), command.threads.to_string())]),
        },
        rows: ROWS,
        shape: vec![WIDTH],
    }
}
