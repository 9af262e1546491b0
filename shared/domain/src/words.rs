//! Numbers as people read them, for every room that makes sentences.

/// `512 B`, `1.5 KiB`, `18.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `950`, `12.3 k`, `4.65 M`, `1.24 G`, `3.10 T`.
pub fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..=999 => number.to_string(),
        1_000..=999_949 => format!("{:.1} k", value / 1e3),
        999_950..=999_994_999 => format!("{:.2} M", value / 1e6),
        999_995_000..=999_994_999_999 => format!("{:.2} G", value / 1e9),
        _ => format!("{:.2} T", value / 1e12),
    }
}

/// `1 trial`, `24 trials`.
pub fn plural(number: u64, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}
