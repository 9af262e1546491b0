//! Features: what the frozen blocks give, computed once for each image and view and shared by every
//! epoch of every trial on this machine.
//!
//! They are computed in batches of one size, so that their bits depend on nothing but what the key
//! names. Frozen blocks run in eval mode without dropout, whatever the trial; views are finite (an
//! image as it is, and mirrored), so that no random augmentation is ever frozen into a file. It must
//! never read the test split.

mod store;

pub use store::{Found, Shard, Store, Writer};

use crate::data::{Dataset, Loader, Pick};
use crate::network::Network;
use pomona_api::shard::{Key, Plan};
use pomona_domain::dataset::Split;
use pomona_domain::{Digest, Fault};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Images of one pass; the last is padded.
pub const BATCH: usize = 32;
/// Grows when the same key would give other bits.
const PREFIX_VERSION: u32 = 1;

/// The features that a trial reads.
#[derive(Debug)]
pub struct Features {
    /// Training images by view: as they are, and mirrored where the trial asks for it.
    train: Vec<Shard>,
    /// Validation images.
    val: Shard,
    /// Digest of all of them.
    pub digest: Digest,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that this process computed; the rest was there.
    pub computed: u64,
}

/// What came of asking for features.
#[derive(Debug)]
pub enum Outcome {
    /// Here they are.
    Ready(Features),
    /// They do not fit into the store: their bytes.
    NoRoom(u64),
    /// A stop was asked for meanwhile.
    Stopped,
}

/// A trial's wish for features.
pub struct Request<'a> {
    /// The frozen blocks, on their device.
    pub network: &'a Network,
    /// The images.
    pub dataset: &'a Arc<Dataset>,
    /// Whether the trial sees mirrored images too.
    pub mirrored: bool,
    /// What the machine is.
    pub environment: &'a BTreeMap<String, String>,
    /// Threads that decode.
    pub threads: usize,
}

impl Request<'_> {
    /// Finds or computes all shards. `go_on` is asked after every batch, and while it waits.
    pub fn get(&self, store: &Store, go_on: impl FnMut() -> bool) -> Result<Outcome, Fault> {
        let weights = self.network.digest(|entry| !self.network.is_live(entry));
        let views: &[bool] = if self.mirrored {
            &[false, true]
        } else {
            &[false]
        };
        let mut wanted: Vec<(Split, bool)> = Vec::new();
        wanted.extend(views.iter().map(|&mirrored| (Split::Train, mirrored)));
        wanted.push((Split::Val, false));
        let plans: Vec<Plan> = wanted
            .iter()
            .map(|&(split, mirrored)| self.plan(weights, split, mirrored))
            .collect();
        let bytes = plans.iter().map(Plan::bytes).sum();
        let mut computed = 0;
        let mut shards = Vec::new();
        let go_on = RefCell::new(go_on);
        let ask = || (go_on.borrow_mut())();
        for (plan, (split, mirrored)) in plans.iter().zip(wanted) {
            let found = store.get(plan, ask, |writer| {
                self.compute(split, mirrored, writer, ask)
            })?;
            match found {
                Found::Hit(shard) => shards.push(shard),
                Found::Built(shard) => {
                    computed += plan.bytes();
                    shards.push(shard);
                }
                Found::NoRoom => return Ok(Outcome::NoRoom(bytes)),
                Found::Stopped => return Ok(Outcome::Stopped),
            }
        }
        let digests: Vec<String> = shards
            .iter()
            .map(|shard| shard.digest.to_string())
            .collect();
        let Some(val) = shards.pop() else {
            return Err(crate::fault::internal("there is no shard"));
        };
        Ok(Outcome::Ready(Features {
            train: shards,
            val,
            digest: Digest::of(digests.join("\n").as_bytes()),
            bytes,
            computed,
        }))
    }

    fn plan(&self, weights: Digest, split: Split, mirrored: bool) -> Plan {
        let network = self.network;
        let blocks = network.blocks();
        let preprocess = network.arch().preprocess();
        let last = blocks[..network.depth()].last();
        let key = Key {
            prefix_version: PREFIX_VERSION,
            arch: network.arch().name().to_owned(),
            cut: network.depth() as u32,
            block: last.map_or_else(String::new, |block| block.name.clone()),
            weights,
            mean: preprocess.mean,
            scale: preprocess.scale,
            dataset: self.dataset.digest(),
            split,
            mirrored,
            batch: BATCH as u32,
            environment: self.environment.clone(),
        };
        Plan {
            key,
            rows: self.dataset.len(split) as u64,
            shape: network.cut_shape(self.dataset.size()),
        }
    }

    /// Writes the features of a split. Says `false` when it was told to stop.
    fn compute(
        &self,
        split: Split,
        mirrored: bool,
        writer: &mut store::Writer<'_>,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<bool, Fault> {
        let network = self.network;
        let picks: Vec<Pick> = (0..self.dataset.len(split))
            .map(|index| Pick {
                index,
                flip: mirrored,
            })
            .collect();
        let sizes = picks.chunks(BATCH).map(<[Pick]>::len).collect();
        let dataset = Arc::clone(self.dataset);
        for batch in Loader::new(dataset, split, picks, sizes, self.threads) {
            let mut batch = batch?;
            if !go_on() {
                return Ok(false);
            }
            let count = batch.labels.len();
            let full = BATCH * self.dataset.bytes_per_image();
            batch.pixels.resize(full, 0);
            let x = network.arch().preprocess().apply(
                &batch.pixels,
                BATCH,
                self.dataset.size(),
                network.kind(),
                network.device(),
            );
            let features = network.at_cut(&x).narrow(0, 0, count as i64);
            writer.rows(
                &in_memory_order(&features)
                    .to_device(Device::Cpu)
                    .contiguous(),
            )?;
        }
        Ok(true)
    }
}

