//! Seconds for a step of many heads side by side, by the code that trains them: `heads HEADS FEATURES
//! CLASSES BATCH THREADS STEPS`. `make bench-sharing` sets it against torch.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figure")]

use pomona_domain::spec::{Head, Optimizer};
use pomona_trainer::network::{Arch, HeadPlan};
use pomona_trainer::random::Key;
use pomona_trainer::train::fused::{CrossEntropy, Heads};
use pomona_trainer::{optim, work};
use std::time::Instant;
use tch::{Device, Tensor};

fn main() -> anyhow::Result<()> {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let [heads, features, classes, batch, threads, steps] = numbers.as_slice() else {
        anyhow::bail!("say HEADS FEATURES CLASSES BATCH THREADS STEPS");
    };
    let arch = *Arch::ALL
        .iter()
        .find(|arch| arch.features() == *features as i64)
        .ok_or_else(|| anyhow::anyhow!("no architecture has {features} features"))?;
    work::settle(*threads as u32);
    let plan = HeadPlan {
        head: Head::Linear,
        classes: *classes as u32,
    };
    let rule = Optimizer::Adamw {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
    };
    let mut lanes: Vec<_> = (0..*heads)
        .map(|head| {
            let entries = plan.alone(arch, Device::Cpu, head as u64, 0);
            let named = entries.iter();
            let named = named.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()));
            let optimizer = optim::Optimizer::new(&rule, named.collect());
            (entries, optimizer)
        })
        .collect();
    let mut pairs: Vec<_> = lanes.iter_mut().map(|(head, rule)| (head, rule)).collect();
    let joined = Heads::join(&mut pairs).map_err(|fault| anyhow::anyhow!("{fault}"))?;
    let loss = CrossEntropy::new(vec![1.0; *classes], 0.0);
    let noise = Key {
        seed: 1,
        replicate: 0,
        purpose: "noise",
        epoch: 0,
    };
    let values: Vec<f32> = (0..batch * features)
        .map(|at| noise.normal(at as u64) as f32)
        .collect();
    let x = Tensor::from_slice(&values).reshape([*batch as i64, *features as i64]);
    let labels: Vec<u32> = (0..*batch as u32).map(|at| at % *classes as u32).collect();
    let _no_grad = tch::no_grad_guard();
    let mut step = || -> anyhow::Result<()> {
        let forward = joined.forward(&x, None);
        let mut losses = Vec::new();
        let slopes = forward.slopes(&labels, lanes.len(), |_| &loss, &mut losses);
        joined.backward(&forward, slopes);
        for (_, optimizer) in &mut lanes {
            optimizer
                .step(0.001)
                .map_err(|fault| anyhow::anyhow!("{fault}"))?;
        }
        Ok(())
    };
    for _ in 0..10 {
        step()?;
    }
    let begun = Instant::now();
    for _ in 0..*steps {
        step()?;
    }
    let seconds = begun.elapsed().as_secs_f64() / *steps as f64;
    println!("{}", serde_json::json!({ "seconds": seconds }));
    Ok(())
}
