//! Scenarios as text: what happens, line by line, and what `show` and `explain` say about it. Ids
//! are replaced by names, so that an operator can read them.

use pomona_domain::change::Subject;
use pomona_domain::lease::Work;
use pomona_domain::policy::{Pool, Project};
use pomona_domain::spec::{ExperimentSpec, Gate, Promote, Share, parse};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::worker::{SlotKind, WorkerState};
use pomona_domain::{Digest, ExperimentId, Timestamp, TrialId};
use pomona_scheduler::{Config, Event, explain};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::mood::Mood;
use crate::worker::Worker;
use crate::world::{BEGIN, World};

struct Play {
    world: World,
    names: BTreeMap<String, ExperimentId>,
    said: String,
}

/// Plays a script and gives it back with what was said.
pub fn play(script: &str) -> String {
    let mut play = Play {
        world: World::new(1, Config::default(), false),
        names: BTreeMap::new(),
        said: String::new(),
    };
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let _ = writeln!(play.said, "> {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        play.line(&words);
        // What a user wishes has happened before the next line.
        let soon = play.world.now.plus_ms(1);
        play.advance_to(soon);
        for fault in std::mem::take(&mut play.world.refusals) {
            let _ = writeln!(play.said, "  refused: {} {fault}", fault.code);
        }
    }
    play.readable()
}

impl Play {
    fn line(&mut self, words: &[&str]) {
        match *words {
            ["worker", name, "joins", slots, "slots", ref place @ ..] => {
                let slots = vec![SlotKind::Cpu; number(slots)];
                let mut worker = Worker::new(name, &slots);
                worker.labels = zone(place);
                self.world.join(worker);
                let soon = self.world.now.plus_ms(100);
                self.advance_to(soon);
            }
            ["project" | "pool", ..] => self.policy(words),
            ["submit", name, ref options @ ..] => self.submit(name, &options.join(" ")),
            ["advance", span] => {
                let seconds = span.strip_suffix('s').expect("seconds");
                let until = self.world.now.plus_ms(1000 * number(seconds) as i64);
                self.advance_to(until);
            }
            ["restart", "coordinator"] => self.world.restart_coordinator(2_000),
            [trial, "will", "always", "crash"] => {
                self.world.poison.insert(self.trial(trial), 1);
            }
            [trial, "will", ref fate @ ..] => {
                let id = self.trial(trial);
                self.world
                    .moods
                    .entry(id)
                    .or_default()
                    .push_back(mood(fate));
            }
            ["pause", name] => self.world.wish(Event::Pause(self.names[name])),
            ["resume", name] => self.world.wish(Event::Resume(self.names[name])),
            ["cancel", name] => self.world.wish(Event::Cancel(self.names[name])),
            ["stop", name] => self.world.wish(Event::StopTrial(self.trial(name))),
            ["show"] => self.show(),
            ["explain", name] => {
                let said = explain(
                    &self.world.house.cluster,
                    self.subject(name),
                    self.world.now,
                );
                let _ = writeln!(self.said, "  {name}: {said}");
            }
            ["why", name] => self.why(name),
            _ => self.fate_of_worker(words),
        }
    }

    /// What happens to one worker, or what an operator does to it.
    fn fate_of_worker(&mut self, words: &[&str]) {
        match *words {
            ["kill", name] => {
                let at = self.worker(name);
                self.world.workers[at].die();
            }
            ["start", name] => {
                let at = self.worker(name);
                self.world.start_worker(at);
            }
            ["cut", name] => {
                let at = self.worker(name);
                self.world.workers[at].cut_until = Timestamp(i64::MAX);
            }
            ["heal", name] => {
                let at = self.worker(name);
                self.world.workers[at].cut_until = BEGIN;
            }
            ["drain", name, ref deadline @ ..] => {
                let worker = self.world.workers[self.worker(name)].id;
                let grace_ms = match *deadline {
                    ["in", span] => 1000 * number(span.trim_end_matches('s')) as i64,
                    _ => 0,
                };
                self.world.wish(Event::Drain { worker, grace_ms });
            }
            ["undrain", name] => {
                let id = self.world.workers[self.worker(name)].id;
                self.world.wish(Event::Undrain(id));
            }
            [name, "breaks", "everything"] => {
                let at = self.worker(name);
                self.world.workers[at].is_bad = true;
            }
            _ => panic!("what is `{}`?", words.join(" ")),
        }
    }

