//! `model pull` and `model verify`: a folder is exactly a version, or it is refused.

use pomona_domain::model::{Version, version_digest};
use pomona_domain::{Code, Digest, Fault};
use pomona_signing::{Report, SIGNATURE_FILE, VerifyingKey};
use serde::Serialize;
use std::path::{Path, PathBuf};

use super::Done;
use super::session::{Session, all, version_reference};
use crate::folder::{self, Staging, Target};
use crate::human::{bytes, plural};
use crate::local::cannot;
use crate::printer::{Printer, Style};

/// A folder that was found to be a version.
#[derive(Debug, Serialize)]
struct Found {
    folder: PathBuf,
    /// Absent when only a digest was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    /// Computed from the files in the folder.
    digest: Digest,
    files: usize,
    bytes: u64,
}

impl Found {
    fn of(folder: &Path, version: &Version, digest: Digest) -> Self {
        Self {
            folder: folder.to_owned(),
            model: Some(version.model.clone()),
            version: Some(version.number),
            digest,
            files: version.files.len(),
            bytes: version.files.iter().map(|file| file.size).sum(),
        }
    }

    fn view(&self, style: Style, what: &str) -> String {
        let named = match (&self.model, self.version) {
            (Some(model), Some(number)) => style.bold(&format!("{model}@{number}")),
            (Some(_) | None, Some(_) | None) => "the folder".to_owned(),
        };
        format!(
            "{named} {what} {}\n{}, {}, every digest checked: {}\n",
            self.folder.display(),
            plural(self.files as u64, "file"),
            bytes(self.bytes),
            self.digest
        )
    }
}

/// `pomona model pull`.
pub async fn pull(
    text: String,
    folder: PathBuf,
    key: Option<PathBuf>,
    session: Session,
) -> Result<Done, Fault> {
    let key = key.as_deref().map(read_key).transpose()?;
    let (model, which) = version_reference(&text)?;
    let version = session.client.version_pull(model, which).await?;
    if version.files.is_empty()
        && let Some(from) = version.registered()
    {
        let text = format!("the files of `{text}` are not kept here");
        return Err(Fault::new(Code::NotFound, text).hint(format!("they are at `{}`", from.source)));
    }
    folder::check_listing(&version)?;
    let digest = match folder::target(&folder, &version)? {
        Target::Same => {
            session
                .printer
                .say(&format!("`{}` holds it already", folder.display()));
            if let Some(key) = &key {
                check_signature(&folder, key)?;
            }
            version.digest
        }
        Target::Free => download(&version, &folder, key.as_ref(), &session).await?,
    };
    let found = Found::of(&folder, &version, digest);
    session
        .printer
        .data(&found, |style| found.view(style, "is in"));
    Ok(Done::Well)
}

async fn download(
    version: &Version,
    folder: &Path,
    key: Option<&VerifyingKey>,
    session: &Session,
) -> Result<Digest, Fault> {
    let total = version.files.iter().map(|file| file.size).sum();
    let bar = session.printer.bytes_bar("pulling", total);
    let staging = Staging::new(folder)?;
    for file in &version.files {
        let digest = file.digest().map_err(|error| {
            Fault::new(Code::DigestMismatch, format!("`{}`: {error}", file.path))
        })?;
        session
            .client
            .blob_get(digest, &staging.place(file)?)
            .await?;
        bar.inc(file.size);
    }
    bar.finish_and_clear();
    let number = version.number.to_string();
    let signature = session
        .client
        .version_signature(&version.model, &number)
        .await;
    match (signature, key) {
        (Ok(bytes), _) => {
            let path = staging.signature();
            std::fs::write(&path, &bytes).map_err(|error| cannot("write", &path, &error))?;
        }
        // Never promoted, or a server without a key: nobody asked for a signature.
        (Err(fault), None) if fault.code == Code::NotFound => {}
        (Err(fault), _) => return Err(fault),
    }
    if let Some(key) = key {
        check_signature(staging.path(), key)?;
    }
    staging.finish(version)
}

