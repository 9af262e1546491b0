//! Load for a tracking server that speaks MLflow's API, ours or the stock one: requests are encoded
//! before the clock starts, so what is measured is the server.
//!
//! It prints one line of JSON. An answer that is not a success ends it: a server that refuses fast
//! must not look fast.

use bytes::Bytes;
use clap::{Parser, Subcommand};
use futures::future::try_join_all;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;

/// Metrics of a batch; each has as many steps as fill it.
const KEYS: usize = 10;
const API: &str = "/api/2.0/mlflow";
const FILES: &str = "/api/2.0/mlflow-artifacts/artifacts";
const PIECE: usize = 1 << 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Requests to a tracking server.
#[derive(Debug, Parser)]
struct Arguments {
    /// `HOST:PORT` of the server.
    #[arg(long)]
    server: String,
    /// Connections, each of which waits for its answers.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Each client logs so many batches to a run of its own: points a second.
    Batches {
        each: usize,
        #[arg(default_value_t = 1000)]
        points: usize,
    },
    /// Each client makes so many single log-metric calls to a run of its own: calls a second.
    Calls { each: usize },
    /// Creates runs, each with ten parameters and one batch of metrics: milliseconds each.
    Runs { each: usize },
    /// Fills an experiment with runs that a search can tell apart, each with so many points of its
    /// metric `acc`.
    Fill {
        experiment: String,
        runs: usize,
        points: usize,
    },
    /// Fills one metric `long` of a new run: answers the run.
    Long { points: usize },
    /// One request again and again: milliseconds each.
    Ask {
        path: String,
        times: usize,
        /// The body of a POST.
        body: Option<String>,
    },
    /// Uploads so many megabytes: megabytes a second.
    Upload { path: String, megabytes: usize },
    /// Downloads: megabytes a second.
    Download { path: String },
}

type Body = BoxBody<Bytes, Infallible>;

/// One connection.
struct Line {
    sender: SendRequest<Body>,
    host: String,
}

impl Line {
    async fn open(host: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, line) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(line);
        let host = host.to_owned();
        Ok(Self { sender, host })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
        length: usize,
    ) -> Outcome<hyper::Response<hyper::body::Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host);
        if length > 0 {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::CONTENT_LENGTH, length);
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(body)?).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let said = answer.into_body().collect().await?.to_bytes();
        let said = String::from_utf8_lossy(&said);
        Err(format!("{path} was answered with {status}: {said}").into())
    }

    /// The whole answer.
    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Outcome<Bytes> {
        let length = body.len();
        let answer = (self.send(method, path, Full::new(body).boxed(), length)).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    async fn post(&mut self, path: &str, body: &Value) -> Outcome<Value> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        let answer = (self.ask(Method::POST, &format!("{API}/{path}"), body)).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn create_run(&mut self, experiment: &str) -> Outcome<String> {
        let body = json!({ "experiment_id": experiment, "start_time": now_ms()? });
        id_of_run(&self.post("runs/create", &body).await?)
    }
}

fn id_of_run(answer: &Value) -> Outcome<String> {
    let id = answer.pointer("/run/info/run_id").and_then(Value::as_str);
    Ok(id.ok_or("a run has an id")?.to_owned())
}

fn now_ms() -> Outcome<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())
}

/// A curve that rises, with noise that differs by run and repeats.
fn value(seed: usize, step: usize) -> f64 {
    let noise = (seed.wrapping_mul(2_654_435_761) ^ step.wrapping_mul(40_503)) % 1000;
    #[allow(clippy::cast_precision_loss)]
    let (noise, step) = (noise as f64 / 1000.0, step as f64);
    0.9 * (1.0 - (-step / 200.0).exp()) + 0.1 * noise
}

/// A batch of points of `keys` metrics, `points` in all, from a step on.
fn batch(run: &str, seed: usize, keys: &[String], points: usize, from: usize) -> Outcome<Bytes> {
    let steps = points / keys.len();
    let at = now_ms()?;
    let metrics: Vec<Value> = (from..from + steps)
        .flat_map(|step| keys.iter().map(move |key| (key, step)))
        .map(|(key, step)| json!({ "key": key, "value": value(seed, step), "timestamp": at, "step": step }))
        .collect();
    let body = json!({ "run_id": run, "metrics": metrics });
    Ok(Bytes::from(serde_json::to_vec(&body)?))
}

fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("metric_{number}")).collect()
}

/// Sends what each client has, all at once; answers the seconds.
async fn race(server: &str, path: &str, work: Vec<Vec<Bytes>>) -> Outcome<f64> {
    let mut lines = Vec::with_capacity(work.len());
    for _ in &work {
        lines.push(Line::open(server).await?);
    }
    let begun = Instant::now();
    let clients = lines
        .into_iter()
        .zip(work)
        .map(|(mut line, bodies)| async move {
            for body in bodies {
                line.ask(Method::POST, path, body).await?;
            }
            Outcome::Ok(())
        });
    try_join_all(clients).await?;
    Ok(begun.elapsed().as_secs_f64())
}

async fn batches(server: &str, clients: usize, each: usize, points: usize) -> Outcome<Value> {
    let mut line = Line::open(server).await?;
    let (keys, mut work) = (keys(), Vec::new());
    for client in 0..clients {
        let run = line.create_run("0").await?;
        let steps = points / keys.len();
        let bodies = (0..each).map(|number| batch(&run, client, &keys, points, number * steps));
        work.push(bodies.collect::<Outcome<Vec<Bytes>>>()?);
    }
    let seconds = race(server, &format!("{API}/runs/log-batch"), work).await?;
    Ok(json!({ "seconds": seconds, "points": clients * each * points }))
}

async fn calls(server: &str, clients: usize, each: usize) -> Outcome<Value> {
    let mut line = Line::open(server).await?;
    let mut work = Vec::new();
    for client in 0..clients {
        let run = line.create_run("0").await?;
        let at = now_ms()?;
        let encode = |step| {
            let body = json!({ "run_id": run, "key": "acc", "value": value(client, step), "timestamp": at, "step": step });
            Ok(Bytes::from(serde_json::to_vec(&body)?))
        };
        work.push((0..each).map(encode).collect::<Outcome<Vec<Bytes>>>()?);
    }
    let seconds = race(server, &format!("{API}/runs/log-metric"), work).await?;
    Ok(json!({ "seconds": seconds, "calls": clients * each }))
}