    /// The operator changes the configuration: `project p weighs 2`, `project p has quota 2`,
    /// `pool big of 4 slots in a`.
    fn policy(&mut self, words: &[&str]) {
        let mut policy = self.world.house.cluster.config().policy.clone();
        match *words {
            ["project", name, what @ ("weighs" | "has"), .., count] => {
                let count = number(count) as u32;
                policy.projects.push(Project {
                    name: name.to_owned(),
                    weight: if what == "weighs" { count } else { 1 },
                    quota_slots: (what == "has").then_some(count),
                });
            }
            ["pool", name, "of", slots, "slots", ref place @ ..] => policy.pools.push(Pool {
                name: name.to_owned(),
                slots: number(slots) as u32,
                kind: SlotKind::Cpu,
                labels: zone(place),
                max_workers: 1,
            }),
            _ => panic!("what is `{}`?", words.join(" ")),
        }
        let now = self.world.now;
        let changed = self.world.house.change_policy(now, policy);
        changed.unwrap_or_else(|broken| panic!("{broken}"));
    }

    fn advance_to(&mut self, until: Timestamp) {
        (self.world.run(until, |_| false)).unwrap_or_else(|broken| panic!("{broken}"));
    }

    fn worker(&self, name: &str) -> usize {
        let mut workers = self.world.workers.iter();
        workers
            .position(|worker| worker.name == name)
            .expect("a worker")
    }

    /// `grid/3`
    fn trial(&self, name: &str) -> TrialId {
        let (owner, number) = name.split_once('/').expect("experiment/number");
        let number = number.parse().expect("a number");
        TrialId::derive(&self.names[owner].to_string(), number)
    }

    fn subject(&self, name: &str) -> Subject {
        if name.contains('/') {
            return Subject::Trial(self.trial(name));
        }
        match self.names.get(name) {
            Some(id) => Subject::Experiment(*id),
            None => Subject::Worker(self.world.workers[self.worker(name)].id),
        }
    }

    /// `9 trials, sharing, 2 slots, 3 at once, priority 70, 20 epochs, 1 restarts, promoted to m at 0.5`
    fn submit(&mut self, name: &str, options: &str) {
        let mut trials = 1;
        // Most scripts are about one trial a lease.
        let mut spec = file(name, 1);
        let mut settings: Vec<Vec<&str>> = Vec::new();
        for option in options.split(", ") {
            let words: Vec<&str> = option.split(' ').collect();
            if let [count, "trials"] = words[..] {
                trials = number(count);
                spec = file(name, trials);
            } else {
                settings.push(words);
            }
        }
        spec.search.max_concurrent = trials as u32;
        for words in settings {
            match words[..] {
                [count, "slots"] => spec.resources.slots_per_trial = number(count) as u32,
                [count, "at", "once"] => spec.search.max_concurrent = number(count) as u32,
                [count, "epochs"] => spec.train.epochs = number(count) as u32,
                [count, "restarts"] => spec.max_restarts = number(count) as u32,
                ["project", project] => project.clone_into(&mut spec.project),
                ["in", zone] => {
                    let values = zone.split('|').map(str::to_owned).collect();
                    spec.resources.selector.insert("zone".to_owned(), values);
                }
                ["sharing"] => spec.share = Share::Auto,
                ["priority", level] => spec.priority = number(level) as i32,
                ["promoted", "to", model, "at", bound] => {
                    spec.promote = Some(promote(model, bound));
                }
                _ => panic!("what is `{}`?", words.join(" ")),
            }
        }
        let id = ExperimentId::derive(name, 0);
        self.names.insert(name.to_owned(), id);
        self.world.wish(Event::Submitted {
            id,
            spec: Box::new(spec),
            source: String::new(),
            dataset: Some(Digest([1; 32])),
            backbone: Some(Digest([2; 32])),
            plan: None,
        });
    }

    fn show(&mut self) {
        let clock = self.world.clock();
        let _ = writeln!(self.said, "  at {clock}");
        let workers: Vec<_> = self.world.house.journal.workers.values().cloned().collect();
        for row in workers {
            let state = match row.state {
                WorkerState::Alive => "alive",
                WorkerState::Draining => "draining",
                WorkerState::Lost => "lost",
            };
            let slots: Vec<String> = row
                .slots
                .iter()
                .map(|slot| self.slot(&row.name, slot.index))
                .collect();
            let _ = writeln!(
                self.said,
                "  worker {} {state}: {}",
                row.name,
                slots.join(" ")
            );
        }
        let mut names: Vec<(String, ExperimentId)> = self.names.clone().into_iter().collect();
        names.sort_by_key(|(_, id)| {
            self.world
                .house
                .journal
                .experiments
                .get(id)
                .map(|row| row.submitted_at)
        });
        for (name, id) in names {
            let Some(row) = self.world.house.journal.experiments.get(&id) else {
                continue;
            };
            let best = row
                .best
                .map_or_else(String::new, |best| format!(", best {best}"));
            let _ = writeln!(self.said, "  {name} {}{best}", row.state.name());
            let lines: Vec<String> = (self.world.house.journal.trials_of(id).into_iter())
                .map(|trial| format!("    {}\n", trial_line(trial)))
                .collect();
            self.said.extend(lines);
        }
        for moved in &self.world.house.journal.moves {
            let _ = writeln!(
                self.said,
                "  {}@{} is version {}",
                moved.model, moved.alias, moved.to
            );
        }
    }