impl Features {
    /// The features of some training images, in this order: what stands at the cut in a forward
    /// pass over them.
    pub fn gather(&self, picks: &[Pick], device: Device) -> Tensor {
        let rows = |shard: &Shard, picks: &mut dyn Iterator<Item = i64>| {
            let indices: Vec<i64> = picks.collect();
            shard.rows.index_select(0, &Tensor::from_slice(&indices))
        };
        let [plain, mirrored] = self.train.as_slice() else {
            let mut all = picks.iter().map(|pick| pick.index as i64);
            let rows = rows(&self.train[0], &mut all);
            return as_activations(&rows).to_device(device);
        };
        let of = |flip: bool| picks.iter().filter(move |pick| pick.flip == flip);
        let parts = [
            rows(plain, &mut of(false).map(|pick| pick.index as i64)),
            rows(mirrored, &mut of(true).map(|pick| pick.index as i64)),
        ];
        // Where each pick lies among the plain ones, followed by the mirrored ones.
        let (mut next_plain, mut next_mirrored) = (0, of(false).count() as i64);
        let places: Vec<i64> = picks
            .iter()
            .map(|pick| {
                let next = if pick.flip {
                    &mut next_mirrored
                } else {
                    &mut next_plain
                };
                *next += 1;
                *next - 1
            })
            .collect();
        let rows = Tensor::cat(&parts, 0).index_select(0, &Tensor::from_slice(&places));
        as_activations(&rows).to_device(device)
    }

    /// The features of the validation images `from..from + count`.
    pub fn validation(&self, from: usize, count: usize, device: Device) -> Tensor {
        // A copy: layers work in place, and these are everybody's rows.
        let rows = self.val.rows.narrow(0, from as i64, count as i64).copy();
        as_activations(&rows).to_device(device)
    }
}

/// [N, C, H, W] → [N, H, W, C]; pooled features as they are.
fn in_memory_order(features: &Tensor) -> Tensor {
    match features.dim() {
        4 => features.permute([0, 2, 3, 1]),
        _ => features.shallow_clone(),
    }
}

/// The way back.
fn as_activations(rows: &Tensor) -> Tensor {
    match rows.dim() {
        4 => rows.permute([0, 3, 1, 2]),
        _ => rows.shallow_clone(),
    }
}
