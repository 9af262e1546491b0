//! Files of runs and models, proxied: names over blobs, streamed in and out.
//!
//! A path is checked before anything is done with it, and no file is ever opened by it: it is a key.

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{Bytes, Data, Path, Payload};
use futures::StreamExt as _;
use pomona_domain::model::Version;
use pomona_domain::{Code, Digest, Fault};
use pomona_store::{ArtifactEntry, StoreError};
use pomona_tracking::artifact_path::VERSIONS;
use pomona_tracking::{Refusal, artifact_path};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::runs::id;
use super::{Answer, Refused, parameters, render};
use crate::http::{App, blobs};

/// What the address of a file of ours begins with.
pub const SCHEME: &str = "mlflow-artifacts:/";

fn files(folder: &str, entries: &[ArtifactEntry]) -> Vec<Value> {
    let entries = entries.iter();
    let file = |entry: &ArtifactEntry| {
        let path = artifact_path::join(folder, &entry.name);
        match entry.size {
            None => json!({ "path": path, "is_dir": true }),
            Some(size) => json!({ "path": path, "is_dir": false, "file_size": size }),
        }
    };
    entries.map(file).collect()
}

/// `GET mlflow-artifacts/artifacts`: what is in a folder.
pub async fn list(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let folder = body.optional_str("path")?.unwrap_or_default();
    let folder = artifact_path::folder(folder)?;
    let entries = entries(&app, folder).await?;
    render::ok(&json!({ "files": files("", &entries) }))
}

/// What is in a folder: of artifacts, or of a version's files.
async fn entries(app: &Data<App>, folder: &str) -> Result<Vec<ArtifactEntry>, Refused> {
    let Some((version, path)) = of_version(app, folder).await? else {
        return Ok(app.store.artifact_list(folder).await?);
    };
    let mut entries: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for file in &version.files {
        let below = if path.is_empty() {
            Some(file.path.as_str())
        } else {
            let rest = file.path.strip_prefix(&path);
            rest.and_then(|rest| rest.strip_prefix('/'))
        };
        match below.map(|below| below.split_once('/').ok_or(below)) {
            Some(Ok((folder, _))) => entries.insert(folder.to_owned(), None),
            Some(Err(name)) => entries.insert(name.to_owned(), Some(file.size)),
            None => None,
        };
    }
    let entry = |(name, size)| ArtifactEntry { name, size };
    Ok(entries.into_iter().map(entry).collect())
}

/// The version whose files a path is about, and the path among them.
async fn of_version(app: &Data<App>, path: &str) -> Result<Option<(Version, String)>, Refused> {
    let mut parts = path.splitn(4, '/');
    if parts.next() != Some(VERSIONS) {
        return Ok(None);
    }
    let (Some(model), Some(number)) = (parts.next(), parts.next()) else {
        return Err(missing(path));
    };
    let number: u32 = number.parse().map_err(|_| missing(path))?;
    let version = app.store.version_get(model, number).await?;
    let version = version.ok_or_else(|| missing(path))?;
    Ok(Some((version, parts.next().unwrap_or_default().to_owned())))
}

/// Sends a file of a version.
pub async fn send_of_version(app: &Data<App>, version: &Version, path: &str) -> Answer {
    let file = version.files.iter().find(|file| file.path == path);
    let file = file.ok_or_else(|| missing(path))?;
    let digest = file.digest().map_err(|_| missing(path))?;
    send_blob(app, path, digest).await
}

/// Refuses to write where the files of versions appear.
fn is_writable(path: &str) -> Result<(), Refused> {
    if path.split('/').next() != Some(VERSIONS) {
        return Ok(());
    }
    let text = format!("'{path}' cannot be written: the files of a version never change");
    Err(Refusal::invalid(text).into())
}

fn missing(path: &str) -> Refused {
    Refusal::missing(format!("No such artifact: '{path}'")).into()
}

/// `GET mlflow-artifacts/artifacts/{path}`
pub async fn get(app: Data<App>, path: Path<String>) -> Answer {
    send(&app, artifact_path::file(&path)?).await
}

async fn send(app: &Data<App>, path: &str) -> Answer {
    if let Some((version, path)) = of_version(app, path).await? {
        return send_of_version(app, &version, &path).await;
    }
    let blob = app.store.artifact_get(path, app.now()).await?;
    let blob = blob.ok_or_else(|| missing(path))?;
    send_blob(app, path, blob.digest).await
}

