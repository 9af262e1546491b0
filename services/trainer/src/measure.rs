//! How fast this machine runs frozen blocks, with so many threads: what a worker measures before it
//! decides how many trainers to run side by side, and what benchmarks compare.
//!
//! Weights are drawn, pixels are in memory as floats, batches are those of the features.

use crate::dist::ffi;
use crate::fault;
use crate::features::BATCH;
use crate::network::{Arch, Arithmetic, HeadPlan, Network, Prefix};
use pomona_domain::Fault;
use pomona_domain::spec::Precision;
use std::io::Write;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Of this network…
    pub arch: Arch,
    /// …the first blocks; all of them when there are fewer.
    pub blocks: usize,
    /// Side of an image.
    pub side: u32,
    /// Threads.
    pub threads: u32,
    /// How; as a trial would when nothing is said.
    pub arithmetic: Option<Arithmetic>,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// How it was computed.
    pub arithmetic: Arithmetic,
    /// Images that were run.
    pub images: usize,
    /// The time they took.
    pub seconds: f64,
}

impl Measure {
    /// What stands for any backbone: the first half of ResNet-18, whose convolutions are like most.
    pub fn of_machine(threads: u32) -> Self {
        Self {
            arch: Arch::Resnet18,
            blocks: 5,
            side: 224,
            threads,
            arithmetic: None,
        }
    }

    /// Prepares, says so by calling `ready`, and when that returns runs for at least so many
    /// seconds.
    pub fn run(
        &self,
        seconds: f64,
        ready: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<Speed, Fault> {
        ffi::keep_freed_memory();
        tch::set_num_threads(self.threads as i32);
        let head = HeadPlan::linear(2);
        let mut network = Network::new(self.arch, &head, Kind::Float, Device::Cpu);
        network.freeze(self.blocks.min(network.blocks().len()));
        let depth = network.depth();
        network.draw(1, 0, |entry| entry.block.is_some_and(|block| block < depth));
        let side = i64::from(self.side);
        let shape = [BATCH as i64, side, side, 3];
        let x = Tensor::randn(shape, (Kind::Float, Device::Cpu)).permute([0, 3, 1, 2]);
        let usual = Arithmetic::of(Precision::Auto, &network);
        let arithmetic = self.arithmetic.unwrap_or(usual);
        let prefix = Prefix::new(&network, 0..depth, self.side, arithmetic)?;
        let pass = || {
            match arithmetic {
                Arithmetic::Exact => Ok(network.at_cut(&x)),
                Arithmetic::Folded | Arithmetic::FoldedBf16 => prefix.run(&x),
            }
            .map(drop)
        };
        // Weights are packed by the first.
        pass()?;
        ready().map_err(|error| fault::internal(format!("nobody waits: {error}")))?;
        let begun = Instant::now();
        let mut images = 0;
        while images == 0 || begun.elapsed().as_secs_f64() < seconds {
            pass()?;
            images += BATCH;
        }
        Ok(Speed {
            arithmetic,
            images,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

/// Says that all is ready and waits for a line. At the end of stdin nobody waits any more.
pub fn until_told() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{{\"ready\":true}}")?;
    out.flush()?;
    match std::io::stdin().read_line(&mut String::new())? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

impl Speed {
    /// The answer as a line of JSON.
    pub fn line(&self) -> String {
        let answer = serde_json::json!({
            "arithmetic": self.arithmetic.name(),
            "images": self.images,
            "seconds": self.seconds,
            "images_per_second": self.images as f64 / self.seconds,
        });
        answer.to_string()
    }
}
