//! The clients that others have: MLflow's, ONNX Runtime, model-signing, in one Python environment.

use std::path::PathBuf;

/// The interpreter of what `scripts/setup.py clients` fetched.
///
/// # Panics
/// When it is not there: a test must never be passed over in silence.
pub fn clients_python() -> PathBuf {
    let path = crate::cache()
        .unwrap_or_default()
        .join("clients/bin/python");
    assert!(
        path.exists(),
        "there is no `{}`: run `make setup`",
        path.display()
    );
    path
}
