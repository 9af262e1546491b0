//! A new experiment: its searcher is made, its first trials wait, and a request that no worker
//! could serve is said at once.

use super::draft::Draft;
use super::experiment;
use crate::{admission, unplaceable};
use pomona_domain::change::Subject;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::plan::{Plan, Spent};
use pomona_domain::spec::ExperimentSpec;
use pomona_domain::{Code, Digest, ExperimentId, Fault};
use pomona_search::{Costs, Searcher};

pub(crate) fn submitted(
    draft: &mut Draft,
    id: ExperimentId,
    spec: &ExperimentSpec,
    source: &str,
    (dataset, backbone): (Option<Digest>, Option<Digest>),
    plan: Option<&Plan>,
) -> Result<(), Fault> {
    if draft.cluster().experiment(id).is_some() {
        return Err(Fault::new(
            Code::AlreadyExists,
            format!("experiment `{id}` exists already"),
        ));
    }
    admission(draft.cluster(), spec)?;
    // Whoever asks has tried every point: the leader has no time for that.
    let searcher = Searcher::unchecked(spec, &Costs::of(plan))?;
    let searcher = serde_json::to_value(&searcher).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("the searcher cannot be written down: {error}"),
        )
    })?;
    draft.experiment(Experiment {
        id,
        version: 0,
        spec: spec.clone(),
        source: source.to_owned(),
        dataset,
        backbone,
        state: ExperimentState::Active,
        searcher,
        created_trials: 0,
        best: None,
        plan: plan.cloned().map(Box::new),
        spent: Spent::default(),
        submitted_at: draft.now,
        ended_at: None,
    });
    let subject = Subject::Experiment(id);
    draft.reason(subject, format!("submitted as `{}`", spec.name));
    for text in plan.into_iter().flat_map(Plan::sentences) {
        draft.reason(subject, text);
    }
    if let Some(why) = unplaceable(draft.cluster(), spec) {
        let text = format!("it waits: {why}; it starts when such a worker joins");
        draft.reason(subject, text);
    }
    experiment::settle(draft, id);
    Ok(())
}
