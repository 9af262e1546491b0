use super::folder::{Packed, pack, restore};
use super::line::{Saved, Told, read};
use super::*;
use pomona_domain::Code;
use pomona_domain::spec::Program;
use proptest::prelude::*;
use serde_json::Map;
use std::os::unix::fs::{PermissionsExt as _, symlink};

#[test]
fn lines_of_news_are_told_from_everything_else_that_is_printed() {
    let log = |line: &str| assert!(read(line.as_bytes()).is_none(), "{line}");
    for line in [
        "",
        "epoch 1",
        "{\"step\": 1}",
        "{\"loss\": 1, \"pomona\": {}}",
        "\"pomona\"",
        "[{\"pomona\": {}}]",
        "pomona: {}",
    ] {
        log(line);
    }
    let news = |line: &str| read(line.as_bytes()).expect("news").expect("it is read");
    let bare = |step| Told {
        step,
        epoch: None,
        metrics: BTreeMap::new(),
        checkpoint: None,
    };
    assert_eq!(news("{\"pomona\": {\"step\": 7}}"), bare(Some(7)));
    assert_eq!(news("  { \"pomona\" : {} }\r"), bare(None));
    let whole = "{\"pomona\":{\"step\":4,\"epoch\":2,\"metrics\":{\"val/acc\":1},\"checkpoint\":{\"step\":4}}}";
    let told = Told {
        step: Some(4),
        epoch: Some(2),
        metrics: BTreeMap::from([("val/acc".to_owned(), 1.0)]),
        checkpoint: Some(Saved {
            step: 4,
            epoch: None,
        }),
    };
    assert_eq!(news(whole), told);
    for line in [
        "{\"pomona\": 3}",
        "{\"pomona\": {\"stepp\": 3}}",
        "{\"pomona\": {\"metrics\": {\"a\": 1}}}",
        "{\"pomona\": {\"step\": 1, \"metrics\": {\"a b\": 1}}}",
        "{\"pomona\": {\"step\": 1, \"metrics\": {\"a\": NaN}}}",
        "{\"pomona\": {\"step\": -1}}",
        "{\"pomona\": {\"checkpoint\": {}}}",
        "{\"pomona\": {\"step\": 1}, \"more\": 1}",
        "{\"pomona\": {\"step\": 1}",
    ] {
        assert!(read(line.as_bytes()).expect("news").is_err(), "{line}");
    }
}

/// A folder with some of everything.
fn fill(folder: &Path) {
    std::fs::create_dir_all(folder.join("deep/er")).unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::write(folder.join("weights.bin"), vec![7; 70_000]).unwrap();
    std::fs::write(folder.join("deep/er/état.json"), "{}").unwrap();
    std::fs::write(folder.join("deep/run.sh"), "#!/bin/sh\n").unwrap();
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("deep/run.sh"), runs).unwrap();
    symlink("weights.bin", folder.join("latest")).unwrap();
}

