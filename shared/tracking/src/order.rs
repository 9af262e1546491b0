//! MLflow's `order_by`, read into typed columns, with what is sorted by when the request says nothing.
//!
//! An [`Orders`] is what the request asked for followed by the defaults and tie-breakers, so the SQL
//! layer sorts by exactly this list and every page is stable. Absent values come last whichever the
//! direction, and NaN comes right before them. It must never build SQL.

use crate::Refusal;
use crate::filter::key::{Entity, Key, listed, no_such};
use crate::filter::{ExperimentAttribute, LoggedModelAttribute, RunAttribute, ordered_key};

/// The most columns of one `order_by`.
pub const MAX_ORDERS: usize = 32;

/// One column to sort by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order<F> {
    /// What is sorted by.
    pub field: F,
    /// From the greatest down.
    pub descending: bool,
}

impl<F> Order<F> {
    /// From the least up.
    pub const fn up(field: F) -> Self {
        Self {
            field,
            descending: false,
        }
    }

    /// From the greatest down.
    pub const fn down(field: F) -> Self {
        Self {
            field,
            descending: true,
        }
    }
}

/// The columns of a sort, first first; never empty.
pub type Orders<F> = Vec<Order<F>>;

/// What runs are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunOrder {
    /// The latest value of this metric.
    Metric(String),
    /// The value of this parameter.
    Param(String),
    /// The value of this tag.
    Tag(String),
    /// What every run has.
    Attribute(RunAttribute),
}

/// What registered models are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegisteredModelOrder {
    /// `name`
    Name,
    /// `timestamp` and `last_updated_timestamp`, which are one.
    LastUpdated,
}

/// What model versions are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelVersionOrder {
    /// `name`: the model's.
    Name,
    /// `version_number`
    VersionNumber,
    /// `creation_timestamp`
    Created,
    /// `last_updated_timestamp`
    LastUpdated,
}

/// What logged models are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoggedModelOrder {
    /// The latest value of a metric, of any dataset or of the one that is named.
    Metric {
        /// The metric.
        key: String,
        /// Only values measured on a dataset of this name.
        dataset_name: Option<String>,
        /// Only values measured on a dataset of this digest.
        dataset_digest: Option<String>,
    },
    /// What every logged model has.
    Attribute(LoggedModelAttribute),
}

/// One column of `logged-models/search`, as it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggedModelColumn {
    /// `field_name`
    pub field_name: String,
    /// `ascending`; MLflow's default is true.
    pub ascending: Option<bool>,
    /// `dataset_name`
    pub dataset_name: Option<String>,
    /// `dataset_digest`
    pub dataset_digest: Option<String>,
}

/// The order of `runs/search`; at the end the latest start, then the id.
pub fn runs<S: AsRef<str>>(order_by: &[S]) -> Result<Orders<RunOrder>, Refusal> {
    let mut orders = read(order_by, |key| {
        let name = key.name;
        match Entity::of_runs(key)? {
            Entity::Metric => Ok(RunOrder::Metric(name.to_owned())),
            Entity::Param => Ok(RunOrder::Param(name.to_owned())),
            Entity::Tag => Ok(RunOrder::Tag(name.to_owned())),
            Entity::Attribute => RunAttribute::read(name)
                .map(RunOrder::Attribute)
                .ok_or_else(|| no_such("attribute", name, &RunAttribute::NAMES)),
            Entity::Dataset => Err(Refusal::invalid("Invalid identifier type 'dataset'")),
        }
    })?;
    then(
        &mut orders,
        Order::down(RunOrder::Attribute(RunAttribute::StartTime)),
    );
    then(
        &mut orders,
        Order::up(RunOrder::Attribute(RunAttribute::RunId)),
    );
    Ok(orders)
}

/// The order of `experiments/search`; by default the newest first, at the end the id.
pub fn experiments<S: AsRef<str>>(order_by: &[S]) -> Result<Orders<ExperimentAttribute>, Refusal> {
    use ExperimentAttribute::{CreationTime, ExperimentId};
    let mut orders = read(order_by, |key| {
        attribute(key, &ExperimentAttribute::NAMES, ExperimentAttribute::read)
    })?;
    if orders.is_empty() {
        return Ok(vec![Order::down(CreationTime), Order::up(ExperimentId)]);
    }
    then(&mut orders, Order::down(ExperimentId));
    Ok(orders)
}

/// The order of `registered-models/search`; at the end the name.
pub fn registered_models<S: AsRef<str>>(
    order_by: &[S],
) -> Result<Orders<RegisteredModelOrder>, Refusal> {
    let mut orders = read(order_by, |key| match (key.entity, key.name) {
        (None, "name") => Ok(RegisteredModelOrder::Name),
        (None, "timestamp" | "last_updated_timestamp") => Ok(RegisteredModelOrder::LastUpdated),
        (entity, name) => {
            let entity = entity.map(|word| format!("{word}.")).unwrap_or_default();
            Err(Refusal::invalid(format!(
                "Invalid order by key '{entity}{name}' specified. Valid keys are '{{{}}}'",
                listed(&["name", "timestamp"])
            )))
        }
    })?;
    then(&mut orders, Order::up(RegisteredModelOrder::Name));
    Ok(orders)
}

