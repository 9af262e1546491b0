//! The decision by its figures, and fetches from a coordinator of a few lines.

use super::*;
use crate::features::sample;
use pomona_api::shard::Footer;
use std::io::Write as _;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const LEASE: LeaseId = LeaseId(1);
const OWNER: &str = "tri_0000000000000001";

#[test]
fn a_shard_is_fetched_when_it_comes_before_it_is_computed() {
    // Bytes, bytes until then, computed and fetched in a second → fetched, its limit in seconds.
    let table = [
        (10, 100, 10.0, Some(100.0), true, 11.0),
        (10, 100, 10.0, Some(1.01), true, 11.0),
        (10, 100, 10.0, Some(1.0), false, 11.0),
        (10, 10, 10.0, Some(9.0), false, 2.0),
        (10, 10, 10.0, Some(11.0), true, 2.0),
        // Nobody knows yet: one that trainers do not come to next.
        (10, 20, 10.0, None, true, 3.0),
        (10, 10, 10.0, None, false, 2.0),
        (10, 100, 1e12, Some(1e9), false, 1.1e-10),
    ];
    for (bytes, until, computed_per_s, fetched_per_s, fetch, limit) in table {
        let figures = Figures {
            bytes,
            until,
            computed_per_s,
            fetched_per_s,
        };
        let decision = decide(figures);
        assert_eq!(decision.fetch, fetch, "{figures:?}");
        let off = decision.limit().as_secs_f64() - limit;
        assert!(off.abs() < 1e-6, "{figures:?}: {:?}", decision.limit());
    }
    let never = decide(Figures {
        bytes: 1,
        until: 1,
        computed_per_s: 0.0,
        fetched_per_s: Some(1.0),
    });
    assert_eq!((never.fetch, never.limit()), (true, Duration::MAX));
}

#[test]
fn a_rate_is_forgotten_after_a_while() {
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    let mut rate = Rate::default();
    assert_eq!(rate.get(begun), None);
    rate.saw(4.0, begun);
    rate.saw(8.0, after(200));
    assert_eq!(rate.get(after(499)), Some(6.0));
    assert_eq!(rate.get(after(500)), None);
    rate.saw(2.0, after(600));
    assert_eq!(rate.get(after(600)), Some(2.0));
}

#[test]
fn the_reason_has_both_figures() {
    let mut figures = Figures {
        bytes: 2_000_000,
        until: 30_000_000,
        computed_per_s: 3e6,
        fetched_per_s: Some(50e6),
    };
    assert_eq!(
        decide(figures).to_string(),
        "2.000 MB come in 0.040 s at 50.0 MB/s, computing has them in 10.000 s at 3.0 MB/s"
    );
    figures.fetched_per_s = None;
    assert_eq!(
        decide(figures).to_string(),
        "2.000 MB come at a rate that this one will tell, computing has them in 10.000 s at \
         3.0 MB/s"
    );
}

/// A shard as a file has it.
fn shard(number: u64) -> (Digest, Vec<u8>) {
    let plan = sample::plan("a", number * 32..(number + 1) * 32, 256);
    let mut file = vec![number as u8; plan.bytes() as usize];
    let rows_sha256 = Digest::of(&file);
    let digest = plan.key.digest().unwrap();
    Footer { plan, rows_sha256 }.write(&mut file).unwrap();
    (digest, file)
}

/// What the coordinator does with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    Whole,
    /// Half of the bytes, and then nothing.
    Half,
    /// Bytes of another blob.
    Other,
}

/// A coordinator whose blobs are `files`, all of them features.
async fn coordinator(files: Vec<(Digest, Vec<u8>)>, serves: Serves) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let files = files.clone();
            tokio::spawn(async move {
                let mut request = vec![0u8; 65536];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let (body, sent) = answer(&text, &files, serves);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body[..sent]).await;
                if sent < body.len() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    Client::new(&format!("http://{address}"))
        .unwrap()
        .attempts(1)
}

