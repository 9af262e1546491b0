//! Which trials should exist and how far they train: searchers over the space of an experiment, what
//! they would do, and what that would cost.
//!
//! A [`Searcher`] is a value: seeded, serialisable with the position of its generator, and equal
//! after every round trip, so that nothing is ever drawn twice. It is told what trials measured and
//! how they ended, and answers what to do: it never reads a clock, draws ambient randomness, or asks
//! anybody anything, so a recorded run can be told to it again without a cluster.

mod course;
mod draw;
mod ladder;
pub mod planner;
mod preview;
mod score;
mod searcher;
mod tpe;
pub mod warm;

pub use course::{Cost, Costs, epochs, rungs};
pub use ladder::Standing;
pub use preview::{PathValues, PhaseRungs, Preview, preview, preview_with};
pub use score::Score;
pub use searcher::{Action, Point, Searcher, listens};
