//! How points are chosen and trials are stopped: `search.strategy` and the section of its name.

use serde::{Deserialize, Serialize};

use super::section::{Faults, Section};
use crate::{Code, Hparams};

/// How points are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Every point, in order of the paths.
    Grid,
    /// Points drawn with the seed.
    Random,
    /// Points drawn with the seed; at each rung the better part of the trials goes on (Li et al.
    /// 2020, "A System for Massively Parallel Hyperparameter Tuning").
    Asha,
    /// The same in several brackets that begin to compare at different costs (Li et al. 2018,
    /// "Hyperband").
    Hyperband,
    /// Points that resemble the better part of those before (Bergstra et al. 2011, "Algorithms for
    /// Hyper-Parameter Optimization", section 4).
    Tpe,
}

impl Strategy {
    /// Its word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Random => "random",
            Self::Asha => "asha",
            Self::Hyperband => "hyperband",
            Self::Tpe => "tpe",
        }
    }
}

/// What becomes of trials at a rung.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A trial goes on unless it is among the worse ones that came before: no slot waits.
    #[default]
    Stop,
    /// A trial pauses, and goes on from its checkpoint once it is among the best of its rung.
    Promote,
}

/// Successive halving: how trials are compared on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halving {
    /// One in so many goes on at a rung, and the next rung costs so many times as much.
    pub eta: u32,
    /// Epochs before the first comparison, of a trial at the frozen depth whose epochs cost most;
    /// others get as many as cost the same.
    pub min_epochs: u32,
    /// What becomes of the others.
    pub form: Form,
}

impl Default for Halving {
    fn default() -> Self {
        Self {
            eta: 3,
            min_epochs: 1,
            form: Form::Stop,
        }
    }
}

/// Tree-structured Parzen estimators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tpe {
    /// Points that are drawn at random before the first that is chosen.
    pub startup: u32,
    /// Candidates of which the most promising becomes the next point.
    pub candidates: u32,
}

impl Default for Tpe {
    fn default() -> Self {
        Self {
            startup: 10,
            candidates: 24,
        }
    }
}

/// Earlier experiments whose best points are tried first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WarmStart {
    /// By id, a unique prefix of one, or name.
    pub experiments: Vec<String>,
    /// Of each the best so many.
    pub points: u32,
    /// What they were when the experiment was submitted, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<WarmPoint>,
}

/// A point of an earlier experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WarmPoint {
    /// Whose, for people.
    pub from: String,
    /// The point.
    pub hparams: Hparams,
}

/// What is read beside the strategy; of the sections that belong to one all but its own are `None`.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) asha: Option<Halving>,
    pub(super) hyperband: Option<Halving>,
    pub(super) tpe: Option<Tpe>,
    pub(super) warm_start: Option<WarmStart>,
}

/// Rungs are counted in epochs, which only our trainer promises to train.
pub(super) fn check_command(section: &Section<'_>, strategy: Strategy) {
    if matches!(strategy, Strategy::Asha | Strategy::Hyperband) {
        section.advise(
            Code::NotForRunner,
            "strategy",
            format_args!(
                "`{}` compares trials by their epochs, and nobody knows how many a program trains",
                strategy.name()
            ),
            "use `grid`, `random` or `tpe`",
        );
    }
}

/// Reads `search.strategy`.
pub(super) fn strategy(section: &mut Section<'_>) -> Strategy {
    let all = [
        Strategy::Grid,
        Strategy::Random,
        Strategy::Asha,
        Strategy::Hyperband,
        Strategy::Tpe,
    ];
    let word = section.word("strategy", &all.map(Strategy::name), &[]);
    let known = all.into_iter().find(|known| Some(known.name()) == word);
    known.unwrap_or(Strategy::Grid)
}

/// Reads `search.asha`, `search.hyperband` and `search.tpe`; only the section of the strategy may
/// be there, and its keys have defaults.
pub(super) fn settings(section: &mut Section<'_>, strategy: Strategy, faults: &Faults) -> Settings {
    let mut settings = Settings::default();
    for owner in [Strategy::Asha, Strategy::Hyperband, Strategy::Tpe] {
        let key = owner.name();
        let value = section.optional(key);
        if owner != strategy {
            if value.is_some() {
                section.advise(
                    Code::Contradiction,
                    key,
                    format_args!(
                        "belongs to `strategy: {key}`, and this is `{}`",
                        strategy.name()
                    ),
                    format!("write `strategy: {key}`, or leave the section out"),
                );
            }
            continue;
        }
        let mut inner = Section::at(section.path_of(key), value, faults);
        match owner {
            Strategy::Asha => settings.asha = Some(halving(&mut inner, true)),
            Strategy::Hyperband => settings.hyperband = Some(halving(&mut inner, false)),
            Strategy::Tpe => settings.tpe = Some(tpe(&mut inner)),
            Strategy::Grid | Strategy::Random => {}
        }
        inner.finish(|_| None);
    }
    settings.warm_start = warm_start(section, strategy, faults);
    settings
}

/// `warm_start: {experiments: [NAME], points: 3}`.
fn warm_start(section: &mut Section<'_>, strategy: Strategy, faults: &Faults) -> Option<WarmStart> {
    const KEY: &str = "warm_start";
    const MOST: usize = 16;
    let value = section.optional(KEY)?;
    if strategy == Strategy::Grid {
        let text = "a grid tries every point anyway, so none comes first";
        section.advise(Code::Contradiction, KEY, text, "leave the section out");
        return None;
    }
    let mut inner = Section::at(section.path_of(KEY), Some(value), faults);
    let points = inner.count("points", 3, 1..=100);
    let list = inner.required("experiments", "experiments: [NAME]")?;
    let names: Option<Vec<String>> = (list.as_array())
        .map(|items| {
            items
                .iter()
                .map(|item| item.as_str().map(ToOwned::to_owned))
        })
        .and_then(Iterator::collect);
    let Some(experiments) = names.filter(|names| (1..=MOST).contains(&names.len())) else {
        let text = "1 to 16 names or ids of experiments";
        inner.wrong("experiments", text, list);
        return None;
    };
    inner.finish(|_| None);
    Some(WarmStart {
        experiments,
        points,
        found: Vec::new(),
    })
}

fn halving(section: &mut Section<'_>, has_form: bool) -> Halving {
    let default = Halving::default();
    let form = has_form
        .then(|| section.word("form", &["stop", "promote"], &[]))
        .flatten();
    Halving {
        eta: section.count("eta", default.eta, 2..=10),
        min_epochs: section.count("min_epochs", default.min_epochs, 1..=10_000),
        form: match form {
            Some("promote") => Form::Promote,
            Some(_) | None => Form::Stop,
        },
    }
}

fn tpe(section: &mut Section<'_>) -> Tpe {
    let default = Tpe::default();
    Tpe {
        startup: section.count("startup", default.startup, 1..=1_000),
        candidates: section.count("candidates", default.candidates, 1..=1_000),
    }
}
