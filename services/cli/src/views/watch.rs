//! What is said while an experiment is followed, and at its end.

use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Direction;
use pomona_domain::model::Version;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Fault, Timestamp};
use std::fmt::Write as _;

use crate::human::{duration, metric, plural, scalar, short_id};
use crate::printer::Style;
use crate::views::experiment::{Tally, leaderboard};
use crate::views::model;
use crate::views::trial::{short_paths, time};

/// Trials of the leaderboard that are shown at the end.
const LEADERS: usize = 5;

/// A trial's point, short: `learning_rate 0.001, frozen_depth all`.
pub fn point(trial: &Trial) -> String {
    let paths: Vec<&str> = trial.hparams.0.keys().map(String::as_str).collect();
    let texts: Vec<String> = short_paths(&paths)
        .into_iter()
        .zip(trial.hparams.0.values())
        .map(|(name, value)| format!("{name} {}", scalar(value)))
        .collect();
    texts.join(", ")
}

fn name(style: Style, trial: &Trial) -> String {
    let id = style.dim(&short_id(&trial.id.to_string()));
    format!("trial {:<3} {id}", trial.number)
}

/// What changed about a trial that somebody wants to read; `None` for the rest.
pub fn change(
    style: Style,
    (ended, total): (u64, u64),
    before: Option<&Trial>,
    trial: &Trial,
) -> Option<String> {
    let width = total.to_string().len();
    let count = format!("[{ended:>width$}/{total}]");
    let name = name(style, trial);
    let was_on_slots = before.is_some_and(|before| before.lease().is_some());
    let text = match &trial.state {
        TrialState::Completed => format!("{name} {}: {}", style.green("completed"), result(trial)),
        TrialState::Failed { fault } => {
            format!(
                "{name} {}: {}: {}",
                style.red("failed"),
                fault.code,
                fault.message
            )
        }
        TrialState::Canceled => format!("{name} canceled"),
        TrialState::Running { .. } if was_on_slots => return None,
        TrialState::Running { .. } if trial.leases > 1 => {
            let from = format!("goes on at epoch {}", trial.last_epoch);
            format!("{name} {from} (lease {})", trial.leases)
        }
        // Without a space there is one point, and nothing to say about it.
        TrialState::Running { .. } if trial.hparams.0.is_empty() => format!("{name} started"),
        TrialState::Running { .. } => format!("{name} started: {}", style.dim(&point(trial))),
        TrialState::Waiting { .. } if was_on_slots => {
            format!(
                "{name} {} and waits for slots",
                style.yellow("lost its lease")
            )
        }
        TrialState::Waiting { .. } | TrialState::Stopping { .. } => return None,
        TrialState::Paused => format!("{name} paused at epoch {}", trial.last_epoch),
    };
    Some(format!("{} {text}", style.dim(&count)))
}

/// What an ended trial came to.
fn result(trial: &Trial) -> String {
    let took = duration(trial.active_ms);
    match &trial.best {
        Some(best) => format!(
            "best {} at epoch {}, {took}",
            metric(best.value),
            best.epoch
        ),
        None => format!("nothing measured, {took}"),
    }
}

/// The best trial so far, by the objective.
pub fn leader<'a>(
    trials: impl Iterator<Item = &'a Trial>,
    direction: Direction,
) -> Option<&'a Trial> {
    let mut leader: Option<&Trial> = None;
    for trial in trials {
        let Some(best) = &trial.best else { continue };
        let is_better = leader
            .and_then(|leader| leader.best.as_ref())
            .is_none_or(|other| {
                direction.is_better(best.value, other.value)
                    || (best.value == other.value && best.tie < other.tie)
            });
        if is_better {
            leader = Some(trial);
        }
    }
    leader
}

