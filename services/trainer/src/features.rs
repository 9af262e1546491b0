//! Features: what the frozen blocks give, computed once for each image and view and shared by every
//! epoch of every trial on this machine.
//!
//! They are computed in batches of one size, so that their bits depend on nothing but what the key
//! names. Frozen blocks run in eval mode without dropout, whatever the trial; views are finite and
//! the same for every experiment, so that no random augmentation is ever frozen into a file. It must
//! never read the test split.

mod pace;
mod request;
mod rows;
mod store;

pub use pace::Pace;
pub use request::{BATCH, Request};
pub use store::{Found, Shard, Store, Writer};

use crate::data::Pick;
use pomona_domain::Digest;
use rows::Rows;
use tch::{Device, Tensor};

/// The features that a trial reads.
#[derive(Debug)]
pub struct Features {
    /// Training images in the first view, then in the next, and so on.
    train: Rows,
    /// Training images of one view.
    images: usize,
    /// Validation images.
    val: Rows,
    /// Digest of all of them.
    pub digest: Digest,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that this process computed; the rest was there, or others computed it meanwhile.
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

impl Features {
    /// The features of some training images, in this order: what stands at the cut in a forward
    /// pass over them.
    pub fn gather(&self, picks: &[Pick], device: Device) -> Tensor {
        let indices: Vec<usize> = picks
            .iter()
            .map(|pick| pick.index + pick.view.number() as usize * self.images)
            .collect();
        as_activations(&self.train.take(&indices)).to_device(device)
    }

    /// The features of the validation images `from..from + count`.
    pub fn validation(&self, from: usize, count: usize, device: Device) -> Tensor {
        // A copy: layers work in place, and these are everybody's rows.
        let indices: Vec<usize> = (from..from + count).collect();
        as_activations(&self.val.take(&indices)).to_device(device)
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
