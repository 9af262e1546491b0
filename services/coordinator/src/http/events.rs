//! `GET /api/v1/events`: what is committed, as server-sent events.

use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures::stream;
use pomona_api::v1::events::{KEEP_ALIVE_MS, Topic};
use pomona_domain::{Code, Fault};
use serde::Deserialize;
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::{Answer, App};
use crate::bus::{Bus, Position};

/// Which topics.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Names of topics with commas between them; all of them when empty.
    #[serde(default)]
    topics: String,
}

struct Reader {
    app: Data<App>,
    topics: BTreeSet<Topic>,
    at: Position,
    ready: VecDeque<Bytes>,
    newest: watch::Receiver<u64>,
    turns: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
}

/// `GET /api/v1/events`
pub async fn get(app: Data<App>, query: Query<EventsQuery>, request: HttpRequest) -> Answer {
    let topics = topics(&query.topics)?;
    let header = request.headers().get("Last-Event-ID");
    let last_id = header.and_then(|value| value.to_str().ok());
    let newest = app.bus.subscribe();
    let turns = app.bus.turns();
    let (at, missed) = app.bus.position(last_id);
    let mut ready = VecDeque::from([Bytes::from_static(b": hello\n\n")]);
    if missed {
        ready.push_back(Bus::missed(at));
    }
    let reader = Reader {
        stop: app.stop.clone(),
        app,
        topics,
        at,
        ready,
        newest,
        turns,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .streaming(stream::unfold(reader, |mut reader| async {
            let frame = reader.next().await?;
            Some((Ok::<_, Infallible>(frame), reader))
        })))
}

fn topics(text: &str) -> Result<BTreeSet<Topic>, Fault> {
    if text.is_empty() {
        return Ok(Topic::ALL.into());
    }
    let parse = |name: &str| {
        Topic::parse(name.trim()).ok_or_else(|| {
            let names = Topic::ALL.map(Topic::as_str).join("`, `");
            Fault::new(Code::BadRequest, format!("there is no topic `{name}`"))
                .hint(format!("there are `{names}`"))
        })
    };
    text.split(',').map(parse).collect()
}

impl Reader {
    /// The next frame; `None` when the coordinator stops, or the events that follow come from
    /// elsewhere: the reader asks again, and is led there.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if *self.stop.borrow() {
                return None;
            }
            let (frames, at) = self.app.bus.read(self.at, &self.topics);
            self.at = at;
            self.ready.extend(frames);
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = tokio::time::sleep(Duration::from_millis(KEEP_ALIVE_MS)) => {
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
                _ = self.turns.changed() => return None,
                _ = self.stop.wait_for(|stop| *stop) => return None,
            }
        }
    }
}
