//! The real coordinator on a free port of loopback, asked through the typed client and as anybody
//! would ask it; a machine of a few lines stands in for a worker.

mod audit;
mod blobs;
mod bodies;
mod description;
mod events;
mod features;
mod gates;
mod harness;
mod life;
mod metrics;
mod mlflow;
mod oci;
mod receiver;
mod registry;
mod requests;
mod restart;
mod search;
mod slots;
mod trials;
mod uploads;
mod webhooks;
mod worker;

use harness::House;
use pomona_api::v1::experiments::SubmitExperiment;
use pomona_domain::experiment::Experiment;
use worker::Machine;

/// Three trials, two at once.
const GRID: &str = "
name: flowers
backbone: lite
dataset: flowers
train: {epochs: 2, batch_size: 4, learning_rate: 0.001}
search:
  metric: val/accuracy
  max_concurrent: 2
  space:
    train.learning_rate: {values: [0.1, 0.01, 0.001]}
max_restarts: 1
share: off
";

/// One trial, published when its accuracy on test is at least a half.
const PROMOTED: &str = "
name: flowers
backbone: lite
dataset: flowers
train: {epochs: 2, batch_size: 4, learning_rate: 0.001}
search: {metric: val/accuracy}
promote: {model: flowers, alias: champion, gates: [{metric: test/accuracy, at_least: 0.5}]}
";

/// A house with a data set, a backbone and a machine of so many slots.
async fn furnished(slots: u32) -> (House, Machine) {
    let house = House::open().await;
    let mut machine = Machine::join(&house.client, 1, slots).await;
    machine.furnish().await;
    (house, machine)
}

fn file(text: &str) -> SubmitExperiment {
    SubmitExperiment {
        file: text.to_owned(),
        set: Vec::new(),
    }
}

async fn submit(house: &House, text: &str, key: &str) -> Experiment {
    let submitted = house.client.experiment_submit(&file(text), key).await;
    submitted.expect("an experiment").experiment
}

async fn experiment(house: &House, row: &Experiment) -> Experiment {
    let id = row.id.to_string();
    house
        .client
        .experiment_get(&id)
        .await
        .expect("an experiment")
        .experiment
}
