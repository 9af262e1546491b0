//! The processes of a lease: its c10d store when there are several ranks, and the ranks, all in one
//! group. What they say comes through one bounded channel; when nobody listens, they wait.
//!
//! It must never drop a line that could count, and never outlive itself: dropping it kills the group.

use nix::sys::signal::Signal as Kill;
use pomona_api::PROTOCOL;
use pomona_api::trainer::{Command, Event, Rendezvous, Signal, TrainerWork};
use pomona_domain::report::ReportBody;
use pomona_domain::worker::{Slot, SlotKind};
use pomona_domain::{Code, Fault};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, watch};

use super::ear::{Ear, Tongue};
use super::log::{Pen, Tail};
use super::program::{Script, cannot_start, started};
use super::{Order, Tools};
use crate::fetch::blocking;
use crate::line::next_line;
use crate::logs::MAX_LINE_BYTES;
use crate::process;
use crate::program::{Folders, ProgramWork, Seat, free_port};
use crate::slots::{Slots, cpu_environment};
use crate::work::Job;

/// Lines that may wait for the supervisor.
const CHANNEL: usize = 64;
/// How long streams that a process left open (in a child of its own) are listened to.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the store may take to say its port.
const STORE_START: Duration = Duration::from_mins(1);

/// What comes from a lease's processes.
#[derive(Debug)]
pub enum Said {
    /// A line of stdout.
    Event {
        /// Whose.
        rank: u32,
        /// What.
        event: Box<Event>,
    },
    /// A rank waits for us: the spool is full.
    Held,
    /// What a program left cannot be used: no other attempt will end otherwise.
    Broken {
        /// Why.
        fault: Fault,
    },
    /// A line longer than any answer may be.
    Overlong {
        /// Whose.
        rank: u32,
    },
    /// A process is gone, and all that it said was heard.
    Gone {
        /// Whose.
        rank: u32,
        /// How, when that is known.
        status: Option<ExitStatus>,
        /// Its last lines of stderr.
        tail: Vec<String>,
    },
    /// The c10d store is gone.
    StoreGone {
        /// Its last lines of stderr.
        tail: Vec<String>,
    },
}

/// The processes.
#[derive(Debug)]
pub struct Crew {
    group: i32,
    /// How the ranks are asked to stop.
    bell: Bell,
    stdins: Vec<Option<ChildStdin>>,
    /// Open as long as the store should live.
    store: Option<ChildStdin>,
    /// What they say.
    pub said: mpsc::Receiver<Said>,
    abandon: watch::Sender<bool>,
    alive: usize,
}

/// How ranks are asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bell {
    /// By a line on stdin.
    Line,
    /// By SIGTERM to the group.
    Signal,
}

impl Crew {
    /// Starts everything and tells the ranks what to do.
    pub async fn start(tools: &Tools, order: &Order) -> Result<Self, Fault> {
        match &order.job {
            Job::Trainer(work) => Self::start_trainers(tools, order, work).await,
            Job::Program(work) => Self::start_program(tools, order, work).await,
        }
    }

    /// Starts a program of one's own, once its folders are ready.
    async fn start_program(
        tools: &Tools,
        order: &Order,
        work: &Arc<ProgramWork>,
    ) -> Result<Self, Fault> {
        let folders = Folders::of(&order.folder, &order.output);
        let (task, places) = (Arc::clone(work), folders.clone());
        blocking(move || task.prepare(&places)).await??;
        let cwd = work.cwd(&folders);
        let broken = |error: std::io::Error| cannot_start(&cwd, &error);
        let at = if let Some(at) = &order.share.meets_at {
            at.clone()
        } else {
            let host = order.share.host.clone();
            let port = free_port(&host).map_err(broken)?;
            let at = Rendezvous { host, port };
            tell_others(tools, order, &at)?;
            at
        };
        let (mut crew, say) = Self::new(Bell::Signal);
        for rank in 0..work.ranks(order.slots.len()) {
            let seat = Seat {
                lease: order.lease,
                generation: order.generation,
                slots: &order.slots,
                rank,
                share: &order.share,
                at: &at,
            };
            let environment = work.environment(&tools.slots, &folders, &seat);
            let (launcher, argv) = (&tools.launcher, &work.spec.program.argv);
            let group = Some(crew.group).filter(|group| *group != 0);
            let child = process::spawn_kept(launcher, argv, &environment, group, &cwd);
            let child = crew.lead(child.map_err(broken)?);
            let script = (order.share.leads() && rank == 0)
                .then(|| Script::new(Arc::clone(work), folders.clone()));
            crew.follow(tools, order, child, Tongue::Program(script), &say);
        }
        Ok(crew)
    }

    fn new(bell: Bell) -> (Self, mpsc::Sender<Said>) {
        let (say, said) = mpsc::channel(CHANNEL);
        let crew = Self {
            group: 0,
            bell,
            stdins: Vec::new(),
            store: None,
            said,
            abandon: watch::Sender::new(false),
            alive: 0,
        };
        (crew, say)
    }

