//! SIGTERM and SIGINT: both ask a program to stop.

use pomona_domain::{Code, Fault};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to stop. From the moment this is made on, they do not end the process any more.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens for both; wants a runtime around it.
    pub fn listen() -> Result<Self, Fault> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Fault::new(
                    Code::Internal,
                    format!("cannot listen for signals: {error}"),
                )
            })
        };
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next request, of whichever kind.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Signals;
    use nix::sys::signal::{Signal, raise};
    use std::time::Duration;

    #[tokio::test]
    async fn each_of_both_asks_to_stop() {
        let mut signals = Signals::listen().unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
            raise(signal).unwrap();
            let asked = tokio::time::timeout(Duration::from_secs(10), signals.next()).await;
            assert!(asked.is_ok(), "{signal} was not heard");
        }
    }
}
