use super::rate;
use pomona_domain::spec::LrSchedule;

fn rates(schedule: &LrSchedule) -> Vec<f64> {
    (0..12)
        .map(|step| rate(schedule, 0.8, step, 4, 12))
        .collect()
}

#[test]
fn constant_stays() {
    assert!(
        rates(&LrSchedule::Constant { warmup_epochs: 0.0 })
            .iter()
            .all(|&lr| lr == 0.8)
    );
}

#[test]
fn warm_up_is_linear_and_reaches_the_peak() {
    let lrs = rates(&LrSchedule::Constant { warmup_epochs: 1.0 });
    assert_eq!(&lrs[..5], &[0.2, 0.4, 0.8 * 3.0 / 4.0, 0.8, 0.8]);
}

#[test]
fn step_drops_each_epoch() {
    let lrs = rates(&LrSchedule::Step {
        warmup_epochs: 0.0,
        every_epochs: 1,
        gamma: 0.5,
    });
    assert_eq!((lrs[3], lrs[4], lrs[8]), (0.8, 0.4, 0.2));
}

#[test]
fn cosine_goes_from_the_peak_towards_zero() {
    let lrs = rates(&LrSchedule::Cosine { warmup_epochs: 0.0 });
    assert_eq!(lrs[0], 0.8);
    assert!((lrs[6] - 0.4).abs() < 1e-12);
    assert!(lrs[11] > 0.0 && lrs[11] < 0.02);
    assert!(lrs.windows(2).all(|pair| pair[0] > pair[1]));
}

#[test]
fn warm_up_longer_than_the_trial_only_rises() {
    let lrs = rates(&LrSchedule::Cosine { warmup_epochs: 9.0 });
    assert!(lrs.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(lrs[11], 0.8);
}
