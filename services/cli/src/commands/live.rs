//! The coordinator's live events, with reconnection: a coordinator that goes away and comes back is
//! no end.

use pomona_api::client::{Client, EventStream};
use pomona_api::v1::events::{Topic, What};
use pomona_domain::Fault;
use std::time::{Duration, Instant};

use super::session::is_passing;

/// A coordinator that stays away longer is given up.
pub const GIVE_UP: Duration = Duration::from_mins(10);
/// Pause before the first attempt to come back; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What a listener is told.
#[derive(Debug)]
pub enum News {
    /// A row changed.
    What(What),
    /// Something may have been missed, or nothing was heard for a while: look again.
    AskAgain,
    /// The coordinator is away; said once.
    Away(Fault),
}

/// A listener.
pub struct Live {
    client: Client,
    topics: Vec<Topic>,
    stream: Option<EventStream>,
    last_id: Option<String>,
    away_since: Option<Instant>,
    pause: Duration,
}

impl Live {
    /// Listens to `topics`. It does not connect yet.
    pub fn new(client: &Client, topics: &[Topic]) -> Self {
        Self {
            client: client.clone(),
            topics: topics.to_vec(),
            stream: None,
            last_id: None,
            away_since: None,
            pause: PAUSE,
        }
    }

    /// The next news; [`News::AskAgain`] at the latest after `patience`. Safe to drop half-way.
    pub async fn next(&mut self, patience: Duration) -> Result<News, Fault> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(news) = self.connect().await? {
                    return Ok(news);
                }
                continue;
            };
            match tokio::time::timeout(patience, stream.next()).await {
                Err(_) => return Ok(News::AskAgain),
                Ok(Some(Ok(event))) => {
                    self.last_id = Some(event.id);
                    return Ok(match event.what {
                        What::Missed => News::AskAgain,
                        what @ (What::Experiment(_)
                        | What::Trial(_)
                        | What::Observed(_)
                        | What::Worker(_)
                        | What::Task(_)
                        | What::Dataset(_)
                        | What::Backbone(_)
                        | What::Version(_)
                        | What::AliasMoved(_)) => News::What(what),
                    });
                }
                Ok(Some(Err(fault))) if !is_passing(fault.code) => return Err(fault),
                Ok(Some(Err(_)) | None) => self.stream = None,
            }
        }
    }

    async fn connect(&mut self) -> Result<Option<News>, Fault> {
        match self
            .client
            .events(&self.topics, self.last_id.as_deref())
            .await
        {
            Ok(stream) => {
                self.stream = Some(stream);
                self.away_since = None;
                self.pause = PAUSE;
                Ok(Some(News::AskAgain))
            }
            Err(fault) if is_passing(fault.code) => {
                let first = self.away_since.is_none();
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > GIVE_UP {
                    return Err(fault);
                }
                if first {
                    return Ok(Some(News::Away(fault)));
                }
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(MAX_PAUSE);
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}
