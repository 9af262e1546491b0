//! What becomes of answers when a commit fails, in a real store.

use super::*;
use pomona_domain::task::TaskSpec;
use pomona_domain::{Code, Digest, TaskId};
use pomona_store::{BlobsAt, Election, StoreConfig};
use pomona_testing::Postgres;
use std::path::Path;
use tempfile::TempDir;
use tokio::sync::oneshot;

async fn store(folder: &Path, url: String) -> Store {
    let config = StoreConfig {
        url,
        blobs: BlobsAt::Folder(folder.join("blobs")),
    };
    let store = Store::open(config).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn store_in(folder: &Path) -> Store {
    let file = folder.join("pomona.db");
    store(folder, format!("sqlite://{}", file.display())).await
}

const TERM: Duration = Duration::from_secs(2);

fn me() -> Candidate {
    Candidate {
        holder: "coordinator-a".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
    }
}

fn parts(store: Store, stop: watch::Receiver<bool>) -> Parts {
    Parts {
        store,
        config: pomona_scheduler::Config::default(),
        tick: Duration::from_secs(1),
        clock: Arc::new(Clock::start()),
        bus: Arc::new(Bus::new(100, 1 << 20)),
        metrics: Arc::new(Metrics::new(10).unwrap()),
        stop,
        me: me(),
        term: TERM,
    }
}

struct Bench {
    engine: Engine,
    _ended: watch::Sender<bool>,
    _folder: TempDir,
}

/// An engine that runs nowhere: the test hands it its batches.
async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (ended, stop) = watch::channel(false);
    let parts = parts(store_in(folder.path()).await, stop);
    let role = Arc::new(watch::Sender::new(Role::Follows {
        address: String::new(),
    }));
    let reign = reign::stand(&parts, &role).await.unwrap().unwrap();
    let visible = watch::Sender::new(None);
    let engine = Engine::begin(&parts, &role, &visible, reign).await.unwrap();
    Bench {
        engine,
        _ended: ended,
        _folder: folder,
    }
}

type Answered = oneshot::Receiver<Result<Done, Fault>>;

fn request(event: Event) -> (Request, Answered) {
    let (answer, answered) = oneshot::channel();
    let request = Request {
        event,
        recall: None,
        answer: Some(answer),
    };
    (request, answered)
}

fn worker(number: u64) -> Event {
    Event::Registered {
        id: pomona_domain::WorkerId(number),
        name: format!("machine-{number}"),
        incarnation: 1,
        slots: Vec::new(),
        labels: std::collections::BTreeMap::new(),
    }
}

/// An import of a blob that nobody uploaded: decided, and refused by the store.
fn unwritable() -> Event {
    Event::TaskSubmitted {
        id: TaskId(9),
        spec: TaskSpec::ImportBackbone {
            name: "lite".to_owned(),
            arch: "efficientnet-lite0".to_owned(),
            weights: Digest::of(b"never uploaded"),
        },
        priority: 60,
    }
}

fn code(answer: Result<Done, Fault>) -> Option<Code> {
    answer.err().map(|fault| fault.code)
}

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster
        .workers()
        .map(|worker| worker.name.as_str())
        .collect()
}

#[tokio::test]
async fn one_event_that_cannot_be_written_does_not_take_its_batch_with_it() {
    let mut bench = bench().await;
    let (first, first_answer) = request(worker(1));
    let (broken, broken_answer) = request(unwritable());
    let (last, last_answer) = request(worker(2));
    bench.engine.handle(vec![first, broken, last]).await;
    assert_eq!(code(first_answer.await.unwrap()), None);
    assert_eq!(code(broken_answer.await.unwrap()), Some(Code::BlobMissing));
    let view = last_answer.await.unwrap().unwrap().view;
    assert_eq!(names(&view), ["machine-1", "machine-2"]);
    assert_eq!(
        view.tasks().count(),
        0,
        "what was not written is not remembered"
    );
    let stored = bench.engine.parts.store.load().await.unwrap();
    assert_eq!(bench.engine.cluster.snapshot(), stored, "S10");
}

/// Decided, and not on its way yet.
fn decided(engine: &mut Engine, request: Request) -> Vec<Decided> {
    let mut next = Vec::new();
    engine.accept(request, &mut next);
    next
}

