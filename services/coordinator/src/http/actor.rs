//! Who asks: the name that a request gives, and where it comes from.
//!
//! There are no tokens yet, so a name is a claim, and this must never be what anything is allowed by.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use pomona_api::v1::ACTOR;
use pomona_domain::model::Actor;
use std::convert::Infallible;
use std::future::{Ready, ready};

/// The header in which a coordinator that hands a request on says where it came from.
pub const CAME_FROM: &str = "pomona-forwarded-for";
/// Characters of a name that are kept.
const MAX_NAME: usize = 100;
/// Who says nothing.
const ANONYMOUS: &str = "anonymous";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub Actor);

impl FromRequest for Caller {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(of(request))))
    }
}

/// Who asks.
pub fn of(request: &HttpRequest) -> Actor {
    let name = header(request, ACTOR).unwrap_or_else(|| ANONYMOUS.to_owned());
    Actor {
        name,
        origin: format!("{} {}", interface(request), address(request)),
    }
}

/// Where a request comes from, also one that was handed on.
pub fn address(request: &HttpRequest) -> String {
    header(request, CAME_FROM)
        .or_else(|| Some(request.peer_addr()?.ip().to_string()))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn interface(request: &HttpRequest) -> &'static str {
    if crate::mlflow::is_mlflow(request.path()) {
        "mlflow"
    } else if request.headers().contains_key(ACTOR) {
        "cli"
    } else {
        "http"
    }
}

/// What a header says, without what would break a line.
fn header(request: &HttpRequest, name: &str) -> Option<String> {
    let text = request.headers().get(name)?.to_str().ok()?;
    let kept = text.chars().filter(|c| !c.is_control()).take(MAX_NAME);
    let text: String = kept.collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
