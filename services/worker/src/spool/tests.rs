use super::*;
use pomona_domain::Digest;
use pomona_domain::Timestamp;
use proptest::prelude::*;

const LEASE: LeaseId = LeaseId(1);
const GENERATION: Generation = Generation(1);

fn observed(step: u64) -> ReportBody {
    ReportBody::Observed {
        trial: TrialId(1),
        step,
        epoch: 1,
        metrics: BTreeMap::from([("val/accuracy".to_owned(), 0.1 + step as f64 / 3.0)]),
        confusion: Vec::new(),
    }
}

fn checkpoint(step: u64, kind: CheckpointKind) -> (ReportBody, Vec<Upload>) {
    let digest = Digest::of(&step.to_be_bytes());
    let body = ReportBody::Checkpoint {
        trial: TrialId(1),
        checkpoint: kind,
        step,
        epoch: 1,
        digest,
        size: 8,
    };
    let path = PathBuf::from(format!("{step}.ckpt"));
    (body, vec![Upload { digest, path }])
}

fn steps(spool: &Spool) -> Vec<(u64, u64)> {
    let step = |body: &ReportBody| match body {
        ReportBody::Observed { step, .. } | ReportBody::Checkpoint { step, .. } => *step,
        ReportBody::Started { .. }
        | ReportBody::Meets { .. }
        | ReportBody::TrialEnded { .. }
        | ReportBody::Result { .. }
        | ReportBody::Exited { .. } => 0,
    };
    let batch = spool.batch(100);
    batch.iter().map(|r| (r.seq, step(&r.body))).collect()
}

#[tokio::test]
async fn numbers_grow_by_one_over_restarts_and_acks() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    for step in 1..=3 {
        spool
            .put(LEASE, GENERATION, observed(step), vec![])
            .unwrap();
    }
    spool.seal().await.unwrap();
    assert_eq!(steps(&spool), [(1, 1), (2, 2), (3, 3)]);
    spool.ack(2).unwrap();
    drop(spool);
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(steps(&spool), [(3, 3)]);
    spool.ack(3).unwrap();
    drop(spool);
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert!(spool.is_empty());
    spool.put(LEASE, GENERATION, observed(4), vec![]).unwrap();
    spool.seal().await.unwrap();
    assert_eq!(steps(&spool), [(4, 4)]);
}

#[tokio::test]
async fn a_line_cut_by_a_crash_is_dropped_and_the_next_one_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.put(LEASE, GENERATION, observed(1), vec![]).unwrap();
    spool.put(LEASE, GENERATION, observed(2), vec![]).unwrap();
    drop(spool);
    let path = folder.path().join("spool.jsonl");
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 5]).unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.put(LEASE, GENERATION, observed(3), vec![]).unwrap();
    drop(spool);
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.seal().await.unwrap();
    assert_eq!(steps(&spool), [(1, 1), (2, 3)]);
}

#[tokio::test]
async fn reports_after_a_checkpoint_wait_for_its_upload_and_other_leases_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    let (body, files) = checkpoint(5, CheckpointKind::Last);
    spool.put(LEASE, GENERATION, observed(4), vec![]).unwrap();
    spool.put(LEASE, GENERATION, body, files).unwrap();
    spool.put(LEASE, GENERATION, observed(6), vec![]).unwrap();
    spool
        .put(LeaseId(2), GENERATION, observed(9), vec![])
        .unwrap();
    spool.seal().await.unwrap();
    assert_eq!(steps(&spool), [(1, 4), (2, 9)]);
    let waiting = spool.uploads();
    assert_eq!(waiting.len(), 1);
    spool.uploaded(waiting[0].entry);
    spool.seal().await.unwrap();
    assert_eq!(steps(&spool), [(1, 4), (2, 9), (3, 5), (4, 6)]);
}

#[tokio::test]
async fn only_the_newest_waiting_checkpoint_of_each_kind_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    for step in 1..=4 {
        for kind in [CheckpointKind::Last, CheckpointKind::Best] {
            let (body, files) = checkpoint(step, kind);
            spool.put(LEASE, GENERATION, body, files).unwrap();
        }
    }
    // The head may be on its way; behind it stands one of each kind.
    let head = spool.uploads().remove(0);
    assert!(!spool.is_wanted(&head));
    spool
        .give_up(&head, Fault::new(Code::Internal, "replaced"))
        .unwrap();
    while let Some(next) = spool.uploads().pop() {
        assert!(spool.is_wanted(&next));
        spool.uploaded(next.entry);
        spool.seal().await.unwrap();
    }
    assert_eq!(steps(&spool), [(1, 4), (2, 4)]);
}

#[tokio::test]
async fn a_lost_answer_makes_the_exit_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    let result = ReportBody::Result {
        task: pomona_domain::TaskId(1),
        result: Box::new(pomona_domain::task::TaskResult::Predicted { pictures: vec![] }),
    };
    let digest = Digest::of(b"x");
    let files = vec![Upload {
        digest,
        path: "x".into(),
    }];
    spool.put(LEASE, GENERATION, result, files).unwrap();
    let exit = ReportBody::Exited {
        outcome: Outcome::Finished,
    };
    spool.put(LEASE, GENERATION, exit, vec![]).unwrap();
    let fault = Fault::new(Code::BlobCorrupt, "the file `x` is not what it was");
    spool
        .give_up(&spool.uploads().remove(0), fault.clone())
        .unwrap();
    spool.seal().await.unwrap();
    assert_eq!(
        spool.batch(9)[0].body,
        ReportBody::Exited {
            outcome: Outcome::Crashed { fault }
        }
    );
}

