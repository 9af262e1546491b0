//! Versions of registered models: those of ours, and those that clients register.
//!
//! A version is made of files that are here already: its files are never fetched from elsewhere, and
//! a path on this machine is never a source.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_domain::Change;
use pomona_domain::model::Registration;
use pomona_scheduler::{Event, RegistryWish};
use pomona_store::{VersionFace, VersionSearch};
use pomona_tracking::params::Body;
use pomona_tracking::{Refusal, artifact_path, filter, limits, names, order, token};
use serde_json::json;

use super::experiments::{offset, page, tags};
use super::registered_models::model;
use super::source::{self, Found};
use super::{Answer, Refused, parameters, render};
use crate::http::{App, actor};

/// Stages, which are words.
const STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];

fn missing(name: &str, number: &str) -> Refused {
    let text = format!("Model Version (name={name}, version={number}) not found");
    Refusal::missing(text).into()
}

/// A stage in its own spelling.
pub fn stage(name: &str) -> Result<&'static str, Refusal> {
    let known = STAGES.iter().find(|stage| stage.eq_ignore_ascii_case(name));
    known.copied().ok_or_else(|| {
        Refusal::invalid(format!(
            "Invalid Model Version stage: {name}. Value must be one of {}.",
            STAGES.join(", ")
        ))
    })
}

/// The version that a request names, which is there.
pub async fn version(app: &Data<App>, body: &Body<'_>) -> Result<VersionFace, Refused> {
    let name = body.required_str("name")?;
    names::model_name(name)?;
    let text = body.required_str("version")?;
    let number = names::model_version(text)?;
    let face = app.store.version_face(name, number).await?;
    face.ok_or_else(|| missing(name, text))
}

/// A version as an answer.
pub async fn answer(app: &Data<App>, name: &str, number: u32) -> Answer {
    let face = app.store.version_face(name, number).await?;
    let face = face.ok_or_else(|| missing(name, &number.to_string()))?;
    render::ok(&json!({ "model_version": render::version(&face) }))
}

/// `POST model-versions/create`
pub async fn create(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let name = model(&app, &body).await?.name;
    let source = body.required_str("source")?;
    let text = |name| Ok::<_, Refusal>(body.optional_str(name)?.filter(|text| !text.is_empty()));
    let (run_id, model_id) = (text("run_id")?, text("model_id")?);
    let tags = tags(&body, names::registry_tag)?;
    let description = text("description")?;
    let Found {
        files,
        artifacts,
        metrics,
        run,
        model: logged,
    } = source::find(&app, source, run_id, model_id).await?;
    let registration = Registration {
        source: source.to_owned(),
        run_id: run_id.map(str::to_owned).or(run),
        model_id: model_id.map(str::to_owned).or(logged),
        run_link: text("run_link")?.map(str::to_owned),
        artifacts,
    };
    let wish = RegistryWish::Register {
        files,
        registration: Box::new(registration),
        metrics,
        description: description.unwrap_or_default().to_owned(),
        tags: tags.into_iter().collect(),
    };
    let number = register(&app, &name, wish, &request).await?;
    answer(&app, &name, number).await
}

async fn register(
    app: &Data<App>,
    model: &str,
    wish: RegistryWish,
    request: &HttpRequest,
) -> Result<u32, Refused> {
    let event = Event::Registry {
        model: model.to_owned(),
        wish,
        by: actor::of(request),
    };
    let done = crate::http::models::decide_and_audit(app, event).await?;
    let made = done.changes.iter().find_map(|change| {
        let Change::Version(row) = change else {
            return None;
        };
        Some(row.number)
    });
    made.ok_or_else(|| missing(model, "new"))
}

/// `GET model-versions/get`
pub async fn get(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = version(&app, &body).await?;
    render::ok(&json!({ "model_version": render::version(&face) }))
}

/// `GET model-versions/search`
pub async fn search(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let size = limits::MODEL_VERSIONS.read(&body)?;
    let search = VersionSearch {
        filter: filter::model_versions(body.optional_str("filter")?.unwrap_or_default())?,
        order: order::model_versions(&body.strings("order_by")?)?,
        offset: offset(&body)?,
        limit: size as u64 + 1,
    };
    let mut faces = app.store.version_search(&search).await?;
    let next = token::next(search.offset, size, faces.len());
    faces.truncate(size);
    let versions: Vec<_> = faces.iter().map(render::version).collect();
    render::ok(&page("model_versions", &versions, next))
}

/// `PATCH model-versions/update`
pub async fn update(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let of = version(&app, &body).await?.version;
    if let Some(text) = body.optional_str("description")? {
        let by = actor::of(&request);
        app.store
            .version_describe((&of.model, of.number), text, app.now(), &by)
            .await?;
    }
    answer(&app, &of.model, of.number).await
}

/// `DELETE model-versions/delete`
pub async fn delete(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let of = version(&app, &body).await?.version;
    let pulled_until = app.store.pulled_until(&of.model, Some(of.number)).await?;
    let event = Event::Registry {
        model: of.model,
        wish: RegistryWish::DeleteVersion {
            number: of.number,
            pulled_until,
        },
        by: actor::of(&request),
    };
    crate::http::models::decide_and_audit(&app, event).await?;
    render::empty()
}

/// `POST model-versions/set-tag`
pub async fn set_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let of = version(&app, &body).await?.version;
    let (key, value) = (body.required_str("key")?, body.required_str("value")?);
    names::registry_tag(key, value)?;
    let by = actor::of(&request);
    app.store
        .version_tag((&of.model, of.number), (key, Some(value)), app.now(), &by)
        .await?;
    render::empty()
}

/// `DELETE model-versions/delete-tag`
pub async fn delete_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let of = version(&app, &body).await?.version;
    let key = body.required_str("key")?;
    names::registry_tag(key, "")?;
    let by = actor::of(&request);
    app.store
        .version_tag((&of.model, of.number), (key, None), app.now(), &by)
        .await?;
    render::empty()
}

/// `POST model-versions/transition-stage`
pub async fn transition(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let of = version(&app, &body).await?.version;
    let to = stage(body.required_str("stage")?)?;
    let archive = body
        .optional_bool("archive_existing_versions")?
        .unwrap_or(false);
    if archive && !matches!(to, "Staging" | "Production") {
        let text = format!(
            "Model version transition cannot archive existing model versions because '{to}' is not \
             an Active stage. Valid stages are Production, Staging"
        );
        return Err(Refusal::invalid(text).into());
    }
    let by = actor::of(&request);
    app.store
        .version_stage((&of.model, of.number), (to, archive), app.now(), &by)
        .await?;
    answer(&app, &of.model, of.number).await
}

/// `GET model-versions/get-download-uri`
pub async fn download_uri(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = version(&app, &body).await?;
    app.metrics.pulls.with_label_values(&["mlflow"]).inc();
    render::ok(&json!({ "artifact_uri": source::address(&face) }))
}

/// `GET /model-versions/get-artifact`: a file of a version.
pub async fn get_artifact(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = version(&app, &body).await?;
    let path = artifact_path::file(body.required_str("path")?)?;
    super::artifacts::send_of_version(&app, &face.version, path).await
}
