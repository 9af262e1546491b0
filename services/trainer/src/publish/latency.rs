//! How long a prediction takes, through the very folder that was written: one decoded picture at a
//! time, preprocessing, network and softmax, on the CPU threads of this task.
//!
//! Times differ from machine to machine and from run to run, so they must never get into the folder.

use super::folder::Served;
use crate::data::Dataset;
use pomona_domain::Fault;
use pomona_domain::dataset::Split;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Predictions that are not counted: the first ones allocate.
const WARM_UP: usize = 5;
/// Predictions that are counted.
const MEASURED: usize = 50;
/// Nothing new is begun after this long, once there are enough to tell a median.
const LONGEST: Duration = Duration::from_secs(10);
/// Enough to tell a median.
const ENOUGH: usize = 5;

/// The median and the 95th percentile in milliseconds; nothing without test pictures.
pub fn measure(
    served: &Served,
    dataset: &Dataset,
    mut beat: impl FnMut(),
) -> Result<BTreeMap<String, f64>, Fault> {
    let pictures = dataset.len(Split::Test);
    if pictures == 0 {
        return Ok(BTreeMap::new());
    }
    let began = Instant::now();
    let mut times = Vec::with_capacity(MEASURED);
    for turn in 0..WARM_UP + MEASURED {
        let pixels = dataset.pixels(Split::Test, turn % pictures)?;
        let since = Instant::now();
        served.predict(&pixels, 1);
        if turn >= WARM_UP {
            times.push(since.elapsed().as_secs_f64() * 1000.0);
        }
        beat();
        if times.len() >= ENOUGH && began.elapsed() > LONGEST {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(BTreeMap::from([
        ("test/latency_p50_ms".to_owned(), percentile(&times, 0.5)),
        ("test/latency_p95_ms".to_owned(), percentile(&times, 0.95)),
    ]))
}

/// The nearest rank of sorted times.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let times: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(percentile(&times, 0.5), 10.0);
        assert_eq!(percentile(&times, 0.95), 19.0);
        assert_eq!(percentile(&[7.0], 0.95), 7.0);
    }
}