#[test]
fn a_folder_comes_back_as_it_was_and_its_tar_has_one_digest() {
    let root = tempfile::tempdir().unwrap();
    let tars = ["a", "b"].map(|name| {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        fill(&folder);
        let tar = root.path().join(format!("{name}.tar"));
        assert_eq!(pack(&folder, &tar, 1 << 20).unwrap(), Packed::Done);
        tar
    });
    let bytes = tars.each_ref().map(|tar| std::fs::read(tar).unwrap());
    assert_eq!(bytes[0], bytes[1]);
    let back = root.path().join("back");
    std::fs::create_dir(&back).unwrap();
    restore(&tars[0], &back).unwrap();
    let again = root.path().join("again.tar");
    assert_eq!(pack(&back, &again, 1 << 20).unwrap(), Packed::Done);
    assert_eq!(std::fs::read(again).unwrap(), bytes[0]);
    assert_eq!(std::fs::read(back.join("latest")).unwrap(), vec![7; 70_000]);
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_name() {
    let root = tempfile::tempdir().unwrap();
    let (folder, tar) = (root.path().join("f"), root.path().join("f.tar"));
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(pack(&folder, &tar, 10).unwrap(), Packed::Empty);
    std::fs::write(folder.join("a"), [0; 11]).unwrap();
    let fault = pack(&folder, &tar, 10).unwrap_err();
    assert_eq!(fault.code, Code::UnusableCheckpoint);
    assert!(fault.message.contains("holds 11 bytes, the limit is 10"));
    assert_eq!(pack(&folder, &tar, 11).unwrap(), Packed::Done);
    for target in ["/etc/passwd", "../x", "a/../../x"] {
        symlink(target, folder.join("link")).unwrap();
        let fault = pack(&folder, &tar, 100).unwrap_err();
        assert_eq!(fault.code, Code::UnusableCheckpoint, "{target}");
        std::fs::remove_file(folder.join("link")).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let fault = pack(&folder, &tar, 100).unwrap_err();
    assert!(fault.message.contains("`socket`"), "{fault}");
}

proptest! {
    /// Whatever files there are, the tar gives them back.
    #[test]
    fn any_files_come_back(files in proptest::collection::btree_map("[a-z]{1,3}(/[a-z]{4}){0,2}", proptest::collection::vec(any::<u8>(), 0..2000), 1..6)) {
        let root = tempfile::tempdir().unwrap();
        let (folder, back) = (root.path().join("f"), root.path().join("b"));
        std::fs::create_dir(&back).unwrap();
        for (name, bytes) in &files {
            let path = folder.join(name);
            // A name may be a folder of another one, or below a file.
            let has_room = std::fs::create_dir_all(path.parent().unwrap()).is_ok();
            if has_room && !path.is_dir() {
                std::fs::write(path, bytes).unwrap();
            }
        }
        let tar = root.path().join("t");
        prop_assert_eq!(pack(&folder, &tar, 1 << 20).unwrap(), Packed::Done);
        restore(&tar, &back).unwrap();
        for (name, bytes) in &files {
            if folder.join(name).is_file() {
                prop_assert_eq!(&std::fs::read(back.join(name)).unwrap(), bytes);
            }
        }
    }
}

fn work(processes: Processes) -> ProgramWork {
    let params = json!({"lr": 0.1, "net": {"layers": 2}});
    ProgramWork {
        trial: TrialId(1),
        experiment: ExperimentId(2),
        spec: ProgramSpec {
            program: Program {
                argv: vec!["train".to_owned()],
                env: BTreeMap::from([
                    ("OMP_NUM_THREADS".to_owned(), "7".to_owned()),
                    ("MINE".to_owned(), "yes".to_owned()),
                ]),
                cwd: None,
                processes,
            },
            params: params.as_object().cloned().unwrap_or_else(Map::new),
            seed: 3,
            replicate: 1,
        },
        resume: None,
        server: "http://localhost:7878".to_owned(),
        checkpoint_max_bytes: 1,
    }
}

fn slots(kind: SlotKind, indexes: &[u32]) -> Vec<Slot> {
    let slot = |index: &u32| Slot {
        index: *index,
        kind,
        name: String::new(),
        memory_bytes: None,
    };
    indexes.iter().map(slot).collect()
}

/// The environment of a process on slots 1 and 3.
fn told(
    processes: Processes,
    kind: SlotKind,
    (rank, share): (usize, &Share),
) -> BTreeMap<String, String> {
    let folders = Folders::of(Path::new("/lease"), Path::new("/lease/output"));
    let host = "127.0.0.1".to_owned();
    let seat = Seat {
        lease: LeaseId(5),
        generation: Generation(9),
        slots: &slots(kind, &[1, 3]),
        rank,
        share,
        at: &Rendezvous { host, port: 4242 },
    };
    work(processes).environment(&Slots::cpu(Some(4)), &folders, &seat)
}

#[test]
fn a_process_is_told_its_place_its_devices_and_its_point_and_nothing_of_this_worker() {
    let whole = Share::whole(2);
    let all = told(Processes::PerSlot, SlotKind::Cuda, (1, &whole));
    for (name, expect) in [
        ("CUDA_VISIBLE_DEVICES", "1,3"),
        ("RANK", "1"),
        ("LOCAL_RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_WORLD_SIZE", "2"),
        ("NNODES", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "4242"),
        ("OMP_NUM_THREADS", "7"),
        ("MINE", "yes"),
        ("PYTHONUNBUFFERED", "1"),
        ("POMONA_GENERATION", "9"),
        ("POMONA_SEED", "3"),
        ("POMONA_REPLICATE", "1"),
        ("POMONA_PARAM_LR", "0.1"),
        ("POMONA_PARAM_NET_LAYERS", "2"),
        ("POMONA_HPARAMS", "{\"lr\":0.1,\"net\":{\"layers\":2}}"),
        ("POMONA_CHECKPOINT_DIR", "/lease/checkpoint"),
    ] {
        assert_eq!(all.get(name).map(String::as_str), Some(expect), "{name}");
    }
    assert!(!all.contains_key("POMONA_RESUME_STEP"));
    // Cargo sets a lot of variables for a test, as a service manager does for a worker.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    assert!(!all.keys().any(|name| name.starts_with("CARGO")), "{all:?}");
    let one = told(Processes::One, SlotKind::Cpu, (0, &whole));
    assert_eq!(one["CUDA_VISIBLE_DEVICES"], "");
    assert_eq!(
        (one["WORLD_SIZE"].as_str(), one["RANK"].as_str()),
        ("1", "0")
    );
}

#[test]
fn a_process_on_the_second_of_two_workers_has_the_last_two_of_five_ranks() {
    let share = Share {
        first_rank: 3,
        world_size: 5,
        part: 1,
        parts: 2,
        ..Share::whole(2)
    };
    for (processes, rank, world, local) in [
        (Processes::PerSlot, "4", "5", ("1", "2")),
        (Processes::One, "1", "2", ("1", "1")),
    ] {
        let all = told(processes, SlotKind::Cpu, (1, &share));
        for (name, expect) in [
            ("RANK", rank),
            ("WORLD_SIZE", world),
            ("LOCAL_RANK", local.0),
            ("LOCAL_WORLD_SIZE", local.1),
            ("GROUP_RANK", "1"),
            ("GROUP_WORLD_SIZE", "2"),
            ("NNODES", "2"),
        ] {
            assert_eq!(all[name], expect, "{name}");
        }
    }
}
