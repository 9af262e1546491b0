//! Registered models: names, words, tags and aliases.
//!
//! Where an alias points is decided by the leader, by the same gates whoever asks.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_domain::model::Actor;
use pomona_scheduler::{Event, RegistryWish};
use pomona_store::{ModelFace, ModelSearch, VersionFace};
use pomona_tracking::params::Body;
use pomona_tracking::{ErrorCode, Refusal, filter, limits, names, order, token};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::experiments::{offset, page, tags};
use super::model_versions::{self, stage, version};
use super::{Answer, Refused, parameters, render};
use crate::http::{App, actor};

/// There is no such model.
pub fn missing(name: &str) -> Refused {
    Refusal::missing(format!("Registered Model with name={name} not found")).into()
}

fn taken(name: &str) -> Refused {
    let text = format!("Registered Model (name={name}) already exists.");
    Refusal::new(ErrorCode::ResourceAlreadyExists, text).into()
}

/// The model that a request names, which is there.
pub async fn model(app: &Data<App>, body: &Body<'_>) -> Result<ModelFace, Refused> {
    let name = body.required_str("name")?;
    names::model_name(name)?;
    let face = app.store.model_face(name).await?;
    face.ok_or_else(|| missing(name))
}

fn shown(face: &ModelFace, latest: &[VersionFace]) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("name".to_owned(), json!(face.name));
    shown.insert("creation_timestamp".to_owned(), json!(face.created_at.0));
    shown.insert(
        "last_updated_timestamp".to_owned(),
        json!(face.updated_at.0),
    );
    if !face.description.is_empty() {
        shown.insert("description".to_owned(), json!(face.description));
    }
    let latest: Vec<_> = latest.iter().map(render::version).collect();
    if !latest.is_empty() {
        shown.insert("latest_versions".to_owned(), json!(latest));
    }
    if !face.tags.is_empty() {
        shown.insert("tags".to_owned(), render::pairs_of(&face.tags));
    }
    let aliases: Vec<Value> = (face.aliases.iter())
        .map(|alias| json!({ "alias": alias.alias, "version": alias.number.to_string() }))
        .collect();
    if !aliases.is_empty() {
        shown.insert("aliases".to_owned(), json!(aliases));
    }
    shown
}

async fn answer(app: &Data<App>, name: &str) -> Answer {
    let face = app.store.model_face(name).await?;
    let face = face.ok_or_else(|| missing(name))?;
    let latest = app.store.version_latest(&[name.to_owned()]).await?;
    render::ok(&json!({ "registered_model": shown(&face, &latest) }))
}

/// `POST registered-models/create`
pub async fn create(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let name = body.required_str("name")?;
    names::model_name(name)?;
    let tags = tags(&body, names::registry_tag)?;
    let description = body.optional_str("description")?.unwrap_or_default();
    let words = (description, tags.as_slice());
    let by = actor::of(&request);
    if !app.store.model_create(name, words, app.now(), &by).await? {
        return Err(taken(name));
    }
    answer(&app, name).await
}

/// `GET registered-models/get`
pub async fn get(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let name = body.required_str("name")?;
    names::model_name(name)?;
    answer(&app, name).await
}

/// `GET registered-models/search`
pub async fn search(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let size = limits::REGISTERED_MODELS.read(&body)?;
    let search = ModelSearch {
        filter: filter::registered_models(body.optional_str("filter")?.unwrap_or_default())?,
        order: order::registered_models(&body.strings("order_by")?)?,
        offset: offset(&body)?,
        limit: size as u64 + 1,
    };
    let mut faces = app.store.model_search(&search).await?;
    let next = token::next(search.offset, size, faces.len());
    faces.truncate(size);
    let names: Vec<String> = faces.iter().map(|face| face.name.clone()).collect();
    let mut latest: BTreeMap<String, Vec<VersionFace>> = BTreeMap::new();
    for face in app.store.version_latest(&names).await? {
        let of = face.version.model.clone();
        latest.entry(of).or_default().push(face);
    }
    let none = Vec::new();
    let models: Vec<_> = (faces.iter())
        .map(|face| shown(face, latest.get(&face.name).unwrap_or(&none)))
        .collect();
    render::ok(&page("registered_models", &models, next))
}

