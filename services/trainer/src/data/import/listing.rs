//! Which entries of a tar are candidates, and of which class. Looks at names only.

use super::super::archive::{Kind, Member, is_bookkeeping};
use super::problem;
use pomona_domain::dataset::{Problem, SetAside};
use pomona_domain::{Code, Fault};
use std::collections::BTreeSet;
use std::path::Path;

/// Endings by which a file says that it is a picture that can be read.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp"];

/// A file in a class folder.
pub(super) struct Candidate<'a> {
    pub(super) member: &'a Member,
    pub(super) class: usize,
}

/// The tar's entries, sorted out.
pub(super) struct Listing<'a> {
    /// Class names, sorted.
    pub(super) classes: Vec<String>,
    /// Files in class folders, sorted by path.
    pub(super) candidates: Vec<Candidate<'a>>,
    /// What is set aside already.
    pub(super) problems: Vec<Problem>,
    /// Bookkeeping files.
    pub(super) ignored: u32,
}

/// Sorts the tar's entries into classes. The class is the first folder; one folder around all
/// others is left out of account.
pub(super) fn list(members: &[Member]) -> Listing<'_> {
    let (hidden, members): (Vec<&Member>, Vec<&Member>) = members
        .iter()
        .partition(|member| is_bookkeeping(&member.path));
    let root = common_root(&members).unwrap_or_default();
    let mut found = Vec::new();
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for member in members {
        let inner = member.path.strip_prefix(&root).unwrap_or_default();
        let set_aside = match member.kind {
            Kind::Folder => {
                let name = inner.split('/').next().unwrap_or_default();
                if !name.is_empty() {
                    names.insert(name.to_owned());
                }
                continue;
            }
            Kind::File => None,
            Kind::Link => Some((SetAside::Link, "is a link, which is not followed")),
            Kind::BadName => Some((
                SetAside::NotAnImage,
                "has a name that is not UTF-8 or leaves the folder",
            )),
            Kind::Other => Some((SetAside::NotAnImage, "is no regular file")),
        };
        if let Some((why, detail)) = set_aside {
            problems.push(problem(&member.path, why, detail.into()));
        } else if let Some((class, _)) = inner.split_once('/') {
            names.insert(class.to_owned());
            found.push((class, member));
        } else {
            let detail = "lies in no class folder".into();
            problems.push(problem(&member.path, SetAside::NoClass, detail));
        }
    }
    let classes: Vec<String> = names.into_iter().collect();
    let candidates = found
        .into_iter()
        .filter_map(|(class, member)| {
            let class = classes
                .binary_search_by(|name| name.as_str().cmp(class))
                .ok()?;
            Some(Candidate { member, class })
        })
        .collect();
    Listing {
        classes,
        candidates,
        problems,
        ignored: hidden
            .iter()
            .filter(|member| member.kind != Kind::Folder)
            .count() as u32,
    }
}

/// The one folder, with its slash, that holds everything, when class folders lie in it and no
/// picture lies beside them.
fn common_root(members: &[&Member]) -> Option<String> {
    let first = members.first()?.path.split('/').next()?;
    let root = format!("{first}/");
    let mut has_folder = false;
    for member in members {
        if member.path == first && member.kind == Kind::Folder {
            continue;
        }
        let inner = member.path.strip_prefix(&root)?;
        let folder = inner.contains('/') || member.kind == Kind::Folder;
        if !folder && says_picture(inner) {
            return None;
        }
        has_folder |= folder;
    }
    has_folder.then_some(root)
}

/// Whether a file's ending says that it is a picture that can be read.
pub(super) fn says_picture(path: &str) -> bool {
    Path::new(path)
        .extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| {
            ENDINGS
                .iter()
                .any(|known| ending.eq_ignore_ascii_case(known))
        })
}

/// At least two classes and one file, or the code that says what is missing.
pub(super) fn enough_classes(
    classes: &[String],
    candidates: &[Candidate<'_>],
) -> Result<(), Fault> {
    let hint = "a data set is a folder with one folder of pictures for each class";
    if classes.is_empty() || candidates.is_empty() {
        let message = "the folder holds no class folder with files in it";
        return Err(Fault::new(Code::EmptyDataset, message).hint(hint));
    }
    if let [only] = classes {
        let message = format!("the folder holds one class, `{only}`: two are needed");
        return Err(Fault::new(Code::OneClass, message).hint(hint));
    }
    Ok(())
}
