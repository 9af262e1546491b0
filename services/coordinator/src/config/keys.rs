//! Every key, said once.

use pomona_daemon::{Key, Keys, key};

/// Every key of the coordinator.
pub const KEYS: Keys = Keys {
    prefix: "POMONA_COORDINATOR_",
    program: "pomona-coordinator",
    all: ALL,
};

const ALL: &[Key] = &[
    key(
        "listen",
        "\"127.0.0.1:7878\"",
        "Address to listen on; port 0 takes a free one.",
    ),
    key(
        "data_dir",
        "\"~/.local/share/pomona\"",
        "Folder of the database and the blobs; one coordinator at a time may use it.",
    ),
    key(
        "advertise",
        "\"\"",
        "Address at which other coordinators on the same database reach this one (`http://host:port`); empty means the address it listens on.",
    ),
    key(
        "insecure_behind_proxy",
        "false",
        "Allow an address beyond loopback: a proxy in front checks who may do what.",
    ),
    key(
        "projects",
        "[]",
        "Projects that are not as all others, like `[{name = \"vision\", weight = 2, quota_slots = 8}]`; without it a project has weight 1 and no quota.",
    ),
    key(
        "pools",
        "[]",
        "Machines that may join, like `[{name = \"gpu\", slots = 8, kind = \"cuda\", labels = {zone = \"a\"}, max_workers = 4}]`; what only they could run is let in and waits.",
    ),
    key(
        "store.url",
        "\"\"",
        "Address of the database (`postgres://user:password@host/pomona`); empty means `pomona.db` in the data folder.",
    ),
    key(
        "leader.term_ms",
        "2000",
        "How long leadership lasts that is not renewed: after a leader's end another coordinator decides this much later.",
    ),
    key(
        "redis.url",
        "\"\"",
        "Address of Redis (`redis://host:6379`), which carries live events between coordinators; empty means that readers are handed on to the leader.",
    ),
    key("http.threads", "2", "Threads that answer requests."),
    key(
        "http.max_connections",
        "2048",
        "Connections of one thread; more wait to be accepted.",
    ),
    key(
        "http.max_body_bytes",
        "16777216",
        "Largest JSON body; a worker's poll carries reports and log lines.",
    ),
    key(
        "http.max_blob_bytes",
        "68719476736",
        "Largest blob that may be uploaded.",
    ),
    key(
        "http.stop_grace_ms",
        "3000",
        "How long requests under way may take to end when the coordinator stops.",
    ),
    key(
        "workers.poll_wait_ms",
        "5000",
        "How long a worker's poll may wait for a difference.",
    ),
    key(
        "scheduler.tick_ms",
        "500",
        "How often the scheduler looks at the time.",
    ),
    key(
        "scheduler.lease_term_ms",
        "30000",
        "A lease whose worker is silent for longer is over.",
    ),
    key(
        "scheduler.stop_grace_ms",
        "30000",
        "A lease that was asked to stop and has not after this long is revoked.",
    ),
    key(
        "scheduler.backoff_base_ms",
        "1000",
        "Wait before a crashed trial runs again; it doubles with each crash.",
    ),
    key(
        "scheduler.backoff_max_ms",
        "300000",
        "The longest wait before a crashed trial runs again.",
    ),
    key(
        "scheduler.lost_after_ms",
        "30000",
        "A worker that is silent for longer is lost and gets nothing new.",
    ),
    key(
        "scheduler.max_task_attempts",
        "3",
        "Attempts of a task before it fails for good.",
    ),
    key(
        "scheduler.aging_ms",
        "600000",
        "What waits and holds no slot gains a point of priority each time so much has passed; 0 means never.",
    ),
    key(
        "scheduler.preempt_gap",
        "10",
        "Trials yield by checkpoint to those whose priority is higher by at least so many points; 0 means never.",
    ),
    key(
        "scheduler.preempt_after_ms",
        "120000",
        "A trial is not asked to yield to another before it held its slots for so long.",
    ),
    key(
        "scheduler.exclude_after",
        "3",
        "A worker gets no work for a while after so many different trials failed there and nothing ended well; 0 means never.",
    ),
    key(
        "scheduler.exclude_window_ms",
        "3600000",
        "Failures that are older do not count against a worker.",
    ),
    key(
        "scheduler.exclude_base_ms",
        "300000",
        "How long a worker is excluded the first time; it doubles with each time that follows.",
    ),
    key(
        "scheduler.exclude_max_ms",
        "7200000",
        "The longest time that a worker is excluded.",
    ),
    key(
        "scheduler.max_test_uses",
        "20",
        "A test split that decided about more promotions is called out in each decision.",
    ),
    key(
        "events.kept",
        "4096",
        "Live events kept for readers that come back with `Last-Event-ID`.",
    ),
    key(
        "events.kept_bytes",
        "4194304",
        "Bytes those events may take in memory.",
    ),
    key(
        "blobs.url",
        "\"\"",
        "Where the blobs lie: `file:///folder`, or `s3://bucket/prefix`, which several coordinators may share; empty means `blobs` in the data folder.",
    ),
    key(
        "blobs.endpoint",
        "\"\"",
        "Address of the S3-compatible store (`https://s3.example.org`); empty means AWS.",
    ),
    key("blobs.region", "\"us-east-1\"", "Region of the bucket."),
    key(
        "blobs.access_key",
        "\"\"",
        "Key for the bucket; empty means where AWS's own programs look: the `AWS_…` variables, a web identity, the instance's role.",
    ),
    key(
        "blobs.secret_key",
        "\"\"",
        "The key's secret; better given as a variable than in a file.",
    ),
    key(
        "blobs.path_style",
        "true",
        "Whether the bucket stands in an address's path; `false` puts it into the host's name.",
    ),
    key(
        "blobs.allow_http",
        "false",
        "Allow an endpoint without TLS: for tests on one machine.",
    ),
    key(
        "blobs.ca_file",
        "\"\"",
        "File of the certificates (PEM) that the endpoint is trusted by; empty means the public authorities.",
    ),
    key(
        "blobs.collect_every_s",
        "600",
        "How often blobs that nothing refers to are looked for.",
    ),
    key(
        "signing.key",
        "\"\"",
        "File of the private key (PEM, P-256) that promoted versions are signed with; empty means one in the data folder, made at the first start, or none where several coordinators share a database.",
    ),
    key(
        "webhooks.allow_private",
        "false",
        "Deliver webhooks to any address: to this machine and private networks, too.",
    ),
    key(
        "webhooks.allow_networks",
        "[]",
        "Networks beside public ones that webhooks may be delivered to, like `[\"10.20.0.0/16\", \"::1/128\"]`.",
    ),
    key(
        "webhooks.ca_file",
        "\"\"",
        "File of the certificates (PEM) that receivers are trusted by; empty means the public authorities.",
    ),
    key(
        "webhooks.timeout_ms",
        "15000",
        "How long one attempt may take, from the look-up of the name to the answer.",
    ),
    key(
        "webhooks.backoff_base_ms",
        "5000",
        "Pause after the first attempt of a delivery that failed; it doubles with each.",
    ),
    key(
        "webhooks.backoff_max_ms",
        "21600000",
        "The longest pause between two attempts.",
    ),
    key(
        "webhooks.max_attempts",
        "16",
        "Attempts before a delivery is given up: with these pauses after about a day.",
    ),
    key(
        "metrics.max_experiments",
        "50",
        "Experiments with metrics of their own; the rest fold into `other`.",
    ),
    key(
        "log.filter",
        "\"info\"",
        "Which log lines are written, in the syntax of `tracing`'s filter.",
    ),
    key("log.format", "\"text\"", "`text` or `json`."),
];