    async fn start_trainers(
        tools: &Tools,
        order: &Order,
        work: &TrainerWork,
    ) -> Result<Self, Fault> {
        let (mut crew, say) = Self::new(Bell::Line);
        let rendezvous = match &order.share.meets_at {
            Some(at) => Some(at.clone()),
            None if order.share.world_size > 1 => {
                let at = crew.start_store(tools, order, &say).await?;
                tell_others(tools, order, &at)?;
                Some(at)
            }
            None => None,
        };
        // From here to the last spawn nothing is awaited: a rank that ends at once is still there
        // for the others to join its group.
        for rank in 0..order.slots.len() {
            crew.start_rank(tools, order, rank, rendezvous.as_ref(), &say)?;
        }
        for (rank, slot) in order.slots.iter().enumerate() {
            let command = command(tools, order, (rank as u32, slot), rendezvous.as_ref(), work);
            crew.write(rank, &command).await;
        }
        Ok(crew)
    }

    async fn start_store(
        &mut self,
        tools: &Tools,
        order: &Order,
        say: &mpsc::Sender<Said>,
    ) -> Result<Rendezvous, Fault> {
        let environment = tools.slots.cuda_environment();
        let host = &order.share.host;
        let arguments = ["store", "--host", host];
        let mut child = self.spawn(tools, order, &arguments, &environment)?;
        self.store = child.stdin.take();
        let stdout = child.stdout.take();
        let (ended, _) = watch::channel(false);
        let tail = Tail::start(tools, order, 0, child.stderr.take(), &ended);
        let port = tokio::time::timeout(STORE_START, port_of(stdout)).await;
        let Ok(Some(port)) = port else {
            process::signal_group(self.group, Kill::SIGKILL);
            let _ = child.wait().await;
            ended.send_replace(true);
            let said = super::end::last_words(&tail.end().await);
            let message = format!("the c10d store of the lease did not start{said}");
            return Err(Fault::new(Code::MissingProgram, message));
        };
        let say = say.clone();
        tokio::spawn(async move {
            let _ = child.wait().await;
            ended.send_replace(true);
            let tail = tail.end().await;
            let _ = say.send(Said::StoreGone { tail }).await;
        });
        Ok(Rendezvous {
            host: host.clone(),
            port,
        })
    }

    fn start_rank(
        &mut self,
        tools: &Tools,
        order: &Order,
        rank: usize,
        rendezvous: Option<&Rendezvous>,
        say: &mpsc::Sender<Said>,
    ) -> Result<(), Fault> {
        let environment = environment(tools, order, rank, rendezvous);
        let spare = match order.share.world_size {
            1 => tools.spares.take(&tools.trainer),
            _ => None,
        };
        let child = match spare {
            Some(spare) => self.lead(spare),
            None => self.spawn(tools, order, &[], &environment)?,
        };
        self.follow(tools, order, child, Tongue::Trainer, say);
        Ok(())
    }

    /// Listens to the next rank, to its end.
    fn follow(
        &mut self,
        tools: &Tools,
        order: &Order,
        mut child: Child,
        tongue: Tongue,
        say: &mpsc::Sender<Said>,
    ) {
        let rank = self.stdins.len() as u32;
        let is_program = matches!(tongue, Tongue::Program(_));
        self.stdins.push(child.stdin.take());
        self.alive += 1;
        let (ended, ending) = watch::channel(false);
        let number = order.share.rank(rank);
        let tail = Tail::start(tools, order, number, child.stderr.take(), &ended);
        let stdout = child.stdout.take();
        let ear = Ear {
            rank,
            tongue,
            tools: tools.clone(),
            pen: Pen::new(tools, order, number),
            say: say.clone(),
            ended: ending,
            abandoned: self.abandon.subscribe(),
        };
        let say = say.clone();
        tokio::spawn(async move {
            if is_program {
                let event = Box::new(started(rank));
                let _ = say.send(Said::Event { rank, event }).await;
            }
            let heard = tokio::spawn(ear.listen(stdout));
            let status = child.wait().await.ok();
            ended.send_replace(true);
            if let Ok(mut ear) = heard.await
                && status.is_some_and(|status| status.success())
            {
                ear.conclude().await;
            }
            let tail = tail.end().await;
            let _ = say.send(Said::Gone { rank, status, tail }).await;
        });
    }

    fn spawn(
        &mut self,
        tools: &Tools,
        order: &Order,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
    ) -> Result<Child, Fault> {
        let group = Some(self.group).filter(|group| *group != 0);
        let (launcher, trainer) = (&tools.launcher, &tools.trainer);
        let child = process::spawn(
            launcher,
            trainer,
            arguments,
            environment,
            group,
            &order.folder,
        )
        .map_err(|error| {
            let message = format!("`{}` cannot be started: {error}", trainer.display());
            Fault::new(Code::MissingProgram, message)
        })?;
        Ok(self.lead(child))
    }

