//! Networks: blocks from the input under their published names, a pooling, and a head.
//!
//! A *block* is the smallest unit with a published name and the unit of freezing. Frozen blocks
//! run without gradient and in eval mode, whatever the pass says (T5).

pub mod arch;
mod builder;
mod head;
pub mod import;
mod inception;
pub mod layer;
mod lite0;
mod load;
mod prefix;
mod resnet;
mod vgg;

pub use arch::{Arch, Preprocess};
pub use builder::{Entry, Init, Role};
pub use head::HeadPlan;
pub use layer::{Masks, Pass};
pub use load::{copy as copy_tensor, host_tensor};
pub use prefix::{Arithmetic, Prefix};

use builder::Builder;
use layer::Layer;
use pomona_domain::backbone::{self, frozen_blocks, nearest_block};
use pomona_domain::spec::FrozenDepth;
use pomona_domain::{Code, Digest, Fault};
use tch::{Device, Kind, Tensor};

/// A block: its published name and its layers.
pub struct Block {
    /// Its name (`_blocks.14`).
    pub name: String,
    /// What it does.
    pub layer: Layer,
}

/// What an architecture's `build` gives.
#[derive(Default)]
pub(crate) struct Parts {
    blocks: Vec<Block>,
    /// From the last block to the features.
    pool: Vec<Layer>,
}

impl Parts {
    fn block(
        &mut self,
        b: &mut Builder,
        name: &str,
        make: impl FnOnce(&mut Builder) -> Vec<Layer>,
    ) {
        b.block = Some(self.blocks.len());
        let layer = Layer::Seq(make(b));
        self.blocks.push(Block {
            name: name.to_owned(),
            layer,
        });
        b.block = None;
    }
}

/// The module being trained.
pub struct Network {
    arch: Arch,
    blocks: Vec<Block>,
    pool: Layer,
    head: Layer,
    entries: Vec<Entry>,
    depth: usize,
    kind: Kind,
    device: Device,
}

impl Network {
    /// A network whose tensors hold zeros and ones until something is loaded or drawn.
    pub fn new(arch: Arch, head: &HeadPlan, kind: Kind, device: Device) -> Self {
        let mut builder = arch.builder(kind, device);
        let parts = arch.build(&mut builder);
        let head = head.build(&mut builder, arch.head_name(), arch.features());
        let mut network = Self {
            arch,
            blocks: parts.blocks,
            pool: Layer::Seq(parts.pool),
            head,
            entries: builder.entries,
            depth: 0,
            kind,
            device,
        };
        network.freeze(0);
        network
    }

