//! A simulated world: a virtual clock, workers, a lossy network and a coordinator over a journal.
//! Nothing happens but what stands in the queue, and chance is one seeded generator: the same seed
//! is the same history.

use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::{Code, Fault, LeaseId, Timestamp, TrialId};
use pomona_scheduler::{Config, Event};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::coordinator::{Answered, Coordinator, Luck, Wanted};
use crate::dice::Dice;
use crate::mood::{self, Mood};
use crate::story::Deed;
use crate::worker::{Wish, Worker};

/// When every world begins.
pub const BEGIN: Timestamp = Timestamp(1_000_000_000_000);
const TICK_MS: i64 = 1_000;
const POLL_MS: i64 = 1_000;
const PATIENCE_MS: i64 = 3_000;
/// A worker ends a trainer that makes no step for so long.
const STALL_MS: i64 = 6_000;
/// Messages that come within so long are one batch.
const BATCH_MS: i64 = 10;
const MAX_BATCH: usize = 4;

/// What can go wrong, in times out of a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// A message of the network is lost.
    pub lost: u32,
    /// A message arrives twice.
    pub doubled: u32,
    /// A message arrives after the lease's term.
    pub late: u32,
    /// A commit does not go well.
    pub commit: u32,
    /// A trainer is not well.
    pub mood: u32,
    /// A checkpoint takes so long to be uploaded at most.
    pub upload_ms: i64,
}

struct Message {
    /// Who waits for the answer: a worker and the number of its poll.
    from: Option<(usize, u64)>,
    event: Event,
}

enum Reply {
    Registered,
    Desired(u64, Vec<Wanted>),
    Unknown,
    Refused,
}

enum Happening {
    Tick,
    Wake(usize),
    Move(usize, u64, LeaseId),
    Stopped(usize, u64, LeaseId),
    TimeIsUp(usize, u64, LeaseId),
    Arrives(Box<Message>),
    Answer(usize, u64, Reply),
    CoordinatorStarts,
    Deed(Deed),
}

pub struct World {
    pub now: Timestamp,
    pub dice: Dice,
    pub weather: Weather,
    pub house: Coordinator,
    pub workers: Vec<Worker>,
    /// What becomes of a trial's next trainers, in order; then chance decides.
    pub moods: BTreeMap<TrialId, VecDeque<Mood>>,
    /// Trials with which every trainer crashes after so many moves.
    pub poison: BTreeMap<TrialId, u32>,
    /// Faults that were a trial's own: nobody else was on its lease, or its trainer said so.
    pub blame: BTreeMap<TrialId, u32>,
    /// Trials that a user wanted to end with what they had.
    pub stopped: BTreeSet<TrialId>,
    pub refusals: Vec<Fault>,
    pub events: u64,
    pub is_shown: bool,
    wakes: Vec<Option<Timestamp>>,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    ticket: u64,
}

impl World {
    pub fn new(seed: u64, config: Config, is_shown: bool) -> Self {
        let mut world = Self {
            now: BEGIN,
            dice: Dice::new(seed),
            weather: Weather::default(),
            house: Coordinator::new(config),
            workers: Vec::new(),
            moods: BTreeMap::new(),
            poison: BTreeMap::new(),
            blame: BTreeMap::new(),
            stopped: BTreeSet::new(),
            refusals: Vec::new(),
            events: 0,
            is_shown,
            wakes: Vec::new(),
            queue: BTreeMap::new(),
            ticket: 0,
        };
        world.later(TICK_MS, Happening::Tick);
        world
    }

    pub fn join(&mut self, worker: Worker) {
        self.workers.push(worker);
        self.wakes.push(None);
        self.wake(self.workers.len() - 1, 0);
    }

    pub fn plan_deed(&mut self, in_ms: i64, deed: Deed) {
        self.later(in_ms, Happening::Deed(deed));
    }

    /// A user's wish, which goes over a network that is good enough.
    pub fn wish(&mut self, event: Event) {
        if let Event::StopTrial(id) = &event {
            self.stopped.insert(*id);
        }
        self.later(
            0,
            Happening::Arrives(Box::new(Message { from: None, event })),
        );
    }

