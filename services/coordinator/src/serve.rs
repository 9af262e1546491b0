//! `pomona-coordinator serve`: opens the store, takes leadership, serves, and stops gracefully.

use actix_web::dev::{Server, Service as _};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{HttpServer, http::header};
use pomona_daemon::Signals;
use pomona_domain::{Code, Fault};
use pomona_store::{Candidate, Retention, Store, StoreConfig};
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::bus::{Bus, relay};
use crate::clock::Clock;
use crate::config::{BLOBS, Config, DATABASE};
use crate::desired::Inputs;
use crate::engine;
use crate::features::Features;
use crate::http::forward::{self, Line};
use crate::http::{App, key::InFlight, refusal, routes, uploads::Writing};
use crate::longpoll::Told;
use crate::metrics::Metrics;
use crate::mlflow;
use crate::oci;
use crate::signer::Signer;
use crate::webhooks;

/// The file in the data folder with this coordinator's name. A copy of the folder must not keep it.
const NAME: &str = "coordinator.id";
/// Retention is looked after this often.
const RETAIN_EVERY: Duration = Duration::from_hours(1);
/// A silent connection is kept for longer than our client keeps it (90 s): it is never the server
/// that closes a connection on which a request is under way.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
/// A stop ends even when something hangs.
const STOP_LIMIT: Duration = Duration::from_millis(4500);

/// Serves until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> Result<(), Fault> {
    let address = config.address()?;
    let _lock = lock(&config.data_dir())?;
    let listener = TcpListener::bind(address).map_err(|error| {
        Fault::new(
            Code::BadListen,
            format!("cannot listen on `{address}`: {error}"),
        )
        .hint("another program may listen there; `--listen 127.0.0.1:0` takes a free port")
    })?;
    let store = open(&config).await?;
    store.migrate().await?;
    claim(&store).await?;
    let mut signals = Signals::listen()?;
    let (stop, stopping) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let me = candidate(&config, &listener)?;
    check_blobs(&config, &store, &me).await?;
    let (app, mut engine) = assemble(config, store.clone(), me, (stopping, ended)).await?;
    let keeper = tokio::spawn(housekeeping(app.clone()));
    let settler = tokio::spawn(mlflow::settle(app.clone()));
    let namer = tokio::spawn(mlflow::name(app.clone()));
    let teller = tokio::spawn(webhooks::run(app.clone()));
    let images = tokio::spawn(oci::keep(app.clone()));
    let server = server(&app, listener)?;
    let control = server.handle();
    let serving = tokio::spawn(server);
    let broken = tokio::select! {
        () = signals.next() => None,
        broken = &mut engine => Some(broken),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    let ending = async {
        control.stop(true).await;
        // The server's own end says nothing new.
        let _ = serving.await;
        end.send_replace(true);
        let engine = match broken {
            Some(broken) => broken,
            None => engine.await,
        };
        for task in [keeper, settler, namer, teller, images] {
            task.abort();
            let _ = task.await;
        }
        store.close().await?;
        let broke = |error| Fault::new(Code::Internal, format!("the engine broke: {error}"));
        engine.map_err(broke)?
    };
    if let Ok(ended) = tokio::time::timeout(STOP_LIMIT, ending).await {
        return ended;
    }
    tracing::warn!("something did not end in time; what was acknowledged is on disk");
    Ok(())
}

/// Everything that handlers work with, and the engine, which runs until `ended`.
async fn assemble(
    config: Config,
    store: Store,
    me: Candidate,
    (stop, ended): (watch::Receiver<bool>, watch::Receiver<bool>),
) -> Result<(Data<App>, engine::Running), Fault> {
    let clock = Arc::new(Clock::start());
    let metrics = Metrics::new(config.metrics.max_experiments)
        .map_err(|error| Fault::new(Code::Internal, format!("metrics cannot be made: {error}")))?;
    let metrics = Arc::new(metrics);
    let bus = Arc::new(Bus::new(config.events.kept, config.events.kept_bytes));
    let parts = engine::Parts {
        store: store.clone(),
        config: config.scheduler(),
        tick: Duration::from_millis(config.scheduler.tick_ms),
        clock: Arc::clone(&clock),
        bus: Arc::clone(&bus),
        metrics: Arc::clone(&metrics),
        stop: ended,
        me: me.clone(),
        term: Duration::from_millis(config.leader.term_ms),
    };
    let (handle, engine) = engine::start(parts).await?;
    if !config.redis.url.is_empty() {
        relay::start(&config.redis.url, &bus, &metrics, handle.role())?;
    }
    let data_dir = config.data_dir();
    let signer = Signer::open(&config.signing.key, &data_dir, store.is_shared())?;
    let hooks = config.webhooks.sender()?;
    let writer = mlflow::Writer::start(store.clone(), Arc::clone(&metrics));
    let app = App {
        store,
        writer,
        hooks,
        signer,
        images: oci::Images::default(),
        engine: handle,
        bus,
        metrics,
        clock,
        inputs: Inputs::default(),
        told: Told::default(),
        features: Features::default(),
        remembered: Mutex::default(),
        line: Line::new(&me.holder)?,
        me,
        keys: InFlight::default(),
        writing: Writing::default(),
        stop,
        config,
    };
    Ok((Data::new(app), engine))
}

