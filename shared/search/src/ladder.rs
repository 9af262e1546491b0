//! Rungs: where trials are compared on their way, and who goes on (successive halving).
//!
//! ASHA (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning") in both forms, and
//! Hyperband (Li et al. 2018) as several brackets of it. Two things differ from the papers, because
//! trials of one space freeze different depths (README.md):
//!
//! - A rung is a *cost*, not an epoch: level `k` is what `min_epochs · eta^k` epochs cost at the
//!   dearest depth. A trial is judged at the first epoch that reaches it, so a cheap depth gets more
//!   epochs for the same money, and what costs less than the first rung in all is never stopped.
//! - Trials are compared only with those in the same phase: a *ladder* for each frozen depth, length
//!   and schedule. Who trains more blocks converges at another speed, and a common ladder would stop
//!   it for that. Points go to ladders as the space draws them, so none starves.
//!
//! It knows scores and epochs, and nothing of slots, leases or time. A decision is a function of the
//! entries of one rung up to the trial's own, which stay in the snapshot.

use pomona_domain::Hparams;
use pomona_domain::metric::Direction;
use pomona_domain::spec::{ExperimentSpec, Form, Strategy};
use pomona_domain::words::plural;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod bracket;

use crate::course::{Costs, Course};
use crate::{Action, Score};

/// The comparisons of one experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ladders {
    course: Course,
    eta: u32,
    form: Form,
    /// Several brackets (Hyperband), or one.
    is_bracketed: bool,
    metric: String,
    direction: Direction,
    replicates: u32,
    /// Ladders by whom they compare.
    by_name: BTreeMap<String, Ladder>,
    /// Points that are on their way, by index.
    open: BTreeMap<u32, Track>,
}

/// Where trials of one phase and bracket are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ladder {
    /// Points that were given to it.
    joined: u32,
    rungs: Vec<Rung>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rung {
    epoch: u32,
    /// In the order in which they came: a decision rests on those before it.
    entries: Vec<Entry>,
}

/// What a point had when it reached a rung.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Entry {
    point: u32,
    score: Score,
}

/// A point on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Track {
    ladder: String,
    /// The rung it reaches next.
    rung: usize,
    /// Whether it waits at the rung before.
    is_held: bool,
    /// Its seeds, by number.
    trials: BTreeMap<u32, Way>,
}

/// A seed of a point on its way: what it had at each rung that it reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Way {
    marks: Vec<Score>,
    is_over: bool,
}

/// Where a rung stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Whom it compares, for people.
    pub ladder: String,
    /// Its number, from 1.
    pub rung: u32,
    /// The epoch at which a trial is compared.
    pub epoch: u32,
    /// What reached it: the first trial of a point and its score, in the order they came.
    pub entries: Vec<(u32, Score)>,
}

impl Ladders {
    pub(crate) fn new(spec: &ExperimentSpec, costs: &Costs) -> Option<Self> {
        let halving = spec.search.halving()?;
        Some(Self {
            course: Course::new(spec, costs)?,
            eta: halving.eta,
            form: halving.form,
            is_bracketed: spec.search.strategy == Strategy::Hyperband,
            metric: spec.search.objective(),
            direction: spec.search.direction,
            replicates: spec.search.replicates,
            by_name: BTreeMap::new(),
            open: BTreeMap::new(),
        })
    }

    /// A trial of a point begins.
    pub(crate) fn begin(&mut self, trial: u32, hparams: &Hparams) {
        let point = self.point_of(trial);
        if !self.open.contains_key(&point) {
            let ladder = self.join(hparams);
            let track = Track {
                ladder,
                rung: 0,
                is_held: false,
                trials: BTreeMap::new(),
            };
            self.open.insert(point, track);
        }
        if let Some(track) = self.open.get_mut(&point) {
            track.trials.insert(trial, Way::default());
        }
    }

    /// A trial is at an epoch with its best so far.
    pub(crate) fn hear(&mut self, trial: u32, epoch: u32, score: Score) -> Vec<Action> {
        let point = self.point_of(trial);
        let Some(track) = self.open.get_mut(&point) else {
            return Vec::new();
        };
        let rungs = (self.by_name.get(&track.ladder)).map_or(&[][..], |ladder| &ladder.rungs);
        let Some(way) = track.trials.get_mut(&trial) else {
            return Vec::new();
        };
        while (rungs.get(way.marks.len())).is_some_and(|rung| rung.epoch <= epoch) {
            way.marks.push(score);
        }
        match self.form {
            Form::Stop => self.judge(point),
            Form::Promote => self.hold(point, Some(trial)),
        }
    }

