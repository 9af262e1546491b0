//! How webhooks are delivered, from the keys of `webhooks`.

use ipnet::IpNet;
use pomona_daemon::bad;
use pomona_domain::Fault;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

use crate::webhooks::Sender;
use crate::webhooks::address::Policy;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhooksSection {
    pub allow_private: bool,
    pub allow_networks: Vec<String>,
    pub ca_file: String,
    pub timeout_ms: u64,
    pub backoff_base_ms: u64,
    pub backoff_max_ms: u64,
    pub max_attempts: u32,
}

impl WebhooksSection {
    /// Refuses what could not deliver.
    pub fn check(&self) -> Result<(), Fault> {
        let positive = [
            ("timeout_ms", self.timeout_ms > 0),
            ("backoff_base_ms", self.backoff_base_ms > 0),
            ("max_attempts", self.max_attempts > 0),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, fine)| !fine) {
            return Err(bad(format!("`webhooks.{key}` must be above 0")));
        }
        if self.backoff_max_ms < self.backoff_base_ms {
            return Err(bad(
                "`webhooks.backoff_max_ms` must not be below `webhooks.backoff_base_ms`",
            ));
        }
        self.policy().map(|_| ())
    }

    fn policy(&self) -> Result<Policy, Fault> {
        let read = |text: &String| {
            text.parse::<IpNet>().map_err(|_| {
                bad(format!("`webhooks.allow_networks`: `{text}` is no network"))
                    .hint("write it like `10.20.0.0/16`; one address is `10.20.0.7/32`")
            })
        };
        Ok(Policy {
            allow_private: self.allow_private,
            networks: self
                .allow_networks
                .iter()
                .map(read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The way to receivers.
    pub fn sender(&self) -> Result<Sender, Fault> {
        let file = Some(Path::new(&self.ca_file)).filter(|path| !path.as_os_str().is_empty());
        Sender::new(self.policy()?, file, Duration::from_millis(self.timeout_ms))
    }
}
