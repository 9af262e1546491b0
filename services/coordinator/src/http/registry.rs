//! What is taken out of the registry or said of it, and the audit of both.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::v1::PageQuery;
use pomona_api::v1::models::{AuditQuery, ChangeWords, Words};
use pomona_domain::{Code, Fault};
use pomona_scheduler::{Event, RegistryWish};
use pomona_tracking::names;

use super::actor::Caller;
use super::key::{Key, once};
use super::models::{decide_and_audit, version, view};
use super::{Answer, App, Refusal, found, ok, page, page_request};

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 20_000;
/// The most tags of one request.
const MAX_TAGS: usize = 100;

/// `DELETE /api/v1/models/{name}`
pub async fn model_delete(
    app: Data<App>,
    name: Path<String>,
    key: Key,
    Caller(by): Caller,
) -> Answer {
    let work = async {
        let model = found(app.store.model_face(&name).await?, "model", &name)?;
        let shown = view(&app, model).await?;
        let pulled_until = app.store.pulled_until(&name, None).await?;
        let event = Event::Registry {
            model: name.clone(),
            wish: RegistryWish::DeleteModel { pulled_until },
            by,
        };
        decide_and_audit(&app, event).await?;
        Ok::<_, Refusal>(shown)
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// `DELETE /api/v1/models/{name}/versions/{which}`
pub async fn version_delete(
    app: Data<App>,
    path: Path<(String, String)>,
    key: Key,
    Caller(by): Caller,
) -> Answer {
    let (model, which) = path.into_inner();
    let work = async {
        let row = version(&app, &model, &which).await?;
        let number = row.number;
        let pulled_until = app.store.pulled_until(&model, Some(number)).await?;
        let event = Event::Registry {
            model: model.clone(),
            wish: RegistryWish::DeleteVersion {
                number,
                pulled_until,
            },
            by,
        };
        decide_and_audit(&app, event).await?;
        Ok::<_, Refusal>(row)
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// `DELETE /api/v1/models/{name}/aliases/{alias}`
pub async fn alias_delete(
    app: Data<App>,
    path: Path<(String, String)>,
    key: Key,
    Caller(by): Caller,
) -> Answer {
    let (model, alias) = path.into_inner();
    let work = async {
        let row = app.store.alias_get(&model, &alias).await?;
        let row = found(row, "alias", &format!("{model}@{alias}"))?;
        let event = Event::Registry {
            model: model.clone(),
            wish: RegistryWish::DeleteAlias {
                alias: alias.clone(),
                reason: "deleted by request".to_owned(),
            },
            by,
        };
        decide_and_audit(&app, event).await?;
        Ok::<_, Refusal>(row)
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// Refuses words that are too long or not words.
fn check(words: &ChangeWords) -> Result<(), Refusal> {
    let length = words.description.as_ref().map_or(0, String::len);
    if length > MAX_DESCRIPTION {
        let text = format!("the description is over its limit of {MAX_DESCRIPTION} bytes");
        return Err(Fault::new(Code::TooLarge, text).into());
    }
    if words.tags.len() > MAX_TAGS {
        let text = format!("one request sets at most {MAX_TAGS} tags");
        return Err(Fault::new(Code::TooLarge, text).into());
    }
    for (key, value) in &words.tags {
        names::registry_tag(key, value.as_deref().unwrap_or_default())
            .map_err(|refusal| Fault::new(Code::BadRequest, refusal.message))?;
    }
    Ok(())
}

/// `PATCH /api/v1/models/{name}`
pub async fn model_change(
    app: Data<App>,
    name: Path<String>,
    Caller(by): Caller,
    body: Json<ChangeWords>,
) -> Answer {
    check(&body)?;
    found(app.store.model_face(&name).await?, "model", &name)?;
    if let Some(text) = &body.description {
        app.store
            .model_describe(&name, text, app.now(), &by)
            .await?;
    }
    for (key, value) in &body.tags {
        let tag = (key.as_str(), value.as_deref());
        app.store.model_tag(&name, tag, app.now(), &by).await?;
    }
    let face = found(app.store.model_face(&name).await?, "model", &name)?;
    ok(&Words {
        description: face.description,
        tags: face.tags.into_iter().collect(),
    })
}

/// `PATCH /api/v1/models/{name}/versions/{which}`
pub async fn version_change(
    app: Data<App>,
    path: Path<(String, String)>,
    Caller(by): Caller,
    body: Json<ChangeWords>,
) -> Answer {
    check(&body)?;
    let (model, which) = path.into_inner();
    let number = version(&app, &model, &which).await?.number;
    let of = (model.as_str(), number);
    if let Some(text) = &body.description {
        app.store.version_describe(of, text, app.now(), &by).await?;
    }
    for (key, value) in &body.tags {
        let tag = (key.as_str(), value.as_deref());
        app.store.version_tag(of, tag, app.now(), &by).await?;
    }
    let face = app.store.version_face(&model, number).await?;
    let face = found(face, "version", &format!("{model}@{which}"))?;
    ok(&Words {
        description: face.description,
        tags: face.tags.into_iter().collect(),
    })
}

/// `GET /api/v1/audit`: newest first.
pub async fn audit(app: Data<App>, query: Query<AuditQuery>) -> Answer {
    let request = page_request(&PageQuery {
        page_size: query.page_size,
        page_token: query.page_token.clone(),
    })?;
    let subject = query.subject.as_deref().filter(|text| !text.is_empty());
    ok(&page(app.store.audit_list(subject, &request).await?))
}