    /// `-`, a task, or trials: `grid/1`, `grid/1,2,3`.
    fn slot(&self, worker: &str, index: u32) -> String {
        let id = self.world.workers[self.worker(worker)].id;
        let cluster = &self.world.house.cluster;
        let mut leases = cluster.leases_of(id);
        let lease = leases.find(|lease| lease.slots.iter().any(|slot| slot.index == index));
        let Some(lease) = lease else {
            return "-".to_owned();
        };
        match &lease.work {
            Work::Task(id) => id.to_string(),
            Work::Trials(_) => {
                let mut members = cluster.members(lease);
                let first = members
                    .next()
                    .map_or_else(String::new, |row| row.id.to_string());
                members.fold(first, |line, row| format!("{line},{}", row.number))
            }
        }
    }

    fn why(&mut self, name: &str) {
        let subject = self.subject(name);
        for (about, at, text) in &self.world.house.journal.reasons {
            if *about == subject {
                let clock = at.since_ms(BEGIN) as f64 / 1000.0;
                let _ = writeln!(self.said, "  {clock:>8.3} s  {text}");
            }
        }
    }

    /// Names instead of ids.
    fn readable(self) -> String {
        let mut text = self.said;
        for (name, id) in &self.names {
            text = text.replace(&id.to_string(), name);
            for trial in self.world.house.journal.trials_of(*id) {
                text = text.replace(&trial.id.to_string(), &format!("{name}/{}", trial.number));
            }
        }
        for (at, id) in self.world.house.journal.tasks.keys().enumerate() {
            text = text.replace(&id.to_string(), &format!("task-{}", at + 1));
        }
        text
    }
}

/// `in a`: the labels of a worker or a pool.
fn zone(place: &[&str]) -> BTreeMap<String, String> {
    match *place {
        ["in", zone] => BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
        _ => BTreeMap::new(),
    }
}

fn number(text: &str) -> usize {
    text.parse()
        .unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn file(name: &str, trials: usize) -> ExperimentSpec {
    let rates: Vec<String> = (1..=trials)
        .map(|n| format!("{}", n as f64 / 100.0))
        .collect();
    let text = format!(
        "{{name: {name}, backbone: b, dataset: c, share: off, search: {{space: \
         {{train.learning_rate: {{values: [{}]}}}}}}}}",
        rates.join(", ")
    );
    parse(&text, &[]).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn promote(model: &str, bound: &str) -> Promote {
    Promote {
        model: model.to_owned(),
        alias: "champion".to_owned(),
        gates: vec![Gate::Threshold {
            metric: "test/accuracy".to_owned(),
            at_least: Some(bound.parse().expect("a bound")),
            at_most: None,
        }],
    }
}

fn mood(fate: &[&str]) -> Mood {
    match *fate {
        ["crash"] => Mood::Crashes(3),
        ["diverge"] => Mood::Diverges(3),
        ["hang"] => Mood::Hangs(3),
        ["be", "ended", "by", "its", "trainer"] => Mood::Breaks(3),
        ["not", "start"] => Mood::CannotStart,
        ["not", "listen"] => Mood::Deaf,
        ["be", "slow"] => Mood::Slow,
        ["be", "refused", "by", "its", "trainer"] => Mood::Fails(3),
        _ => panic!("what is `{}`?", fate.join(" ")),
    }
}

fn trial_line(trial: &Trial) -> String {
    let mut line = format!("{} {}", trial.number, trial.state.name());
    if let TrialState::Failed { fault } = &trial.state {
        let _ = write!(line, " {}", fault.code);
    }
    let _ = write!(line, ", step {}, {} leases", trial.last_step, trial.leases);
    if trial.restarts > 0 {
        let _ = write!(line, ", {} restarts", trial.restarts);
    }
    if let Some(limit) = trial.share_limit {
        let _ = write!(line, ", at most {limit} a lease");
    }
    line
}
