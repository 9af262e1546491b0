//! Follows an experiment to its end: bars on a terminal, lines anywhere else.

use indicatif::{MultiProgress, ProgressBar};
use pomona_api::v1::events::{Topic, What};
use pomona_api::v1::experiments::{ExperimentView, TrialOrder};
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::model::Version;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Code, Fault, TrialId};
use pomona_search::Searcher;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Done;
use super::live::{Live, News};
use super::session::{Session, interrupted, is_passing, trials};
use crate::human::now;
use crate::printer::Printer;
use crate::views::experiment::Tally;
use crate::views::watch as view;

/// The experiment is looked at this often even when nothing is heard.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without bars, a line comes at least this often.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Bars of running trials.
const MAX_BARS: usize = 12;
const HEAD: &str = "{prefix} {bar:20.green} {pos}/{len} trials  {elapsed}  {wide_msg}";
const TRIAL: &str = "  {prefix} {bar:20.cyan} {pos}/{len} epochs  {wide_msg}";

/// How a followed experiment ended.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    #[serde(flatten)]
    experiment: &'a Experiment,
    /// What was published.
    version: Option<&'a Version>,
}

/// Follows an experiment to its end, and says what it came to.
pub async fn follow(session: &Session, row: ExperimentView) -> Result<Done, Fault> {
    let mut watch = Watch::new(session, row.experiment)?;
    watch.warn(row.warnings);
    let id = watch.experiment.id.to_string();
    tokio::select! {
        ended = watch.until_it_ends() => ended?,
        () = interrupted() => {
            watch.screen.close();
            let again = format!("detached; it goes on: pomona experiment watch {id}");
            session.printer.say(&again);
            return Ok(Done::Interrupted);
        }
    }
    watch.screen.close();
    let row = session.client.experiment_get(&id).await?.experiment;
    let trials = trials(session, &id, TrialOrder::Leaderboard).await?;
    let version = published(session, &row).await?;
    let version = version.as_ref();
    let ended = Ended {
        experiment: &row,
        version,
    };
    session.printer.data(&ended, |style| {
        view::summary(style, now(), &row, &trials, version)
    });
    // The exit status is the fault's: whose it is, is the same here as anywhere.
    view::verdict(&row, version).map_or(Ok(Done::Well), Err)
}

/// The version that an ended experiment published.
async fn published(session: &Session, row: &Experiment) -> Result<Option<Version>, Fault> {
    let (Some(promote), Some(best)) = (&row.spec.promote, row.best) else {
        return Ok(None);
    };
    if row.state != ExperimentState::Completed {
        return Ok(None);
    }
    let model = match session.client.model_get(&promote.model).await {
        Ok(model) => model,
        Err(fault) if fault.code == Code::NotFound => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let Some(summary) = model
        .versions
        .iter()
        .find(|version| version.trial == Some(best))
    else {
        return Ok(None);
    };
    let number = summary.number.to_string();
    session
        .client
        .version_get(&promote.model, &number)
        .await
        .map(Some)
}

struct Watch<'a> {
    session: &'a Session,
    experiment: Experiment,
    trials: BTreeMap<TrialId, Trial>,
    total: u64,
    warnings: Vec<Fault>,
    screen: Screen<'a>,
}

impl<'a> Watch<'a> {
    fn new(session: &'a Session, experiment: Experiment) -> Result<Self, Fault> {
        let total = u64::from(Searcher::new(&experiment.spec)?.total());
        let name = experiment.spec.name.clone();
        session
            .printer
            .say(&format!("experiment `{name}` is {}", experiment.id));
        Ok(Self {
            session,
            experiment,
            trials: BTreeMap::new(),
            total,
            warnings: Vec::new(),
            screen: Screen::open(session, &name, total),
        })
    }

    async fn until_it_ends(&mut self) -> Result<(), Fault> {
        let topics = [Topic::Experiments, Topic::Trials];
        let mut live = Live::new(&self.session.client, &topics);
        let mut first = true;
        while !self.experiment.is_ended() {
            match live.next(PATIENCE).await? {
                News::What(What::Experiment(row)) if row.id == self.experiment.id => {
                    self.moved(*row);
                }
                News::What(What::Trial(row)) if row.experiment == self.experiment.id => {
                    self.changed(&row, true);
                }
                News::What(_) => continue,
                News::AskAgain => match self.look_again(!first).await {
                    Ok(()) => first = false,
                    Err(fault) if is_passing(fault.code) => {}
                    Err(fault) => return Err(fault),
                },
                News::Away(fault) => {
                    let text = format!("{fault}; it is waited for, training goes on");
                    self.screen
                        .say(&self.session.printer.talk_style().yellow(&text));
                }
            }
            self.draw();
        }
        Ok(())
    }

    async fn look_again(&mut self, tell: bool) -> Result<(), Fault> {
        let id = self.experiment.id.to_string();
        // Trials first: when the experiment has ended, all of them have been told. Those that run
        // come last, and are told even at the first look: each gets a line when it starts.
        let all = trials(self.session, &id, TrialOrder::Number).await?;
        let (running, others): (Vec<_>, Vec<_>) = all
            .iter()
            .partition(|trial| matches!(trial.state, TrialState::Running { .. }));
        for trial in others {
            self.changed(trial, tell);
        }
        for trial in running {
            self.changed(trial, true);
        }
        let row = self.session.client.experiment_get(&id).await?;
        self.moved(row.experiment);
        self.warn(row.warnings);
        Ok(())
    }

