//! Gates against numbers: which passed, and what would have.

use super::{Measure, Pairs, Tally, Weighed, stats};
use pomona_domain::gate::{Approval, Compared, GateKind, Role};
use pomona_domain::model::GateOutcome;
use pomona_domain::spec::Gate;
use std::collections::{BTreeMap, BTreeSet};

/// What gates are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// What was measured of the candidate.
    pub metrics: &'a BTreeMap<String, f64>,
    /// What its outcomes and the champion's say.
    pub weighed: &'a Weighed,
    /// The champion's number; none: nothing to be compared with.
    pub champion: Option<u32>,
    /// Whether what was weighed is about another champion than this one.
    pub stale: bool,
    /// Uses of the test split, this one included.
    pub uses: u32,
    /// Who said yes.
    pub approvals: &'a [Approval],
}

/// Whether any gate compares with a champion.
pub fn needs_champion(gates: &[Gate]) -> bool {
    let compares =
        |gate: &Gate| matches!(gate.kind(), GateKind::BetterThan | GateKind::NoWorseThan);
    gates.iter().any(compares)
}

/// Each condition of each gate, with its numbers.
pub fn judge(gates: &[Gate], case: &Case<'_>) -> Vec<GateOutcome> {
    let mut outcomes = Vec::new();
    for gate in gates {
        match gate {
            Gate::Threshold {
                metric,
                at_least,
                at_most,
            } => threshold(&mut outcomes, metric, (*at_least, *at_most), case),
            Gate::ClassFloor {
                metric,
                every_class_at_least,
            } => outcomes.push(class_floor(metric, *every_class_at_least, case)),
            Gate::BetterThan {
                metric, confidence, ..
            } => outcomes.push(compare(metric, None, *confidence, case)),
            Gate::NoWorseThan {
                metric,
                margin,
                confidence,
                ..
            } => outcomes.push(compare(metric, Some(*margin), *confidence, case)),
            Gate::Approvals { approvals } => {
                for (role, wanted) in approvals {
                    outcomes.push(approved(*role, *wanted, case.approvals));
                }
            }
        }
    }
    outcomes
}

fn outcome(kind: GateKind, gate: String, wanted: f64) -> GateOutcome {
    GateOutcome {
        gate,
        passed: false,
        measured: None,
        wanted,
        kind,
        text: String::new(),
        compared: None,
    }
}

fn threshold(
    outcomes: &mut Vec<GateOutcome>,
    metric: &str,
    (at_least, at_most): (Option<f64>, Option<f64>),
    case: &Case<'_>,
) {
    let measured = case.metrics.get(metric).copied();
    let bounds = [("at least", at_least), ("at most", at_most)];
    for (word, bound) in bounds {
        let Some(wanted) = bound else { continue };
        let holds = |value: f64| match word {
            "at least" => value >= wanted,
            _ => value <= wanted,
        };
        let passed = measured.is_some_and(holds);
        let text = match (passed, measured) {
            (true, _) => String::new(),
            (false, Some(_)) => format!("it needs {word} {wanted}"),
            (false, None) => format!("`{metric}` was not measured; it needs {word} {wanted}"),
        };
        outcomes.push(GateOutcome {
            passed,
            measured,
            text,
            ..outcome(
                GateKind::Threshold,
                format!("{metric} {word} {wanted}"),
                wanted,
            )
        });
    }
}

