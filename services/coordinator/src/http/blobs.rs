//! Blobs: streamed in and out, named by their digest. An upload whose bytes have another digest is
//! refused, and a download never ends well with bytes that do not have their name.
//!
//! It must never hold a blob in memory.

use actix_web::body::SizedStream;
use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pomona_domain::{Code, Digest, Fault};
use pomona_store::{BlobReader, StoreError};
use serde_json::json;
use std::ops::Range;

use super::{Answer, App, Refusal};

const BINARY: &str = "application/octet-stream";
/// A blob never changes.
pub const FOR_EVER: &str = "private, max-age=31536000, immutable";

fn digest(text: &str) -> Result<Digest, Fault> {
    text.parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("{error}")))
}

fn missing(digest: Digest) -> Fault {
    Fault::new(Code::BlobMissing, format!("there is no blob `{digest}`"))
}

/// Whether a blob is here; it stays long enough to be referred to.
pub async fn is_here(app: &App, digest: Digest) -> Result<bool, Refusal> {
    Ok(app.store.blob_keep(digest, app.now()).await?.is_some())
}

/// `PUT /api/v1/blobs/{digest}`
pub async fn put(
    app: Data<App>,
    name: Path<String>,
    request: HttpRequest,
    mut payload: Payload,
) -> Answer {
    let digest = digest(&name)?;
    let limit = app.config.http.max_blob_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let announced = length.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|size| size > limit) {
        let text = format!("the blob is over its limit of {limit} bytes");
        return Err(Fault::new(Code::TooLarge, text).into());
    }
    let mut writer = app.store.blob_writer(digest, limit, app.now()).await?;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk
            .map_err(|error| StoreError::BrokenUpload(std::io::Error::other(error.to_string())))?;
        writer.write(&chunk).await?;
    }
    let stat = writer.finish(app.now()).await?;
    let body = json!({"digest": stat.digest, "size": stat.size});
    super::json(StatusCode::CREATED, &body)
}

/// `HEAD /api/v1/blobs/{digest}`
pub async fn head(app: Data<App>, name: Path<String>) -> Answer {
    let digest = digest(&name)?;
    let stat = app.store.blob_keep(digest, app.now()).await?;
    let stat = stat.ok_or_else(|| missing(digest))?;
    // The server writes the length of a body that it does not send.
    let unsent = stream::empty::<Result<Bytes, actix_web::Error>>();
    let mut response = about(HttpResponse::Ok(), digest, BINARY);
    Ok(response.body(SizedStream::new(stat.size, unsent)))
}

/// `GET /api/v1/blobs/{digest}`, whole or one range of it.
pub async fn get(app: Data<App>, name: Path<String>, request: HttpRequest) -> Answer {
    let digest = digest(&name)?;
    let reader = app.store.blob_get(digest).await?;
    let size = reader.stat().size;
    let asked = request.headers().get(header::RANGE);
    let Some(range) = asked.and_then(|text| range(text.to_str().ok()?, size)) else {
        return send(about(HttpResponse::Ok(), digest, BINARY), reader).await;
    };
    let range = range.map_err(|()| {
        let text = format!("the range is not within the blob's {size} bytes");
        let (status, header) = (StatusCode::RANGE_NOT_SATISFIABLE, header::CONTENT_RANGE);
        Refusal::from(Fault::new(Code::BadRequest, text)).shown(
            status,
            header,
            format!("bytes */{size}"),
        )
    })?;
    let mut response = about(HttpResponse::PartialContent(), digest, BINARY);
    let place = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    response.insert_header((header::CONTENT_RANGE, place));
    send(response, reader.between(range)).await
}

/// A whole blob as an answer of its own kind.
pub async fn whole(app: &App, digest: Digest, kind: &str) -> Answer {
    let reader = app.store.blob_get(digest).await?;
    send(about(HttpResponse::Ok(), digest, kind), reader).await
}

fn about(mut response: HttpResponseBuilder, digest: Digest, kind: &str) -> HttpResponseBuilder {
    response
        .content_type(kind)
        .insert_header((header::ETAG, format!("\"{digest}\"")))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CACHE_CONTROL, FOR_EVER));
    response
}

/// Streams what is left of a reader. The first bytes are read before the head is sent, so that
/// damage of a small blob is answered with its code.
async fn send(mut response: HttpResponseBuilder, mut reader: BlobReader) -> Answer {
    let left = reader.left();
    let first = reader.next().await?;
    let rest = stream::try_unfold(reader, |mut reader| async {
        let chunk = reader.next().await?;
        Ok::<_, StoreError>(chunk.map(|chunk| (chunk, reader)))
    });
    let body = stream::iter(first.map(Ok)).chain(rest);
    Ok(response.body(SizedStream::new(left, body.map_err(broken))))
}

/// The head was sent already: the connection breaks, and the log says why.
pub fn broken(error: StoreError) -> actix_web::Error {
    let fault = Fault::from(error);
    tracing::error!(code = %fault.code, "a download broke off: {fault}");
    Refusal::from(fault).into()
}

/// The one range that a header asks for, if it is one; `Err` when the blob has no such bytes.
pub fn range(text: &str, size: u64) -> Option<Result<Range<u64>, ()>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = if first.trim().is_empty() {
        size.saturating_sub(number(last)?)..size
    } else if last.trim().is_empty() {
        number(first)?..size
    } else {
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return None;
        }
        first..last.saturating_add(1).min(size)
    };
    Some(if range.start < range.end {
        Ok(range)
    } else {
        Err(())
    })
}

#[cfg(test)]
mod tests;
