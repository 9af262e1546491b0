//! What becomes of a delivery after an attempt: pure, so that a table can hold it.

use pomona_domain::Timestamp;
use pomona_domain::hook::DeliveryState;
use pomona_store::Settled;

use super::send::Answered;

/// How often, and with what pauses, a delivery is attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// The pause after the first attempt; each that follows is twice as long.
    pub base_ms: u64,
    /// The longest pause.
    pub max_ms: u64,
    /// Attempts before a delivery is given up.
    pub attempts: u32,
}

/// The part of a pause that is drawn, so that what failed together does not come back together.
const JITTER: f64 = 0.25;

/// How an attempt counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// The receiver took it.
    Delivered,
    /// It is attempted again.
    Retried,
    /// It was the last attempt.
    GivenUp,
    /// The receiver is gone for ever: its webhook is disabled.
    Gone,
}

impl Result {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::GivenUp => "given_up",
            Self::Gone => "gone",
        }
    }
}

impl Retries {
    /// The pause after so many attempts; `drawn` is 0 to 1.
    pub fn pause_ms(self, attempts: u32, drawn: f64) -> u64 {
        let doubled = 1_u64
            .checked_shl(attempts.saturating_sub(1))
            .unwrap_or(u64::MAX);
        let pause = self.base_ms.saturating_mul(doubled).min(self.max_ms);
        pause.saturating_add((pause as f64 * JITTER * drawn.clamp(0.0, 1.0)) as u64)
    }

    /// What a delivery is after its `attempt`-th attempt (from 1).
    pub fn settle(
        self,
        attempt: u32,
        answer: &std::result::Result<Answered, String>,
        now: Timestamp,
        drawn: f64,
    ) -> (Result, Settled) {
        let status = answer.as_ref().ok().map(|answer| answer.status);
        let (result, error) = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => (Result::Delivered, None),
            Ok(answer) if answer.status == 410 => (
                Result::Gone,
                Some("the receiver answered 410: it wants nothing any more".to_owned()),
            ),
            Ok(answer) => (self.after(attempt), Some(words(answer.status))),
            Err(why) => (self.after(attempt), Some(why.clone())),
        };
        // A receiver may ask for more patience, not for less.
        let asked = answer.as_ref().ok().and_then(|answer| answer.retry_after_s);
        let asked_ms = asked.unwrap_or(0).saturating_mul(1000).min(self.max_ms);
        let (state, pause) = match result {
            Result::Delivered => (DeliveryState::Delivered, 0),
            Result::Gone | Result::GivenUp => (DeliveryState::Failed, 0),
            Result::Retried => (
                DeliveryState::Pending,
                self.pause_ms(attempt, drawn).max(asked_ms),
            ),
        };
        let settled = Settled {
            state,
            next_at: now.plus_ms(i64::try_from(pause).unwrap_or(i64::MAX)),
            status,
            error,
        };
        (result, settled)
    }

    fn after(self, attempt: u32) -> Result {
        if attempt < self.attempts {
            Result::Retried
        } else {
            Result::GivenUp
        }
    }
}

fn words(status: u16) -> String {
    if (300..400).contains(&status) {
        return format!("the receiver answered {status}: redirections are not followed");
    }
    format!("the receiver answered {status}")
}

#[cfg(test)]
mod tests;