fn class_floor(metric: &str, floor: f64, case: &Case<'_>) -> GateOutcome {
    let value = |tally: &Tally| match metric {
        "test/precision" => tally.precision(),
        "test/f1" => tally.f1(),
        _ => tally.recall(),
    };
    // A class without test samples has nothing to be judged by.
    let seen = case
        .weighed
        .classes
        .iter()
        .filter(|(_, tally)| tally.labelled > 0);
    let mut below: Vec<(&str, f64)> = Vec::new();
    let mut lowest: Option<f64> = None;
    for (class, tally) in seen {
        let value = value(tally);
        lowest = Some(lowest.map_or(value, |low| low.min(value)));
        if value < floor {
            below.push((class, value));
        }
    }
    let text = match (lowest, below.as_slice()) {
        (None, _) => "no class was measured on the test split".to_owned(),
        (Some(_), []) => String::new(),
        (Some(_), some) => {
            const SHOWN: usize = 5;
            let mut told: Vec<String> = (some.iter().take(SHOWN))
                .map(|(class, value)| format!("`{class}` has {value:.4}"))
                .collect();
            if some.len() > SHOWN {
                told.push(format!("and {} more classes", some.len() - SHOWN));
            }
            format!("{}; each class needs at least {floor}", told.join(", "))
        }
    };
    GateOutcome {
        passed: lowest.is_some() && below.is_empty(),
        measured: lowest,
        text,
        ..outcome(
            GateKind::ClassFloor,
            format!("{metric} of every class at least {floor}"),
            floor,
        )
    }
}

fn approved(role: Role, wanted: u32, approvals: &[Approval]) -> GateOutcome {
    let actors: BTreeSet<&str> = approvals
        .iter()
        .filter(|approval| approval.role == role)
        .map(|approval| approval.actor.trim())
        .collect();
    let given = actors.len() as u32;
    let passed = given >= wanted;
    let text = if passed {
        let names: Vec<&str> = actors.into_iter().collect();
        format!("approved by {}", names.join(", "))
    } else {
        format!(
            "{} more must approve as {role}: `pomona model approve NAME VERSION --role {role}`, \
             then ask for the move again",
            wanted - given
        )
    };
    GateOutcome {
        passed,
        measured: Some(f64::from(given)),
        text,
        ..outcome(
            GateKind::Approvals,
            format!("{wanted} approved as {role}"),
            f64::from(wanted),
        )
    }
}

/// A comparison with the champion: `margin` for no worse, none for better.
fn compare(metric: &str, margin: Option<f64>, confidence: f64, case: &Case<'_>) -> GateOutcome {
    let (kind, gate) = match margin {
        Some(margin) => (
            GateKind::NoWorseThan,
            format!("{metric} no worse than the champion by {margin}"),
        ),
        None => (
            GateKind::BetterThan,
            format!("{metric} better than the champion"),
        ),
    };
    let base = GateOutcome {
        measured: case.metrics.get(metric).copied(),
        ..outcome(kind, gate, margin.map_or(0.0, |margin| -margin))
    };
    let Some(champion) = case.champion else {
        return GateOutcome {
            passed: true,
            text: "there is no champion yet".to_owned(),
            ..base
        };
    };
    let pairs = match comparable(champion, case) {
        Ok(pairs) => pairs,
        Err(text) => return GateOutcome { text, ..base },
    };
    let compared = Compared {
        champion,
        difference: 0.0,
        bound: None,
        p_value: None,
        confidence,
        corrected: stats::corrected(confidence, case.uses),
        uses: case.uses,
        samples: pairs.samples,
        wins: pairs.wins,
        losses: pairs.losses,
        method: String::new(),
    };
    match (Measure::parse(metric), margin) {
        (Some(Measure::Accuracy), None) => mcnemar(base, &compared, pairs),
        (Some(Measure::Accuracy), Some(margin)) => tango(base, &compared, pairs, margin),
        (_, margin) => bootstrap(base, &compared, metric, margin.unwrap_or(0.0), case.weighed),
    }
}

/// The samples that both versions were measured on, or why there are none.
fn comparable(champion: u32, case: &Case<'_>) -> Result<Pairs, String> {
    if case.stale {
        return Err(
            "the champion changed while this was decided; ask again with `pomona model promote`"
                .to_owned(),
        );
    }
    let weighed = case.weighed;
    let theirs = match (weighed.split, weighed.champion_split) {
        (None, _) => {
            return Err(
                "what it said of each test sample is not known, so it cannot be compared; publish \
                 its trial again"
                    .to_owned(),
            );
        }
        (Some(_), None) => {
            return Err(format!(
                "what version {champion} said of each test sample is not known, so nothing can be \
                 compared with it; publish its trial again and promote that"
            ));
        }
        (Some(_), Some(theirs)) => theirs,
    };
    let pairs = weighed.pairs.filter(|_| weighed.split == Some(theirs));
    pairs.ok_or_else(|| {
        format!(
            "version {champion} was measured on another test split; train the champion's file again \
             on this data set and promote that first, or publish a candidate of its data set"
        )
    })
}

