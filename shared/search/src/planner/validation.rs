//! How trials are compared where the file leaves it open: a validation split of some dozen images
//! cannot tell good trials apart, and training some more heads over features costs next to nothing.

use pomona_domain::plan::{Choice, Plan};
use pomona_domain::spec::{KFold, Validation};
use pomona_domain::words::count;

/// The images of a data set that matter here.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of all splits.
    pub images: u64,
    /// Of the training split.
    pub train: u64,
    /// Classes.
    pub classes: u64,
}

/// Repeated cross-validation for a small data set whose trials all train side by side, over features
/// that fit (so workers must have told what fits), and of which there are several to compare; else the
/// validation split. A fold holds an image of each class at
/// least. What is chosen against the plain way comes with a sentence.
pub fn validation(plan: &Plan, sizes: Sizes) -> (Validation, Option<String>) {
    let folds = KFold::DEFAULT;
    let trials: u32 = plan.cuts.iter().map(|cut| cut.trials).sum();
    let fused = plan.feature_budget_bytes.is_some()
        && plan.cuts.iter().all(|cut| cut.choice == Choice::Fused);
    let is_small = sizes.images < KFold::BELOW_IMAGES;
    let has_enough = sizes.train >= u64::from(folds.kfold) * sizes.classes;
    if trials < 2 || !fused || !is_small || !has_enough {
        return (Validation::Holdout, None);
    }
    let told = format!(
        "{} images are few, so trials are compared by cross-validation ({folds} of the training \
         images) over the same features; `search.validation: holdout` compares them on the \
         validation split alone",
        count(sizes.images)
    );
    (Validation::KFold(folds), Some(told))
}
