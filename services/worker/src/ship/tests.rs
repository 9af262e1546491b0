use super::*;
use crate::spool::Upload;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::ReportBody;
use pomona_domain::{Digest, Generation, TrialId};

fn checkpoint(bytes: &[u8], step: u64) -> ReportBody {
    ReportBody::Checkpoint {
        trial: TrialId(1),
        checkpoint: CheckpointKind::Last,
        step,
        epoch: 1,
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

struct Yard {
    folder: tempfile::TempDir,
    spool: Spool,
    outbox: Outbox,
}

fn yard() -> Yard {
    let folder = tempfile::tempdir().unwrap();
    Yard {
        spool: Spool::open(folder.path(), 1 << 20).unwrap(),
        outbox: Outbox::open(&folder.path().join("outbox")).unwrap(),
        folder,
    }
}

impl Yard {
    fn keep(&self, bytes: &[u8]) -> PathBuf {
        let file = self.folder.path().join("last.ckpt");
        std::fs::write(&file, bytes).unwrap();
        let kept = self.outbox.keep(&file).unwrap().unwrap();
        std::fs::remove_file(&file).unwrap();
        kept
    }

    fn put(&self, bytes: &[u8], step: u64) {
        let path = self.keep(bytes);
        let digest = Digest::of(bytes);
        let files = vec![Upload { digest, path }];
        let body = checkpoint(bytes, step);
        self.spool
            .put(LeaseId(1), Generation(1), body, files)
            .unwrap();
    }
}

#[test]
fn a_file_is_kept_when_its_trainer_removes_it_and_goes_when_nobody_needs_it() {
    let yard = yard();
    yard.put(b"one", 1);
    let waiting = yard.spool.uploads().remove(0);
    assert_eq!(std::fs::read(&waiting.files[0].path).unwrap(), b"one");
    yard.keep(b"nobody's");
    yard.outbox.sweep(&yard.spool);
    assert_eq!(names(&yard.folder.path().join("outbox")), ["0"]);
    // A second opening never takes a name that is in use.
    let again = Outbox::open(&yard.folder.path().join("outbox")).unwrap();
    let file = yard.folder.path().join("two");
    std::fs::write(&file, b"two").unwrap();
    assert_eq!(
        again.keep(&file).unwrap().unwrap().file_name().unwrap(),
        "1"
    );
    assert_eq!(again.keep(Path::new("/no/such/file")).unwrap(), None);
    yard.spool.forget(None).unwrap();
    yard.outbox.sweep(&yard.spool);
    assert!(names(&yard.folder.path().join("outbox")).is_empty());
}

/// A port where nobody listens: taken and given back.
fn nobody() -> Client {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    Client::new(&server).unwrap().attempts(1)
}

#[tokio::test]
async fn nothing_is_reported_while_the_store_is_away_and_older_checkpoints_give_way() {
    let yard = yard();
    yard.put(b"one", 1);
    let parts = (
        yard.spool.clone(),
        yard.outbox.clone(),
        Metrics::new().unwrap(),
    );
    let shipping = tokio::spawn(ship(nobody(), parts.0, parts.1, parts.2));
    let mut changed = yard.spool.subscribe();
    yard.put(b"two", 2);
    yard.put(b"three", 3);
    changed.mark_unchanged();
    // The head sees that it was replaced, the one behind it was dropped when it was replaced.
    while yard.spool.uploads()[0].body != checkpoint(b"three", 3) {
        changed.changed().await.unwrap();
    }
    yard.spool.seal().await.unwrap();
    assert!(yard.spool.batch(9).is_empty());
    shipping.abort();
}

#[tokio::test]
async fn a_file_that_is_gone_is_given_up_and_the_answer_it_belonged_to_is_none() {
    let yard = yard();
    let result = ReportBody::Result {
        task: pomona_domain::TaskId(1),
        result: Box::new(pomona_domain::task::TaskResult::Predicted { pictures: vec![] }),
    };
    assert!(is_hopeless(Code::LocalFile) && !is_hopeless(Code::Unreachable));
    let path = yard.keep(b"x");
    std::fs::remove_file(&path).unwrap();
    let digest = Digest::of(b"x");
    let files = vec![Upload { digest, path }];
    yard.spool
        .put(LeaseId(1), Generation(1), result, files)
        .unwrap();
    let entry = yard.spool.uploads().remove(0);
    let fault = Fault::new(Code::LocalFile, "gone");
    give_up(&yard.spool, &entry, fault).await;
    assert!(yard.spool.is_empty());
}
