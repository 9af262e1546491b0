//! Rungs: where trials are compared on their way, and what has come to each.

use pomona_domain::experiment::Experiment;
use pomona_search::{PhaseRungs, Score, Searcher};

use crate::human::metric;
use crate::printer::Style;
use crate::table::{Grid, Tone, toned};

/// Where trials will be compared, phase by phase; nothing when they are not.
pub fn planned(style: Style, rows: &[PhaseRungs]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut grid = Grid::new(style, &["compared with", ">trials", "after epochs"]);
    for row in rows {
        let epochs: Vec<String> = row.epochs.iter().map(ToString::to_string).collect();
        let epochs = if epochs.is_empty() {
            toned("never: its whole cost is below the first rung", Tone::Dim)
        } else {
            epochs.join(", ").into()
        };
        grid.row(vec![
            row.phase.replace('`', "").into(),
            row.trials.into(),
            epochs,
        ]);
    }
    format!("\n{}", grid.render())
}

/// Where the rungs of an experiment stand; nothing while none was reached.
pub fn reached(style: Style, row: &Experiment) -> String {
    let Ok(searcher) = Searcher::restore(&row.searcher) else {
        return String::new();
    };
    let direction = row.spec.search.direction;
    let mut grid = Grid::new(
        style,
        &["rung of", ">rung", ">after epoch", ">points", ">best there"],
    );
    let standings = searcher.standings();
    let reached = standings.iter().filter(|row| !row.entries.is_empty());
    let mut is_empty = true;
    for row in reached {
        is_empty = false;
        let scores = row.entries.iter().map(|(_, score)| *score);
        let best = scores.reduce(|best: Score, next| {
            if next.is_better(best, direction) {
                next
            } else {
                best
            }
        });
        grid.row(vec![
            row.ladder.replace('`', "").into(),
            row.rung.into(),
            row.epoch.into(),
            row.entries.len().into(),
            best.map_or_else(String::new, |best| metric(best.value))
                .into(),
        ]);
    }
    if is_empty {
        return String::new();
    }
    format!("\n{}", grid.render())
}

#[cfg(test)]
mod tests;