fn answer(request: &str, files: &[(Digest, Vec<u8>)], serves: Serves) -> (Vec<u8>, usize) {
    let blob = |(shard, file): &(Digest, Vec<u8>)| FeatureBlob {
        shard: *shard,
        blob: Digest::of(file),
        bytes: file.len() as u64,
    };
    if request.contains("/features/wanted") {
        // Only those whose names are asked for.
        let asked = files
            .iter()
            .filter(|(shard, _)| request.contains(&shard.to_string()));
        let found = FoundFeatures {
            ready: asked.map(blob).collect(),
            coming: Vec::new(),
        };
        let body = serde_json::to_vec(&found).unwrap();
        let sent = body.len();
        return (body, sent);
    }
    let named = |(_, file): &&(Digest, Vec<u8>)| request.contains(&Digest::of(file).to_string());
    let mut body = files.iter().find(named).unwrap().1.clone();
    if serves == Serves::Other {
        body[0] ^= 1;
    }
    let sent = if serves == Serves::Half {
        body.len() / 2
    } else {
        body.len()
    };
    (body, sent)
}

struct Yard {
    folder: tempfile::TempDir,
    desk: Desk,
    logs: Arc<Logs>,
    metrics: Metrics,
    _run: tokio::task::JoinHandle<()>,
}

fn yard(client: Client, fetched_per_s: Option<f64>) -> Yard {
    let folder = tempfile::tempdir().unwrap();
    let (desk, logs) = (Desk::default(), Arc::new(Logs::default()));
    let metrics = Metrics::new().unwrap();
    let mut rate = Rate::default();
    if let Some(known) = fetched_per_s {
        rate.set(known, Instant::now());
    }
    let fetcher = Fetcher {
        client,
        identity: (WorkerId(1), 1),
        features: Features::new(folder.path().to_owned(), 1 << 20),
        desk: desk.clone(),
        logs: Arc::clone(&logs),
        metrics: metrics.clone(),
        rate,
        tally: Tally::default(),
    };
    Yard {
        folder,
        desk,
        logs,
        metrics,
        _run: tokio::spawn(fetcher.run()),
    }
}

impl Yard {
    /// A trainer misses shards and computes them at a pace.
    fn miss(&self, files: &[(Digest, Vec<u8>)], bytes_per_s: f64) {
        let shards = files.iter().map(|(shard, file)| MissingShard {
            shard: *shard,
            bytes: file.len() as u64,
        });
        let owners = [OWNER.to_owned()];
        self.desk.misses((LEASE, 0), &owners, shards.collect());
        self.desk.computes((LEASE, 0), bytes_per_s);
    }

    fn settled(&self) -> bool {
        let wish = self.desk.get((LEASE, 0));
        wish.is_some_and(|wish| wish.settled)
    }

    fn files(&self, ending: &str) -> usize {
        count(self.folder.path(), ending)
    }

    fn said(&self) -> Vec<String> {
        self.logs.take().into_iter().map(|line| line.line).collect()
    }
}

fn count(folder: &Path, ending: &str) -> usize {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let has = |file: &std::fs::DirEntry| file.path().extension().is_some_and(|e| e == ending);
    files.filter(has).count()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn shards(count: u64) -> Vec<(Digest, Vec<u8>)> {
    (0..count).map(shard).collect()
}

#[tokio::test]
async fn shards_come_from_the_last_on_and_are_the_bytes_that_others_have() {
    let files = shards(4);
    let yard = yard(coordinator(files.clone(), Serves::Whole).await, None);
    // A trainer that is at the first one.
    let folder = Folder::open(yard.folder.path(), 1 << 20).unwrap();
    let mut first = folder.claim(files[0].0).unwrap().unwrap();
    yard.miss(&files, 100.0);
    until("it has what there is", || yard.settled()).await;
    assert_eq!((yard.files("features"), yard.files("part")), (3, 1));
    for (shard, bytes) in &files[1..] {
        assert_eq!(&std::fs::read(folder.whole(*shard)).unwrap(), bytes);
    }
    assert_eq!(yard.metrics.fetches(Fetched::Fetched), 3);
    let said = yard.said();
    // Few lines, however many shards.
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("fetches features") && said[0].contains("will tell"));
    assert!(said[1].starts_with("fetched 3 shards"), "{said:?}");
    // The trainer finishes its own.
    first.file.write_all(&files[0].1).unwrap();
    first.finish().unwrap();
    assert_eq!(yard.files("features"), 4);
}

