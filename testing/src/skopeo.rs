//! skopeo: the one of this machine, else the one that `scripts/setup.py skopeo` fetched.

use std::process::Command;

/// A call of skopeo, whose words are the caller's. It trusts every image and keeps nothing at home.
///
/// # Panics
/// When it is not there: a test must never be passed over in silence.
pub fn skopeo() -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path)
        .map(|folder| folder.join("skopeo"))
        .find(|program| program.is_file());
    let mut command = match own {
        Some(program) => Command::new(program),
        None => fetched(),
    };
    command.arg("--insecure-policy");
    command
}

fn fetched() -> Command {
    let root = crate::cache().unwrap_or_default().join("skopeo");
    let program = root.join("usr/bin/skopeo");
    assert!(
        program.exists(),
        "there is no `{}`: run `make setup`",
        program.display()
    );
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|at| root.join(at));
    let libraries = std::env::join_paths(libraries).expect("folders without a colon");
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries);
    command
}
