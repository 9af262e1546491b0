//! What a run under faults came to.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// What came of it.
#[derive(Default)]
pub struct Report {
    pub struck: BTreeMap<&'static str, u32>,
    pub lost: Vec<String>,
    doubled: Vec<String>,
    pub leaked: Vec<String>,
    pub orphans: Vec<String>,
    pub violations: Vec<String>,
    pub recovery: BTreeMap<&'static str, Vec<f64>>,
    pub looks: u32,
}

impl Report {
    pub fn compare(
        &mut self,
        faulty: &BTreeMap<u64, (Value, Value)>,
        quiet: &BTreeMap<u64, (Value, Value)>,
    ) {
        if faulty.len() != quiet.len() {
            let text = format!("{} trials instead of {}", faulty.len(), quiet.len());
            self.doubled.push(text);
        }
        for (number, (state, curve)) in quiet {
            match faulty.get(number) {
                Some((there, same)) if there == state && same == curve => {}
                None => self.lost.push(format!("trial {number} is not there")),
                Some((there, same)) => self.lost.push(format!(
                    "trial {number}: {there} with {same} instead of {state} with {curve}"
                )),
            }
        }
    }

    pub fn faults(&self) -> Vec<String> {
        let all = [
            &self.lost,
            &self.doubled,
            &self.leaked,
            &self.orphans,
            &self.violations,
        ];
        all.into_iter().flatten().cloned().collect()
    }

    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.struck {
            *self.struck.entry(kind).or_default() += count;
        }
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.leaked.extend(other.leaked);
        self.orphans.extend(other.orphans);
        self.violations.extend(other.violations);
        for (what, seconds) in other.recovery {
            self.recovery.entry(what).or_default().extend(seconds);
        }
        self.looks += other.looks;
    }

    pub fn print(&self, seed: u64) {
        let _ = writeln!(
            std::io::stderr(),
            "seed {seed}: {:?}, recovery {:?}, {:?}",
            self.struck,
            self.recovery,
            self.faults()
        );
    }

    pub fn write(&self, name: &str, seeds: u64) {
        let recovery = self.recovery.iter().map(|(what, seconds)| {
            let mut sorted = seconds.clone();
            sorted.sort_by(f64::total_cmp);
            let worst = sorted.last().copied().unwrap_or_default();
            let median = sorted[sorted.len() / 2];
            (
                (*what).to_owned(),
                json!({ "median": median, "worst": worst, "times": sorted.len() }),
            )
        });
        let report = json!({
            "seeds": seeds,
            "faults": self.struck,
            "lost": self.lost.len(),
            "doubled": self.doubled.len(),
            "leaked_slots": self.leaked.len(),
            "orphans": self.orphans.len(),
            "violations": self.violations.len(),
            "looks": self.looks,
            "recovery_seconds": recovery.collect::<serde_json::Map<_, _>>(),
        });
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
        fs::create_dir_all(&folder).expect("the folder of reports");
        let text = serde_json::to_string_pretty(&report).expect("JSON");
        fs::write(folder.join(format!("{name}.json")), text + "\n").expect("the report");
    }
}
