//! Many seeds, each a story of its own.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::story::{Told, tell};

/// Seeds of an ordinary run.
const SEEDS: u64 = 500;
/// Every so many seeds one is told twice, and must be the same history.
const TWICE: u64 = 10;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is `{text}`, not a number")),
    )
}

/// One seed; a panic in the house under test is a failure of the seed like any other.
fn run(seed: u64, is_shown: bool) -> Result<Told, String> {
    let told = catch_unwind(|| tell(seed, is_shown));
    told.unwrap_or_else(|_| Err("a panic".to_owned()))
        .map_err(|broken| format!("seed {seed}: {broken}\n  replay it: make sim SEED={seed}"))
}

fn run_checked(seed: u64) -> Result<Told, String> {
    let told = run(seed, false)?;
    if seed.is_multiple_of(TWICE) && run(seed, false)?.history != told.history {
        return Err(format!(
            "seed {seed}: two runs have two histories\n  replay it: make sim SEED={seed}"
        ));
    }
    Ok(told)
}

/// Runs seeds side by side; results come in the order of the seeds.
fn run_all(count: u64) -> Vec<Result<Told, String>> {
    let next = AtomicU64::new(0);
    let hands = std::thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(u64, Result<Told, String>)> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    return mine;
                }
                mine.push((seed, run_checked(seed)));
            }
        };
        let hands: Vec<_> = (0..hands).map(|_| scope.spawn(work)).collect();
        hands
            .into_iter()
            .flat_map(|hand| hand.join().expect("a hand"))
            .collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn every_seed_keeps_the_invariants_and_comes_to_its_end() {
    if let Some(seed) = number("POMONA_SIM_SEED") {
        let told = run(seed, true).unwrap_or_else(|broken| panic!("{broken}"));
        println!(
            "seed {seed}: {} events, {} leases, {} of them shared, {} wide, {} trials completed, {} failed, \
             {} alias moves, {} virtual seconds, history {:016x}",
            told.events,
            told.leases,
            told.shared,
            told.wide,
            told.completed,
            told.failed,
            told.promoted,
            told.seconds,
            told.history
        );
        return;
    }
    let count = number("POMONA_SIM_SEEDS").unwrap_or(SEEDS);
    let results = run_all(count);
    let broken: Vec<&str> = (results.iter())
        .filter_map(|result| result.as_ref().err())
        .map(String::as_str)
        .collect();
    assert!(
        broken.is_empty(),
        "{} of {count} seeds broke; the first:\n{}",
        broken.len(),
        broken
            .iter()
            .take(5)
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    );
    let told: Vec<&Told> = results.iter().flatten().collect();
    let sum = |of: fn(&Told) -> usize| told.iter().map(|one| of(one)).sum::<usize>();
    let (completed, failed) = (sum(|one| one.completed), sum(|one| one.failed));
    let (promoted, leases) = (sum(|one| one.promoted), sum(|one| one.leases));
    let starts = sum(|one| one.starts);
    let (shared, halved) = (sum(|one| one.shared), sum(|one| one.halved));
    let wide = sum(|one| one.wide);
    let (preempted, drained) = (sum(|one| one.preempted), sum(|one| one.drained));
    println!(
        "{count} seeds: {} events, {leases} leases, {shared} of them shared, {wide} on several \
         workers, {completed} trials completed, {failed} failed, {halved} in smaller company, {preempted} preempted, {drained} \
         drained, {promoted} alias moves",
        told.iter().map(|one| one.events).sum::<u64>()
    );
    if count >= SEEDS {
        // A world in which nothing happens keeps every invariant.
        assert!(
            completed > 2_000 && failed > 50 && promoted > 50,
            "too little happens"
        );
        assert!(starts > completed + failed, "nothing is ever leased twice");
        assert!(preempted > 50 && drained > 50, "hardly anybody yields");
        assert!(wide > 50, "hardly any trial needs several workers");
        assert!(shared > 600 && halved > 200, "trials hardly share leases");
    }
}
