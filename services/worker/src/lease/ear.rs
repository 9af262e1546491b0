//! What a rank says on stdout: events of a trainer, or the log and the news of a program.
//!
//! It must never drop a line that could count; when nobody listens, the rank waits.

use pomona_api::trainer::Event;
use tokio::io::{AsyncRead, BufReader};
use tokio::sync::{mpsc, watch};

use super::Tools;
use super::crew::{Said, drained};
use super::log::Pen;
use super::program::{Heard, Script};
use crate::line::next_line;

/// The longest line of stdout: an answer about some hundred thousand pictures.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// What the lines of a rank are.
pub enum Tongue {
    /// Events of a trainer.
    Trainer,
    /// A program's log; that of rank 0 holds news, too.
    Program(Option<Script>),
}

/// Listens to a rank's stdout.
pub struct Ear {
    pub rank: u32,
    pub tongue: Tongue,
    pub tools: Tools,
    pub pen: Pen,
    pub say: mpsc::Sender<Said>,
    pub ended: watch::Receiver<bool>,
    pub abandoned: watch::Receiver<bool>,
}

impl Ear {
    /// Listens to the end of the stream.
    pub async fn listen(mut self, stdout: Option<impl AsyncRead + Unpin>) -> Self {
        let Some(stdout) = stdout else { return self };
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            let read = tokio::select! {
                biased;
                read = next_line(&mut reader, MAX_EVENT_BYTES, &mut line) => read,
                () = drained(&mut self.ended) => return self,
            };
            let heard = match read {
                Ok(Some(is_cut)) => self.heard(&line, is_cut).await,
                Ok(None) | Err(_) => return self,
            };
            if !heard {
                return self;
            }
        }
    }

    /// Passes a line on. Says whether to go on.
    async fn heard(&mut self, line: &[u8], is_cut: bool) -> bool {
        match &mut self.tongue {
            Tongue::Trainer if is_cut => self.send(Said::Overlong { rank: self.rank }).await,
            Tongue::Trainer => {
                if let Ok(event) = serde_json::from_slice::<Event>(line) {
                    return self.pass(event).await;
                }
                // A library that prints: a line of the log like any other.
                self.pen.write(line);
                true
            }
            Tongue::Program(None) => {
                self.pen.write(line);
                true
            }
            Tongue::Program(Some(script)) => {
                let news = match script.hear(line).await {
                    Ok(news) => news,
                    Err(fault) => return self.send(Said::Broken { fault }).await,
                };
                self.news(line, news).await
            }
        }
    }

    async fn news(&mut self, line: &[u8], news: Heard) -> bool {
        let Heard::News(events, said) = news else {
            self.pen.write(line);
            return true;
        };
        if let Some(said) = said {
            self.pen.write(said.as_bytes());
            self.pen.write(line);
        }
        for event in events {
            if !self.pass(event).await {
                return false;
            }
        }
        true
    }

    /// What a program leaves behind at a clean end.
    pub async fn conclude(&mut self) {
        let Tongue::Program(Some(script)) = &mut self.tongue else {
            return;
        };
        match script.conclude().await {
            Ok(None) => {}
            Ok(Some(event)) => {
                self.pass(event).await;
            }
            Err(fault) => {
                self.send(Said::Broken { fault }).await;
            }
        }
    }

    /// Hands an event on; one that becomes a report waits for room. Says whether to go on.
    async fn pass(&mut self, event: Event) -> bool {
        if counts(&event) && self.tools.spool.is_full() {
            if !self.send(Said::Held).await {
                return false;
            }
            tokio::select! {
                () = self.tools.spool.room() => {}
                _ = self.abandoned.wait_for(|abandoned| *abandoned) => return false,
            }
        }
        let event = Box::new(event);
        let rank = self.rank;
        self.send(Said::Event { rank, event }).await
    }

    async fn send(&self, said: Said) -> bool {
        self.say.send(said).await.is_ok()
    }
}

/// Whether an event becomes a report.
fn counts(event: &Event) -> bool {
    match event {
        Event::Observed { .. }
        | Event::Checkpoint { .. }
        | Event::TrialEnded { .. }
        | Event::Result { .. } => true,
        Event::Started { .. }
        | Event::Progress { .. }
        | Event::Evaluating { .. }
        | Event::FeaturesMissing { .. }
        | Event::FeaturesPace { .. }
        | Event::Features { .. }
        | Event::Finished {}
        | Event::Stopped {}
        | Event::Failed { .. } => false,
    }
}
