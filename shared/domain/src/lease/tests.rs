//! Leases on several workers: what is asked of the rest, and how the whole ended.

use super::*;
use crate::Fault;

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const C: WorkerId = WorkerId(3);

fn lease(ends: &[(WorkerId, PartEnd)]) -> Lease {
    let slot = |(worker, index)| SlotRef { worker, index };
    Lease {
        id: LeaseId(1),
        version: 1,
        generation: Generation(1),
        work: Work::Trials(vec![TrialId(1)]),
        slots: [(A, 0), (A, 1), (B, 0), (C, 0)].map(slot).to_vec(),
        state: LeaseState::Live,
        granted_at: Timestamp(0),
        meets_at: None,
        parts: (ends.iter().enumerate())
            .map(|(nth, (worker, end))| Part {
                worker: *worker,
                at: Timestamp(nth as i64),
                end: end.clone(),
            })
            .collect(),
    }
}

fn fails(code: Code) -> PartEnd {
    let fault = Fault::new(code, "it says why");
    PartEnd::Exited(Outcome::Failed { fault, retry: true })
}

#[test]
fn what_is_asked_of_the_rest_and_who_says_how_it_ended() {
    let exited = PartEnd::Exited;
    let (finished, stopped) = (exited(Outcome::Finished), exited(Outcome::Stopped));
    let killed = exited(Outcome::Killed);
    let lost = PartEnd::Lost("it is silent".to_owned());
    let crashed = exited(Outcome::Crashed {
        fault: Fault::new(Code::TrainerCrashed, "it is gone"),
    });
    let peers = fails(Code::RankLost);
    let own = fails(Code::BadCheckpoint);
    let kill = |at| Some((StopKind::Kill, Timestamp(at)));
    let stop = |at| Some((StopKind::Checkpoint, Timestamp(at)));
    for (ends, asked, culprit) in [
        (vec![], None, None),
        // Rank 0 may have more to do than the others.
        (vec![(B, &finished)], None, None),
        (vec![(A, &finished)], stop(0), Some(A)),
        (vec![(B, &stopped), (A, &stopped)], stop(0), Some(A)),
        // Who loses a peer says so before anybody knows that the peer's machine is gone.
        (vec![(B, &peers), (A, &lost)], kill(0), Some(A)),
        (
            vec![(B, &peers), (A, &crashed), (C, &killed)],
            kill(0),
            Some(A),
        ),
        (
            vec![(A, &peers), (B, &peers), (C, &killed)],
            kill(0),
            Some(A),
        ),
        (vec![(B, &crashed), (A, &own)], kill(0), Some(A)),
        (vec![(B, &crashed), (A, &crashed)], kill(0), Some(B)),
        (
            vec![(C, &finished), (B, &lost), (A, &killed)],
            kill(1),
            Some(B),
        ),
        // Nothing is missing once rank 0 has done all.
        (
            vec![(A, &finished), (B, &lost), (C, &killed)],
            kill(1),
            Some(A),
        ),
        (vec![(A, &finished), (B, &crashed)], kill(1), Some(B)),
    ] {
        let ends: Vec<_> = ends.into_iter().map(|(w, end)| (w, end.clone())).collect();
        let row = lease(&ends);
        assert_eq!(row.breaks(), asked, "{ends:?}");
        assert_eq!(row.stop(), asked.map(|(how, _)| how), "{ends:?}");
        assert_eq!(row.culprit().map(|part| part.worker), culprit, "{ends:?}");
    }
}

#[test]
fn a_stop_that_was_asked_for_becomes_a_kill_when_a_part_breaks() {
    let mut row = lease(&[]);
    row.state = LeaseState::Stopping {
        how: StopKind::Checkpoint,
        since: Timestamp(0),
        why: StopReason::Request,
    };
    assert_eq!(row.stop(), Some(StopKind::Checkpoint));
    row.parts = lease(&[(B, fails(Code::RankLost))]).parts;
    assert_eq!(row.stop(), Some(StopKind::Kill));
}

#[test]
fn a_worker_holds_its_part_until_that_is_over() {
    let row = lease(&[(B, PartEnd::Exited(Outcome::Finished))]);
    assert_eq!(row.workers(), [A, B, C]);
    assert!(row.is_wide() && row.is_led_by(A) && !row.is_led_by(B));
    assert_eq!(
        [A, B, C].map(|worker| row.is_open_on(worker)),
        [true, false, true]
    );
    assert!(!row.is_open_on(WorkerId(9)));
}
