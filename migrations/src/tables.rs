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
    /// Table of models.
    Models { Name, CreatedAt }
    /// Table of model versions.
    Versions { Id, Model, Number, Digest, CreatedAt, Doc }
    /// Table of aliases.
    Aliases { Model, Alias, Number, Revision }
    /// Table of every move of every alias.
    AliasHistory { Seq, Model, Alias, Revision, FromNumber, ToNumber, At, Reason }
    /// Table of what must be told to the outside, written with the fact itself.
    Outbox { Seq, Topic, At, Doc }
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
    /// `Writes` grows with each write to what belongs to a run: the row is its lock.
    Runs { Id, ExperimentId, Name, UserId, Status, StartTime, EndTime, ArtifactUri, DeletedAt, Writes, TrialVersion }
    /// Table of runs' parameters.
    RunParams { RunId, Key, Value }
    /// Table of runs' tags.
    RunTags { RunId, Key, Value }
    /// Table of the newest value of each metric of each run.
    RunLatest { RunId, Key, ExperimentId, Value, IsNan, Step, Timestamp }
    /// Table of metric points as they came, one row for each batch.
    RunLog { Seq, RunId, Points }
    /// Table of metric points that are settled: one metric of one run, packed.
    RunChunks { RunId, Key, Number, Count, Points }
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
    /// Table of files that clients put under a path.
    Artifacts { Path, Digest, Size, At }
    /// Table of the digests by which versions are pulled as images: `Part` says what each is.
    ImageParts { VersionId, Part, Digest }
}
