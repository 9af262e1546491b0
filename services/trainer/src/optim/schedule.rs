//! How the learning rate moves.

use pomona_domain::spec::LrSchedule;
use std::f64::consts::PI;

#[cfg(test)]
mod tests;

/// The learning rate of step `step` (from 0) of a trial.
///
/// Warm-up is linear from 0: the last step before its end has the full rate. The cosine (Loshchilov
/// and Hutter 2017, without restarts) starts where warm-up ends and would be 0 one step after the
/// last.
pub fn rate(
    schedule: &LrSchedule,
    peak: f64,
    step: u64,
    steps_per_epoch: u64,
    total_steps: u64,
) -> f64 {
    let per_epoch = steps_per_epoch as f64;
    let (LrSchedule::Constant { warmup_epochs }
    | LrSchedule::Step { warmup_epochs, .. }
    | LrSchedule::Cosine { warmup_epochs }) = *schedule;
    let warmup = (warmup_epochs * per_epoch).min(total_steps as f64);
    let at = step as f64;
    if at + 1.0 < warmup {
        return peak * (at + 1.0) / warmup;
    }
    match *schedule {
        LrSchedule::Constant { .. } => peak,
        LrSchedule::Step {
            every_epochs,
            gamma,
            ..
        } => {
            let drops = step / steps_per_epoch.max(1) / u64::from(every_epochs.max(1));
            peak * gamma.powi(drops as i32)
        }
        LrSchedule::Cosine { .. } => {
            let left = (total_steps as f64 - warmup).max(1.0);
            let gone = ((at - warmup).max(0.0) / left).min(1.0);
            peak * 0.5 * (1.0 + libm::cos(PI * gone))
        }
    }
}
