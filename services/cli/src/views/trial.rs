//! Trials: lists, one trial with its curve, its log.

use pomona_api::v1::experiments::LogEntry;
use pomona_domain::Timestamp;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Observation;
use pomona_domain::spec::Search;
use pomona_domain::trial::{Trial, TrialState};
use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::human::{bytes, duration, metric, moment, scalar, short_id};
use crate::printer::Style;
use crate::spark;
use crate::table::{Grid, Text, Tone, card, toned};
use crate::views::state;

/// Columns of a plot.
const PLOT_WIDTH: usize = 60;
const PLOT_HEIGHT: usize = 6;
const LINE_WIDTH: usize = 30;

/// Time on slots: leases that ended, and the present one as far as it can be told.
pub fn time(trial: &Trial, now: Timestamp) -> u64 {
    let whole = trial
        .started_at
        .map_or(0, |start| trial.ended_at.unwrap_or(now).since_ms(start));
    match trial.state {
        TrialState::Running { .. } | TrialState::Stopping { .. } if trial.leases <= 1 => {
            u64::try_from(whole).unwrap_or(0)
        }
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Stopping { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => trial.active_ms,
    }
}

/// The newest `val/` metrics, short.
pub fn newest(trial: &Trial) -> String {
    let pick = ["val/accuracy", "val/macro_f1", "val/loss"];
    let texts: Vec<String> = pick
        .into_iter()
        .filter_map(|name| {
            trial
                .latest
                .get(name)
                .map(|value| format!("{name} {}", metric(*value)))
        })
        .take(2)
        .collect();
    texts.join("  ")
}

/// The best objective, short.
pub fn best(trial: &Trial) -> String {
    trial.best.as_ref().map_or_else(String::new, |best| {
        format!("{} (epoch {})", metric(best.value), best.epoch)
    })
}

/// Paths whose value differs among trials; all of them when there is one trial.
pub fn varying(trials: &[Trial]) -> Vec<&str> {
    let paths: BTreeSet<&str> = trials
        .iter()
        .flat_map(|trial| trial.hparams.0.keys().map(String::as_str))
        .collect();
    paths
        .into_iter()
        .filter(|path| {
            let first = trials.first().and_then(|trial| trial.hparams.0.get(*path));
            trials.len() == 1
                || trials
                    .iter()
                    .any(|trial| trial.hparams.0.get(*path) != first)
        })
        .collect()
}

/// The shortest endings of paths that still tell them apart.
pub fn short_paths(paths: &[&str]) -> Vec<String> {
    let ending = |path: &str, parts: usize| {
        let all: Vec<&str> = path.split('.').collect();
        all[all.len().saturating_sub(parts)..].join(".")
    };
    paths
        .iter()
        .map(|path| {
            (1..=path.split('.').count())
                .map(|parts| ending(path, parts))
                .find(|short| {
                    let parts = short.split('.').count();
                    paths
                        .iter()
                        .filter(|other| ending(other, parts) == *short)
                        .count()
                        == 1
                })
                .unwrap_or_else(|| (*path).to_owned())
        })
        .collect()
}

/// Trials by number.
pub fn list(style: Style, now: Timestamp, trials: &[Trial]) -> String {
    let paths = varying(trials);
    let short = short_paths(&paths);
    let replicated = trials.iter().any(|trial| trial.replicate > 0);
    let short: Vec<String> = short.iter().map(|path| format!("?{path}")).collect();
    let mut titles = vec![">#", "trial"];
    titles.extend(short.iter().map(String::as_str));
    if replicated {
        titles.push(">rep");
    }
    titles.extend(["state", ">epoch", ">best", "?>time", "?>restarts"]);
    let mut grid = Grid::new(style, &titles);
    for trial in trials {
        let mut cells: Vec<Text> =
            vec![trial.number.into(), short_id(&trial.id.to_string()).into()];
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
        let best = trial
            .best
            .as_ref()
            .map_or_else(String::new, |best| metric(best.value));
        cells.extend([
            state::trial(&trial.state),
            trial.last_epoch.into(),
            best.into(),
            duration(time(trial, now)).into(),
            trial.restarts.into(),
        ]);
        grid.row(cells);
    }
    grid.render()
}

/// The objective, for people: `cv/accuracy, by 3 × 5 folds`.
pub fn objective(search: &Search) -> String {
    let objective = search.objective();
    match search.folds() {
        Some(folds) => format!("{objective}, by {folds} of the training images"),
        None => objective,
    }
}

/// One trial.
pub fn show(
    style: Style,
    now: Timestamp,
    trial: &Trial,
    experiment: &Experiment,
    curve: &[Observation],
    checkpoints: &[Checkpoint],
) -> String {
    let objective = &experiment.spec.search.objective();
    let mut pairs: Vec<(&str, Text)> = vec![
        (
            "trial",
            toned(
                format!("{} (number {})", trial.id, trial.number),
                Tone::Bold,
            ),
        ),
        (
            "experiment",
            format!("{} ({})", experiment.spec.name, experiment.id).into(),
        ),
        ("state", state::trial(&trial.state)),
    ];
    if let TrialState::Failed { fault } = &trial.state {
        pairs.push(("why", format!("{}: {}", fault.code, fault.message).into()));
    }
    let names: Vec<&str> = trial.hparams.0.keys().map(String::as_str).collect();
    pairs.extend(names.iter().map(|name| {
        (
            *name,
            trial
                .hparams
                .0
                .get(*name)
                .map_or_else(String::new, scalar)
                .into(),
        )
    }));
    if trial.replicate > 0 || experiment.spec.search.replicates > 1 {
        pairs.push(("replicate", trial.replicate.into()));
    }
    pairs.push((
        "progress",
        format!("epoch {}, step {}", trial.last_epoch, trial.last_step).into(),
    ));
    if let Some(best) = &trial.best {
        pairs.push((
            "best",
            format!("{objective} {} at epoch {}", metric(best.value), best.epoch).into(),
        ));
    }
    pairs.push(("time", duration(time(trial, now)).into()));
    pairs.push((
        "leases",
        format!("{} ({} counted as a crash)", trial.leases, trial.restarts).into(),
    ));
    if trial.pinned {
        pairs.push(("pinned", "yes: its checkpoints stay".into()));
    }
    if let Some(why) = &trial.deleted {
        pairs.push(("checkpoints", format!("deleted: {why}").into()));
    }
    let mut text = card(style, pairs);
    text.push_str(&curves(style, objective, curve));
    text.push_str(&kept(style, checkpoints));
    text
}

fn curves(style: Style, objective: &str, curve: &[Observation]) -> String {
    if curve.is_empty() {
        return String::new();
    }
    let series = |name: &str| -> Vec<f64> {
        curve
            .iter()
            .filter_map(|point| point.metrics.get(name).copied())
            .collect()
    };
    let values = series(objective);
    let mut text = String::new();
    if !values.is_empty() {
        let epochs = curve.last().map_or(0, |point| point.epoch);
        let _ = writeln!(
            text,
            "\n{} {}",
            style.bold(objective),
            style.dim(&format!("to epoch {epochs}"))
        );
        text.push_str(&spark::plot(&values, PLOT_WIDTH, PLOT_HEIGHT));
    }
    let names: BTreeSet<&str> = curve
        .iter()
        .flat_map(|point| point.metrics.keys().map(String::as_str))
        .collect();
    let mut grid = Grid::new(
        style,
        &[
            "metric", ">first", ">newest", ">lowest", ">highest", "curve",
        ],
    );
    for name in names {
        let values = series(name);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        grid.row(vec![
            name.into(),
            values
                .first()
                .map_or_else(String::new, |value| metric(*value))
                .into(),
            values
                .last()
                .map_or_else(String::new, |value| metric(*value))
                .into(),
            metric(low).into(),
            metric(high).into(),
            spark::line(&values, LINE_WIDTH).into(),
        ]);
    }
    text + "\n" + &grid.render()
}

fn kept(style: Style, checkpoints: &[Checkpoint]) -> String {
    if checkpoints.is_empty() {
        return String::new();
    }
    let mut grid = Grid::new(
        style,
        &[
            "checkpoint",
            ">epoch",
            ">step",
            ">size",
            "digest",
            "written",
        ],
    );
    for row in checkpoints {
        let kind = match row.kind {
            CheckpointKind::Last => "last",
            CheckpointKind::Best => "best",
        };
        let digest = row.digest.to_string();
        grid.row(vec![
            kind.into(),
            row.epoch.into(),
            row.step.into(),
            bytes(row.size).into(),
            toned(format!("{}…", &digest[..23]), Tone::Dim),
            toned(moment(row.at), Tone::Dim),
        ]);
    }
    "\n".to_owned() + &grid.render()
}

/// A line of a log.
pub fn log_line(style: Style, entry: &LogEntry) -> String {
    let at = moment(entry.at);
    let time = at.get(11..19).unwrap_or(&at);
    format!(
        "{} {}",
        style.dim(&format!("{time} rank {}", entry.rank)),
        entry.line
    )
}