#[tokio::test]
async fn a_full_spool_blocks_until_the_store_has_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 300).unwrap();
    while !spool.is_full() {
        spool.put(LEASE, GENERATION, observed(1), vec![]).unwrap();
    }
    let mut room = std::pin::pin!(spool.room());
    assert!(futures::poll!(&mut room).is_pending());
    spool.seal().await.unwrap();
    spool.ack(100).unwrap();
    room.await;
}

#[test]
fn a_journal_of_history_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 30).unwrap();
    for step in 0..8000 {
        spool
            .put(LEASE, GENERATION, observed(step), vec![])
            .unwrap();
    }
    spool.forget(None).unwrap();
    spool
        .put(LEASE, GENERATION, observed(8000), vec![])
        .unwrap();
    let before = spool.lock().state.clone();
    drop(spool);
    let spool = Spool::open(folder.path(), 1 << 30).unwrap();
    let length = std::fs::metadata(folder.path().join("spool.jsonl"))
        .unwrap()
        .len();
    assert!(length < 2000, "{length} bytes");
    assert_eq!(spool.lock().state.next_entry(), before.next_entry());
    assert_eq!(spool.leases(), BTreeMap::from([(LEASE, GENERATION)]));
}

#[derive(Debug, Clone)]
enum Move {
    Put(u64, bool),
    Drop(u64),
    Seal,
    Ack(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (0u64..3, any::<bool>()).prop_map(|(lease, last)| Move::Put(lease, last)),
        (0u64..20).prop_map(Move::Drop),
        Just(Move::Seal),
        (0u64..20).prop_map(Move::Ack),
    ];
    proptest::collection::vec(one, 0..40)
}

/// The journal of some moves, line by line, with the state after each line.
fn history(moves: &[Move]) -> (Vec<Vec<u8>>, Vec<State>) {
    let (mut lines, mut states) = (Vec::new(), vec![State::default()]);
    let mut push = |op: Op| {
        let mut line = serde_json::to_vec(&op).unwrap();
        line.push(b'\n');
        let mut state = states.last().unwrap().clone();
        state.apply(op, line.len() as u64);
        lines.push(line);
        states.push(state.clone());
        state
    };
    let mut state = State::default();
    for one in moves {
        match one {
            Move::Put(lease, last) => {
                let (body, files) = if *last {
                    checkpoint(state.next_entry(), CheckpointKind::Last)
                } else {
                    (observed(state.next_entry()), vec![])
                };
                state = push(Op::Put(Box::new(Entry {
                    entry: state.next_entry(),
                    lease: LeaseId(*lease),
                    generation: GENERATION,
                    at: Timestamp(1_700_000_000_123),
                    body,
                    files,
                })));
            }
            Move::Drop(entry) => state = push(Op::Drop { entry: *entry }),
            Move::Seal => {
                let oldest = state.pending().next().map(|e| e.entry);
                if let Some(entry) = oldest {
                    let seq = state.next_seq();
                    state = push(Op::Seal {
                        entry,
                        seq,
                        instead: None,
                    });
                }
            }
            Move::Ack(seq) => {
                let seq = (*seq).min(state.next_seq() - 1);
                state = push(Op::Ack { seq });
            }
        }
    }
    (lines, states)
}

proptest! {
    #[test]
    fn a_journal_cut_anywhere_replays_to_the_state_of_its_whole_lines(moves in moves(), cut in 0.0f64..=1.0) {
        let (lines, states) = history(&moves);
        let text = lines.concat();
        let cut = (text.len() as f64 * cut) as usize;
        let (state, whole) = State::replay(&text[..cut]);
        let mut at = 0;
        let kept = lines.iter().take_while(|line| { at += line.len(); at <= cut }).count();
        prop_assert_eq!(&state, &states[kept]);
        prop_assert_eq!(whole, lines[..kept].concat().len());
    }

    #[test]
    fn a_journal_written_anew_says_the_same(moves in moves()) {
        let (_, states) = history(&moves);
        let state = states.last().unwrap();
        let mut text = Vec::new();
        for op in state.ops() {
            serde_json::to_writer(&mut text, &op).unwrap();
            text.push(b'\n');
        }
        let (again, _) = State::replay(&text);
        prop_assert_eq!(again.next_entry(), state.next_entry());
        prop_assert_eq!(again.next_seq(), state.next_seq());
        prop_assert_eq!(again.acked(), state.acked());
        prop_assert_eq!(again.pending().collect::<Vec<_>>(), state.pending().collect::<Vec<_>>());
        prop_assert_eq!(again.sealed().collect::<Vec<_>>(), state.sealed().collect::<Vec<_>>());
    }
}
