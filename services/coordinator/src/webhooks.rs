//! Webhooks: what was committed is told to addresses outside.
//!
//! A fact and its row in the outbox are one transaction, so nothing is told that did not happen and
//! nothing that happened is forgotten. The coordinator that leads notes each event for the webhooks
//! that are told of it and attempts deliveries, at least once, in order for each subject
//! ([`dispatch`]). It must never connect to an address that the configuration does not allow
//! ([`address`]), never follow a redirection, and never say a secret.

pub mod address;
mod backoff;
mod dispatch;
pub mod payload;
mod send;
pub mod sign;

pub use dispatch::run;
pub use send::Sender;
