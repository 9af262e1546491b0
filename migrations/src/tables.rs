//! Names of tables and columns. `Table` is the table's own name; the rest are columns in
//! `snake_case`.

use sea_orm_migration::prelude::*;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($column:ident),* $(,)? })*) => {$(
        $(#[$doc])*
        #[expect(missing_docs, reason = "a column's name is its documentation")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, DeriveIden)]
        pub enum $name { Table, $($column),* }
    )*};
}

tables! {
    /// Table of the one row that fences engine writes and says who may make them. `Until` is in
    /// milliseconds of the database's own clock.
    Leader { Id, Generation, Seq, Holder, Address, Until }
    /// Table of experiments.
    Experiments { Id, Version, Name, State, Ended, SubmittedAt, Doc }
    /// Table of trials.
    Trials { Id, Version, ExperimentId, Number, State, Ended, BestValue, BestTie, Doc }
    /// Table of leases.
    Leases { Id, Version, Generation, Ended, GrantedAt, Doc }
    /// Table of workers.
    Workers { Id, Version, Name, State, Doc }
    /// Table of tasks.
    Tasks { Id, Version, Kind, State, Ended, SubmittedAt, Doc }
    /// Table of observations, one row for each trial and step.
    Observations { TrialId, Step, Epoch, Generation, At, Metrics, Confusion }
    /// Table of checkpoints, at most one of each kind for a trial.
    Checkpoints { TrialId, Kind, Digest, Size, Doc }
    /// Table of explanations, in the order they were given.
    Reasons { Seq, Subject, At, Text }
    /// Table of data-set versions.
    Datasets { Name, Number, Manifest, Archive, CreatedAt, Doc }
    /// Table of backbones.
    Backbones { Name, Arch, Weights, CreatedAt, Doc }
    /// Table of models, also deleted ones.
    Models { Name, CreatedAt, Description, UpdatedAt, DeletedAt }
    /// Table of their tags.
    ModelTags { Model, Key, Value }
    /// Table of model versions, also deleted ones. `Doc` never changes, but for the model's name.
    Versions { Id, Model, Number, Digest, CreatedAt, Doc, Description, Stage, Source, RunId, UpdatedAt, DeletedAt, PulledUntil }
    /// Table of their tags.
    VersionTags { Model, Number, Key, Value }
    /// Table of aliases, also deleted ones: a revision only grows.
    Aliases { Model, Alias, Number, Revision, Deleted }
    /// Table of every move of every alias.
    AliasHistory { Seq, Model, Alias, Revision, FromNumber, ToNumber, At, Reason, Deleted, Actor, Origin }
    /// Table of what was done to the registry, and by whom.
    Audit { Seq, At, Actor, Origin, Action, Subject, Result, Detail }
    /// Table of what must be told to the outside, written with the fact itself. `Noted` once it is
    /// known for which webhooks.
    Outbox { Seq, Topic, At, Doc, Subject, Noted }
    /// Table of webhooks. `Taken` is the name of those that nobody else may have.
    Webhooks { Id, Name, Taken, Description, Url, Events, Secret, Status, Flavour, CreatedAt, UpdatedAt }
    /// Table of events on their way to webhooks, and what became of them.
    WebhookDeliveries { Id, Hook, Event, Topic, Subject, State, Attempts, NextAt, LastStatus, LastError, CreatedAt, AttemptedAt }
    /// Table of blobs that are at rest.
    Blobs { Digest, Size, State, KeepUntil, MarkedAt, Object, Damaged }
    /// Table of uploads that were begun and neither ended nor given up.
    BlobUploads { Id, Version, TouchedAt, Object, Doc }
    /// Table of the one row that tells this store from others.
    BlobStore { Id, Name }
    /// Table of who needs which blob.
    BlobRefs { Owner, Role, Digest }
    /// Table of answers that were given to keyed requests.
    IdempotencyKeys { Key, Request, Status, Answer, At }
    /// Table of lines that ranks wrote.
    LogLines { Seq, Owner, Rank, At, Line }
    /// Table of experiments as MLflow sees them: its own, and the tracking faces of ours. `Taken` is
    /// the name of those that nobody else may have.
    RunExperiments { Id, Number, Name, Taken, ArtifactLocation, CreatedAt, UpdatedAt, DeletedAt, Settled }
    /// Table of their tags.
    RunExperimentTags { ExperimentId, Key, Value }
    /// Table of runs: MLflow's own, and the tracking faces of trials as they were at `TrialVersion`.
    /// `Writes` grows with each write to what belongs to a run: the row is its lock. `Shown` is what was
    /// logged with it as of `ShownWrites`.
    Runs { Id, ExperimentId, Name, UserId, Status, StartTime, EndTime, ArtifactUri, DeletedAt, Writes, TrialVersion, Shown, ShownWrites }
    /// Table of runs' parameters.
    RunParams { RunId, Key, Value }
    /// Table of runs' tags.
    RunTags { RunId, Key, Value }
    /// Table of the newest value of each metric of each run.
    RunLatest { RunId, Key, ExperimentId, Value, IsNan, Step, Timestamp }
    /// Table of metric points as they came, one row for each batch.
    RunLog { Seq, RunId, Points }
    /// Table of metric points that are settled: one metric of one run, packed; a full chunk has an
    /// outline.
    RunChunks { RunId, Key, Number, Count, Points, Outline }
    /// Table of data sets that runs used.
    RunDatasets { RunId, Name, Digest, SourceType, Source, Schema, Profile, Context, Tags }
    /// Table of logged models that runs took or made.
    RunModels { RunId, ModelId, Role, Step }
    /// Table of logged models.
    LoggedModels { Id, ExperimentId, Name, ModelType, SourceRunId, Status, ArtifactUri, CreatedAt, UpdatedAt, DeletedAt }
    /// Table of their parameters.
    LoggedModelParams { ModelId, Key, Value }
    /// Table of their tags.
    LoggedModelTags { ModelId, Key, Value }
    /// Table of what was measured of them.
    LoggedModelMetrics { ModelId, RunId, Key, DatasetName, DatasetDigest, Value, IsNan, Step, Timestamp }
    /// Table of what versions said of each test sample.
    VersionOutcomes { Model, Number, Split, Doc }
    /// Table of uses of test splits for decisions.
    TestUses { Split, Place, Model, Number, Champion, At }
    /// Table of approvals of versions.
    Approvals { Seq, Model, Number, Doc }
    /// Table of decisions about aliases, whether they moved or not.
    Judgements { Seq, Model, Number, Alias, Allowed, At, Doc }
    /// Table of files that clients put under a path.
    Artifacts { Path, Digest, Size, At, Unnamed }
    /// Table of the digests by which versions are pulled as images: `Part` says what each is.
    ImageParts { VersionId, Part, Digest }
}
