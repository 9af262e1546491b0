//! The worker's heartbeat as a long poll: it answers at once when what should run differs from
//! what the worker was told, or when its reports were counted; else after a while.

use pomona_api::v1::workers::{Desired, MAX_REPORTS_PER_POLL, Poll, Running};
use pomona_domain::lease::{Lease, StopKind};
use pomona_domain::{Code, Digest, Fault, Generation, LeaseId, WorkerId};
use pomona_scheduler::gates::Evidence;
use pomona_scheduler::{Cluster, Event};
use pomona_store::NewLogRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::desired::{desired, gang};
use crate::engine::{evidence, stopping};
use crate::http::App;

/// Log lines of one poll that are kept; the rest is dropped (the log is best effort).
const MAX_LOGS: usize = 2000;
/// A worker that was told and has not done it yet is told again after this long.
const REMIND: Duration = Duration::from_secs(1);

/// What a worker has to be told.
#[derive(Debug, PartialEq, Eq)]
struct News {
    /// Its leases: how they are asked to end, and whether their ranks can meet.
    leases: BTreeMap<(LeaseId, Generation), (Option<StopKind>, bool)>,
    /// Features that it is asked to upload.
    upload: Vec<Digest>,
}

/// What each worker was told last. Soft state: losing it means telling once more.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeMap<WorkerId, Line>>);

/// The line to one worker.
#[derive(Debug, Default)]
struct Line {
    told: Option<News>,
    /// Polls so far: only the newest one still has a reader.
    polls: u64,
}

impl Told {
    /// The worker began anew.
    pub fn forget(&self, worker: WorkerId) {
        self.lock().entry(worker).or_default().told = None;
    }

    /// Nobody was told anything.
    pub fn forget_all(&self) {
        for line in self.lock().values_mut() {
            line.told = None;
        }
    }

    /// A poll begins; the one before it was given up by its worker.
    fn begin(&self, worker: WorkerId) -> u64 {
        let mut lines = self.lock();
        let line = lines.entry(worker).or_default();
        line.polls += 1;
        line.polls
    }

    fn is_newest(&self, worker: WorkerId, poll: u64) -> bool {
        self.lock()
            .get(&worker)
            .is_some_and(|line| line.polls == poll)
    }

    fn is(&self, worker: WorkerId, told: &News) -> bool {
        self.lock().get(&worker).and_then(|line| line.told.as_ref()) == Some(told)
    }

    fn tell(&self, worker: WorkerId, told: News) {
        self.lock().entry(worker).or_default().told = Some(told);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what a worker produced and answers what should run there.
pub async fn poll(app: &App, id: WorkerId, body: Poll) -> Result<Desired, Fault> {
    if body.reports.len() > MAX_REPORTS_PER_POLL {
        let text = format!(
            "a poll holds {} reports, it may hold {MAX_REPORTS_PER_POLL}",
            body.reports.len()
        );
        return Err(Fault::new(Code::TooLarge, text));
    }
    let asked = Duration::from_millis(body.wait_ms.min(app.config.workers.poll_wait_ms));
    let began = Instant::now();
    let produced = !body.reports.is_empty();
    let running = body.running.iter();
    let event = Event::Polled {
        worker: id,
        incarnation: body.incarnation,
        running: running.map(|r| (r.lease, r.generation)).collect(),
        evidence: evidence(app, &body).await?,
        reports: body.reports,
    };
    app.begin_anew();
    let mut commits = app.engine.commits();
    commits.mark_unchanged();
    let poll = app.told.begin(id);
    let mut view = app.engine.decide(event).await?.view;
    log(app, body.logs).await?;
    if let Some(shards) = body.features {
        app.features.heard(id, shards);
    }
    let mut stop = app.stop.clone();
    let mut wishes = app.features.changes();
    loop {
        wishes.mark_unchanged();
        let worker = view
            .worker(id)
            .filter(|row| row.incarnation == body.incarnation);
        let worker = worker.ok_or_else(|| unknown(id))?;
        // Each commit wakes every poll, and few concern its worker: what it has to be told is
        // compared before it is written out.
        let told = told(&view, id, app.features.uploads(id, Instant::now()));
        let is_newest = app.told.is_newest(id, poll);
        let waited = began.elapsed();
        let news = produced || !app.told.is(id, &told) || app.features.has_unwanted(id);
        let differs = differs(&told, &body.running);
        let overdue = waited >= REMIND && differs;
        if !is_newest || news || overdue || waited >= asked || app.stopping() {
            let mut answer = desired(&app.store, &app.inputs, &view, worker).await?;
            answer.want_features = app.features.wants(id);
            answer.upload.clone_from(&told.upload);
            if is_newest {
                // Nobody reads an older one any more: by that the worker was not told.
                app.told.tell(id, told);
                answer.evict = app.features.unwanted(id);
            }
            return Ok(answer);
        }
        let left = asked.saturating_sub(waited);
        let pause = if differs {
            left.min(REMIND.saturating_sub(waited))
        } else {
            left
        };
        tokio::select! {
            changed = commits.changed() => if changed.is_err() { return Err(stopping()) },
            _ = wishes.changed() => {}
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        view = app.view()?;
    }
}

/// What gates need to know of what it published.
async fn evidence(app: &App, body: &Poll) -> Result<Vec<Evidence>, Fault> {
    match app.view() {
        Ok(view) => evidence::of_reports(&app.store, &view, &body.reports).await,
        // The engine says what is wrong.
        Err(_) => Ok(Vec::new()),
    }
}

/// This worker has to register first.
pub fn unknown(id: WorkerId) -> Fault {
    Fault::new(
        Code::UnknownWorker,
        format!("worker `{id}` is not registered"),
    )
    .hint("the worker registers again by itself")
}

/// Keeps log lines of trials and tasks.
async fn log(app: &App, lines: Vec<pomona_api::v1::workers::LogLine>) -> Result<(), Fault> {
    let rows: Vec<NewLogRow> = lines
        .into_iter()
        .take(MAX_LOGS)
        .filter(|line| is_owner(&line.owner))
        .map(|line| NewLogRow {
            owner: line.owner,
            rank: line.rank,
            at: line.at,
            line: line.line,
        })
        .collect();
    if !rows.is_empty() {
        app.store.log_append(&rows).await?;
    }
    Ok(())
}

fn is_owner(owner: &str) -> bool {
    owner.parse::<pomona_domain::TrialId>().is_ok()
        || owner.parse::<pomona_domain::TaskId>().is_ok()
}

fn told(view: &Cluster, worker: WorkerId, upload: Vec<Digest>) -> News {
    let lease = |lease: &Lease| {
        let meets = gang(lease, worker).is_some_and(|gang| gang.rendezvous.is_some());
        ((lease.id, lease.generation), (lease.stop(), meets))
    };
    News {
        leases: view.leases_of(worker).map(lease).collect(),
        upload,
    }
}

/// Whether other leases run than should.
fn differs(told: &News, running: &[Running]) -> bool {
    let lives: BTreeSet<_> = running.iter().map(|r| (r.lease, r.generation)).collect();
    !told.leases.keys().eq(&lives)
}
