//! Workers of a house.

use std::cell::RefCell;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::coordinators::http_get;
use crate::harness::{House, Process, free_port, program, wait};
use crate::processes::descendants;

/// A worker of a house.
pub struct Worker {
    process: RefCell<Process>,
    metrics: u16,
}

impl House {
    /// Starts a worker; the same name has the same data folder.
    pub fn worker(&self, name: &str, slots: u32) -> Worker {
        self.worker_with(name, slots, "4")
    }

    /// One whose trials last seconds, for what is done to them meanwhile.
    pub fn slow_worker(&self, name: &str, slots: u32) -> Worker {
        self.worker_with(name, slots, "100")
    }

    /// One with a pace of its own.
    pub fn worker_with(&self, name: &str, slots: u32, step_ms: &str) -> Worker {
        self.worker_from(name, slots, &[("FAKE_STEP_MS", step_ms)])
    }

    /// One whose environment has more in it.
    pub fn worker_from(&self, name: &str, slots: u32, variables: &[(&str, &str)]) -> Worker {
        let folder = self.path(&format!("worker-{name}"));
        self.worker_at(&self.server(), (name, slots), &folder, variables)
    }

    /// One with everything of its own.
    pub fn worker_at(
        &self,
        server: &str,
        (name, slots): (&str, u32),
        folder: &Path,
        variables: &[(&str, &str)],
    ) -> Worker {
        let metrics = free_port();
        let child = Command::new(program("pomona-worker"))
            .args(["run", "--server", server, "--name", name])
            .args(["--slots", &slots.to_string()])
            .args(["--listen", &format!("127.0.0.1:{metrics}"), "--data-dir"])
            .arg(folder)
            .arg("--trainer")
            .arg(program(self.trainer))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .spawn()
            .expect("the worker starts");
        Worker {
            process: RefCell::new(Process(child)),
            metrics,
        }
    }

    /// One whose trainer has a fault.
    pub fn faulty_worker(&self, name: &str, fault: &str) -> Worker {
        self.worker_from(name, 1, &[("FAKE_STEP_MS", "4"), ("FAKE_FAULT", fault)])
    }

    /// Waits until a worker gets work.
    pub fn wait_alive(&self, name: &str) {
        wait(&format!("`{name}` is alive"), || {
            let rows = self.json(&["worker", "list"]);
            let mut rows = rows["items"].as_array().expect("items").iter();
            rows.any(|row| row["name"] == name && row["state"] == "alive")
        });
    }
}

impl Worker {
    /// SIGKILL, to the agent alone.
    pub fn kill(&self) {
        let mut process = self.process.borrow_mut();
        process.0.kill().expect("it is ours");
        process.0.wait().expect("it is ours");
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.process.borrow().0.id()
    }

    /// Processes that the agent started.
    pub fn ranks(&self) -> Vec<u32> {
        descendants(self.process.borrow().0.id())
    }

    /// Samples trained since it started, from its own metrics.
    pub fn samples_trained(&self) -> u64 {
        let Some(text) = http_get(self.metrics, "/metrics") else {
            return 0;
        };
        text.lines()
            .filter(|line| line.starts_with("pomona_train_samples_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }
}
