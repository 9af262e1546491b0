//! Gates: whether a version may be what an alias points to.
//!
//! The work is in two halves. [`weigh`] reads what two versions said of each test sample and may take
//! a second: whoever asks for a decision does it beforehand, and hands the [`Evidence`] over with the
//! event. [`judge()`] compares numbers: it is what a decision does, and the same evidence gives the same
//! outcome. Neither may know a clock or a store.

mod judge;
mod metrics;
pub mod stats;
#[cfg(test)]
mod tests;

pub use judge::{Case, judge, needs_champion};
pub use metrics::{Measure, Tally};

use pomona_domain::gate::{Approval, GatePolicy, TestOutcomes};
use pomona_domain::model::Version;
use pomona_domain::spec::Gate;
use pomona_domain::{Digest, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of a move before it is decided, read from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The publish task whose version it is about; none for a move by request.
    pub task: Option<TaskId>,
    /// The alias's revision when this was read (0: it does not exist). If it has moved since, this
    /// is evidence about something else.
    pub revision: u64,
    /// The version that the alias shall point to, unless it is only being published.
    pub candidate: Option<Box<Version>>,
    /// What the alias pointed to.
    pub champion: Option<Champion>,
    /// What the two versions' outcomes say.
    pub weighed: Weighed,
    /// Who said yes to the candidate.
    pub approvals: Vec<Approval>,
    /// Whether the alias has pointed to the candidate before.
    pub been_there: bool,
}

/// The version that an alias points to.
#[derive(Debug, Clone, PartialEq)]
pub struct Champion {
    /// Its number.
    pub number: u32,
    /// The gates it was promoted under.
    pub policy: Option<GatePolicy>,
}

/// What outcomes say, as far as gates ask.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weighed {
    /// The test split that the candidate was measured on.
    pub split: Option<Digest>,
    /// The one that the champion was measured on.
    pub champion_split: Option<Digest>,
    /// The candidate's classes.
    pub classes: Vec<(String, Tally)>,
    /// Samples, and how many of them only the candidate and only the champion has right.
    pub pairs: Option<Pairs>,
    /// Metric → how much better the candidate is.
    pub differences: BTreeMap<String, Arc<stats::Difference>>,
}

/// Samples on which two versions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairs {
    /// All.
    pub samples: u32,
    /// Only the candidate is right.
    pub wins: u32,
    /// Only the champion is right.
    pub losses: u32,
}

/// Computes what `gates` need of the outcomes of a candidate and a champion. May take about a second
/// for each gate that compares by another metric than accuracy.
pub fn weigh(
    gates: &[Gate],
    candidate: Option<&TestOutcomes>,
    champion: Option<&TestOutcomes>,
) -> Weighed {
    let mut weighed = Weighed {
        split: candidate.map(|outcomes| outcomes.split),
        champion_split: champion.map(|outcomes| outcomes.split),
        ..Weighed::default()
    };
    let Some(candidate) = candidate else {
        return weighed;
    };
    let names = candidate.classes.iter().cloned();
    weighed.classes = names.zip(metrics::tallies(candidate)).collect();
    let Some(champion) = champion.filter(|champion| champion.split == candidate.split) else {
        return weighed;
    };
    weighed.pairs = Some(pairs(candidate, champion));
    let compared = gates.iter().filter_map(|gate| match gate {
        Gate::NoWorseThan { metric, .. } | Gate::BetterThan { metric, .. } => Some(metric),
        Gate::Approvals { .. } | Gate::ClassFloor { .. } | Gate::Threshold { .. } => None,
    });
    for metric in compared {
        if let Some(measure) = Measure::parse(metric)
            && measure != Measure::Accuracy
            && !weighed.differences.contains_key(metric)
        {
            // The seed follows from what is compared, so nobody can draw until it passes.
            let seed = Digest::of(format!("{}/{metric}", candidate.split).as_bytes()).0;
            let difference = stats::resample(measure, candidate, champion, seed);
            weighed
                .differences
                .insert(metric.clone(), Arc::new(difference));
        }
    }
    weighed
}

fn pairs(candidate: &TestOutcomes, champion: &TestOutcomes) -> Pairs {
    let mut pairs = Pairs {
        samples: candidate.labels.len() as u32,
        wins: 0,
        losses: 0,
    };
    let ours = candidate.labels.iter().zip(&candidate.predicted);
    let theirs = champion.labels.iter().zip(&champion.predicted);
    for ((a, b), (c, d)) in ours.zip(theirs) {
        match (a == b, c == d) {
            (true, false) => pairs.wins += 1,
            (false, true) => pairs.losses += 1,
            (true, true) | (false, false) => {}
        }
    }
    pairs
}
