//! The simulation: production `decide`, `apply`, `restore` and searchers in a world of seeded
//! faults, S1 to S9 after every event, S10 at every restart and at the end, and liveness.
//!
//! `make sim` runs the first seeds, `make sim SEEDS=n` more of them, and `make sim SEED=n` replays
//! one with everything that happens.

#[cfg(test)]
mod coordinator;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod mood;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod script;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod story;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod trainer;
#[cfg(test)]
mod verdict;
#[cfg(test)]
mod worker;
#[cfg(test)]
mod world;
