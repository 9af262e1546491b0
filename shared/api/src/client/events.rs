//! Live events: the coordinator's server-sent events as a stream of [`LiveEvent`]s.

use futures::StreamExt;
use futures::stream::BoxStream;
use pomona_domain::{Code, Fault};

use super::Client;
use crate::v1::events::{LiveEvent, Topic};

/// A message longer than this is refused.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// A stream of live events. When it ends or fails, ask again with [`EventStream::last_id`].
pub struct EventStream {
    client: Client,
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: Vec<u8>,
    scanned: usize,
    last_id: Option<String>,
}

impl Client {
    /// Listens to `topics` (all of them when empty) from after `last_id` on, or from now on.
    pub async fn events(
        &self,
        topics: &[Topic],
        last_id: Option<&str>,
    ) -> Result<EventStream, Fault> {
        let mut query = Vec::new();
        if !topics.is_empty() {
            let names: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
            query.push(("topics", names.join(",")));
        }
        let mut request = self
            .http
            .get(self.url(&["api", "v1", "events"], &query))
            .header(reqwest::header::ACCEPT, "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.map_err(|error| self.fault(&error))?;
        let body = self.check(response).await?.bytes_stream().boxed();
        Ok(EventStream {
            client: self.clone(),
            body,
            buffer: Vec::new(),
            scanned: 0,
            last_id: last_id.map(str::to_owned),
        })
    }
}

impl EventStream {
    /// The next event; `None` when the coordinator closed the stream.
    pub async fn next(&mut self) -> Option<Result<LiveEvent, Fault>> {
        loop {
            while let Some(block) = self.block() {
                if let Some(event) = self.read(&block) {
                    return Some(event);
                }
            }
            if self.buffer.len() > MAX_MESSAGE {
                let fault = Fault::new(Code::TooLarge, "a live event is over its limit");
                return Some(Err(fault));
            }
            match self.body.next().await? {
                Ok(chunk) => self.buffer.extend_from_slice(&chunk),
                Err(error) => return Some(Err(self.client.fault(&error))),
            }
        }
    }

    /// The id of the newest event that was handed out.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes one message (the lines before a blank one) out of the buffer.
    fn block(&mut self) -> Option<String> {
        let found = self.buffer[self.scanned..]
            .windows(2)
            .position(|pair| pair == b"\n\n");
        let Some(at) = found else {
            self.scanned = self.buffer.len().saturating_sub(1);
            return None;
        };
        let end = self.scanned + at;
        let block = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        self.scanned = 0;
        Some(block)
    }

    /// The event of a message; `None` for a comment.
    fn read(&mut self, block: &str) -> Option<Result<LiveEvent, Fault>> {
        let mut data = String::new();
        for line in block.lines() {
            if let Some(text) = line.strip_prefix("data:") {
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(text.strip_prefix(' ').unwrap_or(text));
            }
        }
        if data.is_empty() {
            return None;
        }
        let event: Result<LiveEvent, Fault> = serde_json::from_str(&data).map_err(|error| {
            Fault::new(
                Code::VersionMismatch,
                format!("cannot read a live event: {error}"),
            )
        });
        if let Ok(event) = &event {
            self.last_id = Some(event.id.clone());
        }
        Some(event)
    }
}
