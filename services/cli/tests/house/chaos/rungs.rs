//! Whether every stop at a rung follows from what was observed, and from nothing else.

use pomona_domain::Hparams;
use pomona_domain::experiment::Experiment;
use pomona_search::{Score, Searcher};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A trial's state, and its point with its curve: `[hparams, [[step, epoch, metrics], …]]`.
pub type Curves = BTreeMap<u64, (Value, Value)>;

/// Works every decision of an experiment in the stopping form of ASHA out again; gives what does
/// not follow.
pub fn judge(row: &Experiment, curves: &Curves) -> Vec<String> {
    let mut faults = points(row, curves);
    let searcher = Searcher::restore(&row.searcher).expect("a searcher");
    let halving = row.spec.search.halving().expect("it has rungs");
    let mut stopped = BTreeSet::new();
    for rung in searcher.standings() {
        for (at, (number, score)) in rung.entries.iter().enumerate() {
            let seen = curves.get(&u64::from(*number));
            let seen = seen.and_then(|(_, curve)| best_at(row, curve, rung.epoch));
            if seen != Some(*score) {
                faults.push(format!(
                    "the rung at epoch {} says {score:?} of trial {number}, observed was {seen:?}",
                    rung.epoch
                ));
            }
            let before = &rung.entries[..=at];
            let direction = row.spec.search.direction;
            let better = before
                .iter()
                .filter(|(_, other)| other.is_better(*score, direction));
            if better.count() >= (before.len() / halving.eta as usize).max(1) {
                stopped.insert(u64::from(*number));
            }
        }
    }
    let whole = u64::from(row.spec.train.epochs);
    for (number, (state, curve)) in curves {
        let last = points_of(curve).last().and_then(|point| point[1].as_u64());
        let is_short = last.is_some_and(|epoch| epoch < whole);
        if state != "completed" || last.is_none() {
            faults.push(format!("trial {number} is {state} after epoch {last:?}"));
        } else if is_short && !stopped.contains(number) {
            faults.push(format!("trial {number} was stopped for no reason"));
        }
    }
    faults
}

/// Whether the shorter of two curves of each trial is where the longer one begins.
pub fn are_prefixes(some: &Curves, others: &Curves) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, (_, curve)) in some {
        let other = others.get(number).map(|(_, other)| other);
        let is_prefix = other.is_some_and(|other| {
            let (a, b) = (points_of(curve), points_of(other));
            let common = a.len().min(b.len());
            curve[0] == other[0] && a[..common] == b[..common]
        });
        if !is_prefix {
            faults.push(format!("trial {number}: {curve} beside {other:?}"));
        }
    }
    faults
}

/// Whatever went wrong, the points are those that the file draws.
fn points(row: &Experiment, curves: &Curves) -> Vec<String> {
    let mut searcher = Searcher::new(&row.spec).expect("a searcher");
    let mut faults = Vec::new();
    for (number, (_, curve)) in curves {
        let drawn = searcher.next().map(|point| point.hparams);
        let trained: Hparams = serde_json::from_value(curve[0].clone()).expect("a point");
        if drawn.as_ref() != Some(&trained) {
            faults.push(format!("trial {number} is not what its file draws"));
        }
    }
    faults
}

fn points_of(curve: &Value) -> &[Value] {
    curve[1].as_array().map_or(&[], Vec::as_slice)
}

/// The best that was observed up to an epoch, of a trial that came so far.
fn best_at(row: &Experiment, curve: &Value, epoch: u32) -> Option<Score> {
    let search = &row.spec.search;
    let points = points_of(curve);
    let epoch_of = |point: &Value| point[1].as_u64().unwrap_or_default();
    points
        .iter()
        .find(|point| epoch_of(point) >= u64::from(epoch))?;
    let metric = |point: &Value, name: &str| point[2][name].as_f64().unwrap_or(f64::NAN);
    let so_far = points
        .iter()
        .filter(|point| epoch_of(point) <= u64::from(epoch));
    let scores = so_far.map(|point| Score {
        value: metric(point, &search.objective()),
        tie: metric(point, search.tie_breaker()),
    });
    scores.reduce(|best, next| {
        if next.is_better(best, search.direction) {
            next
        } else {
            best
        }
    })
}
