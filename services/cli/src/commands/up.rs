//! `up`: a coordinator and one worker as child processes that live and die with this one.
//!
//! It must never leave a process behind: the children are tethered (the kernel ends them when this
//! process ends in any way), and a stop is bounded.

pub mod programs;
mod service;

use pomona_api::client::Client;
use pomona_api::v1::PageQuery;
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{Code, Fault, WorkerId};
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::session::{all, is_passing};
use super::{Done, runtime};
use crate::args::DEFAULT_SERVER;
use crate::args::machine::UpArgs;
use crate::human::plural;
use crate::printer::Printer;
use programs::{COORDINATOR, TRAINER, WORKER};
use service::{Happened, Service};

/// The coordinator and the worker are ready within this time, each.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at one that starts.
const LOOK: Duration = Duration::from_millis(20);
/// A worker lets its trainers write a checkpoint first.
const WORKER_STOP_LIMIT: Duration = Duration::from_secs(30);
const COORDINATOR_STOP_LIMIT: Duration = Duration::from_secs(10);

/// The first line on stdout.
#[derive(Debug, Serialize)]
struct Ready {
    server: String,
}

/// What is started.
struct Plan {
    folder: PathBuf,
    listen: String,
    insecure_behind_proxy: bool,
    coordinator: PathBuf,
    worker: Option<(PathBuf, Vec<OsString>)>,
}

/// `pomona up`.
pub fn run(args: &UpArgs, printer: &Printer) -> Result<Done, Fault> {
    let plan = plan(args)?;
    // A reader of its talk that goes away is no reason to stop training.
    let printer = &printer.clone().undaunted();
    // One thread, the main one: children are tethered to the thread that started them.
    runtime()?.block_on(up(plan, printer))
}

fn plan(args: &UpArgs) -> Result<Plan, Fault> {
    let folder = programs::data_dir(args.data_dir.as_deref())?;
    let coordinator = programs::find(COORDINATOR, None)?;
    let worker = if args.no_worker {
        None
    } else {
        let program = programs::find(WORKER, None)?;
        let trainer = programs::find(TRAINER, args.trainer.as_deref()).map_err(|fault| {
            let hint = fault.hint.clone().unwrap_or_default();
            fault.hint(format!("{hint}; `pomona up --no-worker` does without one"))
        })?;
        let mut arguments: Vec<OsString> = vec!["--listen".into(), "127.0.0.1:0".into()];
        arguments.extend(["--data-dir".into(), folder.join("worker").into()]);
        arguments.extend(["--trainer".into(), trainer.into()]);
        if let Some(slots) = args.slots {
            arguments.extend(["--slots".into(), slots.to_string().into()]);
        }
        Some((program, arguments))
    };
    Ok(Plan {
        folder,
        listen: args.listen.clone(),
        insecure_behind_proxy: args.insecure_behind_proxy,
        coordinator,
        worker,
    })
}

async fn up(plan: Plan, printer: &Printer) -> Result<Done, Fault> {
    let mut signals = Signals::listen()?;
    let mut house = House::new(plan, printer);
    let kept = tokio::select! {
        kept = house.live() => kept,
        () = signals.next() => Ok(()),
    };
    house.stop(&mut signals).await;
    kept?;
    printer.say("pomona is down");
    Ok(Done::Well)
}

/// What asks us to end.
struct Signals {
    interrupt: Signal,
    term: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Fault> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Fault::new(
                    Code::Internal,
                    format!("cannot listen for signals: {error}"),
                )
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.term.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

struct House<'a> {
    printer: &'a Printer,
    folder: PathBuf,
    insecure_behind_proxy: bool,
    coordinator: Service,
    worker: Option<Service>,
}

impl<'a> House<'a> {
    fn new(plan: Plan, printer: &'a Printer) -> Self {
        let folder = plan.folder;
        let open = plan.insecure_behind_proxy;
        let arguments = coordinator_arguments(&plan.listen, &folder, open);
        let worker = plan
            .worker
            .map(|(program, arguments)| Service::new("worker", program, arguments, printer));
        Self {
            printer,
            coordinator: Service::new("coordinator", plan.coordinator, arguments, printer),
            worker,
            folder,
            insecure_behind_proxy: open,
        }
    }

    /// Opens, says so, and keeps both running; ends only with a fault.
    async fn live(&mut self) -> Result<(), Fault> {
        let server = self.open_coordinator().await?;
        let worker = self.open_worker(&server).await?;
        self.announce(server, worker.as_ref());
        loop {
            let happened = tokio::select! {
                happened = self.coordinator.next() => (true, happened),
                happened = next_of(self.worker.as_mut()) => (false, happened),
            };
            let service = match (happened.0, self.worker.as_mut()) {
                (false, Some(worker)) => worker,
                (true, _) | (false, None) => &mut self.coordinator,
            };
            match happened.1 {
                Happened::Ended(status) => service.ended(status).await?,
                Happened::Due => service.start_again()?,
            }
        }
    }

