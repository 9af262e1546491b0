//! Faults on demand, from `FAKE_FAULT`.
//!
//! | kind | at a step | what happens |
//! | --- | --- | --- |
//! | `refuse` | – | fails at once, not to be tried again |
//! | `mute` | – | never says `started` |
//! | `other_protocol` | – | says `started` with a protocol of its own |
//! | `garbage` | – | prints lines that are no events |
//! | `overlong` | – | prints a line longer than any answer |
//! | `flood` | – | writes ten thousand lines to stderr |
//! | `no_file` | – | answers about a file that it has removed |
//! | `crash` | yes | SIGABRT |
//! | `exit` | yes | status 1 without a word |
//! | `hang` | yes | says the same step for ever |
//! | `freeze` | yes | says nothing for ever |
//! | `nan` | yes | fails because the loss is not a number |
//! | `deaf` | from | does not stop when asked |

use pomona_domain::{Code, Fault};
use std::process::Command;
use std::time::Duration;

use crate::line::{log, print};

/// Longer than a worker reads.
const OVERLONG: usize = 9 << 20;

/// A fault that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    kind: String,
    step: u64,
    rank: Option<u32>,
}

fn wanted() -> Option<Wanted> {
    let text = std::env::var("FAKE_FAULT").ok()?;
    let (text, rank) = match text.split_once('#') {
        Some((text, rank)) => (text.to_owned(), rank.parse().ok()),
        None => (text, None),
    };
    let (kind, step) = match text.split_once('@') {
        Some((kind, step)) => (kind.to_owned(), step.parse().ok()?),
        None => (text, 0),
    };
    Some(Wanted { kind, step, rank })
}

/// Whether the fault of this kind strikes here and now.
fn strikes(kind: &str, rank: u32, step: Option<u64>) -> bool {
    let Some(wanted) = wanted() else { return false };
    let here = wanted.kind == kind
        && wanted.rank.is_none_or(|wanted| wanted == rank)
        && step.is_none_or(|step| step == wanted.step);
    if !here {
        return false;
    }
    let Some(once) = std::env::var_os("FAKE_FAULT_ONCE") else {
        return true;
    };
    // Made anew: the first that makes it is the one that is struck.
    std::fs::File::create_new(once).is_ok()
}

fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Before `started`.
pub fn at_start(rank: u32) {
    if strikes("mute", rank, None) {
        for_ever();
    }
    if strikes("garbage", rank, None) {
        print("Loading the library… done");
        print("{\"event\":\"sung\"}");
    }
    if strikes("overlong", rank, None) {
        print(&"x".repeat(OVERLONG));
    }
    if strikes("flood", rank, None) {
        for number in 0..10_000 {
            log(&format!("line {number} of a flood"));
        }
    }
    if strikes("other_protocol", rank, None) {
        print("{\"event\":\"started\",\"protocol\":999,\"rank\":0,\"version\":\"9\"}");
        for_ever();
    }
}

/// After `started`.
pub fn refuse(rank: u32) -> Result<(), Fault> {
    if strikes("refuse", rank, None) {
        let fault = Fault::new(Code::UnknownArch, "this trainer was told to refuse");
        return Err(fault.hint("take `FAKE_FAULT` away"));
    }
    Ok(())
}

/// Before a task's answer.
pub fn before_answer() {
    if strikes("no_file", 0, None) {
        print("the output is removed");
        let _ = std::fs::remove_dir_all("output");
    }
}

/// Before a step.
pub fn before_step(rank: u32, step: u64, beat: impl Fn()) -> Result<(), Fault> {
    if strikes("crash", rank, Some(step)) {
        log("about to crash, as told");
        std::process::abort();
    }
    if strikes("exit", rank, Some(step)) {
        log("about to exit, as told");
        std::process::exit(1);
    }
    if strikes("hang", rank, Some(step)) {
        loop {
            beat();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if strikes("freeze", rank, Some(step)) {
        // A child of the rank hangs with it: the group has to go as a whole.
        let _child = Command::new("sleep").arg("600").spawn();
        for_ever();
    }
    if strikes("nan", rank, Some(step)) {
        return Err(not_a_number(step));
    }
    Ok(())
}

/// Whether requests to stop are not heard.
pub fn is_deaf(rank: u32) -> bool {
    wanted().is_some_and(|wanted| {
        wanted.kind == "deaf" && wanted.rank.is_none_or(|wanted| wanted == rank)
    })
}

/// What the real trainer says of a loss that is none.
pub fn not_a_number(step: u64) -> Fault {
    let text = format!("the training loss is not a number at step {step}");
    Fault::new(Code::NotANumber, text).hint("lower `train.learning_rate`, or add warm-up")
}