    /// Its architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Its blocks from the input.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Its layers from the input to the logits.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        let blocks = self.blocks.iter().map(|block| &block.layer);
        blocks.chain([&self.pool, &self.head])
    }

    /// Its tensors in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Width of the pooled features.
    pub fn features(&self) -> i64 {
        self.arch.features()
    }

    /// Where its tensors are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What its tensors hold.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Blocks that are frozen.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Freezes the first `depth` blocks and lets everything else learn.
    pub fn freeze(&mut self, depth: usize) {
        self.depth = depth.min(self.blocks.len());
        for entry in &self.entries {
            let learns = entry.role == Role::Parameter && self.is_live(entry);
            let _same = entry.tensor.set_requires_grad(learns);
        }
    }

    /// Whether the tensor may change in training: parameters and statistics above the cut.
    pub fn is_live(&self, entry: &Entry) -> bool {
        entry.block.is_none_or(|block| block >= self.depth)
    }

    /// What may change in training, in order.
    pub fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| self.is_live(entry))
    }

    /// Parameters that learn, in order, with shared storage.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.live()
            .filter(|entry| entry.role == Role::Parameter)
            .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
            .collect()
    }

    /// Resolves a frozen depth to a number of blocks.
    pub fn resolve(&self, depth: &FrozenDepth) -> Result<usize, Fault> {
        let names: Vec<&str> = self
            .blocks
            .iter()
            .map(|block| block.name.as_str())
            .collect();
        resolve(self.arch, &names, depth)
    }

    /// RGB bytes of `count` square images of this side → what the network takes in: [N, C, H, W].
    pub fn input(&self, pixels: &[u8], count: usize, side: u32) -> Tensor {
        let preprocess = self.arch.preprocess();
        preprocess.apply(pixels, count, side, self.kind, self.device)
    }

    /// [N, C, H, W] → [N, classes].
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        self.head.forward(self.features_of(x, pass), pass)
    }

    /// [N, C, H, W] → class probabilities at serving, [N, classes] in f32.
    pub fn probabilities(&self, x: &Tensor) -> Tensor {
        tch::no_grad(|| self.forward(x, Pass::Eval).softmax(-1, Kind::Float))
    }

    /// [N, C, H, W] → [N, features].
    pub fn features_of(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        match pass {
            Pass::Eval => self.still(x, 0, self.blocks.len()),
            Pass::Train(_) => self.pooled_above(&self.at_cut(x), pass),
        }
    }

    /// [N, C, H, W] → what the frozen blocks give: [N, C', H', W'], or [N, features] when all are
    /// frozen.
    pub fn at_cut(&self, x: &Tensor) -> Tensor {
        self.still(x, 0, self.depth)
    }

    /// What the frozen blocks gave → [N, classes].
    pub fn above_cut(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        self.head.forward(self.pooled_above(x, pass), pass)
    }

    /// Shape of what `depth` blocks give for one image, as it lies in memory: [H, W, C], or the width
    /// of the pooled features.
    pub fn shape_at(&self, depth: usize, side: u32) -> Vec<i64> {
        if depth == self.blocks.len() {
            return vec![self.features()];
        }
        let side = i64::from(side);
        let frozen = self.blocks[..depth].iter();
        let shape = frozen.fold(vec![3, side, side], |shape, block| {
            block.layer.measure(&shape).shape
        });
        match shape.as_slice() {
            [channels, height, width] => vec![*height, *width, *channels],
            _ => shape,
        }
    }

    fn pooled_above(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        if self.depth == self.blocks.len() {
            return x.shallow_clone();
        }
        match pass {
            Pass::Eval => self.still(x, self.depth, self.blocks.len()),
            Pass::Train(_) => {
                let live = self.blocks[self.depth..].iter();
                let x = live.fold(x.shallow_clone(), |x, block| block.layer.forward(x, pass));
                self.pool.forward(x, pass)
            }
        }
    }

    /// Blocks `from..to` as they are, pooled after the last.
    ///
    /// What runs without gradient runs over a few images at a time, so that activations stay in the
    /// processor's caches: an image's features do not depend on its neighbours there.
    fn still(&self, x: &Tensor, from: usize, to: usize) -> Tensor {
        if from == to {
            return x.shallow_clone();
        }
        tch::no_grad(|| {
            let parts = x.split(images_at_once(x), 0).into_iter().map(|part| {
                let blocks = self.blocks[from..to].iter();
                let x = blocks.fold(part, |x, block| block.layer.forward(x, Pass::Eval));
                if to == self.blocks.len() {
                    self.pool.forward(x, Pass::Eval)
                } else {
                    x
                }
            });
            Tensor::cat(&parts.collect::<Vec<_>>(), 0)
        })
    }

    /// Features as at serving; `see` gets each block's index and output.
    pub fn forward_with(&self, x: &Tensor, mut see: impl FnMut(usize, &Tensor)) -> Tensor {
        let mut x = x.shallow_clone();
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.layer.forward(x, Pass::Eval);
            see(index, &x);
        }
        self.pool.forward(x, Pass::Eval)
    }

    /// Draws tensors by their names: the head of a new task, or a whole network in tests.
    pub fn draw(&self, seed: u64, replicate: u32, what: impl Fn(&Entry) -> bool) {
        builder::draw(
            self.entries.iter().filter(|entry| what(entry)),
            seed,
            replicate,
        );
    }

    /// Draws the head.
    pub fn draw_head(&self, seed: u64, replicate: u32) {
        self.draw(seed, replicate, |entry| entry.block.is_none());
    }

    /// Blocks for the catalogue, measured at the architecture's own image size.
    pub fn catalogue(&self) -> Vec<backbone::Block> {
        let side = i64::from(self.arch.image_size());
        let mut shape = vec![3, side, side];
        let mut blocks = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let measure = block.layer.measure(&shape);
            let elements: i64 = measure.shape.iter().product();
            blocks.push(backbone::Block {
                name: block.name.clone(),
                parameters: self.count(Some(index)),
                macs: measure.macs,
                cut_bytes: 2 * elements as u64,
                output_shape: measure.shape.iter().map(|&side| side as u64).collect(),
            });
            shape = measure.shape;
        }
        blocks
    }

    /// Parameters of a block, or of the head.
    pub fn count(&self, block: Option<usize>) -> u64 {
        self.entries
            .iter()
            .filter(|entry| entry.block == block && entry.role == Role::Parameter)
            .map(|entry| entry.tensor.numel() as u64)
            .sum()
    }

    /// Digest of names, shapes, trainable set and bytes of the tensors that `what` picks.
    pub fn digest(&self, what: impl Fn(&Entry) -> bool) -> Digest {
        let picked = self.entries.iter().filter(|entry| what(entry));
        Digest::of(picked.map(line).collect::<String>().as_bytes())
    }

    /// For each number of frozen blocks up to the depth, the digest of the tensors in them.
    pub fn frozen_digests(&self) -> Vec<Digest> {
        let mut lines = vec![String::new(); self.depth];
        for entry in &self.entries {
            if let Some(lines) = entry.block.and_then(|block| lines.get_mut(block)) {
                lines.push_str(&line(entry));
            }
        }
        (0..=self.depth)
            .map(|depth| Digest::of(lines[..depth].concat().as_bytes()))
            .collect()
    }
}