fn mcnemar(base: GateOutcome, compared: &Compared, pairs: Pairs) -> GateOutcome {
    let alpha = 1.0 - compared.corrected;
    let p = stats::mcnemar(pairs.wins, pairs.losses);
    let discordant = pairs.wins + pairs.losses;
    let passed = p <= alpha;
    let won = format!(
        "it is right on {} of the {discordant} samples that only one of the two has right (p {p:.4})",
        pairs.wins
    );
    let text = match stats::wins_needed(discordant, alpha) {
        _ if passed => won,
        Some(needed) => format!("{won}; it needs {needed} of them (p at most {alpha:.4})"),
        None => format!(
            "{won}; so few samples prove nothing: it needs {0} of {0} (p at most {alpha:.4})",
            stats::throws_needed(alpha)
        ),
    };
    GateOutcome {
        passed,
        text,
        compared: Some(Compared {
            difference: difference(pairs),
            p_value: Some(p),
            method: "exact McNemar".to_owned(),
            ..compared.clone()
        }),
        ..base
    }
}

fn difference(pairs: Pairs) -> f64 {
    let net = f64::from(pairs.wins) - f64::from(pairs.losses);
    net / f64::from(pairs.samples.max(1))
}

fn tango(base: GateOutcome, compared: &Compared, pairs: Pairs, margin: f64) -> GateOutcome {
    let Pairs {
        samples,
        wins,
        losses,
    } = pairs;
    let alpha = 1.0 - compared.corrected;
    let p = stats::tango(samples, wins, losses, margin);
    let bound = stats::tango_bound(samples, wins, losses, compared.corrected);
    let passed = p <= alpha;
    let discordant = wins + losses;
    let enough = |wins: u32| stats::tango(samples, wins, discordant - wins, margin) <= alpha;
    let seen = format!(
        "with confidence {:.4} it is worse by less than {:.4}",
        compared.corrected,
        (-bound).max(0.0)
    );
    let text = if passed {
        seen
    } else if let Some(needed) = (wins..=discordant).find(|wins| enough(*wins)) {
        format!(
            "{seen}, not by less than {margin}; it is right on {wins} of the {discordant} samples \
             that only one of the two has right and needs {needed}"
        )
    } else {
        format!(
            "{seen}, not by less than {margin}; {samples} test samples with {discordant} on which \
             the two differ cannot show it: it needs more test samples or a wider margin"
        )
    };
    GateOutcome {
        passed,
        text,
        compared: Some(Compared {
            difference: difference(pairs),
            bound: Some(bound),
            p_value: Some(p),
            method: "Tango's score bound".to_owned(),
            ..compared.clone()
        }),
        ..base
    }
}

fn bootstrap(
    base: GateOutcome,
    compared: &Compared,
    metric: &str,
    margin: f64,
    weighed: &Weighed,
) -> GateOutcome {
    let Some(difference) = weighed.differences.get(metric) else {
        return GateOutcome {
            text: format!("`{metric}` was not compared"),
            ..base
        };
    };
    let bound = difference.bound(compared.corrected);
    let passed = bound > -margin;
    let seen = format!(
        "it is better by {:.4}, with confidence {:.4} by more than {bound:.4}",
        difference.observed, compared.corrected
    );
    let text = if passed {
        seen
    } else {
        format!("{seen}; that bound needs to be above {}", 0.0 - margin)
    };
    GateOutcome {
        passed,
        text,
        compared: Some(Compared {
            difference: difference.observed,
            bound: bound.is_finite().then_some(bound),
            method: "paired bootstrap".to_owned(),
            ..compared.clone()
        }),
        ..base
    }
}