async fn runs(server: &str, each: usize) -> Outcome<Value> {
    let mut line = Line::open(server).await?;
    let params: Vec<Value> = (0..10)
        .map(|number| json!({ "key": format!("param_{number}"), "value": number.to_string() }))
        .collect();
    let keys = keys();
    let mut seen = Vec::with_capacity(each);
    for number in 0..each {
        let begun = Instant::now();
        let run = line.create_run("0").await?;
        line.post(
            "runs/log-batch",
            &json!({ "run_id": run, "params": params }),
        )
        .await?;
        let points = batch(&run, number, &keys, 100, 0)?;
        let path = format!("{API}/runs/log-batch");
        line.ask(Method::POST, &path, points).await?;
        seen.push(ms(begun));
    }
    Ok(json!({ "ms": seen }))
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

async fn fill(
    server: &str,
    clients: usize,
    name: &str,
    (count, points): (usize, usize),
) -> Outcome<Value> {
    let mut line = Line::open(server).await?;
    let made = line
        .post("experiments/create", &json!({ "name": name }))
        .await?;
    let experiment = made.get("experiment_id").and_then(Value::as_str);
    let experiment = experiment.ok_or("an experiment has an id")?;
    let begun = Instant::now();
    let clients = (0..clients).map(|client| async move {
        let mut line = Line::open(server).await?;
        let keys = ["acc".to_owned()];
        for number in (client..count).step_by(clients) {
            let run = line.create_run(experiment).await?;
            let params = [("lr", number % 10), ("depth", number % 7)]
                .map(|(key, value)| json!({ "key": key, "value": format!("0.{value}") }));
            line.post(
                "runs/log-batch",
                &json!({ "run_id": run, "params": params }),
            )
            .await?;
            let path = format!("{API}/runs/log-batch");
            for from in (0..points).step_by(1000) {
                let some = (points - from).min(1000);
                let body = batch(&run, number, &keys, some, from)?;
                line.ask(Method::POST, &path, body).await?;
            }
            let end = json!({ "run_id": run, "status": "FINISHED", "end_time": now_ms()? });
            line.post("runs/update", &end).await?;
        }
        Outcome::Ok(())
    });
    try_join_all(clients).await?;
    Ok(json!({ "experiment": experiment, "seconds": begun.elapsed().as_secs_f64() }))
}

async fn long(server: &str, points: usize) -> Outcome<Value> {
    let mut line = Line::open(server).await?;
    let run = line.create_run("0").await?;
    let (path, keys) = (format!("{API}/runs/log-batch"), ["long".to_owned()]);
    for from in (0..points).step_by(1000) {
        let body = batch(&run, 0, &keys, 1000, from)?;
        line.ask(Method::POST, &path, body).await?;
    }
    Ok(json!({ "run": run }))
}

async fn ask(
    server: &str,
    clients: usize,
    path: &str,
    times: usize,
    body: Option<&str>,
) -> Outcome<Value> {
    let method = body.map_or(Method::GET, |_| Method::POST);
    let body = Bytes::from(body.unwrap_or_default().to_owned());
    let clients = (0..clients).map(|_| {
        let (method, body) = (method.clone(), body.clone());
        async move {
            let mut line = Line::open(server).await?;
            let (mut seen, mut bytes) = (Vec::with_capacity(times), 0);
            for _ in 0..times {
                let begun = Instant::now();
                bytes = line.ask(method.clone(), path, body.clone()).await?.len();
                seen.push(ms(begun));
            }
            Outcome::Ok((seen, bytes))
        }
    });
    let all = try_join_all(clients).await?;
    let bytes = all.first().map(|(_, bytes)| *bytes);
    let seen: Vec<f64> = all.into_iter().flat_map(|(seen, _)| seen).collect();
    Ok(json!({ "ms": seen, "bytes": bytes }))
}

async fn upload(server: &str, path: &str, megabytes: usize) -> Outcome<Value> {
    // No two pieces alike, so that nothing can be folded away.
    let pieces: Vec<Bytes> = (0..megabytes)
        .map(|number| {
            (0..PIECE)
                .map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(131) ^ (at >> 9)) as u8)
                .collect::<Vec<u8>>()
                .into()
        })
        .collect();
    let mut line = Line::open(server).await?;
    let length = megabytes * PIECE;
    let begun = Instant::now();
    let frames = pieces
        .into_iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let body = StreamBody::new(futures::stream::iter(frames)).boxed();
    let answer = line
        .send(Method::PUT, &format!("{FILES}/{path}"), body, length)
        .await?;
    answer.into_body().collect().await?;
    Ok(rate(length, begun))
}

#[allow(clippy::cast_precision_loss)]
fn rate(bytes: usize, begun: Instant) -> Value {
    let seconds = begun.elapsed().as_secs_f64();
    json!({ "seconds": seconds, "bytes": bytes, "mb_per_second": bytes as f64 / 1e6 / seconds })
}

async fn download(server: &str, path: &str) -> Outcome<Value> {
    let mut line = Line::open(server).await?;
    let begun = Instant::now();
    let empty = Full::new(Bytes::new()).boxed();
    let mut body = line.send(Method::GET, path, empty, 0).await?.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.into_data().map_or(0, |data| data.len());
    }
    Ok(rate(bytes, begun))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let (server, clients) = (arguments.server.as_str(), arguments.clients);
    let seen = match &arguments.what {
        What::Batches { each, points } => batches(server, clients, *each, *points).await?,
        What::Calls { each } => calls(server, clients, *each).await?,
        What::Runs { each } => runs(server, *each).await?,
        What::Fill {
            experiment,
            runs,
            points,
        } => fill(server, clients, experiment, (*runs, *points)).await?,
        What::Long { points } => long(server, *points).await?,
        What::Ask { path, times, body } => {
            ask(server, clients, path, *times, body.as_deref()).await?
        }
        What::Upload { path, megabytes } => upload(server, path, *megabytes).await?,
        What::Download { path } => download(server, path).await?,
    };
    writeln!(std::io::stdout(), "{seen}")?;
    Ok(())
}