    /// What stands in its way; each is told when it comes up.
    fn warn(&mut self, warnings: Vec<Fault>) {
        let printer = &self.session.printer;
        for warning in &warnings {
            if !self.warnings.contains(warning) {
                self.screen.aside(|| printer.warning(warning));
            }
        }
        self.warnings = warnings;
    }

    fn moved(&mut self, row: Experiment) {
        if row.version <= self.experiment.version {
            return;
        }
        let is_new =
            std::mem::discriminant(&row.state) != std::mem::discriminant(&self.experiment.state);
        self.experiment = row;
        if !is_new {
            return;
        }
        match self.experiment.state {
            ExperimentState::Paused => self.screen.say("the experiment is paused"),
            ExperimentState::Active => self.screen.say("the experiment goes on"),
            ExperimentState::Promoting { .. } => {
                self.screen
                    .say("all trials have ended: the best checkpoint is published");
            }
            // Told at the end.
            ExperimentState::Completed
            | ExperimentState::Failed { .. }
            | ExperimentState::Canceled => {}
        }
    }

    fn changed(&mut self, row: &Trial, tell: bool) {
        let before = self.trials.get(&row.id);
        if before.is_some_and(|before| before.version >= row.version) {
            return;
        }
        let before = self.trials.insert(row.id, row.clone());
        let is_new = before.as_ref().is_none_or(|before| {
            std::mem::discriminant(&before.state) != std::mem::discriminant(&row.state)
        });
        if !tell || !is_new {
            return;
        }
        let ended = self
            .trials
            .values()
            .filter(|trial| trial.is_ended())
            .count() as u64;
        let style = self.session.printer.talk_style();
        if let Some(text) = view::change(style, (ended, self.total), before.as_ref(), row) {
            self.screen.tell(row, &text);
        }
    }

    fn draw(&mut self) {
        let rows: Vec<Trial> = self.trials.values().cloned().collect();
        let direction = self.experiment.spec.search.direction;
        let leader = view::leader(rows.iter(), direction);
        let tally = Tally::of(&rows);
        let text = view::headline(&self.experiment, tally, leader);
        self.screen
            .draw(&self.experiment, &rows, tally.ended(), &text);
    }
}

/// Where the talk goes.
struct Screen<'a> {
    session: &'a Session,
    bars: Option<Bars>,
    said_at: Instant,
}

struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    trials: BTreeMap<u32, ProgressBar>,
}

impl<'a> Screen<'a> {
    fn open(session: &'a Session, name: &str, total: u64) -> Self {
        let bars = session.printer.is_live().then(|| {
            let all = session.printer.bars();
            let head = Printer::bar_among(&all, total, HEAD);
            head.set_prefix(name.to_owned());
            head.enable_steady_tick(Duration::from_secs(1));
            Bars {
                all,
                head,
                trials: BTreeMap::new(),
            }
        });
        Self {
            session,
            bars,
            said_at: Instant::now(),
        }
    }

    fn say(&mut self, text: &str) {
        self.said_at = Instant::now();
        self.aside(|| self.session.printer.say(text));
    }

    /// Prints without bars in its way.
    fn aside(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.all.suspend(print),
            None => print(),
        }
    }

    /// A change of a trial; one that starts gets a bar, so that there is nothing to say.
    fn tell(&mut self, trial: &Trial, text: &str) {
        let starts = matches!(trial.state, TrialState::Running { .. }) && trial.leases <= 1;
        if self.bars.is_none() || !starts {
            self.say(text);
        }
    }

    fn draw(&mut self, experiment: &Experiment, rows: &[Trial], ended: u64, text: &str) {
        let Some(bars) = &mut self.bars else {
            if self.said_at.elapsed() >= LINE_EVERY {
                let total = experiment.spec.search.max_trials;
                self.say(&format!("{ended} of {total} trials have ended  {text}"));
            }
            return;
        };
        bars.head.set_position(ended);
        bars.head.set_message(text.to_owned());
        let running: Vec<&Trial> = rows
            .iter()
            .filter(|trial| trial.lease().is_some())
            .collect();
        bars.trials.retain(|number, bar| {
            let stays = running.iter().any(|trial| trial.number == *number);
            if !stays {
                bars.all.remove(bar);
            }
            stays
        });
        for trial in running {
            if bars.trials.len() >= MAX_BARS && !bars.trials.contains_key(&trial.number) {
                continue;
            }
            let style = self.session.printer.talk_style();
            let bar = bars.trials.entry(trial.number).or_insert_with(|| {
                let bar = Printer::bar_among(&bars.all, epochs(experiment, trial), TRIAL);
                bar.set_prefix(format!("trial {:<3}", trial.number));
                bar
            });
            bar.set_position(u64::from(trial.last_epoch));
            bar.set_message(view::running(style, experiment, trial));
        }
    }

    fn close(&mut self) {
        if let Some(bars) = self.bars.take() {
            for bar in bars.trials.values().chain([&bars.head]) {
                bar.finish_and_clear();
            }
        }
    }
}

/// Epochs a trial trains.
fn epochs(experiment: &Experiment, trial: &Trial) -> u64 {
    let spec = experiment.spec.trial_spec(&trial.hparams, trial.replicate);
    u64::from(spec.map_or(experiment.spec.train.epochs, |spec| spec.train.epochs))
}