    /// The coordinator's process dies and comes back.
    pub fn restart_coordinator(&mut self, down_ms: i64) {
        self.house.is_up = false;
        self.later(down_ms, Happening::CoordinatorStarts);
    }

    pub fn start_worker(&mut self, at: usize) {
        if !self.workers[at].is_up {
            self.workers[at].begin();
            self.wake(at, 0);
        }
    }

    /// Lets happen what stands in the queue up to a moment, or until `done`.
    pub fn run(&mut self, until: Timestamp, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            self.step()
                .map_err(|broken| format!("{broken} (at {})", self.clock()))?;
            if done(self) {
                return Ok(());
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Seconds since the world began.
    pub fn clock(&self) -> String {
        format!("{:.3} s", self.now.since_ms(BEGIN) as f64 / 1000.0)
    }

    pub fn show(&self, line: impl FnOnce() -> String) {
        if self.is_shown {
            println!("{:>11}  {}", self.clock(), line());
        }
    }

    fn later(&mut self, in_ms: i64, what: Happening) {
        self.ticket += 1;
        self.queue
            .insert((self.now.plus_ms(in_ms), self.ticket), what);
    }

    /// At most one wake of a worker is awaited, the earliest.
    fn wake(&mut self, at: usize, in_ms: i64) {
        let when = self.now.plus_ms(in_ms);
        if self.wakes[at].is_none_or(|planned| planned > when) {
            self.wakes[at] = Some(when);
            self.later(in_ms, Happening::Wake(at));
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(((at, _), what)) = self.queue.pop_first() else {
            return Ok(());
        };
        self.now = at;
        match what {
            Happening::Tick => {
                self.later(TICK_MS, Happening::Tick);
                if self.house.is_up {
                    let event = Event::Tick;
                    self.handle(vec![Message { from: None, event }])?;
                }
                Ok(())
            }
            Happening::Wake(worker) => {
                self.woken(worker);
                Ok(())
            }
            Happening::Move(worker, incarnation, lease) => {
                self.moves(worker, incarnation, lease);
                Ok(())
            }
            Happening::Stopped(worker, incarnation, lease) => {
                self.stops(worker, incarnation, lease);
                Ok(())
            }
            Happening::TimeIsUp(worker, incarnation, lease) => {
                self.ends_in_time(worker, incarnation, lease);
                Ok(())
            }
            Happening::Arrives(first) => self.arrives(*first),
            Happening::Answer(worker, poll, reply) => self.answered(worker, poll, reply),
            Happening::CoordinatorStarts => {
                self.show(|| "the coordinator starts".to_owned());
                self.house.restart(self.now)
            }
            Happening::Deed(deed) => {
                self.show(|| format!("deed: {deed:?}"));
                self.act(deed);
                Ok(())
            }
        }
    }

    /// A worker says what it has to say, unless it waits for an answer.
    fn woken(&mut self, at: usize) {
        if self.wakes[at] != Some(self.now) {
            return;
        }
        self.wakes[at] = None;
        let worker = &mut self.workers[at];
        if !worker.is_up {
            return;
        }
        if let Some((_, until)) = worker.asked
            && until > self.now
        {
            let left = until.since_ms(self.now);
            return self.wake(at, left);
        }
        let (poll, event) = worker.say(self.now, PATIENCE_MS);
        self.wake(at, PATIENCE_MS);
        if self.is_lost(at) {
            return self.show(|| format!("{} is not heard", self.workers[at].name));
        }
        let from = Some((at, poll));
        if self.dice.chance(self.weather.doubled) {
            let again = Message {
                from,
                event: event.clone(),
            };
            let wait = self.dice.between(1, 15_000);
            self.later(wait, Happening::Arrives(Box::new(again)));
        }
        let wait = self.latency();
        self.later(wait, Happening::Arrives(Box::new(Message { from, event })));
    }

    fn is_lost(&mut self, at: usize) -> bool {
        self.workers[at].cut_until > self.now || self.dice.chance(self.weather.lost)
    }

    fn latency(&mut self) -> i64 {
        if self.dice.chance(self.weather.late) {
            self.dice.between(4_000, 15_000)
        } else {
            self.dice.between(1, 20)
        }
    }

    fn arrives(&mut self, first: Message) -> Result<(), String> {
        if !self.house.is_up {
            // A user tries again; a worker's patience ends by itself.
            if first.from.is_none() {
                self.later(500, Happening::Arrives(Box::new(first)));
            }
            return Ok(());
        }
        let mut batch = vec![first];
        let until = self.now.plus_ms(BATCH_MS);
        while batch.len() < MAX_BATCH
            && let Some(next) = self.queue.first_entry()
            && next.key().0 <= until
            && matches!(next.get(), Happening::Arrives(_))
        {
            let ((at, _), next) = next.remove_entry();
            self.now = at;
            if let Happening::Arrives(message) = next {
                batch.push(*message);
            }
        }
        self.handle(batch)
    }

    /// The coordinator's turn.
    fn handle(&mut self, batch: Vec<Message>) -> Result<(), String> {
        let luck = if self.dice.chance(self.weather.commit) {
            self.dice.pick(&[
                Luck::Refused,
                Luck::Unknown,
                Luck::DiesBefore,
                Luck::DiesAfter,
            ])
        } else {
            Luck::Fine
        };
        self.events += batch.len() as u64;
        let (from, events): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|message| (message.from, message.event))
            .unzip();
        let Some(answers) = self.house.handle(self.now, &events, luck)? else {
            self.show(|| format!("the coordinator dies ({luck:?})"));
            let down = self.dice.between(200, 4_000);
            self.later(down, Happening::CoordinatorStarts);
            return Ok(());
        };
        for ((from, event), answer) in from.into_iter().zip(&events).zip(answers) {
            self.note(event, &answer);
            if let Some((worker, poll)) = from {
                let reply = self.reply(worker, event, &answer);
                if !self.is_lost(worker) {
                    let wait = self.latency();
                    self.later(wait, Happening::Answer(worker, poll, reply));
                }
            }
            if let Err(fault) = answer {
                self.refusals.push(fault);
            }
        }
        Ok(())
    }

    fn reply(&self, worker: usize, event: &Event, answer: &Answered) -> Reply {
        match answer {
            Ok(_) if matches!(event, Event::Registered { .. }) => Reply::Registered,
            Ok(_) => {
                let (acked, wanted) = self.house.desired(self.workers[worker].id);
                Reply::Desired(acked, wanted)
            }
            Err(fault) if fault.code == Code::UnknownWorker => Reply::Unknown,
            Err(_) => Reply::Refused,
        }
    }

    fn answered(&mut self, at: usize, poll: u64, reply: Reply) -> Result<(), String> {
        let now = self.now;
        let worker = &mut self.workers[at];
        if !worker.is_up || worker.asked.is_none_or(|(asked, _)| asked != poll) {
            return Ok(());
        }
        worker.asked = None;
        match reply {
            Reply::Registered => {
                worker.is_registered = true;
                self.wake(at, 0);
            }
            Reply::Unknown => {
                worker.is_registered = false;
                self.wake(at, 100);
            }
            Reply::Refused => self.wake(at, 500),
            Reply::Desired(acked, wanted) => {
                let ill = self.weather.mood;
                let (dice, poison, moods) = (&mut self.dice, &self.poison, &mut self.moods);
                let moods = |want: &Wanted| mood::draw(dice, poison, moods, ill, want);
                let wishes = worker.reconcile(now, acked, &wanted, moods)?;
                worker.check()?;
                let soon = if worker.has_news(now) { 10 } else { POLL_MS };
                self.wake(at, soon);
                self.grant(at, wishes);
            }
        }
        Ok(())
    }

    fn grant(&mut self, at: usize, wishes: Vec<Wish>) {
        let incarnation = self.workers[at].incarnation;
        for wish in wishes {
            match wish {
                Wish::Begin(lease) => {
                    let wait = self.dice.between(100, 400);
                    self.later(wait, Happening::Move(at, incarnation, lease));
                    let local = self.workers[at].local.get(&lease);
                    if let Some(left) = local.and_then(|local| local.time_left_ms) {
                        let over = Happening::TimeIsUp(at, incarnation, lease);
                        self.later(left as i64, over);
                    }
                }
                Wish::Stop(lease) => {
                    let mood = self.workers[at]
                        .local
                        .get(&lease)
                        .map(|local| local.trainer.mood);
                    if mood != Some(Mood::Deaf) {
                        let wait = self.dice.between(100, 1_500);
                        self.later(wait, Happening::Stopped(at, incarnation, lease));
                    }
                }
            }
        }
    }

    /// A trainer makes a move.
    fn moves(&mut self, at: usize, incarnation: u64, lease: LeaseId) {
        let upload_ms = self.dice.between(0, self.weather.upload_ms.max(0));
        let pace = self.dice.between(300, 700);
        let now = self.now;
        let worker = &mut self.workers[at];
        if !worker.is_up || worker.incarnation != incarnation {
            return;
        }
        let Some(local) = worker.local.get_mut(&lease).filter(|local| local.is_live) else {
            return;
        };
        let moved = local.trainer.work();
        let mood = local.trainer.mood;
        let is_fault = matches!(
            moved.over,
            Some(Outcome::Crashed { .. } | Outcome::Failed { .. })
        );
        let owner = local.trainer.alone().filter(|_| is_fault);
        let broken = moved.said.iter().filter_map(own_fault);
        for trial in broken.chain(owner) {
            *self.blame.entry(trial).or_default() += 1;
        }
        worker.put(now, upload_ms, lease, moved.said);
        if let Some(outcome) = moved.over {
            worker.end(now, lease, outcome);
        } else {
            let wait = match mood {
                _ if moved.hangs => STALL_MS,
                Mood::Slow => 10 * pace,
                Mood::Well
                | Mood::Crashes(_)
                | Mood::Hangs(_)
                | Mood::Diverges(_)
                | Mood::Breaks(_)
                | Mood::Stumbles(_)
                | Mood::Fails(_)
                | Mood::CannotStart
                | Mood::Deaf => pace,
            };
            self.later(wait, Happening::Move(at, incarnation, lease));
        }
        self.wake(at, 0);
    }

    /// A trainer has written its checkpoint and ends, as it was asked to.
    fn stops(&mut self, at: usize, incarnation: u64, lease: LeaseId) {
        let upload_ms = self.dice.between(0, self.weather.upload_ms.max(0));
        let now = self.now;
        let worker = &mut self.workers[at];
        if !worker.is_up || worker.incarnation != incarnation {
            return;
        }
        let Some(local) = worker.local.get(&lease).filter(|local| local.is_live) else {
            return;
        };
        let said = local.trainer.stop();
        worker.put(now, upload_ms, lease, said);
        worker.end(now, lease, Outcome::Stopped);
        self.wake(at, 0);
    }

    /// A worker ends a trainer whose time is over.
    fn ends_in_time(&mut self, at: usize, incarnation: u64, lease: LeaseId) {
        let now = self.now;
        let worker = &mut self.workers[at];
        let lives = (worker.local.get(&lease)).is_some_and(|local| local.is_live);
        if worker.is_up && worker.incarnation == incarnation && lives {
            let fault = Fault::new(Code::TimeLimit, "the time limit is over");
            worker.end(now, lease, Outcome::Crashed { fault });
            self.wake(at, 0);
        }
    }
}

/// The trial that a trainer ends for a fault of its own.
fn own_fault(said: &ReportBody) -> Option<TrialId> {
    if let ReportBody::TrialEnded { trial, outcome } = said
        && matches!(outcome, Outcome::Failed { .. })
    {
        Some(*trial)
    } else {
        None
    }
}