fn read_key(path: &Path) -> Result<VerifyingKey, Fault> {
    let bytes = std::fs::read(path).map_err(|error| cannot("read", path, &error))?;
    VerifyingKey::from_pem(&bytes)
}

/// Refuses a folder that the key did not sign as it is.
fn check_signature(folder: &Path, key: &VerifyingKey) -> Result<Report, Fault> {
    let path = folder.join(SIGNATURE_FILE);
    let bundle = std::fs::read(&path).map_err(|error| cannot("read", &path, &error))?;
    let files = folder::files(folder)?;
    let found: Vec<(&str, &str)> = (files.iter())
        .map(|file| (file.path.as_str(), file.sha256.as_str()))
        .collect();
    pomona_signing::verify(&bundle, &found, key)
}

/// `pomona model verify --key`: needs nobody.
pub fn verify_signature(folder: &Path, key: &Path, printer: &Printer) -> Result<Done, Fault> {
    let report = check_signature(folder, &read_key(key)?)?;
    for path in &report.ignored {
        printer.warn(&format!(
            "`{}` was not signed, and was passed over",
            path.escape_debug()
        ));
    }
    let files = folder::unsigned(folder)?;
    let found = Found {
        folder: folder.to_owned(),
        model: Some(report.name.escape_debug().to_string()),
        version: None,
        digest: version_digest(&files),
        files: report.files,
        bytes: files.iter().map(|file| file.size).sum(),
    };
    printer.data(&found, |style| {
        found.view(style, "is signed with that key:")
    });
    Ok(Done::Well)
}

/// `pomona model key`.
pub async fn key(session: Session) -> Result<Done, Fault> {
    let pem = session.client.signing_key().await?;
    let pem = String::from_utf8_lossy(&pem).into_owned();
    let row = serde_json::json!({ "key": pem });
    session.printer.data(&row, |_| pem.trim_end().to_owned());
    Ok(Done::Well)
}

/// `pomona model verify --digest`: needs nobody.
pub fn verify_digest(folder: &Path, wanted: &str, printer: &Printer) -> Result<Done, Fault> {
    let wanted: Digest = wanted
        .parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("`--digest`: {error}")))?;
    let files = folder::unsigned(folder)?;
    let digest = version_digest(&files);
    if digest != wanted {
        let message = format!(
            "`{}` has the digest `{digest}`, not `{wanted}`",
            folder.display()
        );
        return Err(Fault::new(Code::DigestMismatch, message).hint("do not use it; pull it again"));
    }
    let found = Found {
        folder: folder.to_owned(),
        model: None,
        version: None,
        digest,
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
    };
    printer.data(&found, |style| found.view(style, "has that digest:"));
    Ok(Done::Well)
}

/// `pomona model verify`: against a version that is named, or the one that has the same digest.
pub async fn verify(
    folder: PathBuf,
    model: Option<String>,
    session: Session,
) -> Result<Done, Fault> {
    let version = match &model {
        Some(text) => {
            let (model, which) = version_reference(text)?;
            session.client.version_get(model, which).await?
        }
        None => look_for(&folder, &session).await?,
    };
    let digest = folder::check(&folder, &version)?;
    let found = Found::of(&folder, &version, digest);
    session
        .printer
        .data(&found, |style| found.view(style, "is what stands in"));
    Ok(Done::Well)
}

/// The version of the registry that has the folder's digest.
async fn look_for(folder: &Path, session: &Session) -> Result<Version, Fault> {
    let digest = version_digest(&folder::unsigned(folder)?);
    let models = all(|query| async move { session.client.model_list(&query).await }).await?;
    for model in &models.items {
        if let Some(found) = model
            .versions
            .iter()
            .find(|version| version.digest == digest)
        {
            let number = found.number.to_string();
            return session.client.version_get(&model.name, &number).await;
        }
    }
    let message = format!(
        "`{}` is no version of any model: `{digest}`",
        folder.display()
    );
    Err(Fault::new(Code::DigestMismatch, message)
        .hint("name the version it should be with `--model NAME@ALIAS` to see what differs"))
}
