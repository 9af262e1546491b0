//! From a tag or digest to the version it belongs to, and the digest of a version's layer, which
//! is found once by reading all of it.

use actix_web::web::Data;
use pomona_domain::model::Version;
use pomona_domain::{Digest, Fault, VersionId};
use pomona_store::{Hasher, ImagePart, StoreError};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Mutex;

use super::layer::{Layout, Piece};
use super::reference::Which;
use super::refusal::Refused;
use super::{image, pack};
use crate::http::App;

/// New versions get the digest of their layer this often.
const KEEP_EVERY: Duration = Duration::from_secs(3);
/// Versions that are looked at in one go.
const BATCH: u64 = 64;

/// One layer is read at a time to find its digest.
#[derive(Debug, Default)]
pub struct Images(Mutex<()>);

/// The version of a tag.
pub async fn tagged(app: &App, model: &str, which: &Which) -> Result<Version, Refused> {
    let number = match which {
        Which::Number(number) => Some(*number),
        Which::Alias(alias) => app
            .store
            .alias_get(model, alias)
            .await?
            .map(|row| row.number),
    };
    let version = match number {
        Some(number) => app.store.version_get(model, number).await?,
        None => None,
    };
    if let Some(version) = version {
        return Ok(version);
    }
    exists(app, model).await?;
    let text = match which {
        Which::Number(number) => format!("`{model}` has no version {number}"),
        Which::Alias(alias) => format!("`{model}` has no alias `{alias}`"),
    };
    Err(Refused::no_manifest(text))
}

/// Refuses the name of a model that is not there.
pub async fn exists(app: &App, model: &str) -> Result<(), Refused> {
    let found = app.store.model_face(model).await?;
    found.map(|_| ()).ok_or_else(|| Refused::no_model(model))
}

/// What a digest is to a model. Versions that came since somebody last looked are remembered first.
pub async fn by_digest(
    app: &App,
    model: &str,
    digest: Digest,
) -> Result<Option<(ImagePart, Version)>, Refused> {
    if let Some(found) = app.store.image_find(model, digest).await? {
        return Ok(Some(found));
    }
    let mut is_new = false;
    loop {
        let missing = app
            .store
            .image_missing(Some(model), ImagePart::Manifest, BATCH)
            .await?;
        if missing.is_empty() {
            break;
        }
        for version in missing {
            remember(app, &version).await?;
        }
        is_new = true;
    }
    if !is_new {
        return Ok(None);
    }
    Ok(app.store.image_find(model, digest).await?)
}

/// Keeps the digests that follow from a version's files.
pub async fn remember(app: &App, version: &Version) -> Result<(), StoreError> {
    if app
        .store
        .image_part(version.id, ImagePart::Manifest)
        .await?
        .is_some()
    {
        return Ok(());
    }
    let files = version.files.iter();
    let digests = files.filter_map(|file| file.digest().ok());
    let mut parts: Vec<(ImagePart, Digest)> =
        digests.map(|digest| (ImagePart::File, digest)).collect();
    parts.push((ImagePart::Config, Digest::of(&pack::config(version))));
    parts.push((ImagePart::Manifest, Digest::of(&pack::manifest(version))));
    app.store.image_put(version.id, &parts).await
}

/// The digest of a version's layer. The first who asks waits until all of it is read.
pub async fn layer(app: &App, version: &Version) -> Result<(Digest, u64), Refused> {
    let layout = Layout::of(&version.files)?;
    let size = layout.size();
    if let Some(digest) = app.store.image_part(version.id, ImagePart::Layer).await? {
        return Ok((digest, size));
    }
    let _turn = app.images.0.lock().await;
    if let Some(digest) = app.store.image_part(version.id, ImagePart::Layer).await? {
        return Ok((digest, size));
    }
    let digest = read(app, &layout).await?;
    let parts = [
        (ImagePart::Layer, digest),
        (
            ImagePart::ImageConfig,
            Digest::of(&image::config(version, digest)),
        ),
        (
            ImagePart::Image,
            Digest::of(&image::manifest(version, digest, size)),
        ),
    ];
    app.store.image_put(version.id, &parts).await?;
    Ok((digest, size))
}

async fn read(app: &App, layout: &Layout) -> Result<Digest, StoreError> {
    let mut hasher = Hasher::new();
    for piece in layout.between(&(0..layout.size())) {
        match piece {
            Piece::Bytes(bytes) => hasher.update(&bytes),
            Piece::Blob(digest, range) => {
                let mut reader = app.store.blob_get(digest).await?.between(range);
                while let Some(bytes) = reader.next().await? {
                    let work = move || {
                        hasher.update(&bytes);
                        hasher
                    };
                    let hashed = tokio::task::spawn_blocking(work).await;
                    hasher = hashed.map_err(|error| StoreError::BrokenUpload(error.into()))?;
                }
            }
        }
    }
    Ok(hasher.found())
}

/// Finds the digests of new versions, so that nobody waits for them.
pub async fn keep(app: Data<App>) {
    let mut tick = tokio::time::interval(KEEP_EVERY);
    // What cannot be read now is found when somebody asks for it.
    let mut failed = BTreeSet::new();
    loop {
        tick.tick().await;
        if app.engine.generation().is_some()
            && let Err(fault) = keep_some(&app, &mut failed).await
        {
            tracing::debug!(code = %fault.code, "no digests of images: {fault}");
        }
    }
}

async fn keep_some(app: &App, failed: &mut BTreeSet<VersionId>) -> Result<(), Fault> {
    let missing = app
        .store
        .image_missing(None, ImagePart::Layer, BATCH)
        .await?;
    for version in missing {
        if failed.contains(&version.id) {
            continue;
        }
        remember(app, &version).await?;
        if let Err(refused) = layer(app, &version).await {
            let (model, number) = (&version.model, version.number);
            tracing::warn!("`{model}@{number}` is no image yet: {refused}");
            failed.insert(version.id);
        }
    }
    Ok(())
}
