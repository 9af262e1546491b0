//! Curves told to a searcher, as a benchmark would tell recorded ones: no cluster, no clock.

use pomona_domain::spec::ExperimentSpec;
use pomona_search::{Action, Costs, Point, Score, Searcher};
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Runs,
    Waits,
    Ended,
}

/// A trial of the harness.
#[derive(Debug, Clone)]
pub struct Run {
    pub point: Point,
    pub state: State,
    pub epoch: u32,
    pub best: Option<f64>,
}

/// A searcher, the curves that are told to it, and what it did.
pub struct Played<'a> {
    spec: &'a ExperimentSpec,
    curve: &'a dyn Fn(&Point, u32) -> f64,
    pub searcher: Searcher,
    pub runs: Vec<Run>,
    pub log: String,
    /// Events after which the searcher is written down and read again; 0: never.
    reread: usize,
    events: usize,
}

impl<'a> Played<'a> {
    pub fn of(
        spec: &'a ExperimentSpec,
        costs: &Costs,
        slots: usize,
        reread: usize,
        curve: &'a dyn Fn(&Point, u32) -> f64,
    ) -> Self {
        let mut played = Self {
            spec,
            curve,
            searcher: Searcher::with_costs(spec, costs).expect("a searcher"),
            runs: Vec::new(),
            log: String::new(),
            reread,
            events: 0,
        };
        loop {
            while played.count(State::Runs) < slots {
                let actions = played.tell(Searcher::act);
                if actions.is_empty() {
                    break;
                }
                played.obey(actions);
            }
            if played.count(State::Runs) == 0 {
                return played;
            }
            for at in 0..played.runs.len() {
                if played.runs[at].state == State::Runs {
                    played.train(at);
                }
            }
        }
    }

    fn count(&self, state: State) -> usize {
        self.runs.iter().filter(|run| run.state == state).count()
    }

    fn tell(&mut self, what: impl FnOnce(&mut Searcher) -> Vec<Action>) -> Vec<Action> {
        self.events += 1;
        if self.reread > 0 && self.events.is_multiple_of(self.reread) {
            let text = serde_json::to_string(&self.searcher).expect("a text");
            let read: Searcher = serde_json::from_str(&text).expect("a searcher");
            assert_eq!(read, self.searcher);
            self.searcher = read;
        }
        what(&mut self.searcher)
    }

    fn score(&self, at: usize) -> Option<Score> {
        self.runs[at].best.map(Score::of)
    }

    /// One epoch of a trial.
    fn train(&mut self, at: usize) {
        let run = &mut self.runs[at];
        run.epoch += 1;
        let value = (self.curve)(&run.point, run.epoch);
        let direction = self.spec.search.direction;
        if run.best.is_none_or(|best| direction.is_better(value, best)) {
            run.best = Some(value);
        }
        let (trial, epoch) = (at as u32 + 1, run.epoch);
        let best = self.score(at).expect("a value");
        let actions = self.tell(|searcher| searcher.hear(trial, epoch, best));
        self.obey(actions);
        if self.runs[at].state != State::Ended && epoch >= self.spec.train.epochs {
            self.ends(at);
        }
    }

    fn ends(&mut self, at: usize) {
        self.runs[at].state = State::Ended;
        let (trial, best) = (at as u32 + 1, self.score(at));
        let actions = self.tell(|searcher| searcher.ended(trial, best));
        self.obey(actions);
    }

    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Create(point) => {
                    let number = self.runs.len() + 1;
                    let _ = writeln!(self.log, "{number} + {}", point.hparams.canonical());
                    self.runs.push(Run {
                        point,
                        state: State::Runs,
                        epoch: 0,
                        best: None,
                    });
                }
                Action::Stop { trial, reason } => {
                    let _ = writeln!(self.log, "{trial} stops: {reason}");
                    self.ends(trial as usize - 1);
                }
                Action::Pause { trial, reason } => {
                    let _ = writeln!(self.log, "{trial} pauses: {reason}");
                    self.runs[trial as usize - 1].state = State::Waits;
                }
                Action::Resume { trial, reason } => {
                    let _ = writeln!(self.log, "{trial} resumes: {reason}");
                    self.runs[trial as usize - 1].state = State::Runs;
                }
            }
        }
    }

    /// Epochs, times what one costs at its depth.
    pub fn cost(&self, costs: &Costs) -> f64 {
        let epoch = |run: &Run| {
            let depth = run.point.hparams.0.get("transfer.frozen_depth");
            let depth = depth.map_or(String::new(), |depth| {
                depth
                    .as_str()
                    .map_or_else(|| depth.to_string(), ToOwned::to_owned)
            });
            costs.0.get(&depth).map_or(1.0, |cost| cost.epoch)
        };
        self.runs
            .iter()
            .map(|run| f64::from(run.epoch) * epoch(run))
            .sum()
    }

    pub fn best(&self) -> f64 {
        let direction = self.spec.search.direction;
        let values = self.runs.iter().filter_map(|run| run.best);
        values
            .reduce(|best, next| {
                if direction.is_better(next, best) {
                    next
                } else {
                    best
                }
            })
            .expect("a value")
    }
}
