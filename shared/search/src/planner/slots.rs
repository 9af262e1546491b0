//! What slots are for: different trials, or parts of one trial's batches. The file says which; here
//! is said why that is, and when the other would be better.

use super::{Cut, Cuts, Ground, macs};
use pomona_domain::plan::Parallel;
use pomona_domain::spec::ExperimentSpec;
use pomona_domain::words::count;

/// A block that computes less for each of its parameters is not worth several ranks: what they
/// compute in a step is little beside the gradients that they add up. A convolution computes once
/// for each place of its output (49 and more in the usual networks), a classifier once.
const FEW_MACS_PER_PARAMETER: u64 = 16;

/// What the file says, as a sentence.
pub(super) fn parallel(
    spec: &ExperimentSpec,
    cuts: &Cuts,
    ground: &Ground<'_>,
) -> (Parallel, String) {
    let ranks = spec.resources.slots_per_trial;
    let said = format!("`resources.slots_per_trial: {ranks}`");
    if ranks > 1 {
        let why = format!("{said} lets {ranks} slots train on parts of each batch of a trial");
        return (Parallel::Data, why);
    }
    let why = format!("{said} lets each slot train other trials");
    let suits = match cuts.values().find(|cut| is_light(cut, ground)) {
        Some(cut) => format!(
            ", which suits what is above `{}`: {}",
            cut.name,
            weight(cut, ground)
        ),
        None => String::new(),
    };
    (Parallel::Trials, format!("{why}{suits}"))
}

/// What the file could say instead.
pub(super) fn advice(spec: &ExperimentSpec, cuts: &Cuts, ground: &Ground<'_>) -> Vec<String> {
    if spec.resources.slots_per_trial > 1 {
        against_ranks(spec, cuts, ground)
    } else {
        idle(spec, cuts, ground).into_iter().collect()
    }
}

/// Why one slot for a trial would be better.
fn against_ranks(spec: &ExperimentSpec, cuts: &Cuts, ground: &Ground<'_>) -> Vec<String> {
    const INSTEAD: &str = "`resources.slots_per_trial: 1` would be better";
    let mut told = Vec::new();
    if let Some(cut) = cuts.values().find(|cut| cut.is_head_only(ground.backbone)) {
        told.push(format!(
            "{INSTEAD} for `{}`: a head alone has too little to compute for several ranks, and \
             trials of one slot may train side by side",
            cut.name
        ));
    }
    if let Some(cut) = cuts.values().find(|cut| is_light(cut, ground)) {
        told.push(format!(
            "{INSTEAD} for `{}`: {}, so ranks would mostly add gradients up",
            cut.name,
            weight(cut, ground)
        ));
    }
    if let (true, Some(slots)) = (told.is_empty(), ground.machines.slots)
        && at_once(spec, cuts) >= slots
    {
        told.push(format!(
            "{INSTEAD}: with {} trials at once all {slots} slots of a worker are busy, and nothing \
             is added up between ranks",
            at_once(spec, cuts)
        ));
    }
    told
}

/// Slots that nobody would use.
fn idle(spec: &ExperimentSpec, cuts: &Cuts, ground: &Ground<'_>) -> Option<String> {
    let slots = ground.machines.slots?;
    let trials = at_once(spec, cuts);
    let ranks = slots.checked_div(trials)?;
    let gains = |cut: &&Cut| !cut.is_head_only(ground.backbone) && !is_light(cut, ground);
    cuts.values().find(gains).filter(|_| ranks > 1)?;
    Some(format!(
        "with {trials} at once, {} of {slots} slots of a worker stay idle: \
         `resources.slots_per_trial: {ranks}` would let each trial use {ranks}",
        slots - trials
    ))
}

fn at_once(spec: &ExperimentSpec, cuts: &Cuts) -> u32 {
    let trials: u32 = cuts.values().map(|cut| cut.trials).sum();
    trials.min(spec.search.max_concurrent)
}

/// Whether what trains has many parameters for what it computes.
fn is_light(cut: &Cut, ground: &Ground<'_>) -> bool {
    let (parameters, macs) = load(cut, ground);
    parameters > 0 && macs < parameters.saturating_mul(FEW_MACS_PER_PARAMETER)
}

fn weight(cut: &Cut, ground: &Ground<'_>) -> String {
    let (parameters, macs) = load(cut, ground);
    format!(
        "{} parameters with {} multiply-adds an image",
        count(parameters),
        count(macs)
    )
}

/// Parameters of the blocks that train, and their multiply-adds of an image.
fn load(cut: &Cut, ground: &Ground<'_>) -> (u64, u64) {
    let trained = cut.split(ground.backbone).1;
    let parameters = trained.iter().map(|block| block.parameters).sum();
    (parameters, macs(trained, ground))
}
