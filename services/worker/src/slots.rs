//! Slots of this machine: NVIDIA GPUs when their driver is there, else shares of the cores.
//!
//! The driver's library is loaded when it exists; a machine without it is an ordinary one.

use nvml_wrapper::Nvml;
use pomona_domain::worker::{Slot, SlotKind};
use std::collections::BTreeMap;

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
    /// Looks at the machine. `wanted` CPU slots replace the GPUs only with `cpu_only`; on GPUs it is
    /// how many of them are offered.
    pub fn find(wanted: Option<u32>, cpu_only: bool) -> Self {
        let cores = cores();
        let nvml = if cpu_only { None } else { load() };
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

fn cores() -> u32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|cores| u32::try_from(cores.get()).ok())
        .unwrap_or(1)
}

fn cpu_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_slots_share_the_cores_and_each_rank_has_a_thread() {
        let one = Slots::find(Some(1), true);
        assert_eq!((one.list.len(), one.threads), (1, cores()));
        let many = Slots::find(Some(1000), true);
        assert_eq!((many.list.len(), many.threads), (1000, 1));
        assert_eq!(many.get(999).map(|slot| slot.kind), Some(SlotKind::Cpu));
        assert!(many.get(1000).is_none());
        let default = Slots::find(None, true);
        assert_eq!((default.list.len() as u32, default.threads), (cores(), 1));
    }
}
