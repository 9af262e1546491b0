//! The API. A handler is parse, call, render; the table of routes says every route once.

pub mod actor;
pub mod blobs;
pub mod catalogue;
pub mod cluster;
mod curves;
pub mod events;
pub mod experiments;
pub mod explain;
pub mod features;
pub mod forward;
pub mod key;
pub mod models;
pub mod refusal;
pub mod registry;
pub mod routes;
pub mod trials;
pub mod uploads;
pub mod webhooks;
pub mod workers;

pub use refusal::{Answer, Refusal};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use pomona_api::v1::{DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageQuery};
use pomona_domain::{Code, Fault, Timestamp};
use pomona_scheduler::Cluster;
use pomona_store::{Candidate, PageRequest, Store};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::config::Config;
use crate::desired::Inputs;
use crate::engine::Handle;
use crate::features::Features;
use crate::longpoll::Told;
use crate::metrics::Metrics;

/// What handlers work with.
#[derive(Debug)]
pub struct App {
    pub config: Config,
    pub store: Store,
    pub engine: Handle,
    pub bus: Arc<Bus>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<Clock>,
    /// Data sets and versions that workers were told of.
    pub inputs: Inputs,
    /// What each worker was told last.
    pub told: Told,
    /// Which features each worker keeps.
    pub features: Features,
    /// The generation that what workers said is remembered of.
    pub remembered: Mutex<Option<u64>>,
    /// This coordinator, as others see it.
    pub me: Candidate,
    /// Connections to the leader.
    pub line: forward::Line,
    /// Idempotency keys whose first request is under way.
    pub keys: key::InFlight,
    /// Uploads that a request writes to.
    pub writing: uploads::Writing,
    /// Signs versions that were promoted.
    pub signer: crate::signer::Signer,
    /// The way to receivers of webhooks.
    pub hooks: crate::webhooks::Sender,
    /// Digests of images that are being found.
    pub images: crate::oci::Images,
    /// Writes to runs.
    pub writer: crate::mlflow::Writer,
    /// True once the coordinator stops: nothing waits any more.
    pub stop: watch::Receiver<bool>,
}

impl App {
    /// The committed cluster.
    pub fn view(&self) -> Result<Arc<Cluster>, Fault> {
        self.engine.view()
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Forgets what workers said to this coordinator before it last led: others have heard since
    /// what it did not.
    pub fn begin_anew(&self) {
        let generation = self.engine.generation();
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if generation.is_some() && *remembered != generation {
            *remembered = generation;
            self.told.forget_all();
            self.features.forget_all();
        }
    }

    /// Whether the coordinator stops.
    pub fn stopping(&self) -> bool {
        *self.stop.borrow()
    }
}

/// 200 with a JSON body.
pub fn ok(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, body)
}

/// A JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_string(body).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("the answer cannot be written: {error}"),
        )
    })?;
    Ok(HttpResponse::build(status)
        .content_type("application/json")
        .body(text))
}

/// The store's page for a query.
pub fn page_request(query: &PageQuery) -> Result<PageRequest, Fault> {
    let limit = query.page_size.unwrap_or(DEFAULT_PAGE_SIZE);
    if limit == 0 {
        let fault = Fault::new(Code::BadRequest, "`page_size` is 0");
        return Err(fault.hint(format!("it may be 1 to {MAX_PAGE_SIZE}")));
    }
    if limit > MAX_PAGE_SIZE {
        return Err(Fault::new(
            Code::TooLarge,
            format!("`page_size` is {limit}, it may be 1 to {MAX_PAGE_SIZE}"),
        ));
    }
    // A form that is left empty asks for the first page.
    let token = query.page_token.clone().filter(|token| !token.is_empty());
    Ok(PageRequest::first(limit).after(token))
}

/// The store's page on the wire.
pub fn page<T>(page: pomona_store::Page<T>) -> Page<T> {
    Page {
        items: page.items,
        next_page_token: page.next_page_token,
    }
}

/// Something that was asked for by name.
pub fn found<T>(row: Option<T>, what: &str, name: &str) -> Result<T, Fault> {
    row.ok_or_else(|| Fault::new(Code::NotFound, format!("there is no {what} `{name}`")))
}
