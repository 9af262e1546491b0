use super::*;

const LIMITS: Limits = Limits {
    floor: Duration::from_mins(1),
    factor: 10,
    start: Duration::from_mins(10),
};

fn at(origin: Instant, seconds: u64) -> Instant {
    origin + Duration::from_secs(seconds)
}

#[test]
fn beats_without_steps_do_not_move_the_deadline() {
    let origin = Instant::now();
    let mut watch = Watch::new(LIMITS, origin);
    watch.progress(at(origin, 1), 0);
    watch.progress(at(origin, 2), 1);
    watch.progress(at(origin, 30), 1);
    assert_eq!(watch.deadline(), at(origin, 62));
}

#[test]
fn before_the_first_step_any_line_is_a_sign_of_life() {
    let origin = Instant::now();
    let mut watch = Watch::new(LIMITS, origin);
    watch.progress(at(origin, 500), 0);
    assert_eq!(watch.deadline(), at(origin, 1100));
    watch.progress(at(origin, 900), 0);
    assert_eq!(watch.deadline(), at(origin, 1500));
}

#[test]
fn slow_steps_get_more_time_than_the_floor() {
    let origin = Instant::now();
    let mut watch = Watch::new(LIMITS, origin);
    for n in 0..5 {
        watch.progress(at(origin, n * 20), n);
    }
    assert_eq!(watch.allowance(), Duration::from_secs(200));
    assert_eq!(watch.step(), 4);
}

#[test]
fn an_evaluation_counts_as_work() {
    let origin = Instant::now();
    let mut watch = Watch::new(LIMITS, origin);
    watch.progress(origin, 0);
    watch.progress(at(origin, 1), 1);
    watch.touch(at(origin, 50));
    assert_eq!(watch.deadline(), at(origin, 110));
}
