//! Large files that were answered before they were hashed become blobs in quiet moments. It must
//! never be in the way of a file that is coming, unless some have waited for long.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::web::Data;
use pomona_domain::Fault;

use crate::http::App;

/// How often is looked for such files.
const EVERY: Duration = Duration::from_secs(1);
/// Looks without a file that was coming, one after the other, that make a quiet moment.
const QUIET: u32 = 2;
/// Looks after which it is done at any rate.
const PATIENCE: u32 = 60;

/// Does it for ever, at the coordinator that leads.
pub async fn name(app: Data<App>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Whoever asks for one of these is told what is wrong with it.
    let mut failed = BTreeSet::new();
    let (mut quiet, mut waited) = (0, 0);
    loop {
        every.tick().await;
        if app.engine.generation().is_none() {
            continue;
        }
        quiet = if app.store.artifact_is_coming() {
            0
        } else {
            quiet + 1
        };
        if quiet < QUIET && waited < PATIENCE {
            waited += 1;
            continue;
        }
        waited = 0;
        match name_some(&app, &mut failed).await {
            Ok(()) => {}
            Err(fault) => tracing::warn!(code = %fault.code, "files are not hashed: {fault}"),
        }
    }
}

/// Hashes what is there, and stops when a file comes.
async fn name_some(app: &App, failed: &mut BTreeSet<String>) -> Result<(), Fault> {
    let mut ids = app.store.artifacts_unnamed().await?;
    ids.retain(|id| !failed.contains(id));
    for id in ids {
        if let Err(error) = app.store.artifact_name(&id, app.now()).await {
            tracing::warn!("a file cannot be hashed: {}", Fault::from(error));
            failed.insert(id);
        }
        if app.store.artifact_is_coming() {
            break;
        }
    }
    Ok(())
}
