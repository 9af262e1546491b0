//! Where workers run: on a small disk, by a wrong clock; and what they left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{self, FAKE_TRAINER, House};

/// A disk of some megabytes; it is there as long as this.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// Nothing where none can be mounted.
    pub fn mount(house: &House) -> Option<Self> {
        let size = if house.trainer == FAKE_TRAINER {
            24
        } else {
            256
        };
        let folder = house.path("small-disk");
        fs::create_dir_all(&folder).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"])
            .arg(&folder)
            .stderr(std::process::Stdio::null())
            .status();
        let is_there = mounted.is_ok_and(|status| status.success());
        is_there.then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there does not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A library that adds what a file says to the wall clock; nothing where none can be made.
pub fn wrong_clock(house: &House) -> Option<(PathBuf, PathBuf)> {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, at);
    const char *path = getenv("WRONG_CLOCK");
    if (id == CLOCK_REALTIME && path) {
        int64_t wrong = 0;
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file >= 0) { if (read(file, &wrong, 8) != 8) wrong = 0; close(file); }
        at->tv_sec += wrong / 1000;
    }
    return done;
}
"#;
    let source = house.file("clock.c", SOURCE);
    let (file, library) = (house.path("clock"), house.path("clock.so"));
    fs::write(&file, 0_i64.to_ne_bytes()).expect("the clock");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    made.is_ok_and(|status| status.success())
        .then_some((file, library))
}

/// Processes of a trainer whose folder is below this one.
pub fn processes_in(folder: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let cwd = fs::read_link(entry.path().join("cwd"));
        if let (Some(pid), Ok(cwd)) = (pid, cwd)
            && cwd.starts_with(folder)
            && harness::name_of(pid).starts_with("fake-trainer")
        {
            found.insert(pid);
        }
    }
    found
}
