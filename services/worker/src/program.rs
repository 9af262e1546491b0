//! A program of one's own as a trial: its folders, its environment, and what it is told.
//!
//! It must never see what this worker knows and it need not: its environment is made from a short
//! list, not inherited.

use pomona_api::trainer::Rendezvous;
use pomona_api::v1::workers::DesiredProgram;
use pomona_domain::spec::{Processes, ProgramSpec, variables};
use pomona_domain::worker::{Slot, SlotKind};
use pomona_domain::{ExperimentId, Fault, Generation, LeaseId, TrialId};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::lease::Share;
use crate::slots::Slots;
use crate::work::{Places, cannot};

pub mod folder;
pub mod line;
#[cfg(test)]
mod tests;

/// Variables that a program gets as this worker has them. Nothing that could hold a secret.
const INHERITED: [&str; 15] = [
    "CONDA_PREFIX",
    "CUDA_HOME",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "PYTHONPATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
];

/// What is run, with paths of this machine.
#[derive(Debug, Clone)]
pub struct ProgramWork {
    /// The trial.
    pub trial: TrialId,
    /// Its experiment.
    pub experiment: ExperimentId,
    /// The program.
    pub spec: ProgramSpec,
    /// Where it goes on.
    pub resume: Option<Resume>,
    /// Where the coordinator is, for programs that speak to it.
    pub server: String,
    /// Bytes that its checkpoint folder may hold.
    pub checkpoint_max_bytes: u64,
}

/// A checkpoint to go on from.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The tar.
    pub archive: PathBuf,
    /// Its step.
    pub step: u64,
    /// Its epoch.
    pub epoch: u32,
}

/// The folders of a program, all in that of its lease.
#[derive(Debug, Clone)]
pub struct Folders {
    /// It runs here, unless it names a folder of its own.
    pub scratch: PathBuf,
    /// It keeps what it goes on from here.
    pub checkpoint: PathBuf,
    /// Tars of that on their way.
    pub output: PathBuf,
    /// Its hyperparameters as JSON.
    pub hparams: PathBuf,
    /// The step of the newest checkpoint that was taken.
    pub taken: PathBuf,
}

impl Folders {
    /// Below the folder of a lease.
    pub fn of(lease: &Path, output: &Path) -> Self {
        Self {
            scratch: lease.join("scratch"),
            checkpoint: lease.join("checkpoint"),
            output: output.to_owned(),
            hparams: lease.join("hparams.json"),
            taken: lease.join("checkpoint.taken"),
        }
    }
}

/// Who a process of a program is.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// The lease.
    pub lease: LeaseId,
    /// Its generation.
    pub generation: Generation,
    /// All slots of the lease that are here.
    pub slots: &'a [Slot],
    /// This process among those that are here, from 0.
    pub rank: usize,
    /// Which part of the lease is here.
    pub share: &'a Share,
    /// Where the ranks may meet.
    pub at: &'a Rendezvous,
}

impl ProgramWork {
    /// What should run, in paths.
    pub fn new(
        desired: &DesiredProgram,
        places: &Places,
        server: &str,
        checkpoint_max_bytes: u64,
    ) -> Result<Self, Fault> {
        let resume = desired.resume.map(|from| {
            let archive = places.blob(from.digest)?;
            let (step, epoch) = (from.step, from.epoch);
            Ok(Resume {
                archive,
                step,
                epoch,
            })
        });
        Ok(Self {
            trial: desired.trial,
            experiment: desired.experiment,
            spec: desired.spec.clone(),
            resume: resume.transpose()?,
            server: server.to_owned(),
            checkpoint_max_bytes,
        })
    }

    /// Processes on so many slots.
    pub fn ranks(&self, slots: usize) -> usize {
        match self.spec.program.processes {
            Processes::PerSlot => slots,
            Processes::One => 1,
        }
    }

    /// The folder it runs in.
    pub fn cwd(&self, folders: &Folders) -> PathBuf {
        let own = self.spec.program.cwd.as_ref().map(PathBuf::from);
        own.unwrap_or_else(|| folders.scratch.clone())
    }

    /// Makes the folders, writes the hyperparameters, unpacks the checkpoint. Blocks.
    pub fn prepare(&self, folders: &Folders) -> Result<(), Fault> {
        for folder in [&folders.scratch, &folders.checkpoint, &folders.output] {
            std::fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
        }
        let text = json!(self.spec.params).to_string();
        let written = std::fs::write(&folders.hparams, text);
        written.map_err(|error| cannot("write", &folders.hparams, &error))?;
        match &self.resume {
            None => Ok(()),
            Some(resume) => folder::restore(&resume.archive, &folders.checkpoint),
        }
    }

