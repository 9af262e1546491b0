//! Many workers in one process, for benchmarks of the control plane: they speak the real protocol
//! over HTTP, and run trials inside themselves that do nothing but report one observation.
//!
//! It prints one line of JSON. It keeps no spool: what is measured is the coordinator, not disks of
//! workers.

use clap::{Parser, Subcommand};
use pomona_api::PROTOCOL;
use pomona_api::client::Client;
use pomona_api::v1::experiments::SubmitExperiment;
use pomona_api::v1::workers::{
    DesiredLease, DesiredWork, Outcome, Poll, Register, Report, ReportBody, Running,
};
use pomona_domain::experiment::ExperimentState;
use pomona_domain::worker::{Slot, SlotKind};
use pomona_domain::{Code, Fault, Timestamp, WorkerId};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Simulated workers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address of the coordinator.
    #[arg(long)]
    server: String,
    /// How many workers.
    #[arg(long, default_value_t = 8)]
    workers: u32,
    /// Slots of each.
    #[arg(long, default_value_t = 4)]
    slots: u32,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Submits an experiment and runs its trials to the end, so many times.
    Trials {
        file: PathBuf,
        #[arg(default_value_t = 1)]
        times: u32,
    },
    /// Submits an experiment of one trial so many times, each on idle slots.
    Starts { file: PathBuf, times: u32 },
    /// Beats once a second; with an experiment's trials on all slots, which never end, where one is
    /// given.
    Beats { seconds: u64, file: Option<PathBuf> },
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let arguments = Arguments::parse();
    let client = Client::new(&arguments.server)?;
    let (started, starts) = mpsc::unbounded_channel();
    let wait_ms = match arguments.what {
        What::Beats { .. } => 1000,
        What::Trials { .. } | What::Starts { .. } => 5000,
    };
    let holds = matches!(arguments.what, What::Beats { .. });
    for number in 0..arguments.workers {
        let mut worker = Worker::register(&client, number, arguments.slots, wait_ms).await?;
        worker.holds = holds;
        let started = started.clone();
        tokio::spawn(async move {
            if let Err(fault) = worker.run(&started).await {
                let _ = writeln!(std::io::stderr(), "{fault}");
                std::process::exit(1);
            }
        });
    }
    let line = match arguments.what {
        What::Trials { file, times } => {
            let body = read(&file)?;
            for _ in 1..times {
                trials(&client, &body).await?;
            }
            trials(&client, &body).await?
        }
        What::Starts { file, times } => latencies(&client, &read(&file)?, times, starts).await?,
        What::Beats { seconds, file } => {
            if let Some(file) = file {
                client.experiment_submit(&read(&file)?, &key()).await?;
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            serde_json::json!({ "seconds": seconds })
        }
    };
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}

fn read(path: &std::path::Path) -> Result<SubmitExperiment, Fault> {
    let file = std::fs::read_to_string(path)
        .map_err(|error| Fault::new(Code::LocalFile, format!("`{}`: {error}", path.display())))?;
    Ok(SubmitExperiment {
        file,
        set: Vec::new(),
    })
}