async fn send_blob(app: &Data<App>, path: &str, digest: Digest) -> Answer {
    let name = path.rsplit('/').next().unwrap_or(path);
    let sent = blobs::whole(app, digest, kind(name)).await;
    let mut response = sent.map_err(|refusal| Refused::from(refusal.into_fault()))?;
    let quoted: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && c != '"' && c != '\\' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let disposition = format!("attachment; filename=\"{quoted}\"");
    let headers = response.headers_mut();
    if let Ok(value) = header::HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    headers.remove(header::CACHE_CONTROL);
    Ok(response)
}

/// A file's media type by its name, as far as a client looks.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("json") => "application/json",
        Some("txt" | "log" | "md" | "yaml" | "yml" | "py") => "text/plain",
        Some("csv") => "text/csv",
        Some("html") => "text/html",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// `PUT mlflow-artifacts/artifacts/{path}`: the body is the file.
pub async fn put(
    app: Data<App>,
    path: Path<String>,
    request: HttpRequest,
    mut payload: Payload,
) -> Answer {
    let path = artifact_path::file(&path)?;
    is_writable(path)?;
    is_free(&app, path).await?;
    let limit = app.config.http.max_blob_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let announced = length.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|size| size > limit) {
        let text = format!("the file is over its limit of {limit} bytes");
        return Err(Fault::new(Code::TooLarge, text).into());
    }
    let id = format!("{:032x}", rand::random::<u128>());
    let writer = app.store.artifact_writer(announced, id, limit, app.now());
    let mut writer = writer.await?;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk
            .map_err(|error| StoreError::BrokenUpload(std::io::Error::other(error.to_string())))?;
        writer.write(&chunk).await?;
    }
    if let Some(announced) = announced
        && announced != writer.size()
    {
        let text = format!("{announced} bytes were announced, {} came", writer.size());
        return Err(StoreError::BrokenUpload(std::io::Error::other(text)).into());
    }
    writer.finish(path, app.now()).await?;
    render::empty()
}

/// Refuses a file where a folder is, and a folder where a file is.
async fn is_free(app: &Data<App>, path: &str) -> Result<(), Refused> {
    for (at, _) in path.match_indices('/') {
        let above = &path[..at];
        if app.store.artifact_exists(above).await? {
            let text = format!("'{path}' cannot be written: '{above}' is a file");
            return Err(Refusal::invalid(text).into());
        }
    }
    if app.store.artifact_list(path).await?.is_empty() {
        return Ok(());
    }
    let text = format!("'{path}' cannot be written: it is a folder");
    Err(Refusal::invalid(text).into())
}

/// `DELETE mlflow-artifacts/artifacts/{path}`: a file, or a folder with all in it.
pub async fn delete(app: Data<App>, path: Path<String>) -> Answer {
    let path = artifact_path::file(&path)?;
    is_writable(path)?;
    app.store.artifact_delete(path).await?;
    render::empty()
}

/// The path of a run's file; `None` where its files are not kept here.
fn of(uri: &str) -> Option<&str> {
    uri.strip_prefix(SCHEME)
        .map(|path| path.trim_start_matches('/'))
}

fn elsewhere(uri: &str) -> Refused {
    Refusal::invalid(format!("Files at '{uri}' are not kept by this server")).into()
}

/// `GET artifacts/list`: what is in a folder of a run.
pub async fn of_run(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = super::run(&app, id(&body)?).await?;
    let folder = artifact_path::folder(body.optional_str("path")?.unwrap_or_default())?;
    files_at(&app, &run.artifact_uri, folder).await
}

/// What is in a folder below an address.
pub async fn files_at(app: &Data<App>, uri: &str, folder: &str) -> Answer {
    let root = of(uri).ok_or_else(|| elsewhere(uri))?;
    let path = if folder.is_empty() {
        root.to_owned()
    } else {
        artifact_path::join(root, folder)
    };
    let entries = entries(app, &path).await?;
    render::ok(&json!({ "root_uri": uri, "files": files(folder, &entries) }))
}

/// `GET /get-artifact`: a file of a run.
pub async fn get_of_run(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = super::run(&app, id(&body)?).await?;
    let path = artifact_path::file(body.required_str("path")?)?;
    let root = of(&run.artifact_uri).ok_or_else(|| elsewhere(&run.artifact_uri))?;
    send(&app, &artifact_path::join(root, path)).await
}
