//! Views: the few versions of a training image that a trial sees.
//!
//! What a view shows depends on the image and the view alone, never on a seed or on how many other
//! views there are. The trainer makes them; others only count and compare.

use serde::{Deserialize, Serialize};

use crate::spec::{Augment, AugmentOp};

/// One version of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum View {
    /// All of it.
    Whole {
        /// Whether left and right changed places.
        mirrored: bool,
    },
    /// A part of it in the full size, drawn for each image.
    Crop {
        /// Which draw, from 1.
        crop: u32,
        /// Whether a second draw may mirror it.
        flips: bool,
    },
}

impl View {
    /// The image itself.
    pub const AS_IS: Self = Self::Whole { mirrored: false };

    /// A view of those that a trial sees, by its number from 0. The first is always the image itself.
    pub fn of(augment: &Augment, number: u32) -> Self {
        let flips = augment.ops.contains(&AugmentOp::HorizontalFlip);
        if number > 0 && augment.ops.contains(&AugmentOp::RandomResizedCrop) {
            return Self::Crop {
                crop: number,
                flips,
            };
        }
        Self::Whole {
            mirrored: number > 0 && flips,
        }
    }

    /// All views that a trial sees, in the order of their numbers.
    pub fn all(augment: &Augment) -> Vec<Self> {
        let numbers = 0..augment.views;
        numbers.map(|number| Self::of(augment, number)).collect()
    }

    /// The last of them, which tells all of them: how many, and what they do.
    pub fn last(augment: &Augment) -> Self {
        Self::of(augment, augment.views.saturating_sub(1))
    }

    /// Its number among those that a trial sees.
    pub fn number(self) -> u32 {
        match self {
            Self::Whole { mirrored } => u32::from(mirrored),
            Self::Crop { crop, .. } => crop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_view_is_the_image_and_the_others_do_what_the_file_says() {
        let (flip, crop) = (AugmentOp::HorizontalFlip, AugmentOp::RandomResizedCrop);
        let crops = |flips| (1..4).map(move |crop| View::Crop { crop, flips });
        let mirrored = View::Whole { mirrored: true };
        for (views, ops, others) in [
            (1, vec![], vec![]),
            (2, vec![flip], vec![mirrored]),
            (4, vec![crop], crops(false).collect()),
            (4, vec![crop, flip], crops(true).collect()),
            (4, vec![flip, crop], crops(true).collect()),
        ] {
            let augment = Augment { views, ops };
            let mut expect = vec![View::AS_IS];
            expect.extend(others);
            let all = View::all(&augment);
            assert_eq!(all, expect);
            assert_eq!(View::last(&augment), all[all.len() - 1]);
            for (number, view) in all.iter().enumerate() {
                assert_eq!(view.number() as usize, number);
            }
        }
    }

    #[test]
    fn views_of_old_keep_their_names_in_keys() {
        let text = |view: View| serde_json::to_string(&view).unwrap_or_default();
        assert_eq!(text(View::AS_IS), r#"{"mirrored":false}"#);
        assert_eq!(text(View::Whole { mirrored: true }), r#"{"mirrored":true}"#);
        let crop = View::Crop {
            crop: 3,
            flips: true,
        };
        assert_eq!(text(crop), r#"{"crop":3,"flips":true}"#);
    }
}