/// The state of an experiment on the way, in one line; how many have completed stands elsewhere.
pub fn headline(row: &Experiment, tally: Tally, leader: Option<&Trial>) -> String {
    let best = leader.and_then(|trial| {
        let value = metric(trial.best.as_ref()?.value);
        Some(format!(
            "best {} {value} (trial {})",
            row.spec.search.objective(),
            trial.number
        ))
    });
    let open = Tally {
        completed: 0,
        ..tally
    };
    let rest = Some(open.text()).filter(|_| open != Tally::default());
    best.into_iter().chain(rest).collect::<Vec<_>>().join("  ")
}

/// A running trial, beside its bar.
pub fn running(style: Style, row: &Experiment, trial: &Trial) -> String {
    // What every epoch has, also where the objective comes with the last.
    let objective = &row.spec.search.metric;
    let value = trial.latest.get(objective);
    let value = value.map_or_else(|| "–".to_owned(), |value| metric(*value));
    if trial.hparams.0.is_empty() {
        return format!("{objective} {value}");
    }
    format!("{objective} {value}  {}", style.dim(&point(trial)))
}

/// What an experiment came to.
pub fn summary(
    style: Style,
    now: Timestamp,
    row: &Experiment,
    trials: &[Trial],
    version: Option<&Version>,
) -> String {
    let slots: u64 = trials.iter().map(|trial| time(trial, now)).sum();
    let end = row.ended_at.unwrap_or(now);
    let wall = u64::try_from(end.since_ms(row.submitted_at)).unwrap_or(0);
    let mut text = format!(
        "{}  {} in {} ({} on slots)\n",
        style.bold(&row.spec.name),
        Tally::of(trials).text(),
        duration(wall),
        duration(slots)
    );
    if !trials.is_empty() {
        text.push('\n');
        text.push_str(&leaderboard(style, now, row, trials, LEADERS));
    }
    let hidden = trials.len().saturating_sub(LEADERS);
    if hidden > 0 {
        let id = row.id.to_string();
        let more = plural(hidden as u64, "more trial");
        let line = format!("{more}: pomona experiment show {}\n", short_id(&id));
        text.push_str(&style.dim(&line));
    }
    let (Some(promote), Some(version)) = (&row.spec.promote, version) else {
        return text;
    };
    let reference = format!("{}@{}", version.model, version.number);
    let passed = version.gates.iter().all(|gate| gate.passed);
    let moved = if passed {
        style.green(&format!("`{}` points to it", promote.alias))
    } else {
        style.red(&format!("a gate failed, `{}` was not moved", promote.alias))
    };
    let _ = writeln!(text, "\n{} is published: {moved}", style.bold(&reference));
    if !version.gates.is_empty() {
        text.push_str(&model::gates(style, &version.gates));
    }
    text
}

/// The fault of an experiment that did not end well, `None` for one that did.
pub fn verdict(row: &Experiment, version: Option<&Version>) -> Option<Fault> {
    use pomona_domain::Code;
    use pomona_domain::experiment::ExperimentState;
    let name = &row.spec.name;
    let explain = format!("`pomona explain experiment {}` says why", row.id);
    match &row.state {
        ExperimentState::Active | ExperimentState::Paused | ExperimentState::Promoting { .. } => {
            None
        }
        ExperimentState::Failed { fault } => Some(Fault {
            code: fault.code,
            message: format!("experiment `{name}` failed: {}", fault.message),
            hint: fault.hint.clone().or(Some(explain)),
        }),
        ExperimentState::Canceled => {
            let message = format!("experiment `{name}` was canceled");
            Some(Fault::new(Code::WrongState, message))
        }
        ExperimentState::Completed => {
            let promote = row.spec.promote.as_ref()?;
            let Some(version) = version else {
                let message = format!("experiment `{name}` published nothing");
                return Some(Fault::new(Code::NothingToPromote, message).hint(explain));
            };
            let failed = version.gates.iter().find(|gate| !gate.passed)?;
            let message = format!("the gate `{}` failed: {}", failed.gate, failed.sentence());
            Some(Fault::new(Code::GateFailed, message).hint(format!(
                "`{}` stays where it is; `pomona model show {}@{}` has each gate with its numbers",
                promote.alias, version.model, version.number
            )))
        }
    }
}
