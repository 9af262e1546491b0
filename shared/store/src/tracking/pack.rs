//! Metric points as bytes.
//!
//! A *series* is the points of one metric in the order in which they came: their number, then the
//! timestamps, the steps (both as differences, so that regular ones take a byte each) and the
//! values. A *batch* is several series, each after its key. Whoever reads must never trust a
//! length: bytes that do not add up are an error, not a panic and not a huge allocation.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Milliseconds since 1970, as the client says.
    pub timestamp: i64,
    /// The step, as the client says.
    pub step: i64,
    /// The value; NaN is one, infinity is not.
    #[serde(with = "nan_as_null")]
    pub value: f64,
}

/// JSON has no NaN.
mod nan_as_null {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        Some(*value).filter(|value| !value.is_nan()).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }
}

impl Point {
    /// The order of a history: by time, then step, then value (NaN last).
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        (self.timestamp, self.step)
            .cmp(&(other.timestamp, other.step))
            .then_with(|| total(self.value, other.value))
    }

    /// The order of what is newest: by step, then time, then value (NaN first, as a database has
    /// it that stores NaN as 0 beside a mark).
    pub fn age(&self, other: &Self) -> std::cmp::Ordering {
        let value = |point: &Self| {
            if point.value.is_nan() {
                0.0
            } else {
                point.value
            }
        };
        (self.step, self.timestamp)
            .cmp(&(other.step, other.timestamp))
            .then_with(|| value(self).total_cmp(&value(other)))
    }
}

/// All NaNs are one, after everything else.
fn total(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (false, false) => a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}

/// Points by metric.
pub type Series = BTreeMap<String, Vec<Point>>;

/// Says what this format is, should there ever be another.
const VERSION: u8 = 1;
/// The fewest bytes that a point takes.
const LEAST: usize = 10;

/// The bytes of a batch.
pub fn batch(series: &Series) -> Vec<u8> {
    let points: usize = series.values().map(Vec::len).sum();
    let mut out = Vec::with_capacity(8 + points * 16);
    out.push(VERSION);
    for (key, points) in series {
        unsigned(&mut out, key.len() as u64);
        out.extend_from_slice(key.as_bytes());
        columns(&mut out, points);
    }
    out
}

/// The bytes of a series.
pub fn series(points: &[Point]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + points.len() * 12);
    out.push(VERSION);
    columns(&mut out, points);
    out
}

fn columns(out: &mut Vec<u8>, points: &[Point]) {
    unsigned(out, points.len() as u64);
    for pick in [|point: &Point| point.timestamp, |point: &Point| point.step] {
        let mut before = 0_i64;
        for point in points {
            let value = pick(point);
            let difference = value.wrapping_sub(before);
            unsigned(
                out,
                ((difference << 1) ^ (difference >> 63)).cast_unsigned(),
            );
            before = value;
        }
    }
    for point in points {
        out.extend_from_slice(&point.value.to_le_bytes());
    }
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Adds the points of a batch to `into`: those of one metric when `only` is given.
pub fn read_batch(bytes: &[u8], only: Option<&str>, into: &mut Series) -> Option<()> {
    let mut rest = Rest::of(bytes)?;
    while !rest.0.is_empty() {
        let length = usize::try_from(rest.unsigned()?).ok()?;
        let key = std::str::from_utf8(rest.take(length)?).ok()?;
        if only.is_none_or(|only| only == key) {
            match into.get_mut(key) {
                Some(points) => rest.columns(points)?,
                None => rest.columns(into.entry(key.to_owned()).or_default())?,
            }
        } else {
            rest.columns(&mut Vec::new())?;
        }
    }
    Some(())
}

/// Adds the points of a series to `into`.
pub fn read_series(bytes: &[u8], into: &mut Vec<Point>) -> Option<()> {
    let mut rest = Rest::of(bytes)?;
    rest.columns(into)?;
    rest.0.is_empty().then_some(())
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Self(rest))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn columns(&mut self, into: &mut Vec<Point>) -> Option<()> {
        let count = usize::try_from(self.unsigned()?).ok()?;
        if self.0.len() / LEAST < count {
            return None;
        }
        let from = into.len();
        into.reserve(count);
        let mut before = 0_i64;
        for _ in 0..count {
            before = before.wrapping_add(self.difference()?);
            into.push(Point {
                timestamp: before,
                step: 0,
                value: 0.0,
            });
        }
        let new = into.get_mut(from..)?;
        before = 0;
        for point in &mut *new {
            before = before.wrapping_add(self.difference()?);
            point.step = before;
        }
        let values = self.take(count.checked_mul(8)?)?;
        for (point, bytes) in new.iter_mut().zip(values.as_chunks::<8>().0) {
            point.value = f64::from_le_bytes(*bytes);
        }
        Some(())
    }

    fn difference(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }
}

/// Points of a bin of an outline.
pub const BIN: usize = 64;
/// The keys of an outline's series.
const FIRSTS: &str = "first";
const EXTREMES: &str = "extremes";
const LAST: &str = "last";

/// What is left of a series when only its shape is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outline {
    /// The first point of every bin of 64.
    pub firsts: Vec<Point>,
    /// The lowest and the highest point of every bin, as they came; a bin without a number has none.
    pub extremes: Vec<Point>,
    /// The last point.
    pub last: Option<Point>,
}

