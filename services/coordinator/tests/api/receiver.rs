//! A receiver of webhooks on a free port of loopback: it keeps what it hears and answers as it is told.

use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::until;

/// What signs in these tests.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub at: Instant,
}

impl Heard {
    /// The `webhook-id`.
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// What happened.
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().expect("a type").to_owned()
    }

    /// Checks the signature as Standard Webhooks says, over the bytes that came.
    pub fn verify(&self) {
        let at = &self.headers["webhook-timestamp"];
        let key = STANDARD.decode(&SECRET["whsec_".len()..]).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(format!("{}.{at}.{}", self.id(), self.body).as_bytes());
        let expect = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(self.headers["webhook-signature"], expect);
        let seconds: u64 = at.parse().expect("seconds");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        assert!(
            now.expect("a time").as_secs().abs_diff(seconds) < 60,
            "{at}"
        );
    }
}

/// How a request is answered: a status, and perhaps a header. A status of 0 is no answer at all.
type Answer = Box<dyn FnMut(&Heard) -> (u16, Option<(&'static str, String)>) + Send>;

struct State {
    heard: Mutex<Vec<Heard>>,
    answer: Mutex<Answer>,
}

/// The receiver; it ends with the test.
pub struct Receiver {
    state: Arc<State>,
    port: u16,
}

impl Receiver {
    /// One that takes everything.
    pub fn open() -> Self {
        let state = Arc::new(State {
            heard: Mutex::default(),
            answer: Mutex::new(Box::new(|_| (204, None))),
        });
        let data = Data::from(Arc::clone(&state));
        let server = HttpServer::new(move || {
            let app = App::new().app_data(data.clone());
            app.default_service(web::to(hear))
        });
        let server = server.workers(1).disable_signals();
        let server = server.bind(("127.0.0.1", 0)).expect("a port");
        let port = server.addrs()[0].port();
        tokio::spawn(server.run());
        Self { state, port }
    }

    /// Its address under a name of this machine.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook?token=a", self.port)
    }

    /// Answers like this from now on.
    pub fn answer(
        &self,
        answer: impl FnMut(&Heard) -> (u16, Option<(&'static str, String)>) + Send + 'static,
    ) {
        *self.state.answer.lock().expect("it") = Box::new(answer);
    }

    /// All that came so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.state.heard.lock().expect("it").clone()
    }

    /// Waits until so many requests came.
    pub async fn hears(&self, count: usize) -> Vec<Heard> {
        until(&format!("{count} requests came"), || async {
            let heard = self.heard();
            (heard.len() >= count).then_some(heard)
        })
        .await
    }
}

async fn hear(state: Data<State>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = value.to_str().expect("visible letters");
        (name.as_str().to_owned(), value.to_owned())
    });
    let heard = Heard {
        path: request.uri().to_string(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
        at: Instant::now(),
    };
    let (status, header) = {
        let mut answer = state.answer.lock().expect("it");
        answer(&heard)
    };
    state.heard.lock().expect("it").push(heard);
    if status == 0 {
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
    let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
    let mut response = HttpResponse::build(status);
    if let Some(header) = header {
        response.insert_header(header);
    }
    response.body("heard")
}
