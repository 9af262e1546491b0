//! Rows of the domain in the API's description. The domain knows nothing of the API, so its rows
//! are named here and described by what they are, not field by field.

use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! rows {
    ($($name:ident = $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Debug)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::Object)
                    .description(Some($doc))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

rows! {
    Status = "Whether the process lives or can serve.";
    Experiment = "One spec, one searcher, one objective; owns trials.";
    Trial = "One point of the space, trained once, perhaps over several leases.";
    Observation = "What a trial measured at one step.";
    Checkpoint = "Weights, optimiser and step at rest, enough to resume.";
    Worker = "An agent on a machine, with its slots.";
    Task = "Leased work that is not a trial: import, publication, prediction.";
    Blob = "Digest and size of a blob that is here.";
    Dataset = "A version of a data set.";
    Manifest = "Every image of a data set with its class and split, and what was set aside.";
    Backbone = "A pretrained feature extractor that was imported.";
    Version = "An immutable numbered entry of a model, with lineage.";
    Signature = "A Sigstore bundle over the files of a version.";
    Alias = "A movable pointer to a version.";
    AliasMove = "One move of an alias.";
    Audit = "One thing that was done to the registry, or refused: who, what, from where.";
    Description = "This document.";
}
