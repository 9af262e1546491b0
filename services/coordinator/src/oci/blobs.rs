//! Blobs: configurations, files, and layers that are put together as they are sent. Whole or one
//! range; a client checks their digests, so they are not hashed once more on their way.

use actix_web::body::SizedStream;
use actix_web::http::header;
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures::{TryStreamExt as _, stream};
use pomona_domain::Digest;
use pomona_store::{BlobReader, ImagePart, Store, StoreError};
use std::ops::Range;

use super::layer::{Layout, Piece};
use super::reference;
use super::refusal::{Answer, Refused};
use super::{find, image, pack};
use crate::http::{App, blobs};

/// `HEAD /v2/{name}/blobs/{digest}`
pub async fn head(app: Data<App>, path: Path<(String, String)>) -> Answer {
    let (model, digest) = path.into_inner();
    let (digest, layout) = found(&app, &model, &digest).await?;
    let unsent = stream::empty::<Result<Bytes, actix_web::Error>>();
    let mut response = about(HttpResponse::Ok(), digest);
    // The server writes the length of a body that it does not send.
    Ok(response.body(SizedStream::new(size(&layout), unsent)))
}

/// `GET /v2/{name}/blobs/{digest}`, whole or one range of it.
pub async fn get(app: Data<App>, path: Path<(String, String)>, request: HttpRequest) -> Answer {
    let (model, digest) = path.into_inner();
    let (digest, pieces) = found(&app, &model, &digest).await?;
    if is_known(&request, digest) {
        return Ok(about(HttpResponse::NotModified(), digest).finish());
    }
    let size = size(&pieces);
    let Some(range) = asked(&request, digest, size) else {
        return send(&app, about(HttpResponse::Ok(), digest), pieces).await;
    };
    let range = range.map_err(|()| Refused::bad_range(size))?;
    let mut response = about(HttpResponse::PartialContent(), digest);
    let place = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    response.insert_header((header::CONTENT_RANGE, place));
    send(&app, response, Layout::new(pieces).between(&range)).await
}

/// The parts of a blob that a version of the model needs.
async fn found(app: &App, model: &str, text: &str) -> Result<(Digest, Vec<Piece>), Refused> {
    reference::name(model)?;
    let digest = reference::digest(text)?;
    let Some((part, version)) = find::by_digest(app, model, digest).await? else {
        find::exists(app, model).await?;
        return Err(Refused::no_blob(model, text));
    };
    let bytes = |bytes: Vec<u8>| vec![Piece::Bytes(bytes.into())];
    let pieces = match part {
        ImagePart::Config => bytes(pack::config(&version)),
        ImagePart::Manifest => bytes(pack::manifest(&version)),
        ImagePart::ImageConfig => {
            let (layer, _) = find::layer(app, &version).await?;
            bytes(image::config(&version, layer))
        }
        ImagePart::Image => {
            let (layer, size) = find::layer(app, &version).await?;
            bytes(image::manifest(&version, layer, size))
        }
        ImagePart::Layer => Layout::of(&version.files)?.all(),
        ImagePart::File => {
            let hex = digest.hex();
            let file = version.files.iter().find(|file| file.sha256 == hex);
            let size = file.map_or(0, |file| file.size);
            vec![Piece::Blob(digest, 0..size)]
        }
    };
    Ok((digest, pieces))
}

fn size(pieces: &[Piece]) -> u64 {
    pieces.iter().map(Piece::len).sum()
}

fn about(mut response: HttpResponseBuilder, digest: Digest) -> HttpResponseBuilder {
    response
        .content_type("application/octet-stream")
        .insert_header(super::VERSION)
        .insert_header(("Docker-Content-Digest", digest.to_string()))
        .insert_header((header::ETAG, format!("\"{digest}\"")))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CACHE_CONTROL, blobs::FOR_EVER));
    response
}

/// Whether a client says that it has what it asks for.
pub fn is_known(request: &HttpRequest, digest: Digest) -> bool {
    let said = request.headers().get_all(header::IF_NONE_MATCH);
    let etag = format!("\"{digest}\"");
    said.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().trim_start_matches("W/"))
        .any(|value| value == etag || value == "*")
}

/// The range that is asked for, of the blob as it is: one of another (`If-Range`) is no range.
fn asked(request: &HttpRequest, digest: Digest, size: u64) -> Option<Result<Range<u64>, ()>> {
    let text = request.headers().get(header::RANGE)?.to_str().ok()?;
    let of = request.headers().get(header::IF_RANGE);
    if of.is_some_and(|of| of.as_bytes() != format!("\"{digest}\"").as_bytes()) {
        return None;
    }
    blobs::range(text, size)
}

/// The parts of a body that are still to be sent.
struct Body {
    store: Store,
    pieces: std::vec::IntoIter<Piece>,
    reader: Option<BlobReader>,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(bytes) = reader.next().await?
            {
                return Ok(Some(bytes));
            }
            self.reader = None;
            match self.pieces.next() {
                None => return Ok(None),
                Some(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Piece::Blob(digest, range)) => {
                    let reader = self.store.blob_get(digest).await?;
                    self.reader = Some(reader.unchecked().between(range));
                }
            }
        }
    }
}

/// Sends parts one after the other, with as many bytes in memory as one chunk and the next have. The
/// first ones are read before the head is sent, so that what is not there is answered with its code.
async fn send(app: &App, mut response: HttpResponseBuilder, pieces: Vec<Piece>) -> Answer {
    let left = size(&pieces);
    let pieces = pieces.into_iter();
    let mut body = Body {
        store: app.store.clone(),
        pieces,
        reader: None,
    };
    let first = body.next().await?;
    let rest = stream::try_unfold(body, |mut body| async {
        let bytes = body.next().await?;
        Ok::<_, StoreError>(bytes.map(|bytes| (bytes, body)))
    });
    let all = futures::StreamExt::chain(stream::iter(first.map(Ok)), rest);
    Ok(response.body(SizedStream::new(left, all.map_err(blobs::broken))))
}
