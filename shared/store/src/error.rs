//! What can go wrong at rest, and the code each has.

use std::path::PathBuf;

use pomona_domain::{Code, Digest, Fault};
use sea_orm::{DbErr, SqlErr};

use crate::dialect;

/// What can go wrong at rest.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another coordinator leads.
    #[error("leadership of generation {generation} is over: another coordinator leads")]
    NotLeader {
        /// The generation that was shown.
        generation: u64,
    },
    /// A row is not in the version that the change was made from. Nothing was written.
    #[error("{what} changed meanwhile")]
    Conflict {
        /// Which row.
        what: String,
    },
    /// The database was made by a newer program.
    #[error("the database has had the migration `{migration}`, which this program does not know")]
    NewerSchema {
        /// The first one that is unknown.
        migration: String,
    },
    /// The database has no schema yet.
    #[error("the database has no schema yet")]
    NotMigrated,
    /// An address of no database that is known here.
    #[error("`{scheme}` is no database that Pomona keeps its rows in")]
    UnknownDatabase {
        /// How the address begins.
        scheme: String,
    },
    /// Something that only one database can do.
    #[error("{what} is only there for a database in a file")]
    OnlySqlite {
        /// What was asked for.
        what: &'static str,
    },
    /// A name that nothing has.
    #[error("there is no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// A prefix that fits several.
    #[error("`{prefix}` fits more than one {what}")]
    Ambiguous {
        /// Of what kind.
        what: &'static str,
        /// The prefix.
        prefix: String,
    },
    /// More was asked for than may be.
    #[error("{what} is over its limit of {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A page token that this list did not give.
    #[error("`{token}` is not a page token of this list")]
    BadToken {
        /// The token.
        token: String,
    },
    /// The idempotency key was used with another request.
    #[error("the idempotency key `{key}` was used with another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// A number that JSON cannot hold: written, it could not be read again.
    #[error("`{what}` holds a number that is not finite")]
    NotFinite {
        /// Where.
        what: String,
    },
    /// A row that does not read back as what it should be.
    #[error("a row of `{table}` cannot be read")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No such blob.
    #[error("there is no blob `{digest}`")]
    BlobMissing {
        /// Its name.
        digest: Digest,
    },
    /// A blob at rest whose bytes do not have its name.
    #[error("the blob `{digest}` is damaged: its bytes have the digest `{found}`")]
    BlobCorrupt {
        /// Its name.
        digest: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// An upload whose bytes do not have the name that was announced.
    #[error("the upload was announced as `{expected}` and has the digest `{found}`")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// An upload that ended with an error on the sender's side.
    #[error("the upload broke off")]
    BrokenUpload(#[source] std::io::Error),
    /// An upload that ended, was given up, or never began.
    #[error("there is no such upload under way")]
    UploadMissing,
    /// Another request goes on with the upload.
    #[error("another request goes on with this upload")]
    UploadBusy,
    /// A request that would leave a hole in the upload, or write over it.
    #[error("the upload has {offset} bytes, and the request begins at {given}")]
    WrongOffset {
        /// Bytes at rest.
        offset: u64,
        /// Where the request begins.
        given: u64,
    },
    /// A file or folder of the store.
    #[error("`{}` cannot be used", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bucket cannot be reached, or does not work.
    #[error("the object store cannot be used: {why}")]
    ObjectsDown {
        /// Why.
        why: String,
    },
    /// The bucket does not let us in, or is not there.
    #[error("the object store refuses: {why}")]
    ObjectsRefused {
        /// Why.
        why: String,
    },
    /// The bucket belongs to another store.
    #[error("the bucket has the blobs of another database under the prefix `{prefix}`")]
    BucketTaken {
        /// What names in it begin with.
        prefix: String,
    },
    /// Something that only a folder can do.
    #[error("{what} is only there for blobs in a folder")]
    OnlyFolder {
        /// What was asked for.
        what: &'static str,
    },
    /// The backup's folder is there and not empty.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// There is no way to the database.
    #[error("the database cannot be reached")]
    Unreachable(#[source] DbErr),
    /// The database did not do what was asked.
    #[error("the database did not answer as it should")]
    Down(#[source] DbErr),
}

impl StoreError {
    /// The error's code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotLeader { .. } | Self::NotMigrated => Code::NotReady,
            Self::Conflict { .. } => Code::Conflict,
            Self::NewerSchema { .. } => Code::NewerSchema,
            Self::UnknownDatabase { .. } => Code::BadConfig,
            Self::NotFound { .. } => Code::NotFound,
            Self::Ambiguous { .. } => Code::Ambiguous,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::BadToken { .. }
            | Self::BrokenUpload(_)
            | Self::OnlySqlite { .. }
            | Self::OnlyFolder { .. } => Code::BadRequest,
            Self::UploadMissing => Code::UploadMissing,
            Self::UploadBusy => Code::Busy,
            Self::WrongOffset { .. } => Code::WrongOffset,
            Self::ObjectsDown { .. } => Code::ObjectsDown,
            Self::ObjectsRefused { .. } => Code::ObjectsRefused,
            Self::BucketTaken { .. } => Code::BucketTaken,
            Self::KeyReused { .. } => Code::IdempotencyConflict,
            Self::NotFinite { .. } => Code::NotANumber,
            Self::Unreadable { .. } => Code::Internal,
            Self::BlobMissing { .. } => Code::BlobMissing,
            Self::BlobCorrupt { .. } => Code::BlobCorrupt,
            Self::DigestMismatch { .. } => Code::DigestMismatch,
            Self::Folder { source, .. } if is_full(source) => Code::DiskFull,
            Self::Folder { .. } | Self::NotEmpty { .. } => Code::BadDataDir,
            Self::Down(error) if dialect::is_disk_full(error) => Code::DiskFull,
            Self::Down(_) | Self::Unreachable(_) => Code::StoreDown,
        }
    }

    /// What the reader can do, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotMigrated => Some("run `pomona-coordinator migrate`"),
            Self::NewerSchema { .. } => {
                Some("start the newer program, or restore a backup made before it ran")
            }
            Self::UnknownDatabase { .. } => {
                Some("an address begins with `sqlite://` or `postgres://`")
            }
            Self::OnlySqlite { .. } => Some(
                "use `pg_dump`, then copy the folder of blobs: in this order nothing is missed",
            ),
            Self::OnlyFolder { .. } => Some(
                "copy the database with its own tools, then the bucket with the object store's: in this order nothing is missed",
            ),
            Self::ObjectsDown { .. } => {
                Some("check `blobs.endpoint`, and that the object store runs; it is tried again")
            }
            Self::ObjectsRefused { .. } => {
                Some("check `blobs.url`, `blobs.region`, and what the key may do in the bucket")
            }
            Self::BucketTaken { .. } => {
                Some("give this database a bucket, or a prefix in `blobs.url`, of its own")
            }
            Self::Unreachable(_) => {
                Some("check `store.url`, and that the server runs and lets this user in")
            }
            Self::Ambiguous { .. } => Some("give the id, or more digits of it"),
            Self::BadToken { .. } => Some("begin again without a page token"),
            Self::UploadMissing => Some("begin the upload again"),
            Self::UploadBusy => Some("try again in a moment"),
            Self::WrongOffset { .. } => Some("ask how far the upload is, and go on from there"),
            Self::BlobMissing { .. } | Self::DigestMismatch { .. } | Self::BrokenUpload(_) => {
                Some("upload it again")
            }
            Self::BlobCorrupt { .. } => {
                Some("upload the same bytes again, or restore the file from a backup")
            }
            Self::NotEmpty { .. } => Some("give a folder that does not exist yet"),
            Self::Folder { source, .. } if is_full(source) => {
                Some("make room on the disk; nothing that was acknowledged is lost")
            }
            Self::Down(error) if dialect::is_disk_full(error) => {
                Some("make room on the disk; nothing that was acknowledged is lost")
            }
            Self::NotLeader { .. }
            | Self::Conflict { .. }
            | Self::NotFound { .. }
            | Self::TooLarge { .. }
            | Self::KeyReused { .. }
            | Self::NotFinite { .. }
            | Self::Unreadable { .. }
            | Self::Folder { .. }
            | Self::Down(_) => None,
        }
    }

    pub(crate) fn folder(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Folder { path, source }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => Self::Conflict {
                what: "a row with the same key".to_owned(),
            },
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => Self::Conflict {
                what: "a row that another one refers to".to_owned(),
            },
            // `SqlErr` may grow; anything it cannot name is the database's own trouble.
            Some(_) | None => Self::Down(error),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some errors say their cause themselves.
            if !message.ends_with(&cause_text) {
                message = format!("{message}: {cause_text}");
            }
            source = cause.source();
        }
        let fault = Self::new(error.code(), message);
        match error.hint() {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

#[cfg(test)]
mod tests;
