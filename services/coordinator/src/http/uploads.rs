//! Uploads in several requests: begun under an id, gone on with from where they stand, ended under a
//! digest. What one request brought is at rest before it is answered, also when it broke off, and
//! any coordinator goes on with it.
//!
//! It must never hold a blob in memory.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path, Payload, Query};
use futures::StreamExt as _;
use pomona_api::v1::uploads::{FinishUpload, ResumeUpload, UploadView};
use pomona_domain::Fault;
use pomona_store::{StoreError, UploadWriter};
use serde_json::json;
use std::time::Duration;

use super::{Answer, App, Refusal};

/// A sender that is silent for longer is gone, and somebody else may go on.
const SILENCE: Duration = Duration::from_secs(30);

/// An id is a name in the store.
fn checked(id: &str) -> Result<&str, Fault> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id
        .then_some(id)
        .ok_or_else(|| Fault::from(StoreError::UploadMissing))
}

fn view(id: &str, offset: u64) -> UploadView {
    UploadView {
        id: id.to_owned(),
        offset,
    }
}

/// `POST /api/v1/blobs/uploads`
pub async fn begin(app: Data<App>) -> Answer {
    let id = format!("{:032x}", rand::random::<u128>());
    app.store.upload_begin(&id, app.now()).await?;
    super::json(StatusCode::CREATED, &view(&id, 0))
}

/// `GET /api/v1/blobs/uploads/{id}`
pub async fn get(app: Data<App>, id: Path<String>) -> Answer {
    let id = checked(&id)?;
    super::ok(&view(id, app.store.upload_offset(id).await?))
}

/// `PATCH /api/v1/blobs/uploads/{id}`
pub async fn resume(
    app: Data<App>,
    id: Path<String>,
    from: Query<ResumeUpload>,
    payload: Payload,
) -> Answer {
    let id = checked(&id)?;
    let writer = take(&app, id, from.offset, payload).await?;
    super::ok(&view(id, writer.pause(app.now()).await?))
}

/// `PUT /api/v1/blobs/uploads/{id}`
pub async fn finish(
    app: Data<App>,
    id: Path<String>,
    from: Query<FinishUpload>,
    payload: Payload,
) -> Answer {
    let writer = take(&app, checked(&id)?, from.offset, payload).await?;
    let stat = writer.finish(from.digest, app.now()).await?;
    let body = json!({"digest": stat.digest, "size": stat.size});
    super::json(StatusCode::CREATED, &body)
}

/// `DELETE /api/v1/blobs/uploads/{id}`
pub async fn cancel(app: Data<App>, id: Path<String>) -> Answer {
    app.store.upload_cancel(checked(&id)?).await?;
    super::ok(&json!({}))
}

/// Writes a request's bytes. Those of one that breaks off are kept.
async fn take(
    app: &App,
    id: &str,
    offset: u64,
    mut payload: Payload,
) -> Result<UploadWriter, Refusal> {
    let limit = app.config.http.max_blob_bytes;
    let mut writer = app.store.upload_open(id, offset, limit, app.now()).await?;
    loop {
        let broken = match tokio::time::timeout(SILENCE, payload.next()).await {
            Ok(None) => return Ok(writer),
            Ok(Some(Ok(chunk))) => {
                writer.write(&chunk, app.now()).await?;
                continue;
            }
            Ok(Some(Err(error))) => error.to_string(),
            Err(_) => "its sender is silent".to_owned(),
        };
        writer.pause(app.now()).await?;
        return Err(StoreError::BrokenUpload(std::io::Error::other(broken)).into());
    }
}
