//! The agent against the real coordinator: what the whole house's tests do not look at.
//!
//! The coordinator's program stands beside the worker's; `make test` builds both.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use pomona_api::client::Client;
use pomona_api::v1::PageQuery;
use pomona_api::v1::catalogue::{AddBackbone, AddDataset};
use pomona_api::v1::experiments::{SubmitExperiment, TrialsQuery};
use pomona_domain::dataset::ImportOptions;
use pomona_domain::metric::Observation;
use pomona_domain::task::{Task, TaskState};
use pomona_domain::trial::{Trial, TrialState};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_mins(2);
const EPOCHS: u32 = 10;
const FILE: &str = "
name: one
backbone: lite
dataset: flowers
train: {epochs: 10, batch_size: 8, optimizer: {kind: adamw}, learning_rate: 0.01}
search: {strategy: grid, metric: val/accuracy, direction: maximize}
";

async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coordinator, a worker's folder, and a client.
struct House {
    folder: tempfile::TempDir,
    port: u16,
    client: Client,
    coordinator: Option<Process>,
}

impl House {
    fn open() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut house = Self {
            folder: tempfile::tempdir().unwrap(),
            port,
            client: Client::new(&format!("http://127.0.0.1:{port}")).unwrap(),
            coordinator: None,
        };
        house.start_coordinator();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_coordinator(&mut self) {
        let program =
            Path::new(env!("CARGO_BIN_EXE_pomona-worker")).with_file_name("pomona-coordinator");
        assert!(
            program.exists(),
            "the coordinator is not built; `make test` builds it"
        );
        let mut child = Command::new(program)
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{}", self.port),
                "--data-dir",
            ])
            .arg(self.path("coordinator"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("listening"), "the coordinator does not start");
        self.coordinator = Some(Process(child));
    }

    fn kill_coordinator(&mut self) {
        self.coordinator = None;
    }

    fn worker(&self) -> Process {
        self.worker_in("worker", &[("FAKE_STEP_MS", "10")])
    }

    /// A worker of this name whose trainers get variables.
    fn worker_in(&self, name: &str, variables: &[(&str, &str)]) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_pomona-worker"))
            .args(["run", "--server", self.client.server(), "--name", name])
            .args(["--slots", "1", "--listen", "127.0.0.1:0"])
            .args(["--trainer", env!("CARGO_BIN_EXE_fake-trainer")])
            .arg("--data-dir")
            .arg(self.path(name))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }

    async fn task_done(&self, task: Task) {
        let id = task.id.to_string();
        let ended = until("the task has ended", async || {
            self.client.task_get(&id).await.ok().filter(Task::is_ended)
        });
        let state = ended.await.state;
        assert!(matches!(state, TaskState::Completed { .. }), "{state:?}");
    }

    /// A data set, a backbone, and an experiment of one trial.
    async fn furnish(&self) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        for number in 0..40 {
            let content = number.to_string();
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let path = format!("class{}/{number}.png", number % 2);
            tar.append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        let archive = self
            .client
            .blob_put_bytes(tar.into_inner().unwrap())
            .await
            .unwrap();
        let weights = self.client.blob_put_bytes("weights").await.unwrap();
        let dataset = AddDataset {
            name: "flowers".into(),
            archive,
            options: ImportOptions::default(),
        };
        self.task_done(self.client.dataset_add(&dataset, "d").await.unwrap())
            .await;
        let backbone = AddBackbone {
            name: "lite".into(),
            arch: "efficientnet-lite0".into(),
            weights,
        };
        self.task_done(self.client.backbone_add(&backbone, "b").await.unwrap())
            .await;
        self.submit("e").await
    }

    /// The experiment of one trial, under a key.
    async fn submit(&self, key: &str) -> String {
        let submit = SubmitExperiment {
            file: FILE.into(),
            set: Vec::new(),
        };
        let submitted = self.client.experiment_submit(&submit, key).await;
        submitted.unwrap().experiment.id.to_string()
    }

    /// The trial of an experiment, when it has ended well.
    async fn completed(&self, experiment: &str) -> Trial {
        let trial = until("the trial has ended", async || {
            self.trial(experiment).await.filter(Trial::is_ended)
        });
        let trial = trial.await;
        assert_eq!(trial.state, TrialState::Completed);
        trial
    }

    /// Whole shards of features in a worker's folder, and their bytes.
    fn shards(&self, worker: &str) -> BTreeMap<String, Vec<u8>> {
        let files = std::fs::read_dir(self.path(worker).join("features"));
        let files = files.into_iter().flatten().flatten();
        let whole = files.filter(|file| file.path().extension().is_some_and(|e| e == "features"));
        let read = |file: std::fs::DirEntry| {
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap_or_default())
        };
        whole.map(read).collect()
    }

    /// What a trial's log says.
    async fn said(&self, trial: &Trial) -> String {
        let logs = self.client.trial_logs(&trial.id.to_string(), 0, None).await;
        let lines = logs.unwrap().items.into_iter().map(|entry| entry.line);
        lines.collect::<Vec<_>>().join("\n")
    }

    async fn trial(&self, experiment: &str) -> Option<Trial> {
        let page = self
            .client
            .trial_list(experiment, &TrialsQuery::default())
            .await
            .ok()?;
        page.items.into_iter().next()
    }

    async fn observations(&self, trial: &Trial) -> Vec<Observation> {
        let page = PageQuery::default();
        let found = self
            .client
            .trial_observations(&trial.id.to_string(), &page)
            .await;
        found.unwrap().items
    }

    /// Observations in the worker's journal that no acknowledgement has removed.
    fn journalled(&self) -> usize {
        let text = std::fs::read_to_string(self.path("worker/spool.jsonl")).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("\"report\":\"observed\""))
            .count()
    }
}

