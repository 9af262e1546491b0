//! Experiments, trials, leases, workers and tasks.

use pomona_domain::experiment::Experiment;
use pomona_domain::lease::Lease;
use pomona_domain::metric::Direction;
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_domain::{ExperimentId, LeaseId, TaskId, TrialId, WorkerId};
use pomona_migrations::tables::{Experiments, Leases, Tasks, Trials, Workers};
use sea_orm::sea_query::{Expr, ExprTrait as _, NullOrdering, Order, Query};

use super::{TrialOrder, by_key, by_prefix, newest_first, only};
use crate::rows::{doc, docs};
use crate::{Page, PageRequest, Store, StoreError};

const EXPERIMENT: (Experiments, Experiments, Experiments) =
    (Experiments::Table, Experiments::Doc, Experiments::Id);
const TRIAL: (Trials, Trials, Trials) = (Trials::Table, Trials::Doc, Trials::Id);
const TASK: (Tasks, Tasks, Tasks) = (Tasks::Table, Tasks::Doc, Tasks::Id);
const WORKER: (Workers, Workers, Workers) = (Workers::Table, Workers::Doc, Workers::Id);
const LEASE: (Leases, Leases, Leases) = (Leases::Table, Leases::Doc, Leases::Id);

impl Store {
    /// Experiments, newest first.
    pub async fn experiment_list(
        &self,
        page: &PageRequest,
    ) -> Result<Page<Experiment>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .column(Experiments::Doc)
            .from(Experiments::Table)
            .limit(limit + 1);
        newest_first(
            &mut query,
            (Experiments::SubmittedAt, Experiments::Id),
            page.token_pair()?,
        );
        let rows: Vec<Experiment> = docs(&self.readers, "experiments", &query).await?;
        Ok(Page::cut(rows, limit, |row| {
            format!("{}.{}", row.submitted_at.0, row.id)
        }))
    }

    /// An experiment by its id.
    pub async fn experiment_get(&self, id: ExperimentId) -> Result<Option<Experiment>, StoreError> {
        by_key(&self.readers, "experiments", EXPERIMENT, &id.to_string()).await
    }

    /// An experiment by a unique prefix of its id, or by its name (the newest of that name).
    pub async fn experiment_find(&self, text: &str) -> Result<Option<Experiment>, StoreError> {
        let prefixed = text.starts_with("exp_");
        if !prefixed {
            let named = Query::select()
                .column(Experiments::Doc)
                .from(Experiments::Table)
                .and_where(Expr::col(Experiments::Name).eq(text))
                .order_by(Experiments::SubmittedAt, Order::Desc)
                .order_by(Experiments::Id, Order::Desc)
                .limit(1)
                .to_owned();
            let named = doc(&self.readers, "experiments", &named).await?;
            if named.is_some() {
                return Ok(named);
            }
        }
        let rows = by_prefix(
            &self.readers,
            "experiments",
            EXPERIMENT,
            (ExperimentId::PREFIX, text),
        )
        .await?;
        only(rows, "experiment", text)
    }

    /// The experiment that a control means: as [`Store::experiment_find`], but a name must not fit
    /// several that have not ended, and one that has not goes before those that have.
    pub async fn experiment_meant(&self, text: &str) -> Result<Option<Experiment>, StoreError> {
        if !text.starts_with("exp_") {
            let open = Query::select()
                .column(Experiments::Doc)
                .from(Experiments::Table)
                .and_where(Expr::col(Experiments::Name).eq(text))
                .and_where(Expr::col(Experiments::Ended).eq(false))
                .limit(2)
                .to_owned();
            let open = docs(&self.readers, "experiments", &open).await?;
            if let Some(row) = only(open, "experiment", text)? {
                return Ok(Some(row));
            }
        }
        self.experiment_find(text).await
    }

    /// An experiment's trials.
    pub async fn trial_list(
        &self,
        experiment: ExperimentId,
        order: TrialOrder,
        page: &PageRequest,
    ) -> Result<Page<Trial>, StoreError> {
        let limit = page.limit()?;
        // A token is a number of rows: trials are appended, and a leaderboard moves anyway.
        let skip = u64::from(page.token::<u32>()?.unwrap_or(0));
        let mut query = Query::select();
        query
            .column(Trials::Doc)
            .from(Trials::Table)
            .and_where(Expr::col(Trials::ExperimentId).eq(experiment.to_string()))
            .limit(limit + 1)
            .offset(skip);
        if let TrialOrder::Leaderboard(direction) = order {
            let best = match direction {
                Direction::Maximize => Order::Desc,
                Direction::Minimize => Order::Asc,
            };
            query
                .order_by_with_nulls(Trials::BestValue, best, NullOrdering::Last)
                .order_by_with_nulls(Trials::BestTie, Order::Asc, NullOrdering::Last);
        }
        query.order_by(Trials::Number, Order::Asc);
        let rows = docs(&self.readers, "trials", &query).await?;
        Ok(Page::cut(rows, limit, |_| (skip + limit).to_string()))
    }

    /// A trial by its id.
    pub async fn trial_get(&self, id: TrialId) -> Result<Option<Trial>, StoreError> {
        by_key(&self.readers, "trials", TRIAL, &id.to_string()).await
    }

    /// A trial by its number in an experiment.
    pub async fn trial_number(
        &self,
        experiment: ExperimentId,
        number: u32,
    ) -> Result<Option<Trial>, StoreError> {
        let query = Query::select()
            .column(Trials::Doc)
            .from(Trials::Table)
            .and_where(Expr::col(Trials::ExperimentId).eq(experiment.to_string()))
            .and_where(Expr::col(Trials::Number).eq(i64::from(number)))
            .to_owned();
        doc(&self.readers, "trials", &query).await
    }

    /// A trial by a unique prefix of its id.
    pub async fn trial_find(&self, text: &str) -> Result<Option<Trial>, StoreError> {
        let rows = by_prefix(&self.readers, "trials", TRIAL, (TrialId::PREFIX, text)).await?;
        only(rows, "trial", text)
    }

    /// A task by its id.
    pub async fn task_get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        by_key(&self.readers, "tasks", TASK, &id.to_string()).await
    }

    /// A task by a unique prefix of its id.
    pub async fn task_find(&self, text: &str) -> Result<Option<Task>, StoreError> {
        let rows = by_prefix(&self.readers, "tasks", TASK, (TaskId::PREFIX, text)).await?;
        only(rows, "task", text)
    }

    /// Tasks, newest first.
    pub async fn task_list(&self, page: &PageRequest) -> Result<Page<Task>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query.column(Tasks::Doc).from(Tasks::Table).limit(limit + 1);
        newest_first(
            &mut query,
            (Tasks::SubmittedAt, Tasks::Id),
            page.token_pair()?,
        );
        let rows: Vec<Task> = docs(&self.readers, "tasks", &query).await?;
        Ok(Page::cut(rows, limit, |row| {
            format!("{}.{}", row.submitted_at.0, row.id)
        }))
    }

    /// Workers, by id.
    pub async fn worker_list(&self, page: &PageRequest) -> Result<Page<Worker>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .column(Workers::Doc)
            .from(Workers::Table)
            .order_by(Workers::Id, Order::Asc)
            .limit(limit + 1);
        if let Some(id) = page.token::<WorkerId>()? {
            query.and_where(Expr::col(Workers::Id).gt(id.to_string()));
        }
        let rows: Vec<Worker> = docs(&self.readers, "workers", &query).await?;
        Ok(Page::cut(rows, limit, |row| row.id.to_string()))
    }

    /// A worker by its id.
    pub async fn worker_get(&self, id: WorkerId) -> Result<Option<Worker>, StoreError> {
        by_key(&self.readers, "workers", WORKER, &id.to_string()).await
    }

    /// A worker by a unique prefix of its id, or by its name.
    pub async fn worker_find(&self, text: &str) -> Result<Option<Worker>, StoreError> {
        let named = Query::select()
            .column(Workers::Doc)
            .from(Workers::Table)
            .and_where(Expr::col(Workers::Name).eq(text))
            .limit(2)
            .to_owned();
        let named = only(
            docs(&self.readers, "workers", &named).await?,
            "worker",
            text,
        )?;
        if named.is_some() {
            return Ok(named);
        }
        let rows = by_prefix(&self.readers, "workers", WORKER, (WorkerId::PREFIX, text)).await?;
        only(rows, "worker", text)
    }

    /// A lease by its id.
    pub async fn lease_get(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        by_key(&self.readers, "leases", LEASE, &id.to_string()).await
    }
}
