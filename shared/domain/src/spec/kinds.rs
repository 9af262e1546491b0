//! Mappings that have a `kind`: which keys each kind has.

/// A mapping with a `kind`.
pub(super) struct Kinds {
    /// Its path.
    pub(super) path: &'static str,
    /// Kind → its keys.
    pub(super) kinds: &'static [(&'static str, &'static [&'static str])],
}

/// The task layer.
pub(super) const HEAD: Kinds = Kinds {
    path: "transfer.head",
    kinds: &[("linear", &[]), ("mlp", &["hidden", "dropout"])],
};

/// The optimiser.
pub(super) const OPTIMIZER: Kinds = Kinds {
    path: "train.optimizer",
    kinds: &[
        ("sgd", &["momentum", "weight_decay"]),
        ("adamw", &["beta1", "beta2", "eps", "weight_decay"]),
    ],
};

/// The learning rate's movement.
pub(super) const LR_SCHEDULE: Kinds = Kinds {
    path: "train.lr_schedule",
    kinds: &[
        ("constant", &["warmup_epochs"]),
        ("step", &["warmup_epochs", "every_epochs", "gamma"]),
        ("cosine", &["warmup_epochs"]),
    ],
};

/// All of them.
pub(super) const ALL: &[&Kinds] = &[&HEAD, &OPTIMIZER, &LR_SCHEDULE];

impl Kinds {
    /// The names of the kinds.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|(name, _)| *name).collect()
    }

    /// The keys of one kind.
    pub(super) fn keys(&self, kind: &str) -> &'static [&'static str] {
        self.kinds
            .iter()
            .find(|(name, _)| *name == kind)
            .map_or(&[], |(_, keys)| *keys)
    }

    /// The kinds that have a key.
    pub(super) fn with_key(&self, key: &str) -> Vec<&'static str> {
        self.kinds
            .iter()
            .filter(|(_, keys)| keys.contains(&key))
            .map(|(name, _)| *name)
            .collect()
    }
}

/// The mapping whose `kind` a path is.
pub(super) fn owner(path: &str) -> Option<&'static Kinds> {
    let parent = path.strip_suffix(".kind")?;
    ALL.iter().copied().find(|kinds| kinds.path == parent)
}
