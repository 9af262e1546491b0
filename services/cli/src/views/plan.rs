//! A plan: what is chosen for each frozen depth, why, and what it is expected to cost.

use pomona_domain::plan::{CutPlan, Plan};

use crate::human::{bytes, count};
use crate::printer::Style;
use crate::table::{Grid, Text, Tone, card, toned};

/// What a plan expects, as lines of a card.
pub fn pairs(plan: &Plan) -> Vec<(&'static str, Text)> {
    let mut pairs: Vec<(&str, Text)> = vec![("compute", plan.cost().into())];
    let (once, always) = (plan.frozen_images, plan.frozen_images_unshared);
    if always > 0 {
        let instead = if once < always {
            format!(" instead of {}", count(always))
        } else {
            String::new()
        };
        let text = format!("run for {} images{instead}", count(once));
        pairs.push(("frozen blocks", text.into()));
    }
    pairs
}

/// The choices as a table, and their reasons below it.
pub fn choices(style: Style, plan: &Plan) -> String {
    format!("{}\n{}", cuts(style, &plan.cuts), reasons(style, plan))
}

fn cuts(style: Style, rows: &[CutPlan]) -> String {
    let titles = [
        "frozen depth",
        "?>blocks frozen",
        ">trials",
        "?>parameters trained",
        "?>views",
        ">features",
        "choice",
    ];
    let mut grid = Grid::new(style, &titles);
    for row in rows {
        let trained = match row.trained_parameters {
            0 => "the head only".to_owned(),
            number => format!("{} and the head", count(number)),
        };
        let features = match row.feature_bytes {
            0 => toned("–", Tone::Dim),
            number => bytes(number).into(),
        };
        grid.row(vec![
            toned(&row.frozen_depth, Tone::Bold),
            row.frozen_blocks.into(),
            row.trials.into(),
            trained.into(),
            row.views.into(),
            features,
            row.choice.name().into(),
        ]);
    }
    grid.render()
}

fn reasons(style: Style, plan: &Plan) -> String {
    let because = |name: &str, reason: &str| -> Text { format!("{name}: {reason}").into() };
    let cuts = plan.cuts.iter();
    let mut pairs: Vec<(&str, Text)> = cuts
        .map(|cut| {
            let text = because(cut.choice.name(), &cut.reason);
            (cut.frozen_depth.as_str(), text)
        })
        .collect();
    let slots = because(plan.parallel.name(), &plan.parallel_reason);
    pairs.push(("slots", slots));
    pairs.extend(plan.advice.iter().map(|text| ("note", text.into())));
    card(style, pairs)
}
