//! Experiments: lists, one experiment with its leaderboard.

use pomona_api::v1::experiments::ExperimentView;
use pomona_domain::Timestamp;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::metric::Direction;
use pomona_domain::trial::{Trial, TrialState};

use crate::human::{ago, duration, metric, moment, plural, scalar, short_id};
use crate::printer::Style;
use crate::table::{Grid, Text, Tone, card, toned};
use crate::views::preview::command_line;
use crate::views::{plan, rungs, state, trial};

/// Trials of the leaderboard that are shown unless all are asked for.
pub const LEADERS: usize = 24;
/// Metrics of the leaderboard beside the objective.
const BESIDE: [&str; 4] = ["cv/accuracy_se", "val/accuracy", "val/macro_f1", "val/loss"];

/// Experiments.
pub fn list(style: Style, now: Timestamp, rows: &[Experiment]) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "experiment",
            "name",
            "state",
            ">trials",
            "?search",
            "?data set",
            "?backbone",
            "?submitted",
        ],
    );
    for row in rows {
        let spec = &row.spec;
        grid.row(vec![
            short_id(&row.id.to_string()).into(),
            toned(&spec.name, Tone::Bold),
            state::experiment(&row.state),
            format!("{}/{}", row.created_trials, spec.search.max_trials).into(),
            spec.search.strategy.name().into(),
            (&spec.dataset).into(),
            (&spec.backbone).into(),
            toned(ago(row.submitted_at, now), Tone::Dim),
        ]);
    }
    grid.render()
}

/// One that was just submitted.
pub fn submitted(style: Style, row: &Experiment) -> String {
    let id = row.id.to_string();
    let watch = format!("pomona experiment watch {}", short_id(&id));
    format!(
        "{} ({id}) is submitted\n{}\n",
        style.bold(&row.spec.name),
        style.dim(&watch)
    )
}

/// How many trials are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Want a lease.
    pub waiting: u64,
    /// On slots.
    pub running: u64,
    /// Paused.
    pub paused: u64,
    /// Done.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Taken back.
    pub canceled: u64,
}

impl Tally {
    /// Counts.
    pub fn of(trials: &[Trial]) -> Self {
        let mut tally = Self::default();
        for trial in trials {
            let count = match trial.state {
                TrialState::Waiting { .. } => &mut tally.waiting,
                TrialState::Running { .. } | TrialState::Stopping { .. } => &mut tally.running,
                TrialState::Paused => &mut tally.paused,
                TrialState::Completed => &mut tally.completed,
                TrialState::Failed { .. } => &mut tally.failed,
                TrialState::Canceled => &mut tally.canceled,
            };
            *count += 1;
        }
        tally
    }

    /// Trials that will not run again.
    pub fn ended(self) -> u64 {
        self.completed + self.failed + self.canceled
    }

