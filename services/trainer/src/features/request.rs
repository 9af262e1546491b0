//! Finding or computing all shards of a trial.
//!
//! A part of the data set in one view is several shards, so that the trainers of a machine compute
//! it side by side: each takes what is not there and nobody is at, and waits for the rest at the
//! end. The bits do not depend on who computed what.

use super::store::{Found, LOOK_EVERY, Store, Writer};
use super::{Features, Outcome, Rows, as_activations, in_memory_order};
use crate::data::{Dataset, Loader};
use crate::network::{Arithmetic, Network, Prefix};
use pomona_api::shard::{Key, Plan};
use pomona_domain::dataset::Split;
use pomona_domain::spec::Precision;
use pomona_domain::view::View;
use pomona_domain::{Digest, Fault};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// Images of one pass; the last of a shard may have fewer.
pub const BATCH: usize = 32;
/// The last pass is padded to a multiple of this: few shapes for kernels to be made for, little work
/// for nothing.
const PADDED_TO: usize = 8;
/// Grows when the same key would give other bits: a test of golden features says when.
const PREFIX_VERSION: u32 = 3;
/// Shards of one part and view: enough that trainers end together, few enough to be listed.
const SHARDS: usize = 8;
/// Fewer batches are no shard of their own.
const LEAST_BATCHES: usize = 1;

/// How long a full disk is waited for. Without features a trial is trained by other arithmetic, for
/// all its life: that should not depend on what somebody else wrote in a moment.
const FULL_DISK: Duration = Duration::from_secs(20);
/// Between two tries meanwhile.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// A trial's wish for features.
pub struct Request<'a> {
    /// The frozen blocks, on their device.
    pub network: &'a Network,
    /// The images.
    pub dataset: &'a Arc<Dataset>,
    /// What the trial sees of a training image, by the numbers of the views.
    pub views: Vec<View>,
    /// What the machine is.
    pub environment: &'a BTreeMap<String, String>,
    /// What the trial asks of numbers: `f32` is the exact path.
    pub precision: Precision,
    /// Threads that decode.
    pub threads: usize,
}

/// A shard that is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    split: Split,
    view: View,
    rows: Range<usize>,
}

/// What all shards of a request have in common.
struct Work<'a> {
    request: &'a Request<'a>,
    store: &'a Store,
    arithmetic: Arithmetic,
    /// For each number of frozen blocks, the digest of their tensors.
    weights: Vec<Digest>,
    /// The blocks from the one named to the cut, prepared.
    prefix: RefCell<Option<(usize, Rc<Prefix>)>>,
}

impl Request<'_> {
    /// Finds or computes all shards. `go_on` is asked after every batch, and while it waits.
    pub fn get(&self, store: &Store, go_on: impl FnMut() -> bool) -> Result<Outcome, Fault> {
        self.get_as(Arithmetic::of(self.precision, self.network), store, go_on)
    }

    /// The same with this arithmetic, which the processor need not be fast at.
    pub fn get_as(
        &self,
        arithmetic: Arithmetic,
        store: &Store,
        go_on: impl FnMut() -> bool,
    ) -> Result<Outcome, Fault> {
        let work = Work {
            request: self,
            store,
            arithmetic,
            weights: self.network.frozen_digests(),
            prefix: RefCell::default(),
        };
        let wanted = self.wanted();
        let plans: Vec<Plan> = wanted
            .iter()
            .map(|one| work.plan(one, self.network.depth()))
            .collect();
        let bytes = plans.iter().map(Plan::bytes).sum();
        if bytes > store.budget() {
            return Ok(Outcome::NoRoom(bytes));
        }
        // Large ones first, so that trainers who compute them side by side end together.
        let mut order: Vec<usize> = (0..plans.len()).collect();
        order.sort_by_key(|at| Reverse(wanted[*at].rows.len()));
        store.look_for(order.iter().map(|at| &plans[*at]))?;
        let mut shards: Vec<_> = plans.iter().map(|_| None).collect();
        let mut computed = 0;
        let go_on = RefCell::new(go_on);
        let ask = || (go_on.borrow_mut())();
        let mut full_since = None;
        loop {
            let mut is_full = false;
            for &at in &order {
                if shards[at].is_some() {
                    continue;
                }
                let plan = &plans[at];
                match store.try_get(plan, |writer| work.compute(&wanted[at], writer, ask))? {
                    Found::Hit(found) => shards[at] = Some(found),
                    Found::Built(found) => {
                        computed += plan.bytes();
                        shards[at] = Some(found);
                    }
                    Found::Busy => {}
                    Found::NoRoom => return Ok(Outcome::NoRoom(bytes)),
                    Found::DiskFull => {
                        is_full = true;
                        break;
                    }
                    Found::Stopped => return Ok(Outcome::Stopped),
                }
            }
            if shards.iter().all(Option::is_some) {
                break;
            }
            if !ask() {
                return Ok(Outcome::Stopped);
            }
            if is_full && full_since.get_or_insert_with(Instant::now).elapsed() > FULL_DISK {
                return Ok(Outcome::NoRoom(bytes));
            }
            std::thread::sleep(if is_full { FULL_DISK_PAUSE } else { LOOK_EVERY });
        }
        let mut train: Vec<_> = shards.into_iter().flatten().collect();
        let digests: Vec<String> = train.iter().map(|found| found.digest.to_string()).collect();
        let of_training = wanted.iter().filter(|one| one.split == Split::Train);
        let val = train.split_off(of_training.count());
        Ok(Outcome::Ready(Features {
            train: Rows::of(train),
            images: self.dataset.len(Split::Train),
            val: Rows::of(val),
            digest: Digest::of(digests.join("\n").as_bytes()),
            bytes,
            computed,
        }))
    }

    /// All shards: those of the training images by view, then those of the validation images.
    fn wanted(&self) -> Vec<Wanted> {
        let views = self.views.iter().map(|view| (Split::Train, *view));
        views
            .chain([(Split::Val, View::AS_IS)])
            .flat_map(|(split, view)| {
                let rows = self.dataset.len(split);
                let size = shard_rows(rows);
                (0..rows.max(1)).step_by(size).map(move |from| Wanted {
                    split,
                    view,
                    rows: from..rows.min(from + size),
                })
            })
            .collect()
    }
}