    /// A trial is over; what it has not reached it never will.
    pub(crate) fn ended(&mut self, trial: u32) -> Vec<Action> {
        let point = self.point_of(trial);
        let Some(track) = self.open.get_mut(&point) else {
            return Vec::new();
        };
        if let Some(way) = track.trials.get_mut(&trial) {
            way.is_over = true;
        }
        let actions = match self.form {
            Form::Stop => self.judge(point),
            Form::Promote => self.hold(point, None),
        };
        let is_whole = |track: &Track| {
            track.trials.len() as u32 >= self.replicates
                && track.trials.values().all(|way| way.is_over)
        };
        if self.open.get(&point).is_some_and(is_whole) {
            self.open.remove(&point);
        }
        actions
    }

    /// Whether it still waits to hear how a trial ended.
    pub(crate) fn awaits(&self, trial: u32) -> bool {
        let track = self.open.get(&self.point_of(trial));
        let way = track.and_then(|track| track.trials.get(&trial));
        way.is_some_and(|way| !way.is_over)
    }

    /// Whether a trial waits at a rung: to be promoted, or for the other seeds of its point.
    pub(crate) fn is_held(&self, trial: u32) -> bool {
        let Some(track) = self.open.get(&self.point_of(trial)) else {
            return false;
        };
        let way = track.trials.get(&trial);
        let waits = |way: &Way| !way.is_over && way.marks.len() > track.rung;
        track.is_held || (self.form == Form::Promote && way.is_some_and(waits))
    }

    fn point_of(&self, trial: u32) -> u32 {
        trial.saturating_sub(1) / self.replicates.max(1)
    }

    /// The ladder of a new point.
    fn join(&mut self, hparams: &Hparams) -> String {
        let phase = self.course.phase(hparams);
        let epochs = self.course.rungs(hparams);
        let name = if self.is_bracketed {
            let joined = |bracket| {
                let ladder = self.by_name.get(&bracket::name(&phase, bracket));
                ladder.map_or(0, |ladder| ladder.joined)
            };
            let next = bracket::next(epochs.len(), self.eta, joined);
            bracket::name(&phase, next)
        } else {
            phase
        };
        let skipped = bracket::of(&name).unwrap_or(1) as usize - 1;
        let rungs = epochs.into_iter().skip(skipped).map(|epoch| Rung {
            epoch,
            entries: Vec::new(),
        });
        let ladder = self.by_name.entry(name.clone());
        let ladder = ladder.or_insert_with(|| Ladder {
            joined: 0,
            rungs: rungs.collect(),
        });
        ladder.joined += 1;
        name
    }

    /// Enters a point at the next rung, once all its seeds have reached it.
    fn enter(&mut self, point: u32) -> Option<()> {
        let track = self.open.get_mut(&point)?;
        let score = track.mean(self.replicates)?;
        let ladder = self.by_name.get_mut(&track.ladder)?;
        let rung = ladder.rungs.get_mut(track.rung)?;
        rung.entries.push(Entry { point, score });
        track.rung += 1;
        Some(())
    }