    /// `22 completed, 2 running`.
    pub fn text(self) -> String {
        let parts: Vec<String> = [
            (self.completed, "completed"),
            (self.running, "running"),
            (self.waiting, "waiting"),
            (self.paused, "paused"),
            (self.failed, "failed"),
            (self.canceled, "canceled"),
        ]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, name)| format!("{number} {name}"))
        .collect();
        if parts.is_empty() {
            "none yet".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// One experiment.
pub fn show(
    style: Style,
    now: Timestamp,
    row: &ExperimentView,
    trials: &[Trial],
    limit: usize,
) -> String {
    let mut text = card(style, pairs(now, row, trials));
    if let Some(plan) = &row.plan
        && !plan.cuts.is_empty()
    {
        text.push('\n');
        text.push_str(&plan::choices(style, plan));
    }
    text.push_str(&rungs::reached(style, row));
    if trials.is_empty() {
        return text;
    }
    text.push('\n');
    text.push_str(&leaderboard(style, now, row, trials, limit));
    let hidden = trials.len().saturating_sub(limit);
    if hidden > 0 {
        let line = format!(
            "and {} more: --all shows them\n",
            plural(hidden as u64, "trial")
        );
        text.push_str(&style.dim(&line));
    }
    text
}

fn pairs(now: Timestamp, row: &ExperimentView, trials: &[Trial]) -> Vec<(&'static str, Text)> {
    let spec = &row.spec;
    let mut pairs: Vec<(&str, Text)> = vec![
        (
            "experiment",
            toned(format!("{} ({})", spec.name, row.id), Tone::Bold),
        ),
        ("state", state::experiment(&row.state)),
    ];
    if let ExperimentState::Failed { fault } = &row.state {
        pairs.push(("why", format!("{}: {}", fault.code, fault.message).into()));
    }
    let direction = match spec.search.direction {
        Direction::Maximize => "highest",
        Direction::Minimize => "lowest",
    };
    let end = row.ended_at.unwrap_or(now);
    let elapsed = u64::try_from(end.since_ms(row.submitted_at)).unwrap_or(0);
    pairs.extend([
        ("trials", Tally::of(trials).text().into()),
        (
            "objective",
            format!("{direction} {}", trial::objective(&spec.search)).into(),
        ),
    ]);
    match command_line(&spec.runner) {
        Some(line) => pairs.push(("runs", line.into())),
        None => pairs.extend([
            ("data set", (&spec.dataset).into()),
            ("backbone", (&spec.backbone).into()),
        ]),
    }
    pairs.extend([(
        "submitted",
        format!("{}, {} in all", moment(row.submitted_at), duration(elapsed)).into(),
    )]);
    if let Some(promote) = &spec.promote {
        pairs.push((
            "promotes to",
            format!("{}@{}", promote.model, promote.alias).into(),
        ));
    }
    pairs.extend(cost(row));
    pairs
}

/// What it was expected to cost, and what it has cost.
fn cost(row: &ExperimentView) -> Vec<(&'static str, Text)> {
    let mut pairs = Vec::new();
    if let Some(plan) = &row.plan {
        pairs.push(("predicted", plan.cost().into()));
    }
    let total = row.spent.and(row.running);
    if !total.is_nothing() {
        let runs = match row.running.leases {
            0 => String::new(),
            1 => "; 1 of them still runs".to_owned(),
            leases => format!("; {leases} of them still run"),
        };
        let name = if row.is_ended() { "cost" } else { "so far" };
        pairs.push((name, format!("{}{runs}", total.sentence()).into()));
    }
    pairs
}

/// Trials in the order they came (the server's leaderboard), with the values that differ and the
/// validation metrics at their best point.
pub fn leaderboard(
    style: Style,
    now: Timestamp,
    row: &Experiment,
    trials: &[Trial],
    limit: usize,
) -> String {
    let objective = &row.spec.search.objective();
    let objective = objective.as_str();
    let paths = trial::varying(trials);
    let short = trial::short_paths(&paths);
    let mut metrics = vec![objective];
    metrics.extend(BESIDE.into_iter().filter(|name| {
        *name != objective
            && trials.iter().any(|trial| {
                trial
                    .best
                    .as_ref()
                    .is_some_and(|best| best.metrics.contains_key(*name))
            })
    }));
    let replicated = row.spec.search.replicates > 1;
    let mut titles: Vec<String> = vec![">rank".into(), ">#".into(), "trial".into()];
    titles.extend(short.iter().map(|path| format!("?>{path}")));
    if replicated {
        titles.push(">rep".into());
    }
    titles.extend(metrics.iter().enumerate().map(|(index, name)| {
        let optional = if index == 0 { "" } else { "?" };
        format!("{optional}>{name}")
    }));
    titles.extend(["?>epoch".into(), "state".into(), "?>time".into()]);
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut grid = Grid::new(style, &titles);
    for (index, trial) in trials.iter().take(limit).enumerate() {
        let best = trial.best.as_ref();
        let is_best = row.best == Some(trial.id);
        let tone = if is_best { Tone::Bold } else { Tone::Plain };
        let rank = if best.is_some() {
            (index + 1).to_string()
        } else {
            "–".to_owned()
        };
        let mut cells: Vec<Text> = vec![
            toned(rank, tone),
            trial.number.into(),
            toned(short_id(&trial.id.to_string()), tone),
        ];
        cells.extend(paths.iter().map(|path| {
            trial
                .hparams
                .0
                .get(*path)
                .map_or_else(String::new, scalar)
                .into()
        }));
        if replicated {
            cells.push(trial.replicate.into());
        }
        cells.extend(metrics.iter().enumerate().map(|(index, name)| {
            let value = best.and_then(|best| best.metrics.get(*name).copied());
            // The objective stands in `value` even when the metrics leave it out.
            let value = value.or_else(|| best.filter(|_| index == 0).map(|best| best.value));
            toned(value.map_or_else(|| "–".to_owned(), metric), tone)
        }));
        cells.extend([
            epochs(trial).into(),
            state::trial(&trial.state),
            duration(trial::time(trial, now)).into(),
        ]);
        grid.row(cells);
    }
    grid.render()
}

/// Epoch of the best point of all epochs: `7/10`.
fn epochs(trial: &Trial) -> String {
    match &trial.best {
        Some(best) => format!("{}/{}", best.epoch, trial.last_epoch),
        None => trial.last_epoch.to_string(),
    }
}
