//! Who needs which blob. A reference is written in the transaction that writes its owner, and
//! only to a blob that is at rest, so collection and commits can never disagree.

use std::collections::{BTreeMap, BTreeSet};

use pomona_domain::Digest;
use pomona_domain::task::{Task, TaskSpec};
use pomona_migrations::tables::{BlobRefs, Blobs};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::facts::{by_kind, checkpoint_kind};
use super::{OnRepeat, ROWS_PER_STATEMENT, Sorted, insert};
use crate::StoreError;
use crate::blobs::{DELETING, STORED};

/// Owner and role → blob.
type References = BTreeMap<(String, String), Digest>;

pub(super) async fn write(tx: &DatabaseTransaction, sorted: &Sorted<'_>) -> Result<(), StoreError> {
    let (references, released) = collect(sorted)?;
    hold(tx, references.values().copied().collect()).await?;
    let columns = [BlobRefs::Owner, BlobRefs::Role, BlobRefs::Digest].map(IntoIden::into_iden);
    let values = references
        .into_iter()
        .map(|((owner, role), digest)| vec![owner.into(), role.into(), digest.to_string().into()])
        .collect();
    let table = BlobRefs::Table.into_iden();
    insert(tx, table, &columns, values, &OnRepeat::Replace { key: 2 }).await?;
    for (role, owners) in by_kind(&sorted.deleted_checkpoints) {
        for owners in owners.chunks(ROWS_PER_STATEMENT) {
            let mut release = Query::delete();
            release
                .from_table(BlobRefs::Table)
                .and_where(Expr::col(BlobRefs::Role).eq(role))
                .and_where(Expr::col(BlobRefs::Owner).is_in(owners.iter().cloned()));
            tx.execute(&release).await?;
        }
    }
    for owners in released.chunks(ROWS_PER_STATEMENT) {
        let mut release = Query::delete();
        release
            .from_table(BlobRefs::Table)
            .and_where(Expr::col(BlobRefs::Owner).is_in(owners.iter().map(String::as_str)));
        tx.execute(&release).await?;
    }
    Ok(())
}

/// References that a batch makes, and the owners that give theirs up.
fn collect(sorted: &Sorted<'_>) -> Result<(References, Vec<String>), StoreError> {
    let mut references = References::new();
    let mut released = Vec::new();
    let mut add = |owner: &str, role: &str, digest: Digest| {
        references.insert((owner.to_owned(), role.to_owned()), digest);
    };
    for row in &sorted.datasets {
        let owner = format!("dataset/{}@{}", row.name, row.number);
        add(&owner, "archive", row.archive);
        add(&owner, "manifest", row.manifest);
    }
    for row in &sorted.backbones {
        let owner = format!("backbone/{}", row.name);
        add(&owner, "weights", row.weights);
        add(&owner, "source", row.source);
    }
    for row in &sorted.checkpoints {
        let owner = row.trial.to_string();
        add(&owner, checkpoint_kind(row.kind), row.digest);
    }
    for row in &sorted.versions {
        for file in &row.files {
            let digest = file.digest().map_err(|_| StoreError::NotFound {
                what: format!("digest of `{}` in `{}`", file.path, row.model),
            })?;
            add(&row.id.to_string(), &format!("file/{}", file.path), digest);
        }
    }
    // A task changes its spec never and its state often: only its first and last row matter.
    let ended: BTreeSet<_> = sorted
        .tasks
        .iter()
        .filter(|task| task.is_ended())
        .map(|task| task.id)
        .collect();
    for task in sorted.tasks.iter().filter(|task| task.version == 1) {
        if let Some((role, digest)) = task_input(task)
            && !ended.contains(&task.id)
        {
            add(&task.id.to_string(), role, digest);
        }
    }
    released.extend(ended.iter().map(ToString::to_string));
    Ok((references, released))
}

/// The blob that a task reads.
fn task_input(task: &Task) -> Option<(&'static str, Digest)> {
    match &task.spec {
        TaskSpec::ImportDataset { archive, .. } => Some(("archive", *archive)),
        TaskSpec::ImportBackbone { weights, .. } => Some(("weights", *weights)),
        TaskSpec::Predict { pictures, .. } => Some(("pictures", *pictures)),
        TaskSpec::Publish { .. } => None,
    }
}

/// Makes sure that the blobs are here and that collection lets go of them.
pub(crate) async fn hold(
    tx: &DatabaseTransaction,
    digests: BTreeSet<Digest>,
) -> Result<(), StoreError> {
    let digests: Vec<Digest> = digests.into_iter().collect();
    for chunk in digests.chunks(ROWS_PER_STATEMENT) {
        let mut hold = Query::update();
        hold.table(Blobs::Table)
            .value(Blobs::State, STORED)
            .value(Blobs::MarkedAt, Option::<i64>::None)
            .and_where(Expr::col(Blobs::Digest).is_in(chunk.iter().map(ToString::to_string)))
            .and_where(Expr::col(Blobs::State).ne(DELETING));
        if tx.execute(&hold).await?.rows_affected() == chunk.len() as u64 {
            continue;
        }
        for digest in chunk {
            let mut find = Query::select();
            find.column(Blobs::Digest)
                .from(Blobs::Table)
                .and_where(Expr::col(Blobs::Digest).eq(digest.to_string()))
                .and_where(Expr::col(Blobs::State).ne(DELETING));
            if tx.query_one(&find).await?.is_none() {
                return Err(StoreError::BlobMissing { digest: *digest });
            }
        }
    }
    Ok(())
}
