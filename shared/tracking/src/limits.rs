//! How much one request may hold and how much one page may give, with MLflow's sentences.
//!
//! It must never drop a part of what a client sends: what is over a limit is refused. Only the size of
//! a page may be cut, where MLflow's server has no limit of its own.

use crate::{Body, Refusal};

/// The most metrics of one log-batch.
pub const MAX_BATCH_METRICS: usize = 1_000;
/// The most parameters of one log-batch.
pub const MAX_BATCH_PARAMS: usize = 100;
/// The most tags of one log-batch.
pub const MAX_BATCH_TAGS: usize = 100;
/// The most metrics, parameters and tags together.
pub const MAX_BATCH_ENTITIES: usize = 1_000;
/// The longest body of a log-batch, in bytes.
pub const MAX_BATCH_BYTES: usize = 1_000_000;
/// The most datasets of one log-inputs.
pub const MAX_BATCH_DATASETS: usize = 1_000;
/// The most runs that one bulk history is read for.
pub const MAX_BULK_RUNS: usize = 100;
/// The most points of one bulk history.
pub const MAX_BULK_POINTS: usize = 25_000;
/// The most experiments that datasets are searched in.
pub const MAX_DATASET_EXPERIMENTS: usize = 20;

/// How many results a page gives: when nothing is said, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    default: i64,
    most: i64,
    says: Says,
}

/// What becomes of a page's size that is too great.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Refused as a wrong value, in the words of MLflow's handlers.
    Value,
    /// Refused in the words of its tracking store.
    Most,
    /// Refused with both bounds.
    Between,
    /// Nothing: the page is cut, and has a token for the rest.
    Nothing,
}

/// `runs/search`
pub const RUNS: Page = Page::new(1_000, 50_000, Says::Value);
/// `experiments/search`
pub const EXPERIMENTS: Page = Page::new(1_000, 50_000, Says::Most);
/// `registered-models/search`
pub const REGISTERED_MODELS: Page = Page::new(100, 1_000, Says::Value);
/// `model-versions/search`
pub const MODEL_VERSIONS: Page = Page::new(10_000, 200_000, Says::Value);
/// `logged-models/search`
pub const LOGGED_MODELS: Page = Page::new(100, 50_000, Says::Nothing);
/// `metrics/get-history`, when the request asks for pages.
pub const METRIC_HISTORY: Page = Page::new(25_000, 25_000, Says::Nothing);
/// `metrics/get-history-bulk-interval`
pub const BULK_INTERVAL: Page = Page::new(2_500, 2_500, Says::Between);
/// `webhooks`
pub const WEBHOOKS: Page = Page::new(100, 1_000, Says::Between);

impl Page {
    const fn new(default: i64, most: i64, says: Says) -> Self {
        Self {
            default,
            most,
            says,
        }
    }

    /// The size of a page whose request says nothing.
    pub const fn default_size(self) -> usize {
        self.default as usize
    }

    /// The greatest size that may be asked for.
    pub const fn most(self) -> usize {
        self.most as usize
    }

    /// The request's `max_results`, or the default; outside its bounds it is refused.
    pub fn read(self, body: &Body<'_>) -> Result<usize, Refusal> {
        const NAME: &str = "max_results";
        let Some(asked) = body.optional_i64(NAME)? else {
            return Ok(self.default_size());
        };
        let most = self.most;
        if (1..=most).contains(&asked) {
            return Ok(asked as usize);
        }
        let value = body.value(NAME).cloned().unwrap_or_default();
        Err(match (self.says, asked < 1) {
            (Says::Between, _) => {
                Refusal::invalid(format!("max_results must be between 1 and {most}."))
            }
            (Says::Value | Says::Most | Says::Nothing, true) => Refusal::invalid(format!(
                "Invalid value {asked} for parameter 'max_results' supplied. It must be a positive \
                 integer"
            )),
            (Says::Value, false) => body.invalid(NAME, &value),
            (Says::Most, false) => Refusal::invalid(format!(
                "Invalid value {asked} for parameter 'max_results' supplied. It must be at most {most}"
            )),
            (Says::Nothing, false) => return Ok(self.most()),
        })
    }
}

/// The counts of a log-batch.
pub fn batch(metrics: usize, params: usize, tags: usize) -> Result<(), Refusal> {
    batch_of("metrics", MAX_BATCH_METRICS, metrics)?;
    batch_of("params", MAX_BATCH_PARAMS, params)?;
    batch_of("tags", MAX_BATCH_TAGS, tags)?;
    let all = metrics.saturating_add(params).saturating_add(tags);
    batch_of("metrics, params, and tags", MAX_BATCH_ENTITIES, all)
}

