//! The searcher on a line: a benchmark tells it recorded curves and does what it says.
//!
//! Each line of stdin is a question in JSON, each line of stdout its answer. It never trains, and
//! knows no slots and no time: those are the benchmark's, and the same for every searcher.

use pomona_domain::Hparams;
use pomona_domain::spec::parse;
use pomona_search::{Action, Costs, Score, Searcher};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, Write as _};

/// A question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Question {
    /// Begin anew with an experiment file; answers with the points in the order it draws them.
    Begin {
        file: String,
        set: Vec<String>,
        costs: Costs,
    },
    /// There is room for one more trial.
    Act,
    /// A trial is at an epoch; its best so far, with the loss there.
    Hear(u32, u32, f64, f64),
    /// A trial has ended with its best, and the loss there.
    Ended(u32, f64, f64),
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Order(Vec<Hparams>),
    /// What to do with which trial, by its number: the n-th that is created is number n.
    Actions(Vec<(&'static str, u32)>),
}

fn begin(file: &str, set: &[String], costs: &Costs) -> Result<(Searcher, Answer), String> {
    let spec = parse(file, set).map_err(|faults| format!("{faults:?}"))?;
    let searcher = Searcher::with_costs(&spec, costs).map_err(|fault| fault.to_string())?;
    let mut order = searcher.clone();
    let drawn = std::iter::from_fn(|| order.next());
    let points = drawn.map(|point| point.hparams).collect();
    Ok((searcher, Answer::Order(points)))
}

fn actions(searcher: &Searcher, actions: Vec<Action>) -> Answer {
    let told = actions.into_iter().map(|action| match action {
        Action::Create(_) => ("create", searcher.drawn()),
        Action::Stop { trial, .. } => ("stop", trial),
        Action::Pause { trial, .. } => ("pause", trial),
        Action::Resume { trial, .. } => ("resume", trial),
    });
    Answer::Actions(told.collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut searcher = None;
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        let answer = match (question, &mut searcher) {
            (Question::Begin { file, set, costs }, _) => {
                let (new, order) = begin(&file, &set, &costs)?;
                searcher = Some(new);
                order
            }
            (_, None) => return Err("the first question is `begin`".into()),
            (Question::Act, Some(searcher)) => {
                let told = searcher.act();
                actions(searcher, told)
            }
            (Question::Hear(trial, epoch, value, tie), Some(searcher)) => {
                let told = searcher.hear(trial, epoch, Score { value, tie });
                actions(searcher, told)
            }
            (Question::Ended(trial, value, tie), Some(searcher)) => {
                let told = searcher.ended(trial, Some(Score { value, tie }));
                actions(searcher, told)
            }
        };
        writeln!(stdout, "{}", serde_json::to_string(&answer)?)?;
        stdout.flush()?;
    }
    Ok(())
}
