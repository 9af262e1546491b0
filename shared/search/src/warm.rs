//! Warm start: which points of earlier experiments are tried first.

use pomona_domain::Hparams;
use pomona_domain::space::Tree;
use pomona_domain::spec::{ExperimentSpec, WarmPoint};

/// The points that belong to the space, each once, in the order they were found; and a sentence for
/// each of the others.
pub fn points(spec: &ExperimentSpec) -> (Vec<Hparams>, Vec<String>) {
    let found = spec.search.warm_start.iter().flat_map(|warm| &warm.found);
    let (mut fit, mut skipped) = (Vec::new(), Vec::new());
    for point in found {
        match unfit(spec, &point.hparams) {
            Some(why) => skipped.push(format!(
                "the point {} of {} is not tried first: {why}",
                point.hparams.canonical(),
                point.from
            )),
            None if fit.contains(&point.hparams) => {}
            None => fit.push(point.hparams.clone()),
        }
    }
    (fit, skipped)
}

/// Why a point is none of the space.
fn unfit(spec: &ExperimentSpec, point: &Hparams) -> Option<String> {
    let search = &spec.search;
    let tree = Tree::new(&search.space, &search.when);
    for (path, value) in &point.0 {
        let Some(domain) = search.space.get(path) else {
            return Some(format!("`{path}` is not in the space"));
        };
        if !tree.is_active(path, &point.0) {
            return Some(format!(
                "`{path}` has no value where its `when` does not hold"
            ));
        }
        if !domain.contains(value) {
            return Some(format!("`{path}` is {value}, which is not in its set"));
        }
    }
    let is_missing = |path: &&str| tree.is_active(path, &point.0) && !point.0.contains_key(*path);
    if let Some(path) = tree.order().iter().copied().find(|path| is_missing(path)) {
        return Some(format!("it has no `{path}`"));
    }
    spec.point_fault(point, 0).map(|fault| fault.message)
}

/// What an earlier experiment gives.
pub fn found(from: &str, best: impl Iterator<Item = Hparams>) -> Vec<WarmPoint> {
    best.map(|hparams| WarmPoint {
        from: format!("`{from}`"),
        hparams,
    })
    .collect()
}
