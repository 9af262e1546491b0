//! Where a client's version comes from: the files behind a source, as far as they are here.
//!
//! A source must never reach outside of what its run or model logged, and never into this machine.

use actix_web::web::Data;
use pomona_domain::model::{ModelFile, Version};
use pomona_store::VersionFace;
use pomona_tracking::artifact_path::{self, VERSIONS};
use pomona_tracking::{ErrorCode, Refusal};
use std::collections::BTreeMap;

use super::artifacts::SCHEME;
use super::{Refused, run};
use crate::http::App;

/// What is behind a source.
#[derive(Debug, Default)]
pub struct Found {
    /// Its files; none when they are elsewhere.
    pub files: Vec<ModelFile>,
    /// The folder of artifacts they are in.
    pub artifacts: Option<String>,
    /// What its run measured last.
    pub metrics: BTreeMap<String, f64>,
    /// The run that made it, where the source says so.
    pub run: Option<String>,
    /// The logged model that it is, where the source says so.
    pub model: Option<String>,
}

/// The address at which MLflow's clients find a version's files.
pub fn address(face: &VersionFace) -> String {
    let Version {
        model,
        number,
        files,
        ..
    } = &face.version;
    if files.is_empty() {
        return face.source.clone();
    }
    artifact_path::of_version(model, *number)
}

fn invalid(source: &str, why: &str) -> Refused {
    Refusal::invalid(format!("Invalid model version source: '{source}'. {why}")).into()
}

/// Finds what is behind a source.
pub async fn find(
    app: &Data<App>,
    source: &str,
    run_id: Option<&str>,
    model_id: Option<&str>,
) -> Result<Found, Refused> {
    if let Some(why) = artifact_path::wrong_source(source) {
        return Err(invalid(source, why));
    }
    let mut found = if let Some(rest) = source.strip_prefix("runs:/") {
        of_run(app, source, rest.trim_start_matches('/'), run_id).await?
    } else if let Some(rest) = source.strip_prefix("models:/") {
        of_model(app, source, rest.trim_start_matches('/'), model_id).await?
    } else if source.starts_with(SCHEME) {
        of_artifacts(app, source, run_id, model_id).await?
    } else if is_elsewhere(source) {
        Found::default()
    } else {
        let why = "A path on the server is no source: use `runs:/`, `models:/`, \
                   `mlflow-artifacts:/`, or an address elsewhere.";
        return Err(invalid(source, why));
    };
    if let Some(id) = run_id.or(found.run.as_deref())
        && app.store.run_get(id).await?.is_some()
    {
        let data = app.store.run_data(&[id.to_owned()]).await?;
        let latest = data.into_values().flat_map(|data| data.latest);
        found.metrics = latest
            .filter(|latest| latest.point.value.is_finite())
            .map(|latest| (latest.key, latest.point.value))
            .collect();
    }
    Ok(found)
}

/// Whether it is an address of another service.
fn is_elsewhere(source: &str) -> bool {
    let Some((scheme, rest)) = source.split_once(':') else {
        return false;
    };
    let mut letters = scheme.chars();
    // One letter is a drive.
    let is_scheme = scheme.len() > 1
        && letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme && !scheme.eq_ignore_ascii_case("file") && rest.starts_with('/')
}

async fn of_run(
    app: &Data<App>,
    source: &str,
    rest: &str,
    run_id: Option<&str>,
) -> Result<Found, Refused> {
    let (id, path) = rest.split_once('/').unwrap_or((rest, ""));
    if run_id.is_some_and(|given| given != id) {
        return Err(invalid(source, "It is of another run than the run_id."));
    }
    let root = run(app, id).await?.artifact_uri;
    let mut found = files(app, &below(&root, path)).await?;
    found.run = Some(id.to_owned());
    Ok(found)
}

fn below(root: &str, path: &str) -> String {
    let (root, path) = (root.trim_end_matches('/'), path.trim_matches('/'));
    if path.is_empty() {
        root.to_owned()
    } else {
        format!("{root}/{path}")
    }
}

