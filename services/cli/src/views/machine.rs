//! Workers, the cluster, explanations, checks.

use pomona_api::v1::cluster::{ClusterView, Explanation};
use pomona_api::v1::workers::WorkerView;
use pomona_domain::Timestamp;
use pomona_domain::experiment::Experiment;
use pomona_domain::trial::Trial;
use pomona_domain::worker::{SlotKind, Worker};
use std::fmt::Write as _;

use crate::human::{ago, moment, plural, short_id};
use crate::printer::Style;
use crate::table::{Grid, Tone, card, paragraph, toned};
use crate::views::{experiment, state, trial};

/// Workers, and why some of them get no work.
pub fn workers(style: Style, now: Timestamp, rows: &[WorkerView]) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "worker", "name", "state", ">slots", "devices", "?since", "?labels",
        ],
    );
    for WorkerView { worker, excluded } in rows {
        let labels: Vec<String> = worker
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let state = match excluded {
            Some(_) => toned("excluded", Tone::Bad),
            None => state::worker(worker.state),
        };
        grid.row(vec![
            worker.id.into(),
            (&worker.name).into(),
            state,
            worker.slots.len().into(),
            devices(worker).into(),
            toned(ago(worker.changed_at, now), Tone::Dim),
            labels.join(" ").into(),
        ]);
    }
    let mut text = grid.render();
    for row in rows {
        if let Some(why) = &row.excluded {
            text.push_str(&paragraph(style, &format!("{}: {why}", row.worker.name)));
        }
    }
    text
}

fn devices(row: &Worker) -> String {
    let number = |wanted: SlotKind| row.slots.iter().filter(|slot| slot.kind == wanted).count();
    let mut parts = Vec::new();
    for (kind, name) in [(SlotKind::Cuda, "GPU"), (SlotKind::Cpu, "CPU")] {
        let slots = number(kind);
        if slots > 0 {
            let model = row
                .slots
                .iter()
                .find(|slot| slot.kind == kind)
                .map_or("", |slot| slot.name.as_str());
            parts.push(if model.is_empty() || model.eq_ignore_ascii_case(name) {
                format!("{slots} {name}")
            } else {
                format!("{slots} {name} ({model})")
            });
        }
    }
    parts.join(", ")
}

/// Why something is as it is.
pub fn explanation(style: Style, answer: &Explanation) -> String {
    let subject = style.bold(&answer.subject);
    let mut text = format!("{subject}\n{}", paragraph(style, &answer.now));
    if answer.reasons.is_empty() {
        return text;
    }
    text.push('\n');
    let moments: Vec<String> = answer
        .reasons
        .iter()
        .map(|reason| moment(reason.at))
        .collect();
    let reasons = answer.reasons.iter().map(|reason| (&reason.text).into());
    text.push_str(&card(
        style,
        moments.iter().map(String::as_str).zip(reasons).collect(),
    ));
    text
}

/// What `top` shows.
#[derive(Debug, serde::Serialize)]
pub struct Top {
    /// The cluster in numbers.
    pub cluster: ClusterView,
    /// Its workers.
    pub workers: Vec<WorkerView>,
    /// Experiments that have not ended.
    pub experiments: Vec<Experiment>,
    /// Their trials that run.
    pub running: Vec<(String, Trial)>,
}

/// The picture of `top`.
pub fn top(style: Style, now: Timestamp, server: &str, top: &Top) -> String {
    let cluster = &top.cluster;
    let mut text = format!(
        "{}  {}   {}\n",
        style.bold("pomona"),
        server,
        style.dim(&moment(now))
    );
    let _ = writeln!(
        text,
        "slots {}  {} of {} busy   {}, {} waiting   {} running, {} waiting",
        gauge(style, cluster.slots_busy, cluster.slots_total),
        cluster.slots_busy,
        cluster.slots_total,
        plural(u64::from(cluster.trials_running), "trial"),
        cluster.trials_waiting,
        plural(u64::from(cluster.tasks_running), "task"),
        cluster.tasks_waiting
    );
    text.push('\n');
    text.push_str(&workers(style, now, &top.workers));
    if !top.experiments.is_empty() {
        text.push('\n');
        text.push_str(&experiment::list(style, now, &top.experiments));
    }
    if !top.running.is_empty() {
        text.push('\n');
        let mut grid = Grid::new(
            style,
            &[
                "trial",
                "?experiment",
                ">number",
                ">epoch",
                "?newest",
                "?best",
            ],
        );
        for (name, row) in &top.running {
            grid.row(vec![
                short_id(&row.id.to_string()).into(),
                name.into(),
                row.number.into(),
                row.last_epoch.into(),
                trial::newest(row).into(),
                trial::best(row).into(),
            ]);
        }
        text.push_str(&grid.render());
    }
    text
}

/// Twenty blocks, filled as far as slots are busy.
fn gauge(style: Style, busy: u32, total: u32) -> String {
    const WIDTH: u32 = 20;
    let filled = (busy * WIDTH).checked_div(total).unwrap_or(0).min(WIDTH);
    let rest = "─".repeat((WIDTH - filled) as usize);
    format!(
        "{}{}",
        style.green(&"━".repeat(filled as usize)),
        style.dim(&rest)
    )
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Fine.
    Ok,
    /// It will do, or is not needed now.
    Warn,
    /// It will not do.
    Fail,
}

/// One check of `doctor`.
#[derive(Debug, serde::Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What the reader can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// All checks.
pub fn checks(style: Style, checks: &[Check]) -> String {
    let mut grid = Grid::new(style, &["", "check", "found"]);
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => toned("ok", Tone::Good),
            Verdict::Warn => toned("warn", Tone::Warn),
            Verdict::Fail => toned("FAIL", Tone::Bad),
        };
        let found = match &check.hint {
            Some(hint) => format!("{}\nhint: {hint}", check.found),
            None => check.found.clone(),
        };
        grid.row(vec![verdict, check.name.into(), found.into()]);
    }
    grid.render()
}