    async fn open_coordinator(&mut self) -> Result<String, Fault> {
        let mut stdout = BufReader::new(self.coordinator.start()?);
        let address = tokio::time::timeout(START_LIMIT, first_line(&mut stdout)).await;
        let Some(address) = address.map_err(|_| late("coordinator"))? else {
            return Err(self.coordinator.failed(None).await);
        };
        // A port that was given freely must be the same after a restart.
        self.coordinator.arguments =
            coordinator_arguments(&address, &self.folder, self.insecure_behind_proxy);
        let server = server_of(&address);
        let client = Client::new(&server)?.attempts(1);
        let ready = async {
            loop {
                match client.ready().await {
                    Ok(()) => return Ok(()),
                    Err(fault) if is_passing(fault.code) => tokio::time::sleep(LOOK).await,
                    Err(fault) => return Err(fault),
                }
            }
        };
        let ready = tokio::time::timeout(START_LIMIT, ready);
        let ended = tokio::select! {
            ready = ready => {
                ready.map_err(|_| late("coordinator"))??;
                return Ok(server);
            }
            happened = self.coordinator.next() => happened,
        };
        Err(failed(&mut self.coordinator, ended).await)
    }

    /// Starts the worker, and waits until the coordinator knows it.
    async fn open_worker(&mut self, server: &str) -> Result<Option<Worker>, Fault> {
        let Some(service) = &mut self.worker else {
            return Ok(None);
        };
        let client = Client::new(server)?;
        let before: Vec<(WorkerId, u64)> = workers(&client)
            .await?
            .iter()
            .map(|row| (row.id, row.incarnation))
            .collect();
        let given = std::mem::take(&mut service.arguments);
        service.arguments = ["run", "--server", server].map(OsString::from).to_vec();
        service.arguments.extend(given);
        service.start_again()?;
        let known = async {
            loop {
                let found = workers(&client).await?.into_iter().find(|row| {
                    row.state == WorkerState::Alive && !before.contains(&(row.id, row.incarnation))
                });
                match found {
                    Some(row) => return Ok::<_, Fault>(row),
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        let known = tokio::time::timeout(START_LIMIT, known);
        let ended = tokio::select! {
            known = known => return known.map_err(|_| late("worker"))?.map(Some),
            happened = service.next() => happened,
        };
        Err(failed(service, ended).await)
    }

    fn announce(&self, server: String, worker: Option<&Worker>) {
        let printer = self.printer;
        let ready = Ready { server };
        if printer.is_json() {
            printer.json_line(&ready);
        } else {
            let style = printer.style();
            let address = style.green(&ready.server);
            printer.text(&format!("{} {address}", style.bold("pomona is up at")));
        }
        printer.say(&format!("  data    {}", self.folder.display()));
        match worker {
            Some(row) => {
                let slots = plural(row.slots.len() as u64, "slot");
                printer.say(&format!("  worker  {}, {slots}", row.name));
            }
            None => printer.say("  worker  none (--no-worker)"),
        }
        if ready.server != DEFAULT_SERVER {
            let server = &ready.server;
            printer.say(&format!("  others  export POMONA_SERVER={server}"));
        }
        printer.say("  Ctrl-C stops both; training goes on from its last checkpoint next time");
    }

    /// The worker first, so that its last reports are taken; then the coordinator.
    async fn stop(&mut self, signals: &mut Signals) {
        if let Some(worker) = &mut self.worker {
            worker.stop(WORKER_STOP_LIMIT, signals.next()).await;
        }
        self.coordinator
            .stop(COORDINATOR_STOP_LIMIT, signals.next())
            .await;
    }
}

fn coordinator_arguments(listen: &str, folder: &std::path::Path, open: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--listen".into(), listen.into()];
    arguments.extend(["--data-dir".into(), folder.into()]);
    if open {
        arguments.push("--insecure-behind-proxy".into());
    }
    arguments
}

async fn next_of(service: Option<&mut Service>) -> Happened {
    match service {
        Some(service) => service.next().await,
        None => std::future::pending().await,
    }
}

async fn failed(service: &mut Service, happened: Happened) -> Fault {
    match happened {
        Happened::Ended(status) => service.failed(Some(status)).await,
        Happened::Due => service.failed(None).await,
    }
}

fn late(name: &str) -> Fault {
    let message = format!("the {name} was not ready after {} s", START_LIMIT.as_secs());
    Fault::new(Code::NotReady, message)
        .hint("its words above may say why; `pomona doctor` looks around")
}

async fn workers(client: &Client) -> Result<Vec<Worker>, Fault> {
    let list = |query: PageQuery| async move { client.worker_list(&query).await };
    let rows = all(list).await?.items.into_iter();
    Ok(rows.map(|row| row.worker).collect())
}

/// The address in `{"listening": "127.0.0.1:7878"}`; `None` when the program ended without it.
async fn first_line(stdout: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    stdout.read_line(&mut line).await.ok()?;
    let value: Value = serde_json::from_str(&line).ok()?;
    Some(value.get("listening")?.as_str()?.to_owned())
}

/// How this machine reaches an address that is listened on.
fn server_of(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let host = if socket.is_ipv4() {
                "127.0.0.1"
            } else {
                "[::1]"
            };
            format!("http://{host}:{}", socket.port())
        }
        Ok(_) | Err(_) => format!("http://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everybody_is_reached_by_loopback() {
        assert_eq!(server_of("127.0.0.1:7878"), "http://127.0.0.1:7878");
        assert_eq!(server_of("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(server_of("[::]:80"), "http://[::1]:80");
        assert_eq!(server_of("[::1]:80"), "http://[::1]:80");
    }
}