#[tokio::test]
async fn what_computing_has_sooner_is_not_fetched() {
    let files = shards(4);
    let yard = yard(
        coordinator(files.clone(), Serves::Whole).await,
        Some(1000.0),
    );
    yard.miss(&files, 1e6);
    until("it is decided", || yard.settled()).await;
    assert_eq!(yard.files("features"), 0);
    assert_eq!(yard.metrics.fetches(Fetched::Computed), 1);
    let said = yard.said();
    assert!(said[0].starts_with("computes 4 more shards of features itself: "));
}

#[tokio::test]
async fn what_is_damaged_is_thrown_away_and_left_to_the_trainer() {
    let files = shards(2);
    // Bytes that have the blob's digest, but are no shard of that name.
    let swapped = vec![
        (files[0].0, files[1].1.clone()),
        (files[1].0, files[0].1.clone()),
    ];
    let mut torn = files.clone();
    for (_, file) in &mut torn {
        file.truncate(1000);
    }
    for (held, serves) in [
        (files.clone(), Serves::Other),
        (swapped, Serves::Whole),
        (torn, Serves::Whole),
    ] {
        let yard = yard(coordinator(held, serves).await, Some(1e9));
        yard.miss(&files, 1.0);
        until("both were tried", || yard.settled()).await;
        assert_eq!((yard.files("features"), yard.files("part")), (0, 0));
        assert_eq!(yard.metrics.fetches(Fetched::Failed), 2);
        let said = yard.said();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("2 computed after all"), "{said:?}");
    }
}

#[tokio::test]
async fn a_fetch_ends_with_its_lease_or_its_time_and_leaves_nothing() {
    let files = shards(2);
    // The lease ends.
    let yard = self::yard(coordinator(files.clone(), Serves::Half).await, Some(1e9));
    yard.miss(&files, 1e-3);
    until("a fetch has begun", || yard.files("part") == 1).await;
    yard.desk.over(LEASE);
    until("it has ended", || yard.files("part") == 0).await;
    assert_eq!(yard.files("features"), 0);
    // The trainer would have had it by now.
    let yard = self::yard(coordinator(files.clone(), Serves::Half).await, Some(1e9));
    yard.miss(&files, 1e6);
    until("it is given up", || yard.settled()).await;
    assert_eq!((yard.files("features"), yard.files("part")), (0, 0));
    assert_eq!(yard.metrics.fetches(Fetched::Failed), 1);
    let said = yard.said();
    // The next one is not worth it at that rate.
    assert!(said[1].starts_with("computes 1 more"), "{said:?}");
    assert!(said[2].contains("did not come in time"), "{said:?}");
}

#[tokio::test]
async fn a_coordinator_that_is_away_costs_nobody_anything() {
    let files = shards(2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let yard = yard(
        Client::new(&format!("http://{address}"))
            .unwrap()
            .attempts(1),
        None,
    );
    yard.miss(&files, 1.0);
    // It hangs up.
    drop(listener.accept().await.unwrap());
    // The trainer goes on meanwhile: nothing here is locked.
    let folder = Folder::open(yard.folder.path(), 1 << 20).unwrap();
    for (shard, _) in &files {
        assert!(folder.claim(*shard).unwrap().is_some());
    }
    yard.desk.has((LEASE, 0));
    assert!(yard.said().is_empty());
}
