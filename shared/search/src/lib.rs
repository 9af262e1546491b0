//! Which trials should exist: searchers over the space of an experiment, what they would do, and
//! what that would cost.
//!
//! A [`Searcher`] is a value: seeded, serialisable with the position of its generator, and equal
//! after every round trip, so that nothing is ever drawn twice. It never reads a clock, draws
//! ambient randomness, or looks at how trials do; that is the scheduler's business.

mod draw;
pub mod planner;
mod preview;
mod searcher;

pub use preview::{PathValues, Preview, preview};
pub use searcher::{Point, Searcher};
