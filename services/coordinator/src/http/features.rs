//! Features of frozen blocks: list, evict.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use pomona_api::v1::Page;
use pomona_api::v1::features::FeatureCopy;
use pomona_domain::worker::WorkerState;
use pomona_domain::{Code, Digest, Fault};

use super::key::{Key, once};
use super::{Answer, App, ok};

/// `GET /api/v1/features`
pub async fn list(app: Data<App>) -> Answer {
    ok(&Page {
        items: copies(&app)?,
        next_page_token: None,
    })
}

/// `POST /api/v1/features/{digest}/evict`
pub async fn evict(app: Data<App>, key: Key, digest: Path<String>) -> Answer {
    let shard: Digest = digest
        .parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("{error}")))?;
    let work = async {
        let mut items = copies(&app)?;
        items.retain(|copy| copy.shard.digest == shard);
        if items.is_empty() {
            let text = format!("no worker keeps features `{shard}`");
            return Err(Fault::new(Code::NotFound, text).into());
        }
        for copy in &items {
            app.features.evict(copy.worker, shard);
        }
        Ok(Page {
            items,
            next_page_token: None,
        })
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// What workers that are there keep, by worker and name of the file.
fn copies(app: &App) -> Result<Vec<FeatureCopy>, Fault> {
    let view = app.view()?;
    let there = view.workers().filter(|row| row.state != WorkerState::Lost);
    let copies = there.flat_map(|row| {
        let shards = app.features.of(row.id).into_iter();
        shards.map(|shard| FeatureCopy {
            worker: row.id,
            worker_name: row.name.clone(),
            shard,
        })
    });
    Ok(copies.collect())
}