/// `PATCH registered-models/update`
pub async fn update(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    if let Some(text) = body.optional_str("description")? {
        let by = actor::of(&request);
        app.store
            .model_describe(&face.name, text, app.now(), &by)
            .await?;
    }
    answer(&app, &face.name).await
}

async fn wished(
    app: &Data<App>,
    model: &str,
    wish: RegistryWish,
    by: Actor,
) -> Result<(), Refused> {
    let event = Event::Registry {
        model: model.to_owned(),
        wish,
        by,
    };
    crate::http::models::decide_and_audit(app, event).await?;
    Ok(())
}

/// `POST registered-models/rename`
pub async fn rename(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let to = body.required_str("new_name")?.trim().to_owned();
    names::model_name(&to)?;
    if app.store.model_name_is_taken(&to).await? {
        return Err(taken(&to));
    }
    let wish = RegistryWish::Rename { to: to.clone() };
    wished(&app, &face.name, wish, actor::of(&request)).await?;
    answer(&app, &to).await
}

/// `DELETE registered-models/delete`
pub async fn delete(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let pulled_until = app.store.pulled_until(&face.name, None).await?;
    let wish = RegistryWish::DeleteModel { pulled_until };
    wished(&app, &face.name, wish, actor::of(&request)).await?;
    render::empty()
}

/// `POST registered-models/set-tag`
pub async fn set_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let (key, value) = (body.required_str("key")?, body.required_str("value")?);
    names::registry_tag(key, value)?;
    let by = actor::of(&request);
    app.store
        .model_tag(&face.name, (key, Some(value)), app.now(), &by)
        .await?;
    render::empty()
}

/// `DELETE registered-models/delete-tag`
pub async fn delete_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let key = body.required_str("key")?;
    names::registry_tag(key, "")?;
    let by = actor::of(&request);
    app.store
        .model_tag(&face.name, (key, None), app.now(), &by)
        .await?;
    render::empty()
}

/// `GET` and `POST registered-models/get-latest-versions`
pub async fn latest(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let stages = body.strings("stages")?;
    let stages: Vec<&str> = (stages.iter())
        .map(|name| stage(name))
        .collect::<Result<_, _>>()?;
    let mut versions = app.store.version_latest(&[face.name]).await?;
    versions.retain(|face| stages.is_empty() || stages.contains(&face.stage.as_str()));
    let versions: Vec<_> = versions.iter().map(render::version).collect();
    render::ok(&page("model_versions", &versions, None))
}

/// `POST registered-models/alias`
pub async fn set_alias(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let alias = body.required_str("alias")?;
    names::new_alias(alias)?;
    let version = version(&app, &body).await?.version;
    let event = Event::AliasSet {
        model: version.model,
        alias: alias.to_owned(),
        number: version.number,
        expected_revision: None,
        reason: "set by a client of MLflow's".to_owned(),
        by: actor::of(&request),
    };
    crate::http::models::decide_and_audit(&app, event).await?;
    render::empty()
}

/// `DELETE registered-models/alias`: one that is not there is no fault.
pub async fn delete_alias(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let alias = body.required_str("alias")?;
    names::alias(alias)?;
    if face.aliases.iter().any(|one| one.alias == alias) {
        let wish = RegistryWish::DeleteAlias {
            alias: alias.to_owned(),
            reason: "deleted by a client of MLflow's".to_owned(),
        };
        wished(&app, &face.name, wish, actor::of(&request)).await?;
    }
    render::empty()
}

/// `GET registered-models/alias`: the version that an alias points to.
pub async fn by_alias(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let face = model(&app, &body).await?;
    let alias = body.required_str("alias")?;
    names::alias(alias)?;
    let there = face.aliases.iter().find(|one| one.alias == alias);
    let there = there.ok_or_else(|| {
        Refused::from(Refusal::invalid(format!(
            "Registered model alias {alias} not found."
        )))
    })?;
    model_versions::answer(&app, &face.name, there.number).await
}