/// This coordinator, as others see it: its name was drawn at its first start.
fn candidate(config: &Config, listener: &TcpListener) -> Result<Candidate, Fault> {
    let bad = |error: std::io::Error| {
        let folder = config.data_dir();
        let text = format!(
            "the data folder `{}` cannot be used: {error}",
            folder.display()
        );
        Fault::new(Code::BadDataDir, text)
    };
    let path = config.data_dir().join(NAME);
    let holder = match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => name.trim().to_owned(),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(bad(error)),
        // An empty file: the machine went down when it was made.
        Ok(_) | Err(_) => {
            let name = format!("coordinator-{:016x}", rand::random::<u64>());
            std::fs::write(&path, format!("{name}\n")).map_err(bad)?;
            name
        }
    };
    let address = config.advertised(listener.local_addr().map_err(bad)?);
    if address.is_empty() && config.has_url() {
        tracing::warn!(
            "other coordinators on this database cannot hand requests to this one: \
             set `advertise` to the address at which they reach it"
        );
    }
    Ok(Candidate { holder, address })
}

/// Refuses a folder of blobs of one's own beside another coordinator: what one keeps there, the
/// other would not find.
async fn check_blobs(config: &Config, store: &Store, me: &Candidate) -> Result<(), Fault> {
    if !store.is_shared() || config.blobs.has_url() {
        return Ok(());
    }
    let other = store.leader().await?;
    if other.holder.is_empty() || other.holder == me.holder {
        return Ok(());
    }
    let text = format!(
        "another coordinator (`{}`) has led on this database, and this one keeps its blobs in a \
         folder of its own",
        other.holder
    );
    let hint = "set `blobs.url` to one place for all of them: `s3://bucket/prefix`, or \
                `file:///folder` on a disk that they share";
    Err(Fault::new(Code::BlobsApart, text).hint(hint))
}

/// The store of a configuration.
pub async fn open(config: &Config) -> Result<Store, Fault> {
    let opened = Store::open(StoreConfig {
        url: config.store_url(),
        blobs: config.blobs_at()?,
    });
    Ok(opened.await?)
}

/// Makes sure that the bucket is this database's. A bucket that is away now is asked again before
/// anything is removed from it.
async fn claim(store: &Store) -> Result<(), Fault> {
    match store.blobs_claim().await.map_err(Fault::from) {
        Err(fault) if fault.code == Code::ObjectsDown => {
            tracing::warn!(code = %fault.code, "{fault}");
            Ok(())
        }
        claimed => claimed,
    }
}

/// Refuses a data folder in which no coordinator ever was: opening it would make it.
pub fn check_there(config: &Config) -> Result<(), Fault> {
    let folder = config.data_dir();
    let has_database = config.has_url() || folder.join(DATABASE).is_file();
    let has_blobs = config.blobs.has_url() || folder.join(BLOBS).is_dir();
    let is_there = has_blobs && has_database;
    if is_there {
        return Ok(());
    }
    let text = format!(
        "the data folder `{}` holds no database and no blobs of a coordinator",
        folder.display()
    );
    let hint = "give the folder that `serve` has, with `--data-dir` or `data_dir`";
    Err(Fault::new(Code::BadDataDir, text).hint(hint))
}

