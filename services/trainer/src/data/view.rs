//! The views of an image: as it is, mirrored, or a part of it in the full size.
//!
//! A part is drawn as torchvision's `RandomResizedCrop` draws it: its share of the area evenly, its
//! ratio of width to height evenly in the logarithm, ten times until it fits, else all of the image
//! (Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6). The draws belong to the
//! image's number in its split and to the view's, never to an experiment's seed: what a view shows
//! is the same for everybody, so that its features are computed once.

use super::decode;
use crate::random::{Key, Stream};
use pomona_domain::dataset::Filter;
use pomona_domain::view::View;

/// Share of the area that a part has. The paper's parts begin at 8 %, for a million images; in a
/// small set so little often shows nothing of what the image is of.
const AREA: [f64; 2] = [0.35, 1.0];
/// Width over height.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Draws of a part until one fits.
const TRIES: u64 = 10;
/// Draws that belong to an image, more than are needed.
const DRAWS: u64 = 32;

/// Turns the pixels of an image (RGB bytes, side × side × 3) into those of its view.
pub(super) fn apply(view: View, sample: usize, side: u32, pixels: &mut [u8]) {
    match view {
        View::Whole { mirrored } => {
            if mirrored {
                flip(pixels, side as usize);
            }
        }
        View::Crop { crop, flips } => {
            let draws = Draws::of(crop, sample);
            let part = draws.part(side).map(f64::from);
            let seen = decode::resized(pixels, (side, side), part, (side, side), Filter::Bilinear);
            pixels.copy_from_slice(&seen);
            if flips && draws.mirrored() {
                flip(pixels, side as usize);
            }
        }
    }
}

/// What is drawn for an image in a view.
struct Draws {
    stream: Stream,
    first: u64,
}

impl Draws {
    fn of(crop: u32, sample: usize) -> Self {
        let key = Key {
            seed: 0,
            replicate: crop,
            purpose: "crop",
            epoch: 0,
        };
        Self {
            stream: key.stream(),
            first: sample as u64 * DRAWS,
        }
    }

    /// Left, top, width and height.
    fn part(&self, side: u32) -> [u32; 4] {
        for number in 0..TRIES {
            let area = self.between(2 * number, AREA);
            let ratio = libm::exp(self.between(2 * number + 1, RATIO.map(libm::log)));
            let length = |share: f64| (f64::from(side) * share.sqrt()).round() as u32;
            let (width, height) = (length(area * ratio), length(area / ratio));
            if (1..=side).contains(&width) && (1..=side).contains(&height) {
                let left = self.below(2 * TRIES, side - width + 1);
                let top = self.below(2 * TRIES + 1, side - height + 1);
                return [left, top, width, height];
            }
        }
        [0, 0, side, side]
    }

    fn mirrored(&self) -> bool {
        self.below(2 * TRIES + 2, 2) == 1
    }

    fn between(&self, place: u64, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.stream.uniform(self.first + place)
    }

    fn below(&self, place: u64, n: u32) -> u32 {
        self.stream.below(self.first + place, u64::from(n)) as u32
    }
}

/// Exchanges left and right.
fn flip(pixels: &mut [u8], width: usize) {
    for row in pixels.chunks_exact_mut(width * 3) {
        let (mut left, mut right) = (0, width - 1);
        while left < right {
            for channel in 0..3 {
                row.swap(left * 3 + channel, right * 3 + channel);
            }
            left += 1;
            right -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: u32 = 224;

    #[test]
    fn parts_are_drawn_as_the_paper_says_and_differ_by_image_and_view() {
        let mut distinct = std::collections::BTreeSet::new();
        let (mut areas, mut mirrored) = (Vec::new(), 0);
        for (crop, sample) in (1..=20).flat_map(|crop| (0..100).map(move |sample| (crop, sample))) {
            let draws = Draws::of(crop, sample);
            let part @ [left, top, width, height] = draws.part(SIDE);
            assert!(left + width <= SIDE && top + height <= SIDE, "{part:?}");
            let [area, ratio] = [
                f64::from(width * height) / f64::from(SIDE * SIDE),
                f64::from(width) / f64::from(height),
            ];
            // Whole pixels.
            assert!(area > AREA[0] - 0.01 && area <= AREA[1], "{part:?}");
            assert!(ratio > RATIO[0] - 0.01 && ratio < RATIO[1] + 0.01);
            areas.push(area);
            mirrored += u32::from(draws.mirrored());
            distinct.insert(part);
        }
        assert!(distinct.len() > 1_900, "{}", distinct.len());
        let mean = areas.iter().sum::<f64>() / areas.len() as f64;
        // Below the middle of the range: what is large fits only when it is nearly square.
        assert!((0.58..0.65).contains(&mean), "{mean}");
        assert!((920..1_080).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn parts_are_what_they_were_when_this_version_was_given_out() {
        let drawn = [(1, 0), (1, 1), (31, 4_999)].map(|(crop, sample)| {
            let draws = Draws::of(crop, sample);
            (draws.part(SIDE), draws.mirrored())
        });
        let golden = [
            ([40, 10, 142, 141], false),
            ([4, 8, 184, 214], true),
            ([5, 3, 217, 191], false),
        ];
        assert_eq!(
            drawn, golden,
            "if that is meant, grow PREFIX_VERSION in features/request.rs, or trials will read old \
             features as new ones"
        );
    }

    #[test]
    fn a_part_of_an_image_of_one_colour_is_of_that_colour_and_a_ramp_stays_a_ramp() {
        let side = 40;
        let mut grey = vec![77; (side * side * 3) as usize];
        let mut ramp: Vec<u8> = (0..side * side)
            .flat_map(|at| [(at % side) as u8 * 5; 3])
            .collect();
        let view = View::Crop {
            crop: 3,
            flips: false,
        };
        apply(view, 5, side, &mut grey);
        apply(view, 5, side, &mut ramp);
        assert!(grey.iter().all(|value| *value == 77));
        let [left, _, width, _] = Draws::of(3, 5).part(side);
        for (at, pixel) in ramp.chunks_exact(3).enumerate() {
            // The middle of the pixel in the image that it came from.
            let x = f64::from(at as u32 % side) + 0.5;
            let there = f64::from(left) + x * f64::from(width) / f64::from(side) - 0.5;
            let expect = there.clamp(0.0, f64::from(side - 1)) * 5.0;
            assert!(
                (f64::from(pixel[0]) - expect).abs() < 3.0,
                "{at}: {pixel:?}"
            );
        }
    }
}
