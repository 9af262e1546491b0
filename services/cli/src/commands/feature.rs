//! `feature`: features of frozen blocks on the workers' disks.

use pomona_api::v1::Page;
use pomona_api::v1::features::FeatureCopy;
use pomona_domain::{Code, Digest, Fault};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Done;
use super::session::{Session, all};
use crate::args::machine::FeatureCommand;
use crate::human::{bytes, now, plural};
use crate::views;

/// How long workers may take to do what they are told: a poll and the next.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// `pomona feature`.
pub async fn run(command: FeatureCommand, session: Session) -> Result<Done, Fault> {
    let session = &session;
    match command {
        FeatureCommand::List => {
            let page = session.client.feature_list().await?;
            let names = names(session).await?;
            session.printer.data(&page, |style| {
                if page.items.is_empty() {
                    return "no features yet: the first trial with frozen blocks computes them"
                        .to_owned();
                }
                views::feature::list(style, now(), &page.items, &names)
            });
        }
        FeatureCommand::Show { shard } => {
            let copies = find(session, &shard).await?;
            let names = names(session).await?;
            let page = Page {
                items: copies,
                next_page_token: None,
            };
            session.printer.data(&page, |style| {
                views::feature::card(style, now(), &page.items, &names)
            });
        }
        FeatureCommand::Evict { shard, .. } => {
            let copies = match shard {
                Some(shard) => find(session, &shard).await?,
                None => session.client.feature_list().await?.items,
            };
            evict(session, copies).await?;
        }
    }
    Ok(Done::Well)
}

/// The copies of the features, or of the one shard, whose digest begins so.
async fn find(session: &Session, shard: &str) -> Result<Vec<FeatureCopy>, Fault> {
    let begin = shard.strip_prefix("sha256:").unwrap_or(shard);
    let copies = session.client.feature_list().await?.items.into_iter();
    let named = copies.filter_map(|copy| Some((views::feature::is_named(&copy, begin)?, copy)));
    let (names, copies): (BTreeSet<Digest>, Vec<FeatureCopy>) = named.unzip();
    match names.len() {
        1 => Ok(copies),
        0 => Err(
            Fault::new(Code::NotFound, format!("there are no features `{shard}`"))
                .hint("`pomona feature list` shows what there is"),
        ),
        several => Err(Fault::new(
            Code::Ambiguous,
            format!("`{shard}` begins the digests of {several} features"),
        )
        .hint("type more of it")),
    }
}

/// What came of an eviction.
#[derive(Debug, Serialize)]
struct Evicted {
    removed: Vec<FeatureCopy>,
    kept: Vec<FeatureCopy>,
}

async fn evict(session: &Session, copies: Vec<FeatureCopy>) -> Result<(), Fault> {
    let shards: BTreeSet<Digest> = copies.iter().map(|copy| copy.shard.digest).collect();
    for shard in shards {
        session.client.feature_evict(shard).await?;
    }
    let spinner = session.printer.spinner("waiting for the workers");
    let begun = Instant::now();
    let name = |copy: &FeatureCopy| (copy.worker, copy.shard.digest);
    let there = loop {
        let there: BTreeSet<_> = session
            .client
            .feature_list()
            .await?
            .items
            .iter()
            .map(name)
            .collect();
        let left = copies.iter().any(|copy| there.contains(&name(copy)));
        if !left || begun.elapsed() > PATIENCE {
            break there;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    spinner.finish_and_clear();
    let (kept, removed) = copies
        .into_iter()
        .partition(|copy| there.contains(&name(copy)));
    let done = Evicted { removed, kept };
    session.printer.data(&done, |_| {
        let sum = |copies: &[FeatureCopy]| bytes(copies.iter().map(|copy| copy.shard.bytes).sum());
        let some = |copies: &[FeatureCopy]| plural(copies.len() as u64, "shard");
        let removed = format!("{} removed ({})", some(&done.removed), sum(&done.removed));
        if done.kept.is_empty() {
            return removed;
        }
        format!(
            "{removed}, {} kept ({}): a trial reads them",
            some(&done.kept),
            sum(&done.kept)
        )
    });
    Ok(())
}

/// `NAME@NUMBER` of each data set by its manifest.
async fn names(session: &Session) -> Result<BTreeMap<Digest, String>, Fault> {
    let page = all(|query| async move { session.client.dataset_list(&query).await }).await?;
    let named = page
        .items
        .into_iter()
        .map(|row| (row.manifest, format!("{}@{}", row.name, row.number)));
    Ok(named.collect())
}
