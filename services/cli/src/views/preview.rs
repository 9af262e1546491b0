//! What an experiment file would do.

use pomona_api::v1::experiments::ExperimentPreview;
use pomona_domain::Fault;
use pomona_domain::plan::{CutPlan, Plan};
use pomona_domain::spec::{ExperimentSpec, Runner, Strategy};
use pomona_search::{PathValues, Preview};
use serde::Serialize;
use std::fmt::Write as _;

use crate::human::{count, duration, plural, scalar};
use crate::printer::Style;
use crate::table::{Grid, Text, Tone, card, toned};
use crate::views::trial::{objective, short_paths};
use crate::views::{plan, rungs};

/// Values of a path that are shown.
const VALUES_SHOWN: usize = 8;
/// Drawn points that are shown.
const POINTS_SHOWN: usize = 10;

/// What is known about a file: by itself, and from a coordinator if one answered.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// The checked file.
    pub spec: &'a ExperimentSpec,
    /// What it draws.
    pub preview: Preview,
    /// What the coordinator knows of its data set and backbone.
    pub server: Option<ExperimentPreview>,
}

/// The same as data.
#[derive(Debug, Serialize)]
pub struct OutlookData<'a> {
    name: &'a str,
    backbone: &'a str,
    dataset: &'a str,
    /// Whether data set and backbone were looked up.
    resolved: bool,
    /// Training images seen over all trials.
    samples: Option<u64>,
    cuts: &'a [CutPlan],
    /// What it is expected to cost and why so.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a Plan>,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    warnings: &'a [Fault],
    #[serde(flatten)]
    preview: &'a Preview,
}

impl Outlook<'_> {
    /// Why it would not get on as things are.
    pub fn warnings(&self) -> &[Fault] {
        self.server.as_ref().map_or(&[], |server| &server.warnings)
    }

    fn plan(&self) -> Option<&Plan> {
        self.server.as_ref()?.plan.as_ref()
    }

    /// As data.
    pub fn data(&self) -> OutlookData<'_> {
        let server = self.server.as_ref();
        OutlookData {
            name: &self.spec.name,
            backbone: &self.spec.backbone,
            dataset: server.map_or(&self.spec.dataset, |server| &server.dataset),
            resolved: server.is_some(),
            samples: self.plan().map(|plan| plan.samples),
            cuts: self.plan().map_or(&[], |plan| &plan.cuts),
            plan: self.plan(),
            warnings: self.warnings(),
            preview: &self.preview,
        }
    }
}

/// The view.
pub fn view(style: Style, outlook: &Outlook) -> String {
    let mut text = card(style, pairs(outlook));
    let preview = &outlook.preview;
    if !preview.paths.is_empty() {
        text.push('\n');
        text.push_str(&paths(style, &preview.paths));
    }
    text.push_str(&rungs::planned(style, &preview.rungs));
    if let Some(plan) = outlook.plan().filter(|plan| !plan.cuts.is_empty()) {
        text.push('\n');
        text.push_str(&plan::choices(style, plan));
    }
    // A grid's table of values says all; what was drawn is worth a look.
    if preview.strategy != Strategy::Grid {
        text.push('\n');
        text.push_str(&points(style, preview));
    }
    text
}

fn pairs(outlook: &Outlook) -> Vec<(&'static str, Text)> {
    let Outlook {
        spec,
        preview,
        server,
    } = outlook;
    let dataset = server
        .as_ref()
        .map_or(&spec.dataset, |server| &server.dataset);
    let mut search = spec.search.clone();
    search.validation = (server.as_ref()).map_or(search.validation, |server| server.validation);
    let mut pairs: Vec<(&str, Text)> = vec![("experiment", toned(&spec.name, Tone::Bold))];
    match command_line(&spec.runner) {
        Some(line) => pairs.push(("runs", line.into())),
        None => pairs.extend([
            ("backbone", (&spec.backbone).into()),
            ("data set", dataset.into()),
        ]),
    }
    pairs.extend([
        ("trials", trials(preview).into()),
        ("objective", objective(&search).into()),
    ]);
    if spec.runner.is_trainer() {
        pairs.push(("epochs", epochs(preview).into()));
    }
    if let Some(plan) = outlook.plan() {
        let images = format!("{} over all trials", count(plan.samples));
        pairs.push(("images trained", images.into()));
        pairs.extend(plan::pairs(plan));
    }
    pairs.push(("slots", slots(preview).into()));
    if let Some(limit) = preview.slot_ms_limit {
        pairs.push(("slot time", format!("at most {}", duration(limit)).into()));
    }
    if let Some(promote) = &spec.promote {
        let gates = match promote.gates.len() {
            0 => "no gate".to_owned(),
            number => plural(number as u64, "gate"),
        };
        let text = format!("{}@{}, {gates}", promote.model, promote.alias);
        pairs.push(("promotes to", text.into()));
    }
    pairs
}

