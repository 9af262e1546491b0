//! Slots of this machine: NVIDIA GPUs when their driver is there, else shares of the cores.
//!
//! The driver's library is loaded when it exists; a machine without it is an ordinary one.

use nvml_wrapper::Nvml;
use pomona_domain::worker::{Slot, SlotKind};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long a trainer may take to say which GPUs it sees: loading CUDA takes seconds.
const ASK: Duration = Duration::from_mins(1);

/// The slots, and what a rank on one of them gets.
#[derive(Debug)]
pub struct Slots {
    /// The slots, index 0 first.
    pub list: Vec<Slot>,
    /// Threads of one rank.
    pub threads: u32,
    nvml: Option<Nvml>,
}

impl Slots {
    /// Looks at the machine. GPUs are offered when the driver shows them and `trainer` can compute
    /// on them, and `wanted` is then how many; otherwise the slots are shares of the cores.
    pub async fn find(wanted: Option<u32>, trainer: &Path) -> Self {
        let nvml = load().filter(|nvml| nvml.device_count().is_ok_and(|count| count > 0));
        if nvml.is_none() || computes_on_gpus(trainer).await {
            return Self::new(wanted, nvml);
        }
        tracing::warn!(
            trainer = %trainer.display(),
            "this machine has GPUs, but the trainer was built for CPUs: offering CPU slots \
             (`make build-gpu` builds one for GPUs)"
        );
        Self::cpu(wanted)
    }

    /// Shares of the cores.
    pub fn cpu(wanted: Option<u32>) -> Self {
        Self::new(wanted, None)
    }

    fn new(wanted: Option<u32>, nvml: Option<Nvml>) -> Self {
        let cores = cores();
        let mut list = nvml.as_ref().map(gpus).unwrap_or_default();
        if list.is_empty() {
            let name = cpu_name();
            list = (0..wanted.unwrap_or(cores).max(1))
                .map(|index| Slot {
                    index,
                    kind: SlotKind::Cpu,
                    name: name.clone(),
                    memory_bytes: None,
                })
                .collect();
        } else if let Some(wanted) = wanted {
            list.truncate(wanted.max(1) as usize);
        }
        let threads = (cores / list.len() as u32).max(1);
        Self {
            list,
            threads,
            nvml,
        }
    }

    /// Whether they are shares of the cores.
    pub fn are_cpu(&self) -> bool {
        self.list.iter().all(|slot| slot.kind == SlotKind::Cpu)
    }

    /// The slot with this index.
    pub fn get(&self, index: u32) -> Option<&Slot> {
        self.list.iter().find(|slot| slot.index == index)
    }

    /// What makes a slot's index the CUDA device of the same number: all GPUs that are offered, in
    /// the order of their indices, which is the driver's (by bus).
    pub fn cuda_environment(&self) -> BTreeMap<String, String> {
        let gpus: Vec<String> = self
            .list
            .iter()
            .filter(|slot| slot.kind == SlotKind::Cuda)
            .map(|slot| slot.index.to_string())
            .collect();
        BTreeMap::from([
            ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
            ("CUDA_VISIBLE_DEVICES".to_owned(), gpus.join(",")),
            // Without it cuBLAS may take another way on another day.
            ("CUBLAS_WORKSPACE_CONFIG".to_owned(), ":4096:8".to_owned()),
        ])
    }

    /// What each GPU does now: (index, busy share, bytes used, joules since the driver loaded).
    pub fn gpu_samples(&self) -> Vec<(u32, f64, f64, f64)> {
        let Some(nvml) = &self.nvml else {
            return Vec::new();
        };
        let sample = |slot: &Slot| {
            let device = nvml.device_by_index(slot.index).ok()?;
            let busy = f64::from(device.utilization_rates().ok()?.gpu) / 100.0;
            let memory = device.memory_info().ok()?.used as f64;
            let energy = device.total_energy_consumption().unwrap_or(0) as f64 / 1000.0;
            Some((slot.index, busy, memory, energy))
        };
        self.list.iter().filter_map(sample).collect()
    }
}

/// What a trainer of so many threads has in its environment. Large blocks of memory lie on large
/// pages where the kernel leaves that to programs: prepared weights stream through the processor,
/// and with small pages looking up addresses takes a tenth of the time.
pub fn cpu_environment(threads: u32) -> BTreeMap<String, String> {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    let names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"];
    let mut all: BTreeMap<String, String> = names
        .map(|name| (name.to_owned(), threads.to_string()))
        .into();
    if std::env::var_os(TUNABLES).is_none() {
        let large = "glibc.malloc.hugetlb=1";
        all.insert(TUNABLES.to_owned(), large.to_owned());
    }
    all
}

