//! Images a second of the frozen blocks on this machine: `prefix ARCH SIDE THREADS SECONDS [exact|bf16]`,
//! for `make bench-sharing`.
//!
//! All blocks are frozen, weights are drawn, pixels are in memory as floats; batches are those of
//! the features. Prints a line of JSON when it stands ready, waits for a line, and prints another
//! at the end, so that several processes can begin together.

use anyhow::Context;
use pomona_trainer::features::BATCH;
use pomona_trainer::network::{Arch, Arithmetic, HeadPlan, Network, Prefix};
use std::io::Write;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [arch, side, threads, seconds, how @ ..] = words.as_slice() else {
        anyhow::bail!("usage: prefix ARCH SIDE THREADS SECONDS [exact|bf16]");
    };
    let arithmetic = match how.first().map(String::as_str) {
        None => Arithmetic::Folded,
        Some("exact") => Arithmetic::Exact,
        Some("bf16") => Arithmetic::FoldedBf16,
        Some(other) => anyhow::bail!("there is no `{other}`"),
    };
    pomona_trainer::dist::ffi::keep_freed_memory();
    tch::set_num_threads(threads.parse().context("THREADS is a number")?);
    let side: u32 = side.parse().context("SIDE is a number of pixels")?;
    let seconds: f64 = seconds.parse().context("SECONDS is a number")?;
    let mut network = Network::new(
        Arch::parse(arch)?,
        &HeadPlan::linear(2),
        Kind::Float,
        Device::Cpu,
    );
    network.freeze(network.blocks().len());
    network.draw(1, 0, |_| true);
    let x = Tensor::randn(
        [BATCH as i64, i64::from(side), i64::from(side), 3],
        (Kind::Float, Device::Cpu),
    )
    .permute([0, 3, 1, 2]);
    let prefix = Prefix::new(&network, 0..network.depth(), side, arithmetic)?;
    let pass = || {
        match arithmetic {
            Arithmetic::Exact => Ok(network.at_cut(&x)),
            Arithmetic::Folded | Arithmetic::FoldedBf16 => prefix.run(&x),
        }
        .map(drop)
    };
    // Weights are packed by the first.
    pass()?;
    let mut out = std::io::stdout();
    writeln!(out, "{{\"ready\":true}}")?;
    std::io::stdin().read_line(&mut String::new())?;
    let begun = Instant::now();
    let mut images = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        pass()?;
        images += BATCH;
    }
    let line = serde_json::json!({
        "arithmetic": arithmetic.name(),
        "images": images,
        "seconds": begun.elapsed().as_secs_f64(),
        "images_per_second": images as f64 / begun.elapsed().as_secs_f64(),
    });
    writeln!(out, "{line}").context("stdout is closed")
}
