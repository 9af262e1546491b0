//! Gangs over several workers.

use super::{NOW, Room, asked, cluster, cpus, lines};
use crate::plan;
use crate::testing::{House, grid};
use pomona_domain::change::{Change, Subject};
use pomona_domain::worker::PROCESSOR;

/// Where one trial of so many slots gets them, on workers of these processors and sizes.
fn placed(workers: &[(&str, usize)], slots: u32) -> Vec<String> {
    let room = Room {
        workers: workers.iter().map(|(_, size)| cpus(*size)).collect(),
        experiments: vec![asked(slots, 1, 50)],
        tasks: Vec::new(),
    };
    let mut cluster = cluster(&room);
    let rows: Vec<_> = cluster.workers().cloned().collect();
    for (mut row, (processor, _)) in rows.into_iter().zip(workers) {
        let processor = (*processor).to_owned();
        row.labels.insert(PROCESSOR.to_owned(), processor);
        cluster.apply(NOW, &Change::Worker(Box::new(row)));
    }
    lines(&cluster, &plan(&cluster, NOW))
}

#[test]
fn slots_on_several_workers_are_alike_and_on_as_few_as_possible() {
    for (workers, slots, expect) in [
        (&[("x", 2), ("x", 2)][..], 4, Some("w1: 0 1 + w2: 0 1")),
        (&[("x", 2), ("x", 2)], 5, None),
        // Not alike.
        (&[("x", 2), ("y", 2)], 4, None),
        // One worker has so many.
        (&[("x", 2), ("x", 2), ("y", 4)], 4, Some("w3: 0 1 2 3")),
        // The largest first, and of the last one what is left, where it fits best.
        (
            &[("x", 1), ("x", 2), ("x", 3), ("x", 3)],
            5,
            Some("w3: 0 1 2 + w2: 0 1"),
        ),
        (
            &[("x", 1), ("x", 2), ("x", 3), ("x", 3)],
            7,
            Some("w3: 0 1 2 + w4: 0 1 2 + w1: 0"),
        ),
        // Fewer workers of another processor.
        (
            &[("x", 1), ("x", 1), ("x", 2), ("y", 2), ("y", 2)],
            4,
            Some("w4: 0 1 + w5: 0 1"),
        ),
    ] {
        let expect: Vec<String> = expect.iter().map(|at| format!("e1/1 on {at}")).collect();
        assert_eq!(placed(workers, slots), expect, "{workers:?}");
    }
}

#[test]
fn workers_are_set_aside_for_a_gang_that_needs_several() {
    let mut house = House::new();
    let a = house.joins_on("a", 2, "x");
    let b = house.joins_on("b", 2, "x");
    house.submits(grid(9, "share: off"));
    let wide = house.submits(grid(1, "priority: 70\nresources: {slots_per_trial: 4}"));
    let said = house.explains(Subject::Trial(house.trial(wide, 1).id));
    assert_eq!(said, "it waits: all 4 slots are busy");
    let held: Vec<_> = house.cluster.leases().cloned().collect();
    for (ended, lease) in held.iter().enumerate() {
        assert_eq!(house.state(wide, 1).name(), "waiting");
        house.exits(lease, pomona_domain::report::Outcome::Finished);
        if ended == 0 {
            let said = house.explains(Subject::Trial(house.trial(wide, 1).id));
            let expect = "it waits: workers that are alike do not have 4 free slots (1 of 4 are \
                          free in all)";
            assert_eq!(said, expect);
        }
    }
    let lease = house.lease_of(wide, 1);
    assert_eq!(
        lease.workers(),
        [a, b]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(lease.world_size(), 4);
}
