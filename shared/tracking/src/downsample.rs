//! Which points of a curve are shown when there are more than a chart or an answer holds.
//!
//! [`curve`] is `MinMaxLTTB` (Donckt, Donckt, Rademaker, Van Hoecke, IEEE VIS 2023): the extremes of
//! equal bins are chosen first, and of them the largest triangles (LTTB, Steinarsson 2013). [`steps`]
//! chooses the steps that `metrics/get-history-bulk-interval` answers with. Both answer with what was
//! measured: no point is ever made up or moved.

use std::collections::BTreeSet;

/// How many candidates per shown point the extremes leave for the triangles (the paper's r).
const CANDIDATES_PER_POINT: usize = 4;
/// Coordinates are measured as if they were no further away than this, so that areas stay finite.
const FAR: f64 = 1e150;

/// The places of at most `limit` of the `points`, ascending; all of them if they are so few.
///
/// The first and the last point are shown, the other places go to points that are numbers: one whose
/// y or x is NaN is left out once a choice must be made, so there may be fewer than `limit`. `points`
/// are sorted by x. With a limit of one the last point is shown.
pub fn curve(points: &[(f64, f64)], limit: usize) -> Vec<usize> {
    let count = points.len();
    if count <= limit {
        return (0..count).collect();
    }
    match limit {
        0 => return Vec::new(),
        1 => return vec![count - 1],
        2 => return vec![0, count - 1],
        _ => {}
    }
    let is_number = |place: &usize| {
        let (x, y) = at(points, *place);
        !x.is_nan() && !y.is_nan()
    };
    let mut inner: Vec<usize> = (1..count - 1).filter(is_number).collect();
    let room = limit - 2;
    if inner.len() > room * CANDIDATES_PER_POINT {
        inner = extremes(points, &inner, room * CANDIDATES_PER_POINT / 2);
    }
    let mut shown = Vec::with_capacity(limit);
    shown.push(0);
    if inner.len() <= room {
        shown.append(&mut inner);
    } else {
        triangles(points, &inner, room, &mut shown);
    }
    shown.push(count - 1);
    shown
}

/// The lowest and the highest point of each of `bins` bins of equally many points, in their order.
fn extremes(points: &[(f64, f64)], places: &[usize], bins: usize) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(2 * bins);
    for bin in 0..bins {
        let bin = part(places, bin, bins);
        let height = |place: &&usize| at(points, **place).1;
        let lowest = bin.iter().min_by(|a, b| height(a).total_cmp(&height(b)));
        let highest = bin.iter().max_by(|a, b| height(a).total_cmp(&height(b)));
        let pair: BTreeSet<usize> = lowest.into_iter().chain(highest).copied().collect();
        chosen.extend(pair);
    }
    chosen
}

/// From each of `room` buckets the point that makes the largest triangle with the point shown before
/// it and the mean of the bucket behind it.
fn triangles(points: &[(f64, f64)], places: &[usize], room: usize, shown: &mut Vec<usize>) {
    let last = [points.len() - 1];
    for bucket in 0..room {
        let next = if bucket + 1 < room {
            part(places, bucket + 1, room)
        } else {
            &last
        };
        let before = near(points, shown.last().copied().unwrap_or(0));
        let behind = mean(points, next);
        let mut best: Option<(f64, usize)> = None;
        for place in part(places, bucket, room) {
            let area = twice_area(before, near(points, *place), behind);
            if best.is_none_or(|(most, _)| area > most) {
                best = Some((area, *place));
            }
        }
        shown.extend(best.map(|(_, place)| place));
    }
}

/// The `index`-th of `count` parts of almost equal length.
fn part(places: &[usize], index: usize, count: usize) -> &[usize] {
    let start = index * places.len() / count;
    let end = (index + 1) * places.len() / count;
    places.get(start..end).unwrap_or_default()
}

fn mean(points: &[(f64, f64)], places: &[usize]) -> (f64, f64) {
    let count = places.len().max(1) as f64;
    let sum = places.iter().fold((0.0, 0.0), |(x, y), place| {
        let point = near(points, *place);
        (x + point.0, y + point.1)
    });
    (sum.0 / count, sum.1 / count)
}

fn twice_area(a: (f64, f64), b: (f64, f64), c: (f64, f64)) -> f64 {
    ((a.0 - c.0) * (b.1 - a.1) - (a.0 - b.0) * (c.1 - a.1)).abs()
}

fn at(points: &[(f64, f64)], place: usize) -> (f64, f64) {
    points.get(place).copied().unwrap_or((f64::NAN, f64::NAN))
}

/// A point that triangles can be measured with: an end that is NaN counts as zero there.
fn near(points: &[(f64, f64)], place: usize) -> (f64, f64) {
    let measurable = |number: f64| {
        if number.is_nan() {
            0.0
        } else {
            number.clamp(-FAR, FAR)
        }
    };
    let (x, y) = at(points, place);
    (measurable(x), measurable(y))
}

/// The steps that a bulk interval shows, of runs whose steps are given: all if there are at most
/// `most` different ones, else `most` evenly spread, the first and the last among them, and each
/// run's own first and last.
///
/// So there may be two more a run than `most`; no run shows more than `most` + 2 of its own.
///
/// They are ascending, each once.
pub fn steps<'a>(runs: impl IntoIterator<Item = &'a [i64]>, most: usize) -> Vec<i64> {
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    for run in runs {
        ends.extend(run.iter().min());
        ends.extend(run.iter().max());
        all.extend_from_slice(run);
    }
    once(&mut all);
    if all.len() <= most {
        return all;
    }
    ends.extend(spread(all.len(), most).filter_map(|index| all.get(index)));
    once(&mut ends);
    ends
}

/// In order, each once.
fn once(steps: &mut Vec<i64>) {
    // One run's steps mostly are so already, and then this is but a look at them.
    if !steps.is_sorted_by(|a, b| a < b) {
        steps.sort_unstable();
        steps.dedup();
    }
}

/// The indices of at most `most` of `count` things in order, evenly spread, the first and the last
/// among them; with `most` of one the last.
pub fn spread(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let shown = most.min(count);
    let gaps = (shown.max(2) - 1) as u128;
    let last = count.saturating_sub(1) as u128;
    (0..shown).map(move |index| {
        if shown == 1 {
            return last as usize;
        }
        // Rounded to the nearest; shown <= count, so no index comes twice.
        ((index as u128 * last * 2 + gaps) / (gaps * 2)) as usize
    })
}

#[cfg(test)]
mod tests;
