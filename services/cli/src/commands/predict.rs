//! `predict`: pictures go up, a task says what is on them.

use pomona_api::v1::catalogue::Predict;
use pomona_domain::task::{Prediction, TaskResult};
use pomona_domain::{Code, Fault};
use serde::Serialize;
use std::path::{Path, PathBuf};

use super::Done;
use super::session::{Session, key, version_reference};
use super::task;
use crate::args::model::PredictArgs;
use crate::human::plural;
use crate::local::cannot;
use crate::pack;
use crate::views;

/// The answer: one prediction a picture, in the order of the command line.
#[derive(Debug, Serialize)]
struct Answer {
    model: String,
    pictures: Vec<Prediction>,
}

/// `pomona predict`.
pub async fn run(args: PredictArgs, session: Session) -> Result<Done, Fault> {
    let (model, which) = version_reference(&args.model)?;
    let version = session.client.version_get(model, which).await?;
    let named = args
        .files
        .iter()
        .enumerate()
        .map(|(index, file)| entry(index, file))
        .collect::<Result<Vec<_>, Fault>>()?;
    let packed = pack::pack_pictures(&named)?;
    session
        .upload(packed.digest, packed.file.path(), packed.size)
        .await?;
    let body = Predict {
        // The number, so that an alias that moves meanwhile does not matter.
        model: format!("{model}@{}", version.number),
        pictures: packed.digest,
        top: args.top,
    };
    let task = session.client.predict(&body, &key()).await?;
    let pictures = plural(named.len() as u64, "picture");
    let label = format!("{}@{} looks at {pictures}", version.model, version.number);
    let TaskResult::Predicted { pictures } = task::finish(&session, task, &label).await? else {
        return Err(Fault::new(
            Code::Internal,
            "the prediction answered something else",
        ));
    };
    let answer = Answer {
        model: body.model,
        pictures: under_their_own_names(pictures, &named),
    };
    session.printer.data(&answer, |style| {
        views::model::predictions(style, &answer.pictures)
    });
    verdict(&answer.pictures)
}

/// A name in the tar: the index keeps files of one name apart, the file's own name is for people.
fn entry(index: usize, file: &Path) -> Result<(String, PathBuf), Fault> {
    let metadata = std::fs::metadata(file).map_err(|error| cannot("read", file, &error))?;
    if metadata.is_dir() {
        let message = format!("cannot read `{}`: it is a folder", file.display());
        return Err(Fault::new(Code::LocalFile, message).hint("name the pictures in it"));
    }
    let name = file
        .file_name()
        .map_or_else(|| "picture".into(), |name| name.to_string_lossy());
    Ok((format!("{index:05}/{name}"), file.to_owned()))
}

/// Paths in the tar become the paths that were typed.
fn under_their_own_names(
    pictures: Vec<Prediction>,
    named: &[(String, PathBuf)],
) -> Vec<Prediction> {
    pictures
        .into_iter()
        .map(|picture| {
            let typed = named.iter().find(|(name, _)| *name == picture.path);
            let path = typed.map_or(picture.path, |(_, file)| file.display().to_string());
            Prediction { path, ..picture }
        })
        .collect()
}

/// A picture that cannot be read does not keep the others from being predicted, but it is told.
fn verdict(pictures: &[Prediction]) -> Result<Done, Fault> {
    let bad: Vec<&str> = pictures
        .iter()
        .filter(|picture| picture.classes.is_empty())
        .map(|picture| picture.path.as_str())
        .collect();
    if bad.is_empty() {
        return Ok(Done::Well);
    }
    let message = format!(
        "{} of {} cannot be read: `{}`",
        bad.len(),
        plural(pictures.len() as u64, "picture"),
        bad.join("`, `")
    );
    let hint = if bad.len() < pictures.len() {
        "the others are predicted above"
    } else {
        "JPEG, PNG, WebP, BMP and GIF are read"
    };
    Err(Fault::new(Code::BadPicture, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_order_and_get_their_own_names_back() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|class| {
            let path = folder.path().join(class).join("x ä.png");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, class).unwrap();
            path
        });
        let named = [entry(0, &files[0]).unwrap(), entry(1, &files[1]).unwrap()];
        assert_eq!(named[1].0, "00001/x ä.png");
        let picture = |path: &str| Prediction {
            path: path.to_owned(),
            classes: Vec::new(),
            fault: None,
        };
        let back = under_their_own_names(vec![picture("00001/x ä.png"), picture("other")], &named);
        assert_eq!(back[0].path, files[1].display().to_string());
        assert_eq!(back[1].path, "other");
        let fault = verdict(&back).unwrap_err();
        assert_eq!(fault.code, Code::BadPicture);
        assert!(
            fault.message.starts_with("2 of 2 pictures cannot be read"),
            "{fault}"
        );
    }

    #[test]
    fn a_folder_is_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(entry(0, folder.path()).unwrap_err().code, Code::LocalFile);
    }
}
