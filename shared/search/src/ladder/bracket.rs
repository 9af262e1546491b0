//! Hyperband's brackets: ladders of one phase that begin to compare later and later.

const WORD: &str = ", bracket ";

/// The name of a phase's bracket.
pub(super) fn name(phase: &str, bracket: u32) -> String {
    format!("{phase}{WORD}{bracket}")
}

/// The bracket that a name says; `None` for a ladder without brackets.
pub(super) fn of(name: &str) -> Option<u32> {
    name.rsplit_once(WORD)?.1.parse().ok()
}

/// The bracket for the next point of a phase with so many rungs, when so many joined each: bracket 1
/// compares at every rung, each further one begins a rung later, and the last lets everybody train to
/// the end. Each gets its part of the points, at any time: the one that lags behind most is next (of
/// equals the first).
pub(super) fn next(rungs: usize, eta: u32, joined: impl Fn(u32) -> u32) -> u32 {
    let count = rungs as u32 + 1;
    let weight = |bracket: u32| {
        // With s rungs ahead a bracket has ceil((s_max + 1) / (s + 1) · eta^s) points (Li et al.
        // 2018, algorithm 1), so that all brackets cost about the same.
        let ahead = count - bracket;
        let share = f64::from(count) / f64::from(ahead + 1);
        (share * f64::from(eta).powi(ahead as i32)).ceil()
    };
    let weights: f64 = (1..=count).map(weight).sum();
    let total: u32 = (1..=count).map(&joined).sum();
    let lag = |bracket: u32| {
        f64::from(total + 1) * weight(bracket) / weights - f64::from(joined(bracket))
    };
    (1..=count).fold(
        1,
        |best, next| if lag(next) > lag(best) { next } else { best },
    )
}
