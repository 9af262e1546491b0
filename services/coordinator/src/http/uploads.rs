//! Uploads in several requests: begun under an id, gone on with from where they stand, ended under a
//! digest. What one request brought is at rest before it is answered, also when it broke off, and
//! any coordinator goes on with it. Whoever asks how far an upload is hears it once the request that
//! broke off has come to rest: an answer given earlier would have bytes sent twice.
//!
//! It must never hold a blob in memory.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path, Payload, Query};
use futures::StreamExt as _;
use pomona_api::v1::uploads::{FinishUpload, ResumeUpload, UploadView};
use pomona_domain::{Code, Fault};
use pomona_store::{StoreError, UploadWriter};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

use super::{Answer, App, Refusal};

/// A sender that is silent for longer is gone, and somebody else may go on.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a request waits for an earlier one of the same upload. Then that one is taken over.
const REST: Duration = Duration::from_secs(10);

/// Uploads that a request of this coordinator writes to, once for each such request.
#[derive(Debug, Default)]
pub struct Writing(watch::Sender<Vec<String>>);

/// A request that writes.
struct Held {
    app: Data<App>,
    id: String,
}

impl Writing {
    /// Waits until nobody writes to an upload, for [`REST`] at most.
    async fn rest(&self, id: &str) {
        let mut writing = self.0.subscribe();
        let rests = writing.wait_for(|ids| !ids.iter().any(|other| other == id));
        let _ = tokio::time::timeout(REST, rests).await;
    }
}

impl Held {
    fn new(app: &Data<App>, id: &str) -> Self {
        app.writing.0.send_modify(|ids| ids.push(id.to_owned()));
        Self {
            app: Data::clone(app),
            id: id.to_owned(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.app.writing.0.send_modify(|ids| {
            if let Some(at) = ids.iter().position(|id| *id == self.id) {
                ids.swap_remove(at);
            }
        });
    }
}

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
    app.writing.rest(id).await;
    super::ok(&view(id, app.store.upload_offset(id).await?))
}

/// `PATCH /api/v1/blobs/uploads/{id}`
pub async fn resume(
    app: Data<App>,
    id: Path<String>,
    from: Query<ResumeUpload>,
    payload: Payload,
) -> Answer {
    let id = checked(&id)?.to_owned();
    outlive(async move {
        let (writer, _held) = take(&app, &id, from.offset, payload).await?;
        super::ok(&view(&id, writer.pause(app.now()).await?))
    })
    .await
}

/// `PUT /api/v1/blobs/uploads/{id}`
pub async fn finish(
    app: Data<App>,
    id: Path<String>,
    from: Query<FinishUpload>,
    payload: Payload,
) -> Answer {
    let id = checked(&id)?.to_owned();
    outlive(async move {
        let (writer, _held) = take(&app, &id, from.offset, payload).await?;
        let stat = writer.finish(from.digest, app.now()).await?;
        let body = json!({"digest": stat.digest, "size": stat.size});
        super::json(StatusCode::CREATED, &body)
    })
    .await
}

/// `DELETE /api/v1/blobs/uploads/{id}`
pub async fn cancel(app: Data<App>, id: Path<String>) -> Answer {
    app.store.upload_cancel(checked(&id)?).await?;
    super::ok(&json!({}))
}

/// Does it to the end, also when nobody waits for the answer any more.
async fn outlive(work: impl Future<Output = Answer> + 'static) -> Answer {
    actix_web::rt::spawn(work).await.unwrap_or_else(|error| {
        Err(Fault::new(Code::Internal, format!("an upload ended early: {error}")).into())
    })
}

/// Writes a request's bytes. Those of one that breaks off are kept.
async fn take(
    app: &Data<App>,
    id: &str,
    offset: u64,
    mut payload: Payload,
) -> Result<(UploadWriter, Held), Refusal> {
    app.writing.rest(id).await;
    let held = Held::new(app, id);
    let limit = app.config.http.max_blob_bytes;
    let mut writer = app.store.upload_open(id, offset, limit, app.now()).await?;
    loop {
        let broken = match tokio::time::timeout(SILENCE, payload.next()).await {
            Ok(None) => return Ok((writer, held)),
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
