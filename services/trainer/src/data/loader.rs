//! Batches in a fixed order, made ahead of the network by a few threads.
//!
//! Which thread makes a batch never shows: the order, the images and their views are the caller's.
//! At most `threads + 2` batches wait, and no thread outlives the loader.

use super::{Dataset, view};
use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// One image of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its number in the split.
    pub index: usize,
    /// What is seen of it.
    pub view: View,
}

/// Some images, ready for the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// RGB bytes: image × height × width × 3.
    pub pixels: Vec<u8>,
    /// Their labels.
    pub labels: Vec<u32>,
    /// Their numbers in the split.
    pub indices: Vec<usize>,
}

/// Gives batches in order.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dataset: Arc<Dataset>,
    split: Split,
    picks: Vec<Pick>,
    /// Where each batch begins in `picks`, and where the last one ends.
    bounds: Vec<usize>,
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The next batch that a thread will make.
    next: usize,
    /// Batches handed out.
    taken: usize,
    ready: BTreeMap<usize, Result<Batch, Fault>>,
    stop: bool,
}

impl Loader {
    /// Makes batches of `size` from rows of a split in their order, all of one view.
    pub fn in_order(
        dataset: Arc<Dataset>,
        split: Split,
        (rows, view): (Range<usize>, View),
        size: usize,
        threads: usize,
    ) -> Self {
        let picks: Vec<Pick> = rows.map(|index| Pick { index, view }).collect();
        let sizes = picks.chunks(size).map(<[Pick]>::len).collect();
        Self::new(dataset, split, picks, sizes, threads)
    }

    /// Makes batches of the given sizes from `picks`, with at least one thread.
    ///
    /// # Panics
    /// If the sizes do not add up to the number of picks: a fault of the caller's code.
    pub fn new(
        dataset: Arc<Dataset>,
        split: Split,
        picks: Vec<Pick>,
        batches: Vec<usize>,
        threads: usize,
    ) -> Self {
        let mut bounds = vec![0];
        let mut end = 0;
        for size in batches {
            end += size;
            bounds.push(end);
        }
        assert_eq!(end, picks.len(), "batches and picks do not fit");
        let threads = threads.clamp(1, bounds.len());
        let shared = Arc::new(Shared {
            dataset,
            split,
            picks,
            bounds,
            ahead: threads + 2,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let helpers = (0..threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.work())
            })
            .collect();
        Self { shared, helpers }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, Fault>;

    /// The next batch; after a fault there is none.
    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        if state.stop || state.taken == self.shared.batches() {
            return None;
        }
        let number = state.taken;
        let batch = loop {
            if let Some(batch) = state.ready.remove(&number) {
                break batch;
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        state.taken += 1;
        state.stop = batch.is_err();
        drop(state);
        self.shared.changed.notify_all();
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper cannot panic: `make` catches.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn batches(&self) -> usize {
        self.bounds.len() - 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let number = {
                let mut state = self.lock();
                while !state.stop
                    && state.next < self.batches()
                    && state.next >= state.taken + self.ahead
                {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                if state.stop || state.next == self.batches() {
                    return;
                }
                state.next += 1;
                state.next - 1
            };
            let batch = catch_unwind(AssertUnwindSafe(|| self.make(number))).unwrap_or_else(|_| {
                let message = format!("batch {number} could not be made");
                Err(Fault::new(Code::Internal, message))
            });
            self.lock().ready.insert(number, batch);
            self.changed.notify_all();
        }
    }

    fn make(&self, number: usize) -> Result<Batch, Fault> {
        let picks = &self.picks[self.bounds[number]..self.bounds[number + 1]];
        let each = self.dataset.bytes_per_image();
        let mut batch = Batch {
            pixels: vec![0; picks.len() * each],
            labels: Vec::with_capacity(picks.len()),
            indices: Vec::with_capacity(picks.len()),
        };
        for (pick, pixels) in picks.iter().zip(batch.pixels.chunks_exact_mut(each)) {
            if self.lock().stop {
                return Err(Fault::new(Code::Internal, "the loader is stopping"));
            }
            self.dataset.write_pixels(self.split, pick.index, pixels)?;
            view::apply(pick.view, pick.index, self.dataset.size(), pixels);
            batch
                .labels
                .push(self.dataset.sample(self.split, pick.index).label);
            batch.indices.push(pick.index);
        }
        Ok(batch)
    }
}
