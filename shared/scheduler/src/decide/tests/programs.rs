//! Programs of one's own: what they tell over the API, and which of their checkpoints is the best.

use crate::Event;
use crate::testing::{House, checkpoint, crashed};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::lease::{Generation, Lease};
use pomona_domain::metric::Observation;
use pomona_domain::report::Outcome;
use pomona_domain::spec::parse;
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::TrialState;
use pomona_domain::{Code, ExperimentId, TaskId, TrialId};

const FILE: &str = "name: own\nrunner: {kind: command, argv: [train]}\n\
                    search: {metric: val/accuracy}\nmax_restarts: 1\n";

fn one_program() -> (House, ExperimentId, Lease) {
    let mut house = House::sharing();
    house.joins("a", 1);
    let id = house.submits(parse(FILE, &[]).unwrap());
    let lease = house.only_lease();
    (house, id, lease)
}

fn measured(trial: TrialId, generation: Generation, step: u64, value: f64) -> Event {
    Event::Measured {
        observation: Box::new(Observation {
            trial,
            generation,
            step,
            epoch: 0,
            at: pomona_domain::Timestamp(0),
            metrics: [("val/accuracy".to_owned(), value)].into(),
            confusion: Vec::new(),
        }),
    }
}

fn observations(house: &House) -> usize {
    let is = |change: &&Change| matches!(change, Change::Observed(_));
    house.last.iter().filter(is).count()
}

#[test]
fn what_a_program_tells_over_the_api_counts_once_and_only_with_its_generation() {
    let (mut house, id, lease) = one_program();
    let trial = house.trial(id, 1).id;
    let now = lease.generation;
    house.tell(&measured(trial, now, 10, 0.5));
    assert_eq!(observations(&house), 1);
    // Whoever repeats itself after a lost answer is answered, and nothing counts twice.
    for step in [10, 9] {
        house.tell(&measured(trial, now, step, 0.9));
        assert_eq!(observations(&house), 0);
    }
    for generation in [now.0 - 1, now.0 + 1] {
        let event = measured(trial, Generation(generation), 20, 0.9);
        assert_eq!(house.refused(&event), Code::StaleGeneration);
    }
    assert_eq!(
        house.refused(&measured(TrialId(7), now, 20, 0.9)),
        Code::NotFound
    );
    // What is leased again has another generation.
    house.exits(&lease, crashed("killed"));
    assert_eq!(
        house.refused(&measured(trial, now, 20, 0.9)),
        Code::StaleGeneration
    );
    house.passes(1_000, &[lease.slots[0].worker]);
    let again = house.only_lease();
    assert_eq!(
        house.refused(&measured(trial, now, 20, 0.9)),
        Code::StaleGeneration
    );
    house.tell(&measured(trial, again.generation, 20, 0.9));
    assert_eq!(house.trial(id, 1).best.unwrap().value, 0.9);
}

#[test]
fn what_our_trainer_trains_is_told_by_nobody_else() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(crate::testing::grid(1, ""));
    let lease = house.only_lease();
    let event = measured(house.trial(id, 1).id, lease.generation, 1, 0.5);
    assert_eq!(house.refused(&event), Code::NotForRunner);
}

#[test]
fn the_checkpoint_at_the_step_of_the_best_point_is_the_best_one() {
    let (mut house, id, lease) = one_program();
    let trial = house.trial(id, 1).id;
    let kept = |house: &House, kind| house.cluster.checkpoint(trial, kind).map(|row| row.step);
    let best = |house: &House| kept(house, CheckpointKind::Best);
    house.keeps(&lease, trial, CheckpointKind::Last, 5);
    assert_eq!(best(&house), None, "nothing was measured");
    house.observes(&lease, trial, 10, 0.5);
    assert_eq!(
        best(&house),
        None,
        "weights of another step are not measured"
    );
    house.keeps(&lease, trial, CheckpointKind::Last, 10);
    assert_eq!(best(&house), Some(10));
    house.observes(&lease, trial, 20, 0.4);
    house.keeps(&lease, trial, CheckpointKind::Last, 20);
    assert_eq!(
        (best(&house), kept(&house, CheckpointKind::Last)),
        (Some(10), Some(20))
    );
    // Saved first, measured afterwards.
    house.keeps(&lease, trial, CheckpointKind::Last, 30);
    house.observes(&lease, trial, 30, 0.7);
    assert_eq!(best(&house), Some(30));
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.state(id, 1), TrialState::Completed);
}

#[test]
fn programs_never_share_a_lease_and_what_they_write_is_not_published() {
    let mut house = House::sharing();
    house.joins("a", 1);
    let file = format!("{FILE}params: {{lr: 0.1}}\n").replace(
        "val/accuracy}",
        "val/accuracy, space: {params.lr: {values: [0.1, 0.2]}}}",
    );
    let id = house.submits(parse(&file, &[]).unwrap());
    let lease = house.only_lease();
    assert_eq!(house.members(&lease), [1]);
    let trial = house.trial(id, 1).id;
    house.says(&lease, checkpoint(trial, CheckpointKind::Last, 1));
    house.exits(&lease, Outcome::Finished);
    let event = Event::TaskSubmitted {
        id: TaskId(1),
        spec: TaskSpec::Publish {
            model: "m".to_owned(),
            trial,
            alias: None,
        },
        priority: 50,
    };
    assert_eq!(house.refused(&event), Code::CannotPublish);
}
