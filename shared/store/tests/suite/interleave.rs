//! Collection in any order with everything else, one after the other and at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pomona_domain::{Code, Digest, Timestamp, TrialId};
use pomona_store::{BLOB_GRACE_MS, BLOB_KEEP_MS, Store};
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::sync::Mutex;

use crate::collect::{refer, with_trials};
use crate::harness::{Home, Leader, execute, for_each_place, read};
use crate::rows::at;

for_each_place!(
    any_order_of_events_keeps_what_is_referred_to,
    uploads_commits_and_collections_at_once_lose_nothing,
);

/// Something that happens to a store with four blobs and two trials.
#[derive(Debug, Clone, Copy)]
enum Step {
    Upload(usize),
    Keep(usize),
    /// A trial's checkpoint becomes a blob.
    Refer(usize, usize),
    /// Time goes on, and collection runs.
    Collect(i64),
    /// Time goes on, and collection is killed when it has decided.
    Killed(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = || {
        prop_oneof![
            Just(1),
            Just(BLOB_GRACE_MS - 1),
            Just(BLOB_GRACE_MS),
            Just(BLOB_KEEP_MS),
            Just(BLOB_KEEP_MS + 1),
        ]
    };
    let step = prop_oneof![
        3 => (0..4_usize).prop_map(Step::Upload),
        1 => (0..4_usize).prop_map(Step::Keep),
        3 => (0..2_usize, 0..4_usize).prop_map(|(trial, blob)| Step::Refer(trial, blob)),
        5 => time().prop_map(Step::Collect),
        1 => time().prop_map(Step::Killed),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What a blob should be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
    Absent,
    Kept { until: Timestamp },
    Marked { since: Timestamp },
}

/// The whole life of blobs, said once more in a few lines.
#[derive(Debug)]
struct Model {
    now: Timestamp,
    blobs: [Expect; 4],
    references: [Option<usize>; 2],
}

impl Model {
    fn collect(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
        for (number, blob) in self.blobs.iter_mut().enumerate() {
            if self.references.contains(&Some(number)) {
                continue;
            }
            match *blob {
                Expect::Kept { until } if until < self.now => {
                    *blob = Expect::Marked { since: self.now };
                }
                Expect::Marked { since } if since.plus_ms(BLOB_GRACE_MS) <= self.now => {
                    *blob = Expect::Absent;
                }
                Expect::Kept { .. } | Expect::Marked { .. } | Expect::Absent => {}
            }
        }
    }

    fn keep(&mut self, blob: usize) {
        let until = self.now.plus_ms(BLOB_KEEP_MS);
        self.blobs[blob] = Expect::Kept { until };
    }
}

const BYTES: [&[u8]; 4] = [b"a", b"bb", b"ccc", b"dddd"];

/// Plays the steps on a store and on the model.
struct Play {
    home: Home,
    leader: Leader,
    trials: [TrialId; 2],
    model: Model,
}

impl Play {
    async fn new(home: Home) -> Self {
        let (leader, trials) = with_trials(&home).await;
        let model = Model {
            now: at(0),
            blobs: [Expect::Absent; 4],
            references: [None; 2],
        };
        Self {
            home,
            leader,
            trials,
            model,
        }
    }

    async fn step(&mut self, step: Step) {
        let now = self.model.now;
        match step {
            Step::Upload(blob) => {
                self.leader.put(BYTES[blob], now).await;
                self.model.keep(blob);
            }
            Step::Keep(blob) => {
                let digest = Digest::of(BYTES[blob]);
                let kept = self.leader.store.blob_keep(digest, now).await.unwrap();
                let half = now.plus_ms(BLOB_KEEP_MS / 2);
                match self.model.blobs[blob] {
                    Expect::Absent => assert_eq!(kept, None),
                    Expect::Kept { until } if until >= half => assert!(kept.is_some()),
                    Expect::Kept { .. } | Expect::Marked { .. } => {
                        assert!(kept.is_some());
                        self.model.keep(blob);
                    }
                }
            }
            Step::Refer(trial, blob) => self.refer(trial, blob).await,
            Step::Collect(ms) => {
                self.model.collect(ms);
                self.leader.store.blob_gc(self.model.now).await.unwrap();
            }
            Step::Killed(ms) => {
                self.model.now = now.plus_ms(ms);
                let decided = format!(
                    "UPDATE blobs SET state = 'deleting' WHERE state = 'marked' \
                     AND marked_at <= {} AND digest NOT IN (SELECT digest FROM blob_refs)",
                    self.model.now.plus_ms(-BLOB_GRACE_MS).0
                );
                execute(&self.home.raw().await, &decided).await;
                for blob in &mut self.model.blobs {
                    if matches!(blob, Expect::Marked { since }
                        if since.plus_ms(BLOB_GRACE_MS) <= self.model.now)
                    {
                        *blob = Expect::Absent;
                    }
                }
            }
            Step::Reopen => {
                self.leader.store.clone().close().await.unwrap();
                self.leader.store = self.home.open().await;
            }
        }
    }

    async fn refer(&mut self, trial: usize, blob: usize) {
        let digest = Digest::of(BYTES[blob]);
        let done = self
            .leader
            .try_commit(&[refer(self.trials[trial], digest)])
            .await;
        if self.model.blobs[blob] == Expect::Absent {
            assert_eq!(done.unwrap_err().code(), Code::BlobMissing);
            return;
        }
        done.unwrap();
        self.model.references[trial] = Some(blob);
        if let Expect::Marked { .. } = self.model.blobs[blob] {
            // It has no time of its own any more.
            self.model.blobs[blob] = Expect::Kept {
                until: Timestamp(0),
            };
        }
    }

    async fn compare(&self, step: Step) {
        for (number, bytes) in BYTES.iter().enumerate() {
            let stat = self
                .leader
                .store
                .blob_stat(Digest::of(bytes))
                .await
                .unwrap();
            let is_here = self.model.blobs[number] != Expect::Absent;
            assert_eq!(
                stat.is_some(),
                is_here,
                "blob {number} after {step:?}: {:?}",
                self.model
            );
        }
        for blob in self.model.references.iter().flatten() {
            let bytes = read(&self.leader.store, Digest::of(BYTES[*blob]))
                .await
                .unwrap();
            assert_eq!(bytes, BYTES[*blob]);
        }
    }
}

async fn any_order_of_events_keeps_what_is_referred_to(home: Home) {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let handle = tokio::runtime::Handle::current();
    let run = || {
        TestRunner::new_with_rng(config, rng).run(&steps(), |steps| {
            handle.block_on(async {
                let mut play = Play::new(home.beside().await).await;
                for step in steps {
                    play.step(step).await;
                    play.compare(step).await;
                }
                play.home.check().await;
            });
            Ok(())
        })
    };
    tokio::task::block_in_place(run).unwrap();
}

/// What the tasks of the race share.
struct Race {
    leader: Mutex<Leader>,
    store: Store,
    clock: AtomicI64,
    commits: AtomicU64,
    refusals: AtomicU64,
    /// Collections that have ended.
    passes: AtomicU64,
}

impl Race {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::SeqCst))
    }

    /// Waits until two whole collections have run: what nobody refers to is marked, then removed.
    async fn let_it_collect(&self) {
        // The one that may be running does not count.
        let enough = self.passes.load(Ordering::SeqCst) + 3;
        while self.passes.load(Ordering::SeqCst) < enough {
            tokio::task::yield_now().await;
        }
    }

    /// Uploads a blob that others upload too, refers to it, and reads what it referred to.
    async fn turn(&self, trial: TrialId, number: u64) {
        let bytes = format!("blob {}", number % 5);
        let stat = self
            .store
            .blob_put(bytes.as_bytes(), self.now())
            .await
            .unwrap();
        let done = self
            .leader
            .lock()
            .await
            .try_commit(&[refer(trial, stat.digest)])
            .await;
        match done {
            Ok(()) => {
                // Only this task moves this trial on: the blob must be here.
                let got = read(&self.store, stat.digest).await.unwrap();
                assert_eq!(got, bytes.as_bytes());
                self.commits.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                assert_eq!(error.code(), Code::BlobMissing, "{error}");
                self.refusals.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

async fn uploads_commits_and_collections_at_once_lose_nothing(home: Home) {
    const TURNS: u64 = 60;
    let (leader, trials) = with_trials(&home).await;
    let race = Arc::new(Race {
        store: leader.store.clone(),
        leader: Mutex::new(leader),
        clock: AtomicI64::new(at(0).0),
        commits: AtomicU64::new(0),
        refusals: AtomicU64::new(0),
        passes: AtomicU64::new(0),
    });
    let tasks: Vec<_> = (trials.into_iter().zip([0, 3]))
        .map(|(trial, shift)| {
            let race = Arc::clone(&race);
            tokio::spawn(async move {
                for number in 0..TURNS {
                    race.turn(trial, number + shift).await;
                    if number % 10 == 9 {
                        race.let_it_collect().await;
                    }
                }
            })
        })
        .collect();
    let mut removed = 0;
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        // Every call comes after all times have passed.
        let step = BLOB_KEEP_MS + BLOB_GRACE_MS;
        race.clock.fetch_add(step, Ordering::SeqCst);
        removed += race.store.blob_gc(race.now()).await.unwrap().removed;
        race.passes.fetch_add(1, Ordering::SeqCst);
    }
    for task in tasks {
        task.await.unwrap();
    }
    let commits = race.commits.load(Ordering::SeqCst);
    let refusals = race.refusals.load(Ordering::SeqCst);
    assert_eq!(commits + refusals, 2 * TURNS);
    assert!(
        commits > 0 && removed > 0,
        "{commits} commits, {removed} removed"
    );
    for trial in trials {
        for row in race.store.checkpoint_list(trial).await.unwrap() {
            read(&race.store, row.digest).await.unwrap();
        }
    }
    home.check().await;
}