    /// All variables of one of its processes: those of this machine that are no secret, those of
    /// the file, then those of torchrun and of Pomona.
    pub fn environment(
        &self,
        machine: &Slots,
        folders: &Folders,
        seat: &Seat<'_>,
    ) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| INHERITED.contains(&name.as_str()) || name.starts_with("LC_"))
            .collect();
        let ranks = self.ranks(seat.slots.len());
        let threads = machine.threads as usize * seat.slots.len() / ranks.max(1);
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            all.insert(name.to_owned(), threads.max(1).to_string());
        }
        // What it prints is wanted when it prints it.
        all.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
        all.extend(self.spec.program.env.clone());
        all.extend(devices(seat.slots));
        all.extend(torchrun(seat, ranks, self.spec.program.processes));
        all.extend(self.pomona(folders, seat));
        all
    }

    fn pomona(&self, folders: &Folders, seat: &Seat<'_>) -> BTreeMap<String, String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut all: BTreeMap<String, String> = variables(&self.spec.params)
            .into_iter()
            .map(|(name, (_, text))| (name, text))
            .collect();
        let mut set = |name: &str, value: String| all.insert(format!("POMONA_{name}"), value);
        set("TRIAL_ID", self.trial.to_string());
        set("EXPERIMENT_ID", self.experiment.to_string());
        set("LEASE_ID", seat.lease.to_string());
        set("GENERATION", seat.generation.0.to_string());
        set("COORDINATOR_URL", self.server.clone());
        set("SEED", self.spec.seed.to_string());
        set("REPLICATE", self.spec.replicate.to_string());
        set("HPARAMS", json!(self.spec.params).to_string());
        set("HPARAMS_FILE", path(&folders.hparams));
        set("CHECKPOINT_DIR", path(&folders.checkpoint));
        set("CHECKPOINT_TAKEN_FILE", path(&folders.taken));
        set("SCRATCH_DIR", path(&folders.scratch));
        if let Some(resume) = &self.resume {
            set("RESUME_STEP", resume.step.to_string());
            set("RESUME_EPOCH", resume.epoch.to_string());
        }
        all
    }
}

/// The GPUs of the lease and no others; none for slots of a processor.
fn devices(slots: &[Slot]) -> [(String, String); 2] {
    let gpus: Vec<String> = (slots.iter())
        .filter(|slot| slot.kind == SlotKind::Cuda)
        .map(|slot| slot.index.to_string())
        .collect();
    [
        ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
        ("CUDA_VISIBLE_DEVICES".to_owned(), gpus.join(",")),
    ]
}

/// What `torchrun` sets, and `NNODES`, which its users know. `here` processes are on this worker.
fn torchrun(seat: &Seat<'_>, here: usize, processes: Processes) -> BTreeMap<String, String> {
    let share = seat.share;
    let (rank, ranks) = match processes {
        Processes::PerSlot => (share.rank(seat.rank as u32), share.world_size),
        // One on each worker.
        Processes::One => (share.part, share.parts),
    };
    let (rank, ranks) = (rank.to_string(), ranks.to_string());
    let (part, parts) = (share.part.to_string(), share.parts.to_string());
    let table = [
        ("RANK", rank.clone()),
        ("LOCAL_RANK", seat.rank.to_string()),
        ("ROLE_RANK", rank),
        ("ROLE_NAME", "default".to_owned()),
        ("WORLD_SIZE", ranks.clone()),
        ("LOCAL_WORLD_SIZE", here.to_string()),
        ("ROLE_WORLD_SIZE", ranks),
        ("GROUP_RANK", part),
        ("GROUP_WORLD_SIZE", parts.clone()),
        ("NNODES", parts),
        ("MASTER_ADDR", seat.at.host.clone()),
        ("MASTER_PORT", seat.at.port.to_string()),
        ("TORCHELASTIC_RUN_ID", seat.lease.to_string()),
        ("TORCHELASTIC_RESTART_COUNT", "0".to_owned()),
        ("TORCHELASTIC_MAX_RESTARTS", "0".to_owned()),
        // Rank 0 keeps the store itself.
        ("TORCHELASTIC_USE_AGENT_STORE", "False".to_owned()),
    ];
    table.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A port of an address of this machine that was free a moment ago.
pub fn free_port(host: &str) -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind((host, 0))?;
    Ok(listener.local_addr()?.port())
}
