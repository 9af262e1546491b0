//! Features that other workers want, uploaded as blobs while the coordinator asks for them.
//!
//! It must never upload what it has not checked.

use pomona_api::PROTOCOL;
use pomona_api::client::{Client, file_digest};
use pomona_api::shard::folder::{check, opened};
use pomona_api::v1::features::{FeatureBlob, UploadedFeature};
use pomona_domain::{Code, Digest, Fault, WorkerId};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

use crate::agent::is_passing;
use crate::features::Features;
use crate::fetch::blocking;
use crate::work::cannot;

/// Wait after an upload that failed and may succeed another time.
const PAUSE: Duration = Duration::from_secs(1);

/// Uploads for ever what `wanted` names, one after the other. What cannot be uploaded is left out, so
/// that it holds nothing else up.
pub async fn offer(
    client: Client,
    identity: (WorkerId, u64),
    features: Features,
    mut wanted: watch::Receiver<Vec<Digest>>,
) {
    let mut done = BTreeSet::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        // What is wanted once more, after it was not, is uploaded once more.
        done.retain(|shard| names.contains(shard));
        let Some(shard) = names.into_iter().find(|shard| !done.contains(shard)) else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        match upload(&client, identity, &features, shard).await {
            Ok(()) => {
                done.insert(shard);
            }
            Err(fault) if fault.code == Code::NotFound => {
                // Who asked is told what is kept here now.
                features.forget_telling();
                done.insert(shard);
            }
            Err(fault) if is_passing(fault.code) => {
                tracing::debug!(%shard, "features are not uploaded: {fault}");
                tokio::time::sleep(PAUSE).await;
            }
            Err(fault) => {
                tracing::warn!(%shard, code = %fault.code, "features are not uploaded: {fault}");
                done.insert(shard);
            }
        }
    }
}

/// Uploads a shard and tells so. It stays on the disk meanwhile.
async fn upload(
    client: &Client,
    (worker, incarnation): (WorkerId, u64),
    features: &Features,
    shard: Digest,
) -> Result<(), Fault> {
    let gone = || Fault::new(Code::NotFound, format!("features `{shard}` are not here"));
    let folder = features.folder().ok_or_else(gone)?;
    let path = folder.whole(shard);
    let found = opened(&path).map_err(|error| cannot("read", &path, &error))?;
    let mut file = found.ok_or_else(gone)?;
    let checked = blocking(move || check(&mut file, shard).map(|_| file)).await?;
    let _in_use = checked.ok_or_else(gone)?;
    let (blob, bytes) = file_digest(&path).await?;
    client.blob_put(blob, &path).await?;
    let body = UploadedFeature {
        protocol: PROTOCOL,
        incarnation,
        uploaded: FeatureBlob { shard, blob, bytes },
    };
    client.feature_uploaded(worker, &body).await.map(drop)
}