/// From submission until every trial has ended.
async fn trials(client: &Client, body: &SubmitExperiment) -> Result<serde_json::Value, Fault> {
    let begun = Instant::now();
    let id = client.experiment_submit(body, &key()).await?.id.to_string();
    loop {
        let row = client.experiment_get(&id).await?;
        match row.state {
            ExperimentState::Completed => {
                let seconds = begun.elapsed().as_secs_f64();
                return Ok(serde_json::json!({ "trials": row.created_trials, "seconds": seconds }));
            }
            ExperimentState::Failed { .. } | ExperimentState::Canceled => {
                return Err(Fault::new(
                    Code::Internal,
                    format!("`{id}` did not complete"),
                ));
            }
            ExperimentState::Active
            | ExperimentState::Paused
            | ExperimentState::Promoting { .. } => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// From sending a submission until a worker has the trial, in milliseconds.
async fn latencies(
    client: &Client,
    body: &SubmitExperiment,
    times: u32,
    mut starts: mpsc::UnboundedReceiver<Instant>,
) -> Result<serde_json::Value, Fault> {
    let mut whole = Vec::new();
    let mut committed = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        let answered = async {
            let answer = client.experiment_submit(body, &key()).await;
            answer.map(|_| Instant::now())
        };
        let (answered, started) = tokio::join!(answered, starts.recv());
        let (answered, started) = (answered?, started.unwrap_or(begun));
        whole.push(started.duration_since(begun).as_secs_f64() * 1e3);
        committed.push(started.saturating_duration_since(answered).as_secs_f64() * 1e3);
        // The slots are idle again.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(serde_json::json!({ "submit_to_start_ms": whole, "answer_to_start_ms": committed }))
}

fn key() -> String {
    format!("fleet-{:032x}", rand::random::<u128>())
}

struct Worker {
    client: Arc<Client>,
    id: WorkerId,
    incarnation: u64,
    wait_ms: u64,
    seq: u64,
    reports: Vec<Report>,
    /// Leases whose exit is among the reports, or that are held.
    ended: Vec<Running>,
    /// Whether trials go on for ever.
    holds: bool,
}

impl Worker {
    async fn register(
        client: &Client,
        number: u32,
        slots: u32,
        wait_ms: u64,
    ) -> Result<Self, Fault> {
        let slot = |index| Slot {
            index,
            kind: SlotKind::Cpu,
            name: "simulated".to_owned(),
            memory_bytes: None,
        };
        let body = Register {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: WorkerId(rand::random()),
            name: format!("fleet-{number}"),
            incarnation: rand::random(),
            slots: (0..slots).map(slot).collect(),
            labels: BTreeMap::new(),
            metrics_address: None,
            feature_budget_bytes: None,
        };
        client.worker_register(&body).await?;
        Ok(Self {
            client: Arc::new(client.clone()),
            id: body.id,
            incarnation: body.incarnation,
            wait_ms,
            seq: 0,
            reports: Vec::new(),
            ended: Vec::new(),
            holds: false,
        })
    }

    async fn run(&mut self, started: &mpsc::UnboundedSender<Instant>) -> Result<(), Fault> {
        loop {
            let body = Poll {
                protocol: PROTOCOL,
                incarnation: self.incarnation,
                running: self.ended.clone(),
                reports: self.reports.clone(),
                logs: Vec::new(),
                features: Some(Vec::new()),
                wait_ms: self.wait_ms,
            };
            let answer = self.client.worker_poll(self.id, &body).await?;
            self.reports.retain(|report| report.seq > answer.acked_seq);
            let known = std::mem::take(&mut self.ended);
            for lease in answer.leases {
                let running = Running {
                    lease: lease.lease,
                    generation: lease.generation,
                };
                if !known.contains(&running) {
                    let _ = started.send(Instant::now());
                    self.train(&lease);
                }
                self.ended.push(running);
            }
        }
    }

    /// Runs a lease: all that is seen of it are its reports.
    fn train(&mut self, lease: &DesiredLease) {
        let DesiredWork::Train { members, .. } = &lease.work else {
            return;
        };
        self.report(
            lease,
            ReportBody::Started {
                environment: BTreeMap::new(),
            },
        );
        if self.holds {
            return;
        }
        for member in members {
            let metrics = [("val/accuracy", 0.5), ("val/loss", 1.0)];
            let metrics = metrics.map(|(name, value)| (name.to_owned(), value));
            self.report(
                lease,
                ReportBody::Observed {
                    trial: member.trial,
                    step: 1,
                    epoch: 1,
                    metrics: metrics.into(),
                    confusion: Vec::new(),
                },
            );
        }
        let outcome = Outcome::Finished;
        self.report(lease, ReportBody::Exited { outcome });
    }

    fn report(&mut self, lease: &DesiredLease, body: ReportBody) {
        self.seq += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = since.map_or(0, |since| since.as_millis());
        self.reports.push(Report {
            seq: self.seq,
            lease: lease.lease,
            generation: lease.generation,
            at: Timestamp(i64::try_from(at).unwrap_or(i64::MAX)),
            body,
        });
    }
}