/// A commit of which nobody knows whether it happened.
fn lost() -> StoreError {
    StoreError::Folder {
        path: "pomona.db".into(),
        source: std::io::Error::other("the disk went away"),
    }
}

/// A batch that is never written.
async fn stray(engine: &mut Engine, decided: Vec<Decided>) -> Flight {
    let flight = engine.launch(decided).unwrap();
    // Before this thread lets it begin.
    flight.commit.abort();
    let last = engine.parts.store.last_batch().await.unwrap();
    assert_eq!(last, engine.batch);
    flight
}

#[tokio::test]
async fn a_commit_whose_outcome_was_unknown_and_that_happened_is_answered_as_done() {
    let mut bench = bench().await;
    let (event, answer) = request(worker(1));
    let decided = decided(&mut bench.engine, event);
    let mut flight = bench.engine.launch(decided).unwrap();
    flight::over(Some(&mut flight)).await.unwrap();
    // The answer to the commit is lost: as far as the engine knows it may not have happened.
    let (at, _) = bench.engine.parts.bus.position(None);
    (bench.engine.land(flight, Err(lost()), &mut Vec::new())).await;
    let done = answer.await.unwrap().unwrap();
    assert_eq!(names(&done.view), ["machine-1"]);
    let topics = pomona_api::v1::events::Topic::ALL.into();
    let told = bench.engine.parts.bus.read(at, &topics).0;
    assert_eq!(told.len(), 1, "readers of events are told all the same");
}

#[tokio::test]
async fn a_commit_that_did_not_happen_is_answered_with_a_code_and_leaves_nothing_behind() {
    let mut bench = bench().await;
    let (event, answer) = request(worker(1));
    let decided = decided(&mut bench.engine, event);
    assert_eq!(
        names(&bench.engine.cluster),
        ["machine-1"],
        "speculative memory"
    );
    let flight = stray(&mut bench.engine, decided).await;
    (bench.engine.land(flight, Err(lost()), &mut Vec::new())).await;
    assert_eq!(code(answer.await.unwrap()), Some(Code::BadDataDir));
    assert!(names(&bench.engine.cluster).is_empty());
    let visible = bench.engine.visible.borrow().clone().unwrap();
    assert!(names(&visible).is_empty());
    let (again, answer) = request(worker(1));
    bench.engine.handle(vec![again]).await;
    assert_eq!(code(answer.await.unwrap()), None, "it goes on");
}

#[tokio::test]
async fn nobody_sees_what_was_decided_meanwhile_before_it_is_written() {
    let mut bench = bench().await;
    let engine = &mut bench.engine;
    let (first, first_answer) = request(worker(1));
    let batch = decided(engine, first);
    let mut flight = engine.launch(batch).unwrap();
    let (second, mut second_answer) = request(worker(2));
    let mut next = decided(engine, second);
    assert_eq!(names(&engine.cluster), ["machine-1", "machine-2"]);
    let written = flight::over(Some(&mut flight)).await;
    engine.land(flight, written, &mut next).await;
    let view = first_answer.await.unwrap().unwrap().view;
    assert_eq!(names(&view), ["machine-1"]);
    let visible = engine.visible.borrow().clone().unwrap();
    assert_eq!(names(&visible), ["machine-1"]);
    assert!(second_answer.try_recv().is_err(), "it is not written yet");
    let flight = engine.launch(next).unwrap();
    engine.wait_for(flight).await;
    let view = second_answer.await.unwrap().unwrap().view;
    assert_eq!(names(&view), ["machine-1", "machine-2"]);
    let stored = engine.parts.store.load().await.unwrap();
    assert_eq!(engine.cluster.snapshot(), stored, "S10");
}

