//! Manifests, by tag and by digest.

use actix_web::http::header;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use pomona_domain::Digest;
use pomona_store::ImagePart;

use super::blobs::is_known;
use super::reference::{self, Reference, Rendering};
use super::refusal::{Answer, Refused};
use super::{find, image, pack};
use crate::http::App;

/// `HEAD /v2/{name}/manifests/{reference}`
pub async fn head(app: Data<App>, path: Path<(String, String)>, request: HttpRequest) -> Answer {
    let (model, reference) = path.into_inner();
    // The server leaves out the body.
    answer(&request, rendered(&app, &model, &reference).await?)
}

/// `GET /v2/{name}/manifests/{reference}`
pub async fn get(app: Data<App>, path: Path<(String, String)>, request: HttpRequest) -> Answer {
    let (model, reference) = path.into_inner();
    let answer = answer(&request, rendered(&app, &model, &reference).await?)?;
    app.metrics.pulls.with_label_values(&["oci"]).inc();
    Ok(answer)
}

async fn rendered(app: &App, model: &str, named: &str) -> Result<Vec<u8>, Refused> {
    reference::name(model)?;
    match Reference::read(named)? {
        Reference::Tag(which, rendering) => {
            let version = find::tagged(app, model, &which).await?;
            find::remember(app, &version).await?;
            match rendering {
                Rendering::Files => Ok(pack::manifest(&version)),
                Rendering::Image => {
                    let (layer, size) = find::layer(app, &version).await?;
                    Ok(image::manifest(&version, layer, size))
                }
            }
        }
        Reference::Digest(digest) => match find::by_digest(app, model, digest).await? {
            Some((ImagePart::Manifest, version)) => Ok(pack::manifest(&version)),
            Some((ImagePart::Image, version)) => {
                let (layer, size) = find::layer(app, &version).await?;
                Ok(image::manifest(&version, layer, size))
            }
            Some((
                ImagePart::Config | ImagePart::File | ImagePart::Layer | ImagePart::ImageConfig,
                _,
            ))
            | None => {
                find::exists(app, model).await?;
                let text = format!("no version of `{model}` has the manifest `{digest}`");
                Err(Refused::no_manifest(text))
            }
        },
    }
}

fn answer(request: &HttpRequest, bytes: Vec<u8>) -> Answer {
    if !accepts(request) {
        let text = "its manifest is an OCI image manifest, which the request does not accept";
        return Err(Refused::no_manifest(text));
    }
    let digest = Digest::of(&bytes);
    let known = is_known(request, digest);
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header(super::VERSION)
        .insert_header(("Docker-Content-Digest", digest.to_string()))
        .insert_header((header::ETAG, format!("\"{digest}\"")))
        .content_type(pack::MANIFEST);
    if known {
        return Ok(response.finish());
    }
    Ok(response.body(bytes))
}

/// Whether a client takes the one type that there is; one that says nothing takes all.
fn accepts(request: &HttpRequest) -> bool {
    let mut said = request.headers().get_all(header::ACCEPT).peekable();
    if said.peek().is_none() {
        return true;
    }
    said.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|kind| [pack::MANIFEST, "*/*", "application/*"].contains(&kind.trim()))
}
