//! Images a second of frozen blocks on this machine: `prefix ARCH[/BLOCK] SIDE THREADS SECONDS
//! [exact|bf16]`, all of them or through the one that is named, for `make bench-sharing`.
//!
//! Prints a line of JSON when it stands ready, waits for a line, and prints another at the end, so
//! that several processes can begin together.

use anyhow::Context;
use pomona_domain::spec::FrozenDepth;
use pomona_trainer::measure::{Measure, until_told};
use pomona_trainer::network::{Arch, Arithmetic, HeadPlan, Network};
use std::io::Write;
use tch::{Device, Kind};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [arch, side, threads, seconds, how @ ..] = words.as_slice() else {
        anyhow::bail!("usage: prefix ARCH[/BLOCK] SIDE THREADS SECONDS [exact|bf16]");
    };
    let arithmetic = match how.first().map(String::as_str) {
        None => Arithmetic::Folded,
        Some("exact") => Arithmetic::Exact,
        Some("bf16") => Arithmetic::FoldedBf16,
        Some(other) => anyhow::bail!("there is no `{other}`"),
    };
    let (arch, block) = arch.split_once('/').unwrap_or((arch, "all"));
    let arch = Arch::parse(arch)?;
    let measure = Measure {
        arch,
        blocks: Network::new(arch, &HeadPlan::linear(1), Kind::Float, Device::Cpu)
            .resolve(&FrozenDepth::Named(block.to_owned()))?,
        side: side.parse().context("SIDE is a number of pixels")?,
        threads: threads.parse().context("THREADS is a number")?,
        arithmetic: Some(arithmetic),
    };
    let seconds = seconds.parse().context("SECONDS is a number")?;
    let speed = measure.run(seconds, until_told)?;
    writeln!(std::io::stdout(), "{}", speed.line()).context("stdout is closed")
}
