//! `tether`: becomes a program that the kernel ends when its parent ends.
//!
//! The signal follows the *thread* that spawned: `up` spawns from its main thread, which lives as
//! long as it does.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use pomona_domain::{Code, Fault};
use std::os::unix::process::CommandExt as _;

use crate::args::machine::TetherArgs;

/// Returns only when it cannot become the program.
pub fn run(args: &TetherArgs) -> Fault {
    let broken = |why: String| Fault::new(Code::Internal, format!("cannot tether: {why}"));
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return broken(error.to_string());
    }
    // The parent may have ended before the line above.
    if getppid().as_raw() != args.parent {
        return broken("the parent is gone".to_owned());
    }
    let Some((program, arguments)) = args.program.split_first() else {
        return broken("no program is given".to_owned());
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    let name = program.to_string_lossy();
    Fault::new(
        Code::MissingProgram,
        format!("cannot start `{name}`: {error}"),
    )
}
