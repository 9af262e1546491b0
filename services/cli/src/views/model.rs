//! The registry, and predictions.

use pomona_api::v1::models::ModelView;
use pomona_domain::Timestamp;
use pomona_domain::model::{Alias, AliasMove, Audit, Origin, Version};
use pomona_domain::task::Prediction;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::human::{ago, bytes, metric, moment, plural, short_id};
use crate::printer::Style;
use crate::table::{Grid, Text, Tone, card, toned};

/// Metrics that a version is shown with, if it has them.
const SHOWN: [&str; 4] = ["test/accuracy", "test/macro_f1", "val/accuracy", "val/loss"];

/// Models.
pub fn list(style: Style, now: Timestamp, rows: &[ModelView]) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "model",
            ">newest",
            ">test/accuracy",
            "aliases",
            "?published",
        ],
    );
    for row in rows {
        let newest = row.versions.first();
        let accuracy = newest.and_then(|version| version.metrics.get("test/accuracy"));
        grid.row(vec![
            toned(&row.name, Tone::Bold),
            newest.map_or(0, |version| version.number).into(),
            accuracy
                .map_or_else(String::new, |value| metric(*value))
                .into(),
            aliases(&row.aliases, None).into(),
            toned(
                newest.map_or_else(String::new, |version| ago(version.created_at, now)),
                Tone::Dim,
            ),
        ]);
    }
    grid.render()
}

/// `champion→3 challenger→4`, or only the names that point to `number`.
fn aliases(rows: &[Alias], number: Option<u32>) -> String {
    let texts: Vec<String> = rows
        .iter()
        .filter(|alias| number.is_none_or(|number| alias.number == number))
        .map(|alias| match number {
            Some(_) => alias.alias.clone(),
            None => format!("{} → {}", alias.alias, alias.number),
        })
        .collect();
    texts.join(", ")
}

/// One model.
pub fn show(style: Style, now: Timestamp, row: &ModelView) -> String {
    let shown: Vec<&str> = SHOWN
        .into_iter()
        .filter(|name| {
            row.versions
                .iter()
                .any(|version| version.metrics.contains_key(*name))
        })
        .collect();
    let mut titles = vec![">version"];
    let right: Vec<String> = shown.iter().map(|name| format!(">{name}")).collect();
    titles.extend(right.iter().map(String::as_str));
    titles.extend(["gates", "?>size", "?trial", "?published", "aliases"]);
    let mut grid = Grid::new(style, &titles);
    for version in &row.versions {
        let mut cells: Vec<Text> = vec![version.number.into()];
        cells.extend(shown.iter().map(|name| number(&version.metrics, name)));
        cells.push(if version.gates_passed {
            toned("passed", Tone::Good)
        } else {
            toned("failed", Tone::Bad)
        });
        cells.push(bytes(version.size).into());
        let trial = version.trial.map(|trial| short_id(&trial.to_string()));
        cells.push(trial.map_or_else(|| toned("–", Tone::Dim), Text::from));
        cells.push(toned(ago(version.created_at, now), Tone::Dim));
        cells.push(toned(
            aliases(&row.aliases, Some(version.number)),
            Tone::Bold,
        ));
        grid.row(cells);
    }
    let versions = plural(row.versions.len() as u64, "version");
    format!("{}  {versions}\n\n{}", style.bold(&row.name), grid.render())
}

fn number(metrics: &BTreeMap<String, f64>, name: &str) -> Text {
    metrics
        .get(name)
        .map_or_else(|| toned("–", Tone::Dim), |value| metric(*value).into())
}

/// One version.
pub fn version(style: Style, row: &Version) -> String {
    let size: u64 = row.files.iter().map(|file| file.size).sum();
    let mut lines = vec![
        (
            "version",
            toned(format!("{}@{}", row.model, row.number), Tone::Bold),
        ),
        ("digest", row.digest.into()),
        (
            "files",
            format!(
                "{} ({})",
                plural(row.files.len() as u64, "file"),
                bytes(size)
            )
            .into(),
        ),
    ];
    lines.extend(origin(&row.origin));
    lines.push(("published", moment(row.created_at).into()));
    let mut text = card(style, lines);
    if !row.metrics.is_empty() {
        let mut grid = Grid::new(style, &["metric", ">value"]);
        for (name, value) in &row.metrics {
            grid.row(vec![name.into(), metric(*value).into()]);
        }
        text.push('\n');
        text.push_str(&grid.render());
    }
    if !row.gates.is_empty() {
        text.push('\n');
        text.push_str(&gates(style, row));
    }
    let mut grid = Grid::new(style, &["file", ">size", "sha256"]);
    for file in &row.files {
        let digest = file.sha256.get(..16).unwrap_or(&file.sha256);
        grid.row(vec![
            (&file.path).into(),
            bytes(file.size).into(),
            toned(format!("{digest}…"), Tone::Dim),
        ]);
    }
    text + "\n" + &grid.render()
}

