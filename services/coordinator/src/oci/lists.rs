//! Tags of a model, and what refers to a manifest.

use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;

use super::refusal::{Answer, Refused};
use super::{find, reference};
use crate::http::App;

/// Tags in one answer, at most.
const MAX_TAGS: usize = 1000;

#[derive(Debug, Deserialize)]
struct TagsQuery {
    n: Option<usize>,
    last: Option<String>,
}

/// `GET /v2/{name}/tags/list`
pub async fn tags(app: Data<App>, name: Path<String>, request: HttpRequest) -> Answer {
    reference::name(&name)?;
    let query = Query::<TagsQuery>::from_query(request.query_string());
    let query = query.map_err(|error| Refused::bad_page(&error.to_string()))?;
    let Some(model) = app.store.model_face(&name).await? else {
        return Err(Refused::no_model(&name));
    };
    let aliases: Vec<String> = model.aliases.into_iter().map(|row| row.alias).collect();
    let mut tags = reference::tags(&app.store.version_numbers(&name).await?, &aliases);
    if let Some(last) = &query.last {
        tags.retain(|tag| tag > last);
    }
    let limit = query.n.unwrap_or(MAX_TAGS).min(MAX_TAGS);
    let has_more = tags.len() > limit;
    tags.truncate(limit);
    let mut response = HttpResponse::Ok();
    response.insert_header(super::VERSION);
    if let (true, Some(last)) = (has_more, tags.last()) {
        let path = request.path();
        let link = format!("<{path}?n={limit}&last={last}>; rel=\"next\"");
        response.insert_header((actix_web::http::header::LINK, link));
    }
    Ok(response.json(json!({ "name": *name, "tags": tags })))
}

/// `GET /v2/{name}/referrers/{digest}`: nothing is stored that refers to a manifest (a version's
/// signature is made when it is pulled).
pub async fn referrers(app: Data<App>, path: Path<(String, String)>) -> Answer {
    let (model, digest) = path.into_inner();
    reference::name(&model)?;
    reference::digest(&digest)?;
    find::exists(&app, &model).await?;
    let index = "application/vnd.oci.image.index.v1+json";
    let body = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [] });
    let mut response = HttpResponse::Ok();
    response.insert_header(super::VERSION).content_type(index);
    Ok(response.body(body.to_string()))
}