/// `models:/m-…` is a logged model, `models:/NAME/3` and `models:/NAME@alias` a version.
async fn of_model(
    app: &Data<App>,
    source: &str,
    rest: &str,
    model_id: Option<&str>,
) -> Result<Found, Refused> {
    if !rest.contains(['/', '@']) {
        if model_id.is_some_and(|given| given != rest) {
            return Err(invalid(source, "It is another model than the model_id."));
        }
        let logged = app.store.logged_model_get(rest).await?;
        let logged = logged
            .ok_or_else(|| Refusal::missing(format!("Logged model with ID '{rest}' not found.")))?;
        let mut found = files(app, &logged.artifact_uri).await?;
        found.run = Some(logged.source_run).filter(|run| !run.is_empty());
        found.model = Some(rest.to_owned());
        return Ok(found);
    }
    let face = version_at(app, rest).await?;
    let face = face.ok_or_else(|| invalid(source, "There is no such version."))?;
    Ok(Found {
        run: face.run_id.clone(),
        artifacts: Some(address(&face)),
        files: face.version.files,
        ..Found::default()
    })
}

/// The version of `NAME/3`, `NAME@alias` or `NAME/latest`.
async fn version_at(app: &Data<App>, rest: &str) -> Result<Option<VersionFace>, Refused> {
    let (name, number) = if let Some((name, alias)) = rest.split_once('@') {
        let alias = app.store.alias_get(name, alias).await?;
        (name, alias.map(|alias| alias.number))
    } else {
        let (name, which) = rest.split_once('/').unwrap_or((rest, ""));
        let number = if which == "latest" {
            app.store.model_face(name).await?.map(|model| model.newest)
        } else {
            which.parse().ok()
        };
        (name, number)
    };
    let Some(number) = number else {
        return Ok(None);
    };
    Ok(app.store.version_face(name, number).await?)
}

async fn of_artifacts(
    app: &Data<App>,
    source: &str,
    run_id: Option<&str>,
    model_id: Option<&str>,
) -> Result<Found, Refused> {
    let mut roots = Vec::new();
    if let Some(id) = run_id {
        roots.push(run(app, id).await?.artifact_uri);
    }
    if let Some(id) = model_id {
        let logged = app.store.logged_model_get(id).await?;
        roots.extend(logged.map(|model| model.artifact_uri));
    }
    let of = |uri: &str| normal(uri).trim_end_matches('/').to_owned();
    let path = of(source);
    let is_inside = |root: &String| {
        let root = of(root);
        path == root || path.starts_with(&format!("{root}/"))
    };
    if (run_id.is_some() || model_id.is_some()) && !roots.iter().any(is_inside) {
        let why = "It is outside of what the run or the model logged.";
        return Err(invalid(source, why));
    }
    if let Some(rest) = path.strip_prefix(&format!("{VERSIONS}/")) {
        let face = version_at(app, rest).await?;
        let face = face.ok_or_else(|| invalid(source, "There is no such version."))?;
        return Ok(Found {
            files: face.version.files,
            artifacts: Some(source.to_owned()),
            ..Found::default()
        });
    }
    files(app, source).await
}

/// The path of an address of ours.
fn normal(uri: &str) -> &str {
    uri.strip_prefix(SCHEME)
        .unwrap_or(uri)
        .trim_start_matches('/')
}

/// The files below an address of ours; an address elsewhere has none here.
async fn files(app: &Data<App>, uri: &str) -> Result<Found, Refused> {
    if !uri.starts_with(SCHEME) {
        return Ok(Found::default());
    }
    let folder = normal(uri).trim_end_matches('/');
    let tree = app.store.artifact_tree(folder, app.now()).await?;
    let file = |(path, blob): (String, pomona_store::BlobStat)| ModelFile {
        path,
        sha256: blob.digest.hex(),
        size: blob.size,
    };
    let files: Vec<ModelFile> = tree.into_iter().map(file).collect();
    if files.len() > MAX_FILES {
        let text = format!(
            "A version has at most {MAX_FILES} files, '{uri}' has {}.",
            files.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidParameterValue, text).into());
    }
    Ok(Found {
        files,
        artifacts: Some(uri.to_owned()),
        ..Found::default()
    })
}

/// The most files of a version.
const MAX_FILES: usize = 10_000;