/// Makes the data folder and takes its lock: one coordinator at a time.
fn lock(folder: &Path) -> Result<File, Fault> {
    let bad = |why: String| {
        Fault::new(
            Code::BadDataDir,
            format!("the data folder `{}` {why}", folder.display()),
        )
    };
    std::fs::create_dir_all(folder).map_err(|error| bad(format!("cannot be made: {error}")))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("coordinator.lock"))
        .map_err(|error| bad(format!("cannot be written: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(bad("is in use by another coordinator".to_owned())
            .hint("stop the other one, or give this one another `--data-dir`")),
        Err(TryLockError::Error(error)) => Err(bad(format!("cannot be locked: {error}"))),
    }
}

fn server(app: &Data<App>, listener: TcpListener) -> Result<Server, Fault> {
    let address = listener.local_addr();
    let state = app.clone();
    let http = app.config.http.clone();
    let broken = |error: std::io::Error| {
        Fault::new(Code::BadListen, format!("the server cannot start: {error}"))
    };
    let server = HttpServer::new(move || {
        let json = web::JsonConfig::default()
            .limit(state.config.http.max_body_bytes)
            .content_type_required(false)
            .error_handler(refusal::of_json);
        actix_web::App::new()
            .app_data(state.clone())
            .app_data(json)
            .app_data(web::PayloadConfig::new(state.config.http.max_body_bytes))
            .app_data(web::QueryConfig::default().error_handler(refusal::of_query))
            .app_data(web::PathConfig::default().error_handler(refusal::of_path))
            .wrap(from_fn(forward::to_leader))
            .wrap_fn(|request, service| {
                let started = Instant::now();
                let method = method(request.method());
                let answered = service.call(request);
                async move {
                    let mut response = answered.await?;
                    observe(&response, method, started);
                    let nosniff = header::HeaderValue::from_static("nosniff");
                    let headers = response.headers_mut();
                    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
                    Ok(response)
                }
            })
            // Its routes are asked for most, and compared with fewest.
            .configure(mlflow::configure)
            .configure(routes::configure)
            .configure(oci::configure)
            .default_service(web::to(refusal::unknown))
    })
    .workers(http.threads)
    .max_connections(http.max_connections)
    .client_request_timeout(Duration::from_secs(30))
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(http.stop_grace_ms.div_ceil(1000))
    .disable_signals()
    .listen(listener)
    .map_err(broken)?;
    announce(&address.map_err(broken)?.to_string());
    Ok(server.run())
}

/// The method as a label: those we serve, and `other`.
fn method(method: &actix_web::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn observe<B>(response: &actix_web::dev::ServiceResponse<B>, method: &str, started: Instant) {
    let request = response.request();
    let Some(app) = request.app_data::<Data<App>>() else {
        return;
    };
    let route = request.match_pattern();
    let route = route.as_deref().unwrap_or("unknown");
    let status = response.status();
    app.metrics
        .http
        .with_label_values(&[route, method, status.as_str()])
        .observe(started.elapsed().as_secs_f64());
}

/// The one line on stdout: whoever started us learns the port from it.
fn announce(address: &str) {
    let line = serde_json::json!({ "listening": address });
    let mut out = std::io::stdout().lock();
    // Nobody has to read it.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
    tracing::info!(address, "listening");
}

async fn collect_blobs(app: &App) {
    match app.store.blob_gc(app.now()).await {
        Ok(report) => {
            app.metrics.blobs_collected.inc_by(report.removed);
            tracing::debug!(?report, "collected blobs");
        }
        Err(error) => tracing::warn!("cannot collect blobs: {}", Fault::from(error)),
    }
}

/// Collects blobs and forgets what is over its time.
async fn housekeeping(app: Data<App>) {
    let mut collect = tokio::time::interval(Duration::from_secs(app.config.blobs.collect_every_s));
    let mut retain = tokio::time::interval(RETAIN_EVERY);
    loop {
        tokio::select! {
            _ = collect.tick() => {
                // One coordinator is enough; two would do no harm.
                if app.engine.generation().is_some() {
                    collect_blobs(&app).await;
                }
            }
            _ = retain.tick() => {
                let kept = app.store.retain(app.now(), &Retention::default()).await;
                if let Err(error) = kept {
                    tracing::warn!("cannot forget old rows: {}", Fault::from(error));
                }
                match app.store.runs_thin(app.now()).await {
                    Ok(0) => {}
                    Ok(runs) => tracing::info!(runs, "thinned histories that are past their time"),
                    Err(error) => tracing::warn!("cannot thin old histories: {}", Fault::from(error)),
                }
            }
        }
    }
}