    /// Lets a point wait at the rung it has come to, unless it goes on at once; `current` is the seed
    /// that has just come there, the others wait already.
    fn hold(&mut self, point: u32, current: Option<u32>) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.enter(point).is_some() {
            let Some((_, _, rung)) = self.reached(point) else {
                break;
            };
            if self.rank(rung, point) > rung.entries.len() / self.eta as usize {
                let reason = self.why_held(point);
                if let Some(track) = self.open.get_mut(&point) {
                    track.is_held = true;
                }
                actions.extend(current.map(|trial| Action::Pause { trial, reason }));
                return actions;
            }
            let why = self.place(point);
            let waiting = self.each(point, |trial| Action::Resume {
                trial,
                reason: format!("promoted: {why}"),
            });
            let is_other = |action: &Action| match action {
                Action::Resume { trial, .. } => Some(*trial) != current,
                Action::Create(_) | Action::Stop { .. } | Action::Pause { .. } => false,
            };
            actions.extend(waiting.into_iter().filter(is_other));
        }
        if let Some(trial) = current.filter(|trial| self.is_held(*trial)) {
            let reason = "it waits at a rung for the other seeds of its point".to_owned();
            actions.push(Action::Pause { trial, reason });
        }
        actions
    }

    /// Takes a point over every rung that all its seeds have reached.
    fn judge(&mut self, point: u32) -> Vec<Action> {
        while self.enter(point).is_some() {
            if let Some(why) = self.why_stopped(point) {
                let actions = self.each(point, |trial| Action::Stop {
                    trial,
                    reason: why.clone(),
                });
                self.open.remove(&point);
                return actions;
            }
        }
        Vec::new()
    }

    /// An action for each seed of a point that is not over.
    fn each(&self, point: u32, action: impl Fn(u32) -> Action) -> Vec<Action> {
        let trials = self
            .open
            .get(&point)
            .into_iter()
            .flat_map(|track| &track.trials);
        let live = trials.filter(|(_, way)| !way.is_over);
        live.map(|(trial, _)| action(*trial)).collect()
    }

    /// The rung a point reached last, its place there, and how it is called.
    fn reached(&self, point: u32) -> Option<(&Track, &Ladder, &Rung)> {
        let track = self.open.get(&point)?;
        let ladder = self.by_name.get(&track.ladder)?;
        Some((track, ladder, ladder.rungs.get(track.rung.checked_sub(1)?)?))
    }

    /// Why a point ends at the rung it has just reached; `None` when it goes on. It goes on while
    /// fewer are better than there are places, one in `eta` of those that came so far and at least
    /// one. Equals are not better, so a plateau stops nobody.
    fn why_stopped(&self, point: u32) -> Option<String> {
        let (_, _, rung) = self.reached(point)?;
        let own = rung.entries.last()?.score;
        let better = (rung.entries.iter())
            .filter(|entry| entry.score.is_better(own, self.direction))
            .count();
        let places = (rung.entries.len() / self.eta as usize).max(1);
        let go_on = match places {
            1 => "the best one goes on".to_owned(),
            _ => format!("the best {places} go on"),
        };
        (better >= places).then(|| format!("{}; {go_on}", self.place(point)))
    }

    fn why_held(&self, point: u32) -> String {
        let eta = self.eta;
        format!("{}; the best of every {eta} go on", self.place(point))
    }

    /// What a decision about a point rests on, in words.
    fn place(&self, point: u32) -> String {
        let Some((track, ladder, rung)) = self.reached(point) else {
            return String::new();
        };
        let own = (rung.entries.iter().rev()).find(|entry| entry.point == point);
        let value = own.map_or(f64::NAN, |entry| entry.score.value);
        let mean = if track.trials.len() > 1 { "mean " } else { "" };
        format!(
            "at epoch {} its {mean}`{}` is {value}, the rung's {} of {} at {} (rung {} of {})",
            rung.epoch,
            self.metric,
            ordinal(self.rank(rung, point)),
            plural(rung.entries.len() as u64, "point"),
            track.ladder,
            track.rung,
            ladder.rungs.len()
        )
    }

    fn rank(&self, rung: &Rung, point: u32) -> usize {
        let ranked = self.ranked(rung);
        ranked
            .iter()
            .position(|entry| entry.point == point)
            .unwrap_or(0)
            + 1
    }

    /// A rung's entries, best first; of equals the one that came first.
    fn ranked<'a>(&self, rung: &'a Rung) -> Vec<&'a Entry> {
        let mut entries: Vec<&Entry> = rung.entries.iter().collect();
        entries.sort_by(|a, b| a.score.order(b.score, self.direction));
        entries
    }

    /// The point that is promoted next, and why; `no_more`: nobody new will come. Higher rungs come
    /// first, then the ladder that promoted fewest, so that none starves.
    pub(crate) fn promote(&mut self, no_more: bool) -> Vec<Action> {
        while let Some(point) = self.next_promoted(no_more) {
            let why = self.place(point);
            if let Some(track) = self.open.get_mut(&point) {
                track.is_held = false;
            }
            // It may have trained past the next rung before it stopped: nobody will measure it there
            // again, so what was measured is compared now.
            let further = self.hold(point, None);
            if !further.is_empty() {
                return further;
            }
            let goes_on = (self.open.get(&point)).is_some_and(|track| !track.is_held);
            if goes_on {
                return self.each(point, |trial| Action::Resume {
                    trial,
                    reason: format!("promoted: {why}"),
                });
            }
        }
        Vec::new()
    }

    fn next_promoted(&self, no_more: bool) -> Option<u32> {
        let mut found: Vec<(std::cmp::Reverse<usize>, usize, u32)> = Vec::new();
        for (name, ladder) in &self.by_name {
            for at in 0..ladder.rungs.len() {
                let next = ladder
                    .rungs
                    .get(at + 1)
                    .map_or(0, |rung| rung.entries.len());
                let best = self.promotable(name, ladder, at, no_more).first().copied();
                found.extend(best.map(|point| (std::cmp::Reverse(at), next, point)));
            }
        }
        found.into_iter().min().map(|(_, _, point)| point)
    }

    /// Points that wait at a rung and are among those that go on, best first.
    fn promotable(&self, name: &str, ladder: &Ladder, at: usize, no_more: bool) -> Vec<u32> {
        let Some(rung) = ladder.rungs.get(at) else {
            return Vec::new();
        };
        let mut places = rung.entries.len() / self.eta as usize;
        if places == 0 && self.is_closed(name, ladder, at, no_more) {
            places = 1;
        }
        let waits = |point: &u32| {
            let track = self.open.get(point);
            track.is_some_and(|track| track.is_held && track.rung == at + 1)
        };
        let best = self.ranked(rung).into_iter().take(places);
        best.map(|entry| entry.point).filter(waits).collect()
    }

    /// Whether nobody will come to a rung any more.
    fn is_closed(&self, name: &str, ladder: &Ladder, at: usize, no_more: bool) -> bool {
        let comes = |track: &Track| track.ladder == name && !track.is_held && track.rung <= at;
        no_more
            && !self.open.values().any(comes)
            && (0..at).all(|below| self.promotable(name, ladder, below, no_more).is_empty())
    }

    /// Ends whoever waits at a rung that is closed: nobody will promote it.
    pub(crate) fn release(&mut self, no_more: bool) -> Vec<Action> {
        let mut hopeless = Vec::new();
        for (name, ladder) in &self.by_name {
            for at in 0..ladder.rungs.len() {
                if self.is_closed(name, ladder, at, no_more) {
                    let kept = self.promotable(name, ladder, at, no_more);
                    let waits = |track: &Track| {
                        track.is_held && track.ladder == *name && track.rung == at + 1
                    };
                    let waiting = self.open.iter().filter(|(_, track)| waits(track));
                    let lost = waiting.filter(|(point, _)| !kept.contains(point));
                    hopeless.extend(lost.map(|(point, _)| *point));
                }
            }
        }
        hopeless.sort_unstable();
        let mut actions = Vec::new();
        for point in hopeless {
            let reason = format!("{}, and nobody else will come", self.place(point));
            actions.extend(self.each(point, |trial| Action::Stop {
                trial,
                reason: reason.clone(),
            }));
            self.open.remove(&point);
        }
        actions
    }

    pub(crate) fn standings(&self) -> Vec<Standing> {
        let mut all = Vec::new();
        for (name, ladder) in &self.by_name {
            for (at, rung) in ladder.rungs.iter().enumerate() {
                let first = |entry: &Entry| (entry.point * self.replicates + 1, entry.score);
                all.push(Standing {
                    ladder: name.clone(),
                    rung: at as u32 + 1,
                    epoch: rung.epoch,
                    entries: rung.entries.iter().map(first).collect(),
                });
            }
        }
        all
    }
}

impl Track {
    /// The mean over its seeds at the next rung, once each has reached it or never will.
    fn mean(&self, replicates: u32) -> Option<Score> {
        let is_settled = |way: &Way| way.is_over || way.marks.len() > self.rung;
        if self.is_held
            || (self.trials.len() as u32) < replicates
            || !self.trials.values().all(is_settled)
        {
            return None;
        }
        Score::mean(
            self.trials
                .values()
                .filter_map(|way| way.marks.get(self.rung)),
        )
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
