//! Every key, said once.

use pomona_daemon::{Key, Keys, key};

/// Every key of the worker.
pub const KEYS: Keys = Keys {
    prefix: "POMONA_WORKER_",
    program: "pomona-worker",
    all: ALL,
};

const ALL: &[Key] = &[
    key(
        "server",
        "\"http://127.0.0.1:7878\"",
        "Address of the coordinator, or of several on one database with commas between them.",
    ),
    key(
        "name",
        "\"\"",
        "Name of this worker; empty means the host's.",
    ),
    key(
        "data_dir",
        "\"~/.local/share/pomona/worker\"",
        "Folder of the spool, the cache and what trainers write; one worker at a time may use it.",
    ),
    key(
        "listen",
        "\"127.0.0.1:7879\"",
        "Address of this worker's own `/metrics`; port 0 takes a free one, empty serves none.",
    ),
    key(
        "advertise",
        "\"\"",
        "Address of `/metrics` as Prometheus reaches it; empty means `listen`.",
    ),
    key(
        "address",
        "\"\"",
        "Address of this machine at which ranks on other workers meet those here, when a trial has slots of several workers; empty means the one from which it reaches the coordinator.",
    ),
    key(
        "labels",
        "\"\"",
        "Labels of this worker, like `zone=a,disk=nvme`; `resources.selector` of an experiment file selects workers by them.",
    ),
    key(
        "slots.count",
        "0",
        "Slots to offer; 0 means every GPU, or shares of the cores when there is no GPU.",
    ),
    key(
        "slots.measure",
        "true",
        "When `count` is 0, measure once how many slots of how many threads compute most on the cores; else each core is one.",
    ),
    key(
        "slots.cpu_only",
        "false",
        "Offer CPU slots even when there are GPUs.",
    ),
    key(
        "trainer.program",
        "\"\"",
        "The trainer; empty means `pomona-trainer` beside this program or on PATH.",
    ),
    key(
        "trainer.stop_grace_ms",
        "20000",
        "How long a trainer that was asked to stop may take before it is killed.",
    ),
    key(
        "trainer.spares",
        "2",
        "Trainers that are started before there is work, so that a lease need not wait for it; never more than slots.",
    ),
    key(
        "program.checkpoint_max_bytes",
        "17179869184",
        "What the checkpoint folder of a program of one's own may hold; more ends its trial (E0622).",
    ),
    key(
        "stall.floor_ms",
        "300000",
        "A trainer counts as stalled no sooner than this long after its last step.",
    ),
    key(
        "stall.factor",
        "50",
        "Nor sooner than after this many of its median steps.",
    ),
    key(
        "stall.start_ms",
        "900000",
        "Before its first step, a trainer that says nothing for this long is stalled.",
    ),
    key(
        "stall.task_ms",
        "7200000",
        "A task that says nothing for this long is stalled.",
    ),
    key(
        "spool.max_bytes",
        "67108864",
        "Reports kept on disk while the coordinator is away; when there are more, trainers wait.",
    ),
    key(
        "cache.max_bytes",
        "21474836480",
        "Data sets, backbones and checkpoints kept on disk; those in use are kept in any case.",
    ),
    key(
        "features.max_bytes",
        "21474836480",
        "Features of frozen blocks kept on disk for all trials; 0 keeps none.",
    ),
    key(
        "log.filter",
        "\"info\"",
        "Which log lines are written, in the syntax of `tracing`'s filter.",
    ),
    key("log.format", "\"text\"", "`text` or `json`."),
    key(
        "log.trainer_lines_per_s",
        "200",
        "Lines of a trainer's stderr that are forwarded in a second; the rest is counted and dropped.",
    ),
];