    /// The first process leads the group.
    fn lead(&mut self, child: Child) -> Child {
        if self.group == 0 {
            let id = child.id().and_then(|id| i32::try_from(id).ok());
            self.group = id.unwrap_or(0);
        }
        child
    }

    /// Asks every rank to write a checkpoint and end.
    pub async fn stop(&mut self) {
        if self.bell == Bell::Signal {
            if self.group != 0 {
                process::signal_group(self.group, Kill::SIGTERM);
            }
            return;
        }
        for rank in 0..self.stdins.len() {
            self.write(rank, &Signal::Stop).await;
        }
    }

    /// Writes a line to a rank. One that is gone does not read it; that is told elsewhere.
    async fn write(&mut self, rank: usize, line: &impl serde::Serialize) {
        let Ok(mut text) = serde_json::to_vec(line) else {
            return;
        };
        text.push(b'\n');
        let Some(Some(stdin)) = self.stdins.get_mut(rank) else {
            return;
        };
        let written = async {
            stdin.write_all(&text).await?;
            stdin.flush().await
        };
        // A pipe takes a command as a whole; one that is full of signals belongs to a rank that
        // does not read, and the grace ends it.
        if let Ok(Err(error)) = tokio::time::timeout(DRAIN, written).await {
            tracing::debug!(rank, %error, "a rank does not read");
        }
    }

    /// Ends every process at once. What was said already is still heard.
    pub fn kill(&self) {
        if self.group != 0 {
            process::signal_group(self.group, Kill::SIGKILL);
        }
    }

    /// What is said from now on does not count.
    pub fn abandon(&self) {
        self.abandon.send_replace(true);
    }

    /// A rank is gone. Says whether it was the last one.
    pub fn gone(&mut self) -> bool {
        self.alive = self.alive.saturating_sub(1);
        self.alive == 0
    }

    /// Whether ranks are left.
    pub fn is_alive(&self) -> bool {
        self.alive > 0
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // The store, and whatever ranks left behind.
        self.kill();
    }
}

/// The other workers of the lease learn where its ranks meet.
fn tell_others(tools: &Tools, order: &Order, at: &Rendezvous) -> Result<(), Fault> {
    if !order.share.is_wide() {
        return Ok(());
    }
    let body = ReportBody::Meets { at: at.clone() };
    let told = tools
        .spool
        .put(order.lease, order.generation, body, Vec::new());
    told.map_err(|error| error.fault())
}

fn command(
    tools: &Tools,
    order: &Order,
    (rank, slot): (u32, &Slot),
    rendezvous: Option<&Rendezvous>,
    work: &TrainerWork,
) -> Command {
    Command {
        protocol: PROTOCOL,
        lease: order.lease,
        generation: order.generation,
        rank: order.share.rank(rank),
        world_size: order.share.world_size,
        local_rank: rank,
        device: slot.kind,
        slot: slot.index,
        threads: tools.slots.threads,
        rendezvous: rendezvous.cloned(),
        work: work.clone(),
    }
}

/// torch.distributed's variables, and those that say how many threads and which devices.
fn environment(
    tools: &Tools,
    order: &Order,
    rank: usize,
    rendezvous: Option<&Rendezvous>,
) -> BTreeMap<String, String> {
    let (local, number) = (rank as u32, order.share.rank(rank as u32));
    let mut all = rank_environment(&tools.slots, (local, number), order.share.world_size);
    let mut set = |name: &str, value: String| all.insert(name.to_owned(), value);
    if let Some(at) = rendezvous {
        set("MASTER_ADDR", at.host.clone());
        set("MASTER_PORT", at.port.to_string());
    }
    if order
        .slots
        .get(rank)
        .is_some_and(|slot| slot.kind == SlotKind::Cuda)
    {
        set("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1".to_owned());
    }
    all
}

/// What a rank has in its environment whatever it is told to do.
pub fn rank_environment(
    slots: &Slots,
    (local, rank): (u32, u32),
    ranks: u32,
) -> BTreeMap<String, String> {
    let mut all = slots.cuda_environment();
    all.extend(cpu_environment(slots.threads));
    let mut set = |name: &str, value: String| all.insert(name.to_owned(), value);
    set("RANK", rank.to_string());
    set("LOCAL_RANK", local.to_string());
    set("WORLD_SIZE", ranks.to_string());
    all
}

#[derive(Deserialize)]
struct Port {
    port: u16,
}

/// The port in the first line that the store says.
async fn port_of(stdout: Option<impl AsyncRead + Unpin>) -> Option<u16> {
    let mut reader = BufReader::new(stdout?);
    let mut line = Vec::new();
    next_line(&mut reader, MAX_LINE_BYTES, &mut line)
        .await
        .ok()??;
    let said: Port = serde_json::from_slice(&line).ok()?;
    Some(said.port)
}

/// Resolves when a process is gone and its streams had time to end.
pub async fn drained(ended: &mut watch::Receiver<bool>) {
    if ended.wait_for(|ended| *ended).await.is_ok() {
        tokio::time::sleep(DRAIN).await;
    }
}