/// The bytes of a series' outline.
pub fn outline(points: &[Point]) -> Vec<u8> {
    let mut outline = Outline::default();
    for bin in points.chunks(BIN) {
        outline.firsts.extend(bin.first());
        let numbers = || {
            bin.iter()
                .enumerate()
                .filter(|(_, point)| !point.value.is_nan())
        };
        let by_value = |a: &(usize, &Point), b: &(usize, &Point)| a.1.value.total_cmp(&b.1.value);
        let (lowest, highest) = (numbers().min_by(by_value), numbers().max_by(by_value));
        if let (Some(lowest), Some(highest)) = (lowest, highest) {
            let (early, late) = if lowest.0 <= highest.0 {
                (lowest, highest)
            } else {
                (highest, lowest)
            };
            outline.extremes.push(*early.1);
            if early.0 != late.0 {
                outline.extremes.push(*late.1);
            }
        }
    }
    batch(&Series::from([
        (FIRSTS.to_owned(), outline.firsts),
        (EXTREMES.to_owned(), outline.extremes),
        (
            LAST.to_owned(),
            points.last().copied().into_iter().collect(),
        ),
    ]))
}

/// Adds an outline to what goes before it.
pub fn read_outline(bytes: &[u8], into: &mut Outline) -> Option<()> {
    let mut series = Series::from([
        (FIRSTS.to_owned(), std::mem::take(&mut into.firsts)),
        (EXTREMES.to_owned(), std::mem::take(&mut into.extremes)),
    ]);
    read_batch(bytes, None, &mut series)?;
    into.firsts = series.remove(FIRSTS)?;
    into.extremes = series.remove(EXTREMES)?;
    into.last = series.remove(LAST)?.pop();
    Some(())
}

/// Brings points into the order of a history, each once.
pub fn settle(points: &mut Vec<Point>) {
    if !points.is_sorted_by(|a, b| a.order(b).is_lt()) {
        points.sort_by(Point::order);
        points.dedup_by(|a, b| a.order(b).is_eq());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point() -> impl Strategy<Value = Point> {
        let value = prop_oneof![any::<f64>(), Just(f64::NAN), Just(0.0)];
        (any::<i64>(), any::<i64>(), value).prop_map(|(timestamp, step, value)| Point {
            timestamp,
            step,
            value,
        })
    }

    /// NaN is not equal to itself, its bits are.
    fn bits(series: &Series) -> Vec<(&String, Vec<impl PartialEq + std::fmt::Debug>)> {
        let each = |point: &Point| (point.timestamp, point.step, point.value.to_bits());
        let all = series.iter();
        all.map(|(key, points)| (key, points.iter().map(each).collect()))
            .collect()
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            made in proptest::collection::btree_map(".{0,12}", proptest::collection::vec(point(), 1..20), 0..5)
        ) {
            let mut back = Series::new();
            read_batch(&batch(&made), None, &mut back).expect("ours");
            prop_assert_eq!(bits(&made), bits(&back));
            for (key, points) in &made {
                let mut one = Series::new();
                read_batch(&batch(&made), Some(key), &mut one).expect("ours");
                prop_assert_eq!(one.len(), 1);
                let mut alone = Vec::new();
                read_series(&series(points), &mut alone).expect("ours");
                prop_assert_eq!(alone.len(), points.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_batch(&bytes, None, &mut Series::new());
            let _ = read_series(&bytes, &mut Vec::new());
        }
    }

    #[test]
    fn a_history_has_each_point_once_in_order() {
        let at = |timestamp, step, value| Point {
            timestamp,
            step,
            value,
        };
        let mut points = vec![
            at(2, 0, 1.0),
            at(1, 5, f64::NAN),
            at(1, 5, 3.0),
            at(1, 5, f64::NAN),
            at(2, 0, 1.0),
        ];
        settle(&mut points);
        let seen: Vec<_> = points.iter().map(|p| (p.timestamp, p.step)).collect();
        assert_eq!(seen, [(1, 5), (1, 5), (2, 0)]);
        assert_eq!(points[0].value, 3.0);
        assert!(points[1].value.is_nan());
    }

    #[test]
    fn an_outline_has_every_bins_first_point_and_extremes() {
        let at = |n: i64, value: f64| Point {
            timestamp: n,
            step: n,
            value,
        };
        let mut points: Vec<Point> = (0..150).map(|n| at(n, 1.0)).collect();
        points[10].value = 9.0;
        points[20].value = -9.0;
        points[100].value = f64::NAN;
        let mut read = Outline::default();
        read_outline(&outline(&points[..64]), &mut read).expect("ours");
        read_outline(&outline(&points[64..]), &mut read).expect("ours");
        let steps = |points: &[Point]| points.iter().map(|p| p.step).collect::<Vec<_>>();
        assert_eq!(steps(&read.firsts), [0, 64, 128]);
        // Of equal values the first is the lowest, the last the highest.
        assert_eq!(steps(&read.extremes), [10, 20, 64, 127, 128, 149]);
        assert_eq!(read.last.map(|p| p.step), Some(149));
        let nothing = [at(0, f64::NAN)];
        let mut read = Outline::default();
        read_outline(&outline(&nothing), &mut read).expect("ours");
        assert_eq!((read.firsts.len(), read.extremes.len()), (1, 0));
        assert_eq!(read_outline(&[9], &mut read), None);
    }

    #[test]
    fn regular_points_take_eleven_bytes_or_less() {
        let regular = |n: i64| Point {
            timestamp: 1_700_000_000_000 + n * 50,
            step: n,
            value: 0.5,
        };
        let points: Vec<Point> = (0..4096).map(regular).collect();
        assert!(series(&points).len() < 4096 * 11);
    }
}