#[tokio::test]
async fn what_a_killed_worker_had_written_down_counts_when_it_comes_back() {
    let mut house = House::open();
    let worker = house.worker();
    let experiment = house.furnish().await;
    until("two epochs are counted", async || {
        house
            .trial(&experiment)
            .await
            .filter(|trial| trial.last_epoch >= 2)
    })
    .await;
    house.kill_coordinator();
    let before = house.journalled();
    // Training goes on, and is written down.
    until("three more epochs are written down", async || {
        (house.journalled() >= before + 3).then_some(())
    })
    .await;
    drop(worker);
    let written = house.journalled();
    house.start_coordinator();
    let _again = house.worker();
    let trial = until("the trial has ended", async || {
        house.trial(&experiment).await.filter(Trial::is_ended)
    })
    .await;
    assert_eq!(trial.state, TrialState::Completed);
    assert_eq!((trial.restarts, trial.leases), (0, 2));
    let seen = house.observations(&trial).await;
    let epochs: Vec<u32> = seen.iter().map(|seen| seen.epoch).collect();
    assert_eq!(epochs, (1..=EPOCHS).collect::<Vec<_>>());
    let first = seen[0].generation;
    let by_the_first = seen.iter().filter(|seen| seen.generation == first).count();
    assert_eq!(
        by_the_first, written,
        "nothing that was on disk was trained again"
    );
}

#[tokio::test]
async fn a_coordinator_that_forgot_everything_gets_to_know_the_worker_again() {
    let mut house = House::open();
    let _worker = house.worker();
    let known = async |house: &House| {
        let page = house.client.worker_list(&PageQuery::default()).await.ok()?;
        page.items.into_iter().next().map(|row| row.worker)
    };
    let first = until("the worker is known", async || known(&house).await).await;
    house.kill_coordinator();
    std::fs::remove_dir_all(house.path("coordinator")).unwrap();
    house.start_coordinator();
    let again = until("the worker is known again", async || known(&house).await).await;
    assert_eq!((again.id, again.incarnation), (first.id, first.incarnation));
    // And it works as before, although its numbers are far ahead of what this one has counted.
    let experiment = house.furnish().await;
    let trial = until("a trial has ended", async || {
        house.trial(&experiment).await.filter(Trial::is_ended)
    })
    .await;
    assert_eq!(trial.state, TrialState::Completed);
}

#[tokio::test]
async fn a_worker_whose_folder_was_set_back_is_still_heard() {
    let house = House::open();
    let worker = house.worker();
    house.furnish().await;
    drop(worker);
    // The journal is lost, the identity is not: its numbers begin anew.
    std::fs::remove_file(house.path("worker/spool.jsonl")).unwrap();
    let _again = house.worker();
    let experiments = house
        .client
        .experiment_list(&PageQuery::default())
        .await
        .unwrap();
    let experiment = experiments.items[0].id.to_string();
    let trial = until("the trial has ended", async || {
        house.trial(&experiment).await.filter(Trial::is_ended)
    })
    .await;
    assert_eq!(trial.state, TrialState::Completed);
    assert_eq!(house.observations(&trial).await.len(), EPOCHS as usize);
}

/// Milliseconds that a trainer takes for a shard of features; there are eight.
const SLOW: &str = "200";

/// Kills the trainers that run below a folder, at once.
fn kill_trainers(folder: &Path) -> usize {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let here = std::fs::read_link(entry.path().join("cwd"));
        if here.is_ok_and(|cwd| cwd.starts_with(folder)) {
            let pid = entry.file_name().into_string().unwrap();
            let done = Command::new("kill").args(["-9", &pid]).status().unwrap();
            killed += usize::from(done.success());
        }
    }
    killed
}

#[tokio::test]
async fn features_that_one_worker_computed_are_fetched_by_another_whoever_is_killed_meanwhile() {
    let house = House::open();
    let fast = [("FAKE_STEP_MS", "1"), ("FAKE_FEATURE_MS", "1")];
    let _one = house.worker_in("one", &fast);
    let first = house.furnish().await;
    let first = house.completed(&first).await;
    let known = until("the coordinator knows of them", async || {
        let list = house.client.feature_list().await.ok()?;
        (list.items.len() == 8).then_some(list.items)
    });
    let keeper = known.await[0].worker;
    let drained = house.client.worker_drain(&keeper.to_string(), None).await;
    drained.unwrap();

    let slow = [("FAKE_STEP_MS", "1"), ("FAKE_FEATURE_MS", SLOW)];
    let _two = house.worker_in("two", &slow);
    let second = house.submit("e2").await;
    until("the other worker has a shard", async || {
        (!house.shards("two").is_empty()).then_some(())
    })
    .await;
    assert!(kill_trainers(&house.path("two/work")) > 0);
    let second = house.completed(&second).await;
    let said = until("the log says so", async || {
        let said = house.said(&second).await;
        said.contains("bytes of features").then_some(said)
    });
    let said = said.await;
    assert!(
        said.contains("fetches features from other workers: "),
        "{said}"
    );
    assert!(!said.contains("after all"), "{said}");
    // Nothing but whole shards, with the bits that the first worker computed.
    assert_eq!(house.shards("two"), house.shards("one"));
    let observed = async |trial: &Trial| {
        let seen = house.observations(trial).await.into_iter();
        seen.map(|seen| (seen.step, seen.metrics))
            .collect::<Vec<_>>()
    };
    assert_eq!(observed(&first).await, observed(&second).await);
}
