//! Slots that are set aside for a gang.

use crate::testing::{House, grid};
use pomona_domain::change::Subject;
use pomona_domain::lease::Lease;
use pomona_domain::report::Outcome;

#[test]
fn room_is_set_aside_for_a_gang_that_is_next() {
    let mut house = House::new();
    let a = house.joins("a", 4);
    let b = house.joins("b", 1);
    let small = house.submits(grid(8, ""));
    let large = house.submits(grid(1, "priority: 70\nresources: {slots_per_trial: 4}"));
    let on_a: Vec<Lease> = house.cluster.leases_of(a).cloned().collect();
    assert_eq!(on_a.len(), 4);
    for (ended, lease) in on_a.iter().enumerate() {
        assert_eq!(house.state(large, 1).name(), "waiting");
        house.exits(lease, Outcome::Finished);
        // Small trials do not slip into what is set aside, but run elsewhere.
        let left = if ended == 3 { 1 } else { 3 - ended };
        assert_eq!(house.cluster.leases_of(a).count(), left);
        assert_eq!(house.cluster.leases_of(b).count(), 1);
    }
    assert_eq!(house.state(large, 1).name(), "running");
    let waiting = house
        .cluster
        .trials_of(small)
        .find(|trial| trial.lease().is_none() && !trial.is_ended());
    let subject = Subject::Trial(waiting.expect("a small one waits").id);
    assert_eq!(house.explains(subject), "it waits: all 5 slots are busy");
}

#[test]
fn slots_set_aside_are_said_to_be() {
    let mut house = House::new();
    house.joins("a", 2);
    house.submits(grid(1, ""));
    house.submits(grid(1, "priority: 70\nresources: {slots_per_trial: 2}"));
    let late = house.submits(grid(1, ""));
    let subject = Subject::Trial(house.trial(late, 1).id);
    let said = house.explains(subject);
    assert_eq!(
        said,
        "it waits: 1 of 2 slots are free and set aside for work of higher rank; `e` is served first \
         (priority 70, its own is 50)"
    );
}