/// The length of a log-batch's body.
pub fn batch_bytes(length: usize) -> Result<(), Refusal> {
    if length > MAX_BATCH_BYTES {
        return Err(Refusal::invalid(format!(
            "Batched logging API requests must be at most {MAX_BATCH_BYTES} bytes, got a request of \
             size {length}."
        )));
    }
    Ok(())
}

/// The count of a bulk history's runs.
pub fn bulk_runs(runs: usize) -> Result<(), Refusal> {
    if runs > MAX_BULK_RUNS {
        return Err(Refusal::invalid(format!(
            "GetMetricHistoryBulkInterval request must specify at most {MAX_BULK_RUNS} run_ids. \
             Received {runs} run_ids."
        )));
    }
    Ok(())
}

/// The steps of a bulk interval: both or neither, and not the wrong way round.
pub fn interval(start: Option<i64>, end: Option<i64>) -> Result<Option<(i64, i64)>, Refusal> {
    match (start, end) {
        (None, None) => Ok(None),
        (Some(start), Some(end)) if start <= end => Ok(Some((start, end))),
        (Some(start), Some(end)) => Err(Refusal::invalid(format!(
            "end_step must be greater than start_step. Found start_step={start} and end_step={end}."
        ))),
        (Some(_), None) | (None, Some(_)) => Err(Refusal::invalid(
            "If either start step or end step are specified, both must be specified.",
        )),
    }
}

fn batch_of(what: &str, limit: usize, count: usize) -> Result<(), Refusal> {
    if count > limit {
        return Err(Refusal::invalid(format!(
            "A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please \
             split up {what} across multiple requests and try again."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_default_and_bounds() {
        let query = |asked: &str| Body::from_query(&format!("max_results={asked}"));
        let says = |page: Page, asked: &str| page.read(&query(asked)).unwrap_err().message;
        assert_eq!(RUNS.read(&Body::from_query("")), Ok(1_000));
        assert_eq!(RUNS.read(&query("50000")), Ok(50_000));
        assert_eq!(MODEL_VERSIONS.read(&query("200000")), Ok(200_000));
        assert_eq!(METRIC_HISTORY.read(&query("30000")), Ok(25_000));
        let body = Body::parse(b"{\"max_results\": 50001}").unwrap();
        assert_eq!(
            RUNS.read(&body).unwrap_err().message,
            "Invalid value 50001 for parameter 'max_results' supplied:  Hint: Value was of type 'int'. \
             See the API docs for more information about request parameters."
        );
        assert_eq!(
            says(RUNS, "0"),
            "Invalid value 0 for parameter 'max_results' supplied. It must be a positive integer"
        );
        assert_eq!(
            says(EXPERIMENTS, "50001"),
            "Invalid value 50001 for parameter 'max_results' supplied. It must be at most 50000"
        );
        assert!(
            says(REGISTERED_MODELS, "1001").starts_with("Invalid value \"1001\" for parameter")
        );
        assert!(says(METRIC_HISTORY, "-1").starts_with("Invalid value -1 for parameter"));
        assert_eq!(
            says(BULK_INTERVAL, "2501"),
            "max_results must be between 1 and 2500."
        );
        assert!(RUNS.read(&query("9223372036854775808")).is_err());
        assert!(RUNS.read(&query("many")).is_err());
    }

    #[test]
    fn a_batch_has_bounds() {
        assert_eq!(batch(800, 100, 100), Ok(()));
        let says = |metrics, params, tags| batch(metrics, params, tags).unwrap_err().message;
        assert_eq!(
            says(1_001, 0, 0),
            "A batch logging request can contain at most 1000 metrics. Got 1001 metrics. Please split \
             up metrics across multiple requests and try again."
        );
        assert!(says(0, 101, 0).contains("at most 100 params"));
        assert!(says(0, 0, 101).contains("at most 100 tags"));
        assert!(says(1_000, 1, 0).contains("at most 1000 metrics, params, and tags. Got 1001"));
        assert!(batch_bytes(MAX_BATCH_BYTES).is_ok());
        assert!(batch_bytes(MAX_BATCH_BYTES + 1).is_err());
        assert!(bulk_runs(101).is_err());
    }

    #[test]
    fn an_interval_has_two_ends() {
        assert_eq!(interval(None, None), Ok(None));
        assert_eq!(interval(Some(-3), Some(-3)), Ok(Some((-3, -3))));
        assert!(interval(Some(3), Some(2)).is_err());
        assert!(interval(Some(3), None).is_err());
    }
}