/// The order of `model-versions/search`; by default the last changed first, at the end name and
/// version.
pub fn model_versions<S: AsRef<str>>(order_by: &[S]) -> Result<Orders<ModelVersionOrder>, Refusal> {
    const NAMES: [&str; 4] = [
        "name",
        "version_number",
        "creation_timestamp",
        "last_updated_timestamp",
    ];
    let mut orders = read(order_by, |key| {
        attribute(key, &NAMES, |name| match name {
            "name" => Some(ModelVersionOrder::Name),
            "version_number" => Some(ModelVersionOrder::VersionNumber),
            "creation_timestamp" => Some(ModelVersionOrder::Created),
            "last_updated_timestamp" => Some(ModelVersionOrder::LastUpdated),
            _ => None,
        })
    })?;
    if orders.is_empty() {
        orders.push(Order::down(ModelVersionOrder::LastUpdated));
    }
    then(&mut orders, Order::up(ModelVersionOrder::Name));
    then(&mut orders, Order::down(ModelVersionOrder::VersionNumber));
    Ok(orders)
}

/// The order of `logged-models/search`; at the end the newest, then the id.
pub fn logged_models(order_by: &[LoggedModelColumn]) -> Result<Orders<LoggedModelOrder>, Refusal> {
    at_most(order_by.len())?;
    let mut orders = Vec::with_capacity(order_by.len() + 2);
    for column in order_by {
        let order = Order {
            field: logged_model(column)?,
            descending: column.ascending == Some(false),
        };
        push(&mut orders, order, || column.field_name.clone())?;
    }
    let attribute = LoggedModelOrder::Attribute;
    then(
        &mut orders,
        Order::down(attribute(LoggedModelAttribute::CreationTimestamp)),
    );
    then(
        &mut orders,
        Order::up(attribute(LoggedModelAttribute::ModelId)),
    );
    Ok(orders)
}

fn logged_model(column: &LoggedModelColumn) -> Result<LoggedModelOrder, Refusal> {
    let field = column.field_name.as_str();
    let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match field.split_once('.') {
        Some(("metrics", key)) if !key.is_empty() => Ok(LoggedModelOrder::Metric {
            key: key.to_owned(),
            dataset_name: named(&column.dataset_name),
            dataset_digest: named(&column.dataset_digest),
        }),
        Some(_) => Err(Refusal::invalid(format!(
            "Invalid order by field name: {field}. Only metrics are supported."
        ))),
        None => LoggedModelAttribute::read(field)
            .map(LoggedModelOrder::Attribute)
            .ok_or_else(|| Refusal::invalid(format!("Invalid order by field name: {field}"))),
    }
}

fn attribute<A>(
    key: &Key<'_>,
    names: &[&str],
    find: impl Fn(&str) -> Option<A>,
) -> Result<A, Refusal> {
    match Entity::one_of(key, &["attribute", "attributes", "tag", "tags"])? {
        Entity::Attribute => find(key.name).ok_or_else(|| no_such("attribute", key.name, names)),
        Entity::Tag | Entity::Metric | Entity::Param | Entity::Dataset => {
            Err(Refusal::invalid("Invalid order_by entity: tag"))
        }
    }
}

fn read<S: AsRef<str>, F: PartialEq>(
    order_by: &[S],
    field: impl Fn(&Key<'_>) -> Result<F, Refusal>,
) -> Result<Orders<F>, Refusal> {
    at_most(order_by.len())?;
    let mut orders = Vec::with_capacity(order_by.len() + 2);
    for text in order_by {
        let text = text.as_ref();
        let (key, direction) = ordered_key(text).ok_or_else(|| {
            Refusal::invalid(format!(
                "Invalid order_by clause '{text}'. Could not be parsed."
            ))
        })?;
        let descending = match direction.map(str::to_ascii_lowercase).as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => {
                return Err(Refusal::invalid(format!(
                    "Invalid ordering key in order_by clause '{text}'."
                )));
            }
        };
        let order = Order {
            field: field(&Key::read(key))?,
            descending,
        };
        push(&mut orders, order, || {
            let texts: Vec<&str> = order_by.iter().map(AsRef::as_ref).collect();
            format!("[{}]", listed(&texts))
        })?;
    }
    Ok(orders)
}

fn at_most(length: usize) -> Result<(), Refusal> {
    if length > MAX_ORDERS {
        return Err(Refusal::invalid(format!(
            "`order_by` must have at most {MAX_ORDERS} fields, got {length}"
        )));
    }
    Ok(())
}

fn push<F: PartialEq>(
    orders: &mut Orders<F>,
    order: Order<F>,
    all: impl Fn() -> String,
) -> Result<(), Refusal> {
    if orders.iter().any(|other| other.field == order.field) {
        return Err(Refusal::invalid(format!(
            "`order_by` contains duplicate fields: {}",
            all()
        )));
    }
    orders.push(order);
    Ok(())
}

/// Sorts by this too, unless it is sorted by already.
fn then<F: PartialEq>(orders: &mut Orders<F>, order: Order<F>) {
    if orders.iter().all(|other| other.field != order.field) {
        orders.push(order);
    }
}

#[cfg(test)]
mod tests;