/// Rows of each shard but the last, whole batches.
fn shard_rows(rows: usize) -> usize {
    let batches = rows.div_ceil(BATCH).div_ceil(SHARDS);
    batches.max(LEAST_BATCHES) * BATCH
}

/// Images of a pass over so many: it follows from a shard's rows alone, as its bits must.
fn padded(images: usize) -> usize {
    images.next_multiple_of(PADDED_TO)
}

impl Work<'_> {
    /// The shard of what `depth` frozen blocks give.
    fn plan(&self, wanted: &Wanted, depth: usize) -> Plan {
        let Request {
            network, dataset, ..
        } = self.request;
        let preprocess = network.arch().preprocess();
        let last = network.blocks()[..depth].last();
        let mut environment = self.request.environment.clone();
        environment.insert("precision".to_owned(), self.arithmetic.name().to_owned());
        let key = Key {
            prefix_version: PREFIX_VERSION,
            arch: network.arch().name().to_owned(),
            cut: depth as u32,
            block: last.map_or_else(String::new, |block| block.name.clone()),
            weights: self.weights[depth],
            mean: preprocess.mean,
            scale: preprocess.scale,
            dataset: dataset.digest(),
            split: wanted.split,
            view: wanted.view,
            from: wanted.rows.start as u64,
            to: wanted.rows.end as u64,
            batch: BATCH as u32,
            environment,
        };
        Plan {
            key,
            rows: wanted.rows.len() as u64,
            shape: network.shape_at(depth, dataset.size()),
        }
    }

    /// Writes a shard, from that of a shallower cut if there is one. Says `false` when it was told
    /// to stop.
    fn compute(
        &self,
        wanted: &Wanted,
        writer: &mut Writer<'_>,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<bool, Fault> {
        if let Some((depth, rows)) = self.shallower(wanted)? {
            for rows in rows.rows.split(BATCH as i64, 0) {
                if !go_on() {
                    return Ok(false);
                }
                let count = rows.size()[0];
                let padding = (0..2 * rows.dim() as i64).map(|side| {
                    let last = side + 1 == 2 * rows.dim() as i64;
                    if last {
                        padded(count as usize) as i64 - count
                    } else {
                        0
                    }
                });
                let full = rows.constant_pad_nd(padding.collect::<Vec<_>>());
                self.write(depth, &as_activations(&full), count, writer)?;
            }
            return Ok(true);
        }
        let Request {
            network, dataset, ..
        } = self.request;
        let rows = (wanted.rows.clone(), wanted.view);
        let threads = self.request.threads;
        for batch in Loader::in_order(Arc::clone(dataset), wanted.split, rows, BATCH, threads) {
            let mut batch = batch?;
            if !go_on() {
                return Ok(false);
            }
            let count = batch.labels.len();
            let full = padded(count);
            batch.pixels.resize(full * dataset.bytes_per_image(), 0);
            let x = network.input(&batch.pixels, full, dataset.size());
            self.write(0, &x, count as i64, writer)?;
        }
        Ok(true)
    }

    /// The deepest shard of a shallower cut that is there. The exact path runs over other numbers of
    /// images at a time from there on, so its bits could be others.
    fn shallower(&self, wanted: &Wanted) -> Result<Option<(usize, super::Shard)>, Fault> {
        if self.arithmetic == Arithmetic::Exact {
            return Ok(None);
        }
        for depth in (1..self.request.network.depth()).rev() {
            if let Some(shard) = self.store.find(&self.plan(wanted, depth))? {
                return Ok(Some((depth, shard)));
            }
        }
        Ok(None)
    }

    /// Writes the first `count` rows of what the blocks from `depth` give for a batch.
    fn write(
        &self,
        depth: usize,
        x: &Tensor,
        count: i64,
        writer: &mut Writer<'_>,
    ) -> Result<(), Fault> {
        let network = self.request.network;
        let features = match self.arithmetic {
            Arithmetic::Exact => network.at_cut(x),
            Arithmetic::Folded | Arithmetic::FoldedBf16 => self.prefix(depth)?.run(x)?,
        };
        writer.rows(
            &in_memory_order(&features.narrow(0, 0, count))
                .to_device(Device::Cpu)
                .contiguous(),
        )
    }

    /// The blocks from `depth` to the cut, prepared when they are first needed.
    fn prefix(&self, depth: usize) -> Result<Rc<Prefix>, Fault> {
        let mut kept = self.prefix.borrow_mut();
        if let Some((from, prefix)) = &*kept
            && *from == depth
        {
            return Ok(Rc::clone(prefix));
        }
        let Request {
            network, dataset, ..
        } = self.request;
        let blocks = depth..network.depth();
        let made = Prefix::new(network, blocks, dataset.size(), self.arithmetic)?;
        let made = Rc::new(made);
        *kept = Some((depth, Rc::clone(&made)));
        Ok(made)
    }
}