/// A program of one's own with its arguments, as people read it.
pub fn command_line(runner: &Runner) -> Option<String> {
    match runner {
        Runner::Trainer => None,
        Runner::Command(program) => Some(program.argv.join(" ")),
    }
}

/// `24 (6 × 2 × 2 grid)`, `20 (random)`.
fn trials(preview: &Preview) -> String {
    let mut how = match preview.strategy {
        Strategy::Grid if preview.paths.is_empty() => "the file as it stands".to_owned(),
        Strategy::Grid => {
            let sides: Vec<String> = preview
                .paths
                .iter()
                .map(|path| path.values.len().to_string())
                .collect();
            format!("grid of {}", sides.join(" × "))
        }
        Strategy::Random => plural(u64::from(preview.points_total), "random point"),
        Strategy::Asha | Strategy::Hyperband => {
            let points = plural(u64::from(preview.points_total), "point");
            format!("{points} at most to their end, {}", preview.strategy.name())
        }
        Strategy::Tpe => {
            let first = preview.points_total.min(preview.startup_points);
            let random = plural(u64::from(first), "random point");
            format!(
                "{random}, then {} chosen by tpe",
                preview.points_total - first
            )
        }
    };
    if preview.replicates > 1 {
        let _ = write!(how, ", {} seeds each", preview.replicates);
    }
    format!("{} ({how})", preview.trials)
}

/// `240 over all trials`; of trials that are compared on their way the most there may be.
fn epochs(preview: &Preview) -> String {
    let all = preview.epochs;
    if preview.rungs.is_empty() {
        return format!("{all} over all trials");
    }
    format!("at most {all} over all trials")
}

fn slots(preview: &Preview) -> String {
    let at_once = preview.trials.min(preview.max_concurrent);
    format!(
        "{} for a trial, {} at once: {} in all",
        preview.slots_per_trial,
        plural(u64::from(at_once), "trial"),
        preview.slots
    )
}

fn paths(style: Style, rows: &[PathValues]) -> String {
    let mut grid = Grid::new(style, &["path", "set", ">values", ""]);
    for row in rows {
        let mut shown: Vec<String> = row.values.iter().take(VALUES_SHOWN).map(scalar).collect();
        if row.values.len() > VALUES_SHOWN {
            shown.push("…".to_owned());
        }
        grid.row(vec![
            (&row.path).into(),
            toned(row.kind.replace('_', " "), Tone::Dim),
            row.values.len().into(),
            shown.join(", ").into(),
        ]);
    }
    grid.render()
}

fn points(style: Style, preview: &Preview) -> String {
    let paths: Vec<&str> = preview.paths.iter().map(|row| row.path.as_str()).collect();
    let mut titles = vec![">#".to_owned()];
    titles.extend(short_paths(&paths));
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut grid = Grid::new(style, &titles);
    for (index, point) in preview.points.iter().take(POINTS_SHOWN).enumerate() {
        let mut cells: Vec<Text> = vec![(index + 1).into()];
        cells.extend(paths.iter().map(|path| {
            let value = point.hparams.0.get(*path);
            value.map_or_else(String::new, scalar).into()
        }));
        grid.row(cells);
    }
    let mut text = grid.render();
    let hidden = preview.points.len().saturating_sub(POINTS_SHOWN);
    if hidden > 0 {
        text.push_str(&style.dim(&format!("and {hidden} more: --output json has them\n")));
    }
    text
}