/// Where a version comes from.
fn origin(origin: &Origin) -> Vec<(&'static str, Text)> {
    match origin {
        Origin::Trained(lineage) => vec![
            ("experiment", lineage.experiment.into()),
            (
                "trial",
                format!("{} at step {}", lineage.trial, lineage.step).into(),
            ),
            ("data set", lineage.dataset.into()),
            ("backbone", lineage.backbone.into()),
            ("code", (&lineage.code).into()),
        ],
        Origin::Registered(from) => {
            let mut lines = vec![("source", (&from.source).into())];
            let more = [
                ("run", &from.run_id),
                ("logged model", &from.model_id),
                ("run's page", &from.run_link),
            ];
            for (name, value) in more {
                lines.extend(value.as_ref().map(|value| (name, value.into())));
            }
            lines
        }
    }
}

/// Gates of a version.
pub fn gates(style: Style, row: &Version) -> String {
    let mut grid = Grid::new(style, &["gate", ">measured", ""]);
    for gate in &row.gates {
        let verdict = if gate.passed {
            toned("passed", Tone::Good)
        } else {
            toned("failed", Tone::Bad)
        };
        let measured = gate.measured.map_or_else(|| "–".to_owned(), metric);
        grid.row(vec![(&gate.gate).into(), measured.into(), verdict]);
    }
    grid.render()
}

/// Moves of aliases.
pub fn history(style: Style, rows: &[AliasMove]) -> String {
    let mut grid = Grid::new(
        style,
        &["when", "alias", ">from", ">to", ">revision", "by", "why"],
    );
    for row in rows {
        grid.row(vec![
            toned(moment(row.at), Tone::Dim),
            (&row.alias).into(),
            row.from
                .map_or_else(|| "–".to_owned(), |from| from.to_string())
                .into(),
            if row.deleted {
                toned("deleted", Tone::Bad)
            } else {
                row.to.into()
            },
            row.revision.into(),
            toned(&row.by.name, Tone::Dim),
            (&row.reason).into(),
        ]);
    }
    grid.render()
}

/// Who did what.
pub fn audit(style: Style, rows: &[Audit]) -> String {
    let titles = ["when", "who", "from", "what", "to", "", "detail"];
    let mut grid = Grid::new(style, &titles);
    for row in rows {
        let tone = if row.result == "done" {
            Tone::Good
        } else {
            Tone::Bad
        };
        grid.row(vec![
            toned(moment(row.at), Tone::Dim),
            (&row.by.name).into(),
            toned(&row.by.origin, Tone::Dim),
            (&row.action).into(),
            (&row.subject).into(),
            toned(&row.result, tone),
            (&row.detail).into(),
        ]);
    }
    grid.render()
}

/// Predictions.
pub fn predictions(style: Style, rows: &[Prediction]) -> String {
    let mut grid = Grid::new(style, &["picture", "class", ">probability", "then"]);
    let folder = shared_folder(rows);
    for row in rows {
        let shown = Path::new(&row.path)
            .strip_prefix(&folder)
            .map_or_else(|_| row.path.clone(), |path| path.display().to_string());
        let Some((best, rest)) = row.classes.split_first() else {
            let fault = row
                .fault
                .as_ref()
                .map_or("no answer", |fault| fault.message.as_str());
            grid.row(vec![
                shown.into(),
                toned("unreadable", Tone::Bad),
                "".into(),
                toned(fault, Tone::Dim),
            ]);
            continue;
        };
        let rest: Vec<String> = rest
            .iter()
            .map(|class| format!("{} {}", class.label, percent(class.probability)))
            .collect();
        grid.row(vec![
            shown.into(),
            toned(&best.label, Tone::Bold),
            percent(best.probability).into(),
            toned(rest.join(", "), Tone::Dim),
        ]);
    }
    grid.render()
}

/// The deepest absolute folder that holds all pictures: it says nothing and takes the width of a
/// terminal. Relative paths were typed short already.
fn shared_folder(rows: &[Prediction]) -> PathBuf {
    let mut folders = rows.iter().map(|row| {
        let path = Path::new(&row.path);
        path.parent().filter(|_| path.is_absolute())
    });
    let Some(Some(first)) = folders.next() else {
        return PathBuf::new();
    };
    let mut shared = first;
    for folder in folders {
        while !folder.is_some_and(|folder| folder.starts_with(shared)) {
            let Some(above) = shared.parent() else {
                return PathBuf::new();
            };
            shared = above;
        }
    }
    shared.to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
