//! Numbers as people read them: durations and moments, and what `pomona_domain::words` has.

use pomona_domain::Timestamp;
pub use pomona_domain::words::{bytes, count, plural};
use serde_json::Value;

/// `850 ms`, `12.4 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..=59 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..=3599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `3 min ago`: one unit, rounded down; moments ahead of the clock are `now`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since_ms(at) / 1000;
    match seconds {
        i64::MIN..=1 => "now".to_owned(),
        2..=59 => format!("{seconds} s ago"),
        60..=3599 => format!("{} min ago", seconds / 60),
        3600..=86_399 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// `2026-05-03 12:00:07 UTC`.
pub fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('T') {
        Some((date, time)) => format!("{date} {} UTC", time.get(..8).unwrap_or(time)),
        None => text,
    }
}

/// A metric: four decimals, three of them for large values.
pub fn metric(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}

/// A scalar of a point: short, but never another value's text (`0.0063096`, `all`).
pub fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), short),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// At most five digits that count.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let rounded: f64 = format!("{value:.4e}").parse().unwrap_or(value);
    if (1e-4..1e6).contains(&value.abs()) {
        format!("{rounded}")
    } else {
        format!("{rounded:e}")
    }
}

/// The first characters of an id: enough to tell it apart and to hand back.
pub fn short_id(id: &str) -> String {
    id.split_once('_').map_or_else(
        || id.to_owned(),
        |(prefix, digits)| format!("{prefix}_{}", digits.get(..8).unwrap_or(digits)),
    )
}

/// A moment given by a person: RFC 3339, or a date, which means the end of that day in UTC.
pub fn parse_moment(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at.as_millisecond()));
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let midnight = date.tomorrow().ok()?.at(0, 0, 0, 0);
    let at = jiff::tz::TimeZone::UTC.to_timestamp(midnight).ok()?;
    Some(Timestamp(at.as_millisecond() - 1))
}

/// This moment.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests;
