//! Small pictures of a curve: a line of blocks, and a plot of a few rows.

use std::fmt::Write as _;

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One block a value, lowest to highest; at most `width` of them (the curve is thinned evenly).
pub fn line(values: &[f64], width: usize) -> String {
    let values = thin(values, width);
    let (low, high) = bounds(&values);
    values
        .iter()
        .map(|value| {
            let share = share(*value, low, high);
            LEVELS[((share * 7.0).round() as usize).min(7)]
        })
        .collect()
}

/// A plot with `height` rows and a scale at its left.
pub fn plot(values: &[f64], width: usize, height: usize) -> String {
    let values = thin(values, width);
    let (low, high) = bounds(&values);
    let eighths = (height * 8) as f64;
    let filled: Vec<usize> = values
        .iter()
        .map(|value| 1 + (share(*value, low, high) * (eighths - 1.0)).round() as usize)
        .collect();
    let mut text = String::new();
    for row in (0..height).rev() {
        let scale = if row + 1 == height {
            format!("{high:>9.4}")
        } else if row == 0 {
            format!("{low:>9.4}")
        } else {
            " ".repeat(9)
        };
        let blocks: String = filled
            .iter()
            .map(|&eighths| match eighths.saturating_sub(row * 8) {
                0 => ' ',
                above => LEVELS[above.min(8) - 1],
            })
            .collect();
        let _ = writeln!(text, "{scale} ┤{}", blocks.trim_end());
    }
    text
}

/// 0 at the lowest, 1 at the highest, a half when all are equal.
fn share(value: f64, low: f64, high: f64) -> f64 {
    if high > low {
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    } else {
        0.5
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
            (low.min(value), high.max(value))
        })
}

/// At most `width` values, evenly taken, first and last among them.
fn thin(values: &[f64], width: usize) -> Vec<f64> {
    if values.len() <= width || width < 2 {
        return values.to_vec();
    }
    (0..width)
        .map(|index| values[index * (values.len() - 1) / (width - 1)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_spans_lowest_to_highest() {
        assert_eq!(line(&[0.1, 0.2, 0.4, 0.8], 20), "▁▂▄█");
        assert_eq!(line(&[0.5, 0.5], 20), "▅▅");
        assert_eq!(line(&[], 20), "");
    }

    #[test]
    fn a_long_curve_keeps_its_ends() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let text = line(&values, 8);
        assert_eq!(text, "▁▂▃▄▅▆▇█");
    }

    #[test]
    fn a_plot_has_a_scale() {
        let text = plot(&[0.0, 0.5, 1.0], 10, 2);
        assert_eq!(
            text,
            "   1.0000 ┤  █\n   0.0000 ┤▁██\n".replace("┤  █", "┤ ▁█")
        );
    }
}
