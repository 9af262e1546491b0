//! No process outlives the agent, whatever ends it.

use crate::bench::{Bench, processes_in, until};
use std::process::{Command, Stdio};

const HOST: &str = "POMONA_TEST_HOST";

/// Started by the test below as a process of its own: an agent with one lease of two ranks.
#[tokio::test]
async fn host() {
    let Ok(note) = std::env::var(HOST) else {
        // An ordinary run of all tests: there is nothing to host.
        return;
    };
    let mut bench = Bench::new(&[("FAKE_FAULT", "hang@2")]);
    bench.slots = 2;
    std::fs::write(note, bench.work().to_str().unwrap()).unwrap();
    bench.run(bench.trial()).await;
}

#[tokio::test]
async fn ranks_and_store_die_with_an_agent_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("work");
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "orphans::host", "--test-threads", "1"])
        .env(HOST, &note)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let work = || std::fs::read_to_string(&note).unwrap_or_default();
    until("two ranks and their store run", || {
        !work().is_empty() && processes_in(work().as_ref()).len() == 3
    })
    .await;
    host.kill().unwrap();
    host.wait().unwrap();
    until("nothing runs there any more", || {
        processes_in(work().as_ref()).is_empty()
    })
    .await;
}