/// Asks the trainer; one that does not answer computes on CPUs.
async fn computes_on_gpus(trainer: &Path) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        cuda: u32,
    }
    let asked = tokio::process::Command::new(trainer)
        .arg("gpus")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(ASK, asked).await {
        Ok(Ok(output)) => {
            serde_json::from_slice(&output.stdout).is_ok_and(|answer: Answer| answer.cuda > 0)
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

fn load() -> Option<Nvml> {
    match Nvml::init() {
        Ok(nvml) => Some(nvml),
        Err(error) => {
            tracing::debug!(%error, "no NVIDIA driver: CPU slots");
            None
        }
    }
}

fn gpus(nvml: &Nvml) -> Vec<Slot> {
    let count = nvml.device_count().unwrap_or(0);
    (0..count)
        .map(|index| {
            let device = nvml.device_by_index(index).ok();
            Slot {
                index,
                kind: SlotKind::Cuda,
                name: device
                    .as_ref()
                    .and_then(|d| d.name().ok())
                    .unwrap_or_else(|| "NVIDIA GPU".to_owned()),
                memory_bytes: device.and_then(|d| Some(d.memory_info().ok()?.total)),
            }
        })
        .collect()
}

/// Cores that this process may use.
pub fn cores() -> u32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|cores| u32::try_from(cores.get()).ok())
        .unwrap_or(1)
}

/// All that may decide which kernels a library takes here: a name alone is often the same for
/// several generations on virtual machines.
pub fn processor() -> String {
    described(&cpuinfo()).unwrap_or_else(cpu_name)
}

fn described(text: &str) -> Option<String> {
    let field = |name| field(text, name);
    let flags = field("flags").unwrap_or_default().split_whitespace();
    let special = flags.filter(|flag| flag.starts_with("amx") || flag.ends_with("_bf16"));
    let fields = ["cpu family", "model", "stepping", "cache size"].map(field);
    let parts = [Some(field("model name")?)]
        .into_iter()
        .chain(fields)
        .flatten();
    Some(parts.chain(special).collect::<Vec<_>>().join(" "))
}

/// Name of the processor.
pub fn cpu_name() -> String {
    let text = cpuinfo();
    let name = field(&text, "model name");
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// What the kernel says of the processors; nothing where it says nothing.
fn cpuinfo() -> String {
    std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

/// A field of the first processor.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let found = pairs.find(|(key, _)| key.trim() == name);
    found.map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_processor_is_more_than_its_name() {
        let text = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: A Chip\n\
                    stepping\t: 8\ncache size\t: 16384 KB\nflags\t\t: fpu avx512_bf16 amx_tile\n\
                    processor\t: 1\nmodel name\t: B\n";
        let whole = "A Chip 6 143 8 16384 KB avx512_bf16 amx_tile";
        assert_eq!(described(text).as_deref(), Some(whole));
        assert_eq!(described("CPU part\t: 0xd0c\n"), None);
        assert!(!processor().is_empty());
    }

    #[test]
    fn cpu_slots_share_the_cores_and_each_rank_has_a_thread() {
        let one = Slots::cpu(Some(1));
        assert_eq!((one.list.len(), one.threads), (1, cores()));
        let many = Slots::cpu(Some(1000));
        assert_eq!((many.list.len(), many.threads), (1000, 1));
        assert_eq!(many.get(999).map(|slot| slot.kind), Some(SlotKind::Cpu));
        assert!(many.get(1000).is_none());
        let default = Slots::cpu(None);
        assert_eq!((default.list.len() as u32, default.threads), (cores(), 1));
    }

    #[tokio::test]
    async fn a_trainer_is_asked_whether_it_computes_on_gpus() {
        let folder = tempfile::tempdir().unwrap();
        let table = [
            ("echo '{\"cuda\":2}'", true),
            ("echo '{\"cuda\":0}'", false),
            ("echo 'there is no role `gpus`' >&2; exit 2", false),
        ];
        for (words, expect) in table {
            let trainer = folder.path().join("trainer");
            std::fs::write(&trainer, format!("#!/bin/sh\n{words}\n")).unwrap();
            std::fs::set_permissions(&trainer, std::fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(computes_on_gpus(&trainer).await, expect, "{words}");
        }
        assert!(!computes_on_gpus(&folder.path().join("none")).await);
    }
}