/// Name, shape, whether it learns, and the digest of the bytes.
fn line(entry: &Entry) -> String {
    format!(
        "{} {:?} {} {}\n",
        entry.name,
        entry.tensor.size(),
        entry.tensor.requires_grad(),
        load::digest(&entry.tensor)
    )
}

/// How many images run together without gradient. A GPU takes them all.
fn images_at_once(x: &Tensor) -> i64 {
    const PIXELS: i64 = 1 << 18;
    let size = x.size();
    if x.device().is_cuda() {
        return size[0];
    }
    match size.as_slice() {
        [_, _, height, width] => (PIXELS / (height * width)).max(1),
        _ => size[0],
    }
}

/// Resolves a frozen depth against block names from the input.
pub fn resolve(arch: Arch, names: &[&str], depth: &FrozenDepth) -> Result<usize, Fault> {
    if let Some(frozen) = frozen_blocks(names.iter().copied(), depth) {
        return Ok(frozen);
    }
    match depth {
        FrozenDepth::Blocks(count) => Err(Fault::new(
            Code::UnknownBlock,
            format!(
                "`frozen_depth` is {count}, but `{}` has {} blocks",
                arch.name(),
                names.len()
            ),
        )
        .hint(format!("use a number up to {}, or `all`", names.len()))),
        FrozenDepth::Named(name) => Err(unknown_block(arch, names, name)),
    }
}

fn unknown_block(arch: Arch, names: &[&str], name: &str) -> Fault {
    let fault = Fault::new(
        Code::UnknownBlock,
        format!("`{}` has no block or stage `{name}`", arch.name()),
    );
    match nearest_block(names.iter().copied(), name) {
        Some(block) => fault.hint(format!("did you mean `{block}`?")),
        None => fault.hint(format!("its blocks are {}", names.join(", "))),
    }
}
