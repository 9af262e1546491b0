//! Mutations that may be repeated: a request with an `Idempotency-Key` is done once, and a repeat
//! answers the first answer. The ids of what it makes come from the key, so that even a repeat
//! after a crash finds what the first attempt committed.

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use pomona_api::v1::{IDEMPOTENCY_KEY, MAX_IDEMPOTENCY_KEY};
use pomona_domain::{Code, Digest, Fault};
use serde::Serialize;
use std::collections::BTreeSet;
use std::future::{Future, Ready, ready};
use std::sync::{Mutex, PoisonError};

use super::{Answer, App, Refusal};

/// The key of a request, if it has one.
#[derive(Debug, Clone)]
pub struct Key {
    key: Option<String>,
    route: String,
}

/// Keys whose first request is under way.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<BTreeSet<String>>);

impl Key {
    /// 64 bits for an id: from the key, or drawn.
    pub fn seed(&self) -> u64 {
        let Some(key) = &self.key else {
            return rand::random();
        };
        let digest = Digest::of(format!("{}\n{key}", self.route).as_bytes());
        let mut head = [0u8; 8];
        head.copy_from_slice(&digest.0[..8]);
        u64::from_be_bytes(head)
    }

    /// Whether an earlier attempt may have made something with [`Key::seed`].
    pub fn is_given(&self) -> bool {
        self.key.is_some()
    }
}

impl FromRequest for Key {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let route = format!("{} {}", request.method(), request.path());
        let header = request.headers().get(IDEMPOTENCY_KEY);
        let key = header.map(|value| value.to_str().unwrap_or_default().to_owned());
        let fits = key
            .as_ref()
            .is_none_or(|key| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()));
        ready(if fits {
            Ok(Self { key, route })
        } else {
            let text =
                format!("`{IDEMPOTENCY_KEY}` must be 1 to {MAX_IDEMPOTENCY_KEY} visible letters");
            Err(Fault::new(Code::BadRequest, text).into())
        })
    }
}

/// Does `work` once for this key and body, and answers with `status` and what it made.
pub async fn once<T: Serialize>(
    app: &App,
    key: &Key,
    body: &impl Serialize,
    status: StatusCode,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Answer {
    let Some(name) = &key.key else {
        return super::json(status, &work.await?);
    };
    let _held = Held::take(app, name)?;
    let body = serde_json::to_string(body).unwrap_or_default();
    let request = Digest::of(format!("{}\n{body}", key.route).as_bytes());
    if let Some(first) = app.store.idempotency_get(name, request).await? {
        let status = StatusCode::from_u16(first.status).unwrap_or(StatusCode::OK);
        return Ok(HttpResponse::build(status)
            .content_type("application/json")
            .body(first.body));
    }
    let made = work.await?;
    let text = serde_json::to_string(&made).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("the answer cannot be written: {error}"),
        )
    })?;
    let answer = pomona_store::Answer {
        request,
        status: status.as_u16(),
        body: text.clone(),
        at: app.now(),
    };
    app.store.idempotency_put(name, &answer).await?;
    Ok(HttpResponse::build(status)
        .content_type("application/json")
        .body(text))
}

/// A key while its request is under way.
struct Held<'a> {
    app: &'a App,
    key: &'a str,
}

impl<'a> Held<'a> {
    fn take(app: &'a App, key: &'a str) -> Result<Self, Fault> {
        let mut keys = app.keys.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.insert(key.to_owned()) {
            return Ok(Self { app, key });
        }
        Err(Fault::new(
            Code::Busy,
            format!("the first request with the key `{key}` is still under way"),
        )
        .hint("try again in a second"))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut keys = self
            .app
            .keys
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        keys.remove(self.key);
    }
}
