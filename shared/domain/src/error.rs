//! Coded errors: what went wrong, where, and what the reader can do about it.
//!
//! Every code has a section in `errors.md` beside the crate, shown by `pomona explain E0203`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Whose fault it is, hence the HTTP status and the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller's input or a failed gate: HTTP 4xx, exit 1.
    Caller,
    /// Ours: HTTP 5xx, exit 2.
    Ours,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// The code of an error. The number stands in `errors.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {$( $(#[$doc])* $name, )*}

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// `E` and four digits.
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$name => $text,)*}
            }

            /// The HTTP status an answer with this code has.
            pub fn http_status(self) -> u16 {
                match self {$(Self::$name => $status,)*}
            }
        }
    };
}

// E00 ours and transport · E01 request · E02 experiment file and search · E03 scheduling and
// workers · E04 data sets · E05 backbones and import · E06 training · E07 models and promotion ·
// E08 storage · E09 configuration and set-up.
codes! {
    /// Something of ours broke.
    Internal = "E0001", 500;
    /// The coordinator cannot be reached.
    Unreachable = "E0002", 503;
    /// Program versions do not speak the same protocol.
    VersionMismatch = "E0003", 426;
    /// The coordinator is busy; try again.
    Busy = "E0004", 429;
    /// The coordinator is stopping or not ready.
    NotReady = "E0005", 503;
    /// A request body or parameter does not parse.
    BadRequest = "E0101", 400;
    /// There is no such thing.
    NotFound = "E0102", 404;
    /// The name is taken.
    AlreadyExists = "E0103", 409;
    /// It is not in a state that allows this.
    WrongState = "E0104", 409;
    /// A body, page or upload is over its limit.
    TooLarge = "E0105", 413;
    /// An idempotency key was used with another body.
    IdempotencyConflict = "E0106", 409;
    /// A name has characters or a length that are not allowed.
    BadName = "E0107", 400;
    /// An id prefix fits more than one thing.
    Ambiguous = "E0108", 400;
    /// The file is not YAML.
    NotYaml = "E0201", 400;
    /// A key is unknown.
    UnknownKey = "E0202", 400;
    /// A key is missing.
    MissingKey = "E0203", 400;
    /// A value has the wrong type.
    WrongType = "E0204", 400;
    /// A value is out of its range.
    OutOfRange = "E0205", 400;
    /// A path of the space does not exist in the file.
    UnknownPath = "E0206", 400;
    /// The space has no point, or too many.
    BadSpace = "E0207", 400;
    /// The key names a feature that is not built yet.
    NotBuilt = "E0208", 400;
    /// The search metric may not be used.
    BadMetric = "E0209", 400;
    /// Two keys of the file contradict each other.
    Contradiction = "E0210", 400;
    /// The search metric was not among what a trial measured.
    MetricAbsent = "E0211", 422;
    /// A condition of the space can never be asked, or leads in a circle.
    BadCondition = "E0212", 400;
    /// An experiment to start from does not exist, or has no point to give.
    BadWarmStart = "E0213", 400;
    /// The key does not go with what the trials run.
    NotForRunner = "E0221", 400;
    /// Two hyperparameters of a program have one variable.
    SameVariable = "E0222", 400;
    /// A place to be filled in names nothing.
    BadPlaceholder = "E0223", 400;
    /// What a program of one's own writes cannot be published.
    CannotPublish = "E0224", 400;
    /// A variable is Pomona's own.
    ReservedVariable = "E0225", 400;
    /// No worker could ever run it.
    Unplaceable = "E0301", 409;
    /// The worker is not registered.
    UnknownWorker = "E0303", 404;
    /// A trial ran out of restarts.
    RestartsExhausted = "E0304", 500;
    /// A trial ran over its time limit.
    TimeLimit = "E0305", 422;
    /// A trial made no step for too long.
    Stalled = "E0306", 500;
    /// The project's quota never lets it run.
    OverQuota = "E0307", 409;
    /// The folder holds no usable class.
    EmptyDataset = "E0401", 400;
    /// Fewer than two classes.
    OneClass = "E0402", 400;
    /// A class has no usable image or too few to split.
    EmptyClass = "E0403", 400;
    /// The data-set folder cannot be read.
    BadDatasetPath = "E0404", 400;
    /// A file of the data set is not what it should be.
    CorruptDataset = "E0405", 422;
    /// The split is not three shares that add up.
    BadSplit = "E0406", 400;
    /// The weights file is of no known format.
    UnknownWeights = "E0501", 422;
    /// A pickle calls something outside the allow-list.
    UnsafePickle = "E0502", 422;
    /// The weights file is truncated or damaged.
    DamagedWeights = "E0503", 422;
    /// The archive would unpack to more than it may.
    ZipBomb = "E0504", 422;
    /// A tensor is missing.
    MissingTensor = "E0505", 422;
    /// A tensor is not part of the network.
    ExtraTensor = "E0506", 422;
    /// A tensor has the wrong shape or type.
    MisshapenTensor = "E0507", 422;
    /// The architecture is unknown.
    UnknownArch = "E0508", 400;
    /// A block name or depth does not exist.
    UnknownBlock = "E0509", 400;
    /// The network's image size is too small or does not fit.
    BadImageSize = "E0510", 400;
    /// The loss or a metric is not a number.
    NotANumber = "E0601", 422;
    /// A rank was lost or a collective failed.
    RankLost = "E0602", 500;
    /// The checkpoint does not fit the trial.
    BadCheckpoint = "E0603", 500;
    /// The trainer ended without saying why.
    TrainerCrashed = "E0604", 500;
    /// The trainer ran out of memory.
    OutOfMemory = "E0605", 500;
    /// This worker cannot resume the trial bit for bit.
    ResumeMismatch = "E0606", 500;
    /// A program of one's own failed.
    ProgramFailed = "E0621", 422;
    /// A program's checkpoint folder is too large or cannot be packed.
    UnusableCheckpoint = "E0622", 422;
    /// An observation of a lease that is over.
    StaleGeneration = "E0623", 409;
    /// The checkpoint was deleted.
    CheckpointDeleted = "E0624", 409;
    /// A gate of the promotion failed.
    GateFailed = "E0701", 403;
    /// The alias moved meanwhile.
    AliasMoved = "E0702", 409;
    /// The pulled files do not have their digest.
    DigestMismatch = "E0703", 422;
    /// The experiment has no checkpoint to promote.
    NothingToPromote = "E0704", 409;
    /// A picture to predict cannot be read.
    BadPicture = "E0705", 422;
    /// A key file holds no key that signs or verifies models.
    BadKey = "E0706", 400;
    /// A model's signature cannot be read.
    NotASignature = "E0707", 422;
    /// A model's signature is of a kind that is not checked.
    ForeignSignature = "E0708", 422;
    /// A model was signed with another key.
    OtherSigner = "E0709", 422;
    /// A model's signature is not one of the key over what it states.
    BadSignature = "E0710", 422;
    /// The files are not those that were signed.
    NotAsSigned = "E0711", 422;
    /// An address or an event that no webhook may have.
    BadWebhook = "E0721", 400;
    /// A webhook's secret is not of the form that signs.
    BadSecret = "E0722", 400;
    /// The database cannot be reached or refused.
    StoreDown = "E0801", 503;
    /// The row changed meanwhile.
    Conflict = "E0802", 409;
    /// The schema is newer than this program.
    NewerSchema = "E0803", 500;
    /// A blob is missing.
    BlobMissing = "E0804", 404;
    /// A blob's bytes do not have its name.
    BlobCorrupt = "E0805", 500;
    /// The disk is full.
    DiskFull = "E0806", 507;
    /// The object store cannot be reached or does not work.
    ObjectsDown = "E0811", 503;
    /// The object store does not let the coordinator in.
    ObjectsRefused = "E0812", 500;
    /// The bucket has the blobs of another database.
    BucketTaken = "E0813", 500;
    /// There is no such upload under way.
    UploadMissing = "E0814", 404;
    /// The request does not begin where the upload stands.
    WrongOffset = "E0815", 416;
    /// Coordinators on one database keep their blobs in different places.
    BlobsApart = "E0816", 500;
    /// A configuration key or value is wrong.
    BadConfig = "E0901", 400;
    /// A program or library that is needed is missing.
    MissingProgram = "E0902", 500;
    /// The address cannot be listened on.
    BadListen = "E0903", 400;
    /// The data folder is in use or cannot be written.
    BadDataDir = "E0904", 400;
    /// An address beyond loopback needs tokens.
    OpenToTheWorld = "E0905", 400;
    /// A local file cannot be read or written.
    LocalFile = "E0906", 400;
}

impl Code {
    /// Whose fault a code is.
    pub fn blame(self) -> Blame {
        if self.http_status() < 500 {
            Blame::Caller
        } else {
            Blame::Ours
        }
    }

    /// The code written `text`, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::parse(&text).unwrap_or(Self::Internal))
    }
}

/// One error that a person will read: on the wire, in the store and on the terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The code.
    pub code: Code,
    /// A sentence, lower case, no full stop, names in backticks, with the place.
    pub message: String,
    /// What the reader can do, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