#[tokio::test]
async fn what_was_decided_on_a_batch_that_was_not_written_is_decided_anew() {
    let mut bench = bench().await;
    let engine = &mut bench.engine;
    let (first, first_answer) = request(worker(1));
    let batch = decided(engine, first);
    let flight = stray(engine, batch).await;
    let beat = Event::Polled {
        worker: pomona_domain::WorkerId(1),
        incarnation: 1,
        running: Vec::new(),
        reports: Vec::new(),
        evidence: Vec::new(),
    };
    let (beat, beaten) = request(beat);
    let mut next = decided(engine, beat);
    let (second, second_answer) = request(worker(2));
    next.extend(decided(engine, second));
    engine.land(flight, Err(lost()), &mut next).await;
    assert!(first_answer.await.unwrap().is_err());
    let flight = engine.launch(next).unwrap();
    engine.wait_for(flight).await;
    let unknown = code(beaten.await.unwrap());
    assert_eq!(unknown, Some(Code::UnknownWorker), "it was never written");
    let view = second_answer.await.unwrap().unwrap().view;
    assert_eq!(names(&view), ["machine-2"]);
    let stored = engine.parts.store.load().await.unwrap();
    assert_eq!(engine.cluster.snapshot(), stored, "S10");
}

#[tokio::test]
async fn an_engine_that_leads_no_more_decides_nothing_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path()).await;
    let (_ended, stop) = watch::channel(false);
    let parts = Parts {
        tick: Duration::from_hours(1),
        ..parts(store.clone(), stop)
    };
    let (handle, running) = start(parts).await.unwrap();
    assert_eq!(code(handle.decide(worker(1)).await), None);
    store.lead().await.unwrap();
    assert_eq!(code(handle.decide(worker(2)).await), Some(Code::NotReady));
    assert_eq!(running.await.unwrap().unwrap_err().code, Code::NotReady);
    assert_eq!(code(handle.decide(worker(3)).await), Some(Code::NotReady));
    assert_eq!(handle.view().unwrap_err().code, Code::NotReady);
    assert_eq!(store.load().await.unwrap().workers.len(), 1);
}

#[tokio::test]
async fn what_came_before_the_stop_is_answered_and_what_comes_after_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (end, stop) = watch::channel(false);
    let parts = Parts {
        tick: Duration::from_hours(1),
        ..parts(store_in(folder.path()).await, stop)
    };
    let (handle, running) = start(parts).await.unwrap();
    let before = handle.decide(worker(1));
    let mut before = Box::pin(before);
    // Polled once: it is in the channel now.
    assert!(futures::poll!(&mut before).is_pending());
    end.send_replace(true);
    assert_eq!(code(before.await), None);
    running.await.unwrap().unwrap();
    assert_eq!(code(handle.decide(worker(2)).await), Some(Code::NotReady));
}

#[tokio::test]
async fn a_full_queue_is_answered_busy_at_once() {
    let (requests, _waiting) = mpsc::channel(QUEUE);
    let (_shown, visible) = watch::channel(None);
    let (_role, role) = watch::channel(Role::Leads {
        generation: 1,
        until: None,
    });
    let handle = Handle {
        requests,
        visible,
        role,
        term: TERM,
    };
    let mut held: Vec<_> = (0..QUEUE)
        .map(|_| Box::pin(handle.decide(Event::Tick)))
        .collect();
    for call in &mut held {
        assert!(futures::poll!(call).is_pending());
    }
    let fault = handle.decide(Event::Tick).await.unwrap_err();
    assert_eq!(fault.code, Code::Busy);
    assert_eq!(Code::Busy.http_status(), 429);
}

#[tokio::test]
async fn who_cannot_read_the_cluster_gives_the_others_a_turn() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let store = store(folder.path(), postgres.url("postgres")).await;
    let sql = "ALTER TABLE trials RENAME TO elsewhere";
    assert!(postgres.query(sql).is_some());
    let (stop, stopped) = watch::channel(false);
    let parts = parts(store.clone(), stopped);
    let role = Arc::new(watch::Sender::new(Role::Follows {
        address: String::new(),
    }));
    let (_requests, waiting) = mpsc::channel(QUEUE);
    let ruling = rule(parts, role, watch::Sender::new(None), waiting, None);
    let ruling = tokio::spawn(ruling);
    let other = Candidate {
        holder: "coordinator-b".to_owned(),
        ..me()
    };
    // Its term would otherwise begin anew with each try, for ever.
    let turn = async {
        while store.leader().await.unwrap().holder != me().holder {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while !matches!(store.stand(&other, TERM).await, Ok(Election::Leads(_))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let turn = tokio::time::timeout(Duration::from_mins(1), turn).await;
    assert!(turn.is_ok(), "the other one never leads");
    stop.send_replace(true);
    ruling.await.unwrap().unwrap();
}
