//! From what should run, in blobs, to what a trainer is told, in paths.
//!
//! It must never let a name from outside lead out of the lease's folder.

use pomona_api::trainer::{
    BackboneFiles, DataFiles, FeatureStore, Member, PublishWork, TrainWork, TrainerWork,
};
use pomona_api::v1::workers::{BackboneBlobs, DataBlobs, DesiredMember, DesiredWork};
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Digest, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::program::ProgramWork;

#[cfg(test)]
mod tests;

/// Name of the folder, in the lease's, that a trainer writes to.
const OUTPUT: &str = "output";
/// Name of the folder, in the lease's, that a published model is laid out in.
const MODEL: &str = "model";

/// What the processes of a lease are.
#[derive(Debug, Clone)]
pub enum Job {
    /// Trainers, and what they are told.
    Trainer(TrainerWork),
    /// A program of one's own.
    Program(Arc<ProgramWork>),
}

impl Job {
    /// Processes on so many slots.
    pub fn ranks(&self, slots: usize) -> usize {
        match self {
            Self::Trainer(_) => slots,
            Self::Program(work) => work.ranks(slots),
        }
    }
}

/// Whom log lines of this work belong to: `tri_…`, several of them where they share a lease, or
/// `tsk_…`.
pub fn owners(work: &DesiredWork) -> Vec<String> {
    match work {
        DesiredWork::Train { members, .. } => {
            let trials = members.iter().map(|member| member.trial.to_string());
            trials.collect()
        }
        DesiredWork::Program(program) => vec![program.trial.to_string()],
        DesiredWork::ImportDataset { task, .. }
        | DesiredWork::ImportBackbone { task, .. }
        | DesiredWork::Publish { task, .. }
        | DesiredWork::Predict { task, .. } => vec![task.to_string()],
    }
}

/// The owners in a line of our own log.
pub fn told(owners: &[String]) -> String {
    match owners {
        [first, rest @ ..] if !rest.is_empty() => format!("{first} and {} more", rest.len()),
        _ => owners.concat(),
    }
}

/// Every blob that the work reads.
pub fn inputs(work: &DesiredWork) -> BTreeSet<Digest> {
    match work {
        DesiredWork::Train {
            members,
            data,
            backbone,
            ..
        } => [data.manifest, data.archive, backbone.weights]
            .into_iter()
            .chain(members.iter().filter_map(|member| member.resume))
            .collect(),
        DesiredWork::Program(program) => {
            let resume = program.resume.map(|from| from.digest);
            resume.into_iter().collect()
        }
        DesiredWork::ImportDataset { archive, .. } => BTreeSet::from([*archive]),
        DesiredWork::ImportBackbone { weights, .. } => BTreeSet::from([*weights]),
        DesiredWork::Publish {
            data,
            backbone,
            checkpoint,
            ..
        } => BTreeSet::from([data.manifest, data.archive, backbone.weights, *checkpoint]),
        DesiredWork::Predict {
            files, pictures, ..
        } => files.values().copied().chain([*pictures]).collect(),
    }
}

/// Where the blobs of a lease are, and where it may write.
#[derive(Debug)]
pub struct Places {
    /// Blob → read-only file.
    pub blobs: BTreeMap<Digest, PathBuf>,
    /// The lease's own folder; it is there and empty.
    pub folder: PathBuf,
    /// Where features are kept, if they are.
    pub features: Option<FeatureStore>,
}

impl Places {
    /// The file of a blob.
    pub fn blob(&self, digest: Digest) -> Result<PathBuf, Fault> {
        self.blobs.get(&digest).cloned().ok_or_else(|| {
            Fault::new(
                Code::BlobMissing,
                format!("blob `{digest}` was not fetched"),
            )
        })
    }

    fn data(&self, data: &DataBlobs) -> Result<DataFiles, Fault> {
        Ok(DataFiles {
            manifest: self.blob(data.manifest)?,
            archive: self.blob(data.archive)?,
        })
    }

    fn backbone(&self, backbone: &BackboneBlobs) -> Result<BackboneFiles, Fault> {
        Ok(BackboneFiles {
            name: backbone.name.clone(),
            arch: backbone.arch.clone(),
            weights: self.blob(backbone.weights)?,
            digest: backbone.weights,
        })
    }

    fn member(&self, member: &DesiredMember) -> Result<Member, Fault> {
        let resume = member.resume.map(|digest| self.blob(digest));
        Ok(Member {
            trial: member.trial,
            spec: member.spec.clone(),
            output: self.output().join(member.trial.to_string()),
            resume: resume.transpose()?,
        })
    }

    /// Where the trainer writes.
    pub fn output(&self) -> PathBuf {
        self.folder.join(OUTPUT)
    }

    /// Lays a published folder out, as links to its blobs.
    fn model(&self, files: &BTreeMap<String, Digest>) -> Result<PathBuf, Fault> {
        let folder = self.folder.join(MODEL);
        std::fs::create_dir_all(&folder).map_err(|error| cannot("make", &folder, &error))?;
        for (name, digest) in files {
            let link = below(&folder, name)?;
            let blob = self.blob(*digest)?;
            let parent = link.parent().unwrap_or(&folder);
            std::fs::create_dir_all(parent)
                .and_then(|()| std::os::unix::fs::symlink(blob, &link))
                .map_err(|error| cannot("make", &link, &error))?;
        }
        Ok(folder)
    }
}

/// What a trainer is told.
pub fn trainer_work(work: &DesiredWork, places: &Places) -> Result<TrainerWork, Fault> {
    Ok(match work {
        DesiredWork::Train {
            members,
            data,
            backbone,
            keep_features,
        } => TrainerWork::Train(Box::new(TrainWork {
            members: (members.iter())
                .map(|member| places.member(member))
                .collect::<Result<_, Fault>>()?,
            data: places.data(data)?,
            backbone: places.backbone(backbone)?,
            features: places.features.clone().filter(|_| *keep_features),
        })),
        DesiredWork::Program(_) => {
            return Err(wrong("no trainer runs a program of one's own".to_owned()));
        }
        DesiredWork::ImportDataset {
            task,
            archive,
            options,
        } => TrainerWork::ImportDataset {
            task: *task,
            archive: places.blob(*archive)?,
            archive_digest: *archive,
            options: options.clone(),
            output: places.output(),
        },
        DesiredWork::ImportBackbone {
            task,
            arch,
            weights,
        } => TrainerWork::ImportBackbone {
            task: *task,
            arch: arch.clone(),
            weights: places.blob(*weights)?,
            output: places.output(),
        },
        DesiredWork::Publish {
            task,
            spec,
            data,
            backbone,
            checkpoint,
            lineage,
            model,
            validation,
        } => TrainerWork::Publish(Box::new(PublishWork {
            task: *task,
            spec: (**spec).clone(),
            data: places.data(data)?,
            backbone: places.backbone(backbone)?,
            checkpoint: places.blob(*checkpoint)?,
            lineage: (**lineage).clone(),
            model: model.clone(),
            validation: validation.clone(),
            output: places.output(),
        })),
        DesiredWork::Predict {
            task,
            files,
            pictures,
            top,
        } => TrainerWork::Predict {
            task: *task,
            model: places.model(files)?,
            pictures: places.blob(*pictures)?,
            top: *top,
        },
    })
}

/// The files of a task's answer: digest and place, below `output`.
pub fn answer_files(result: &TaskResult, output: &Path) -> Result<Vec<(Digest, PathBuf)>, Fault> {
    match result {
        TaskResult::Dataset {
            manifest, digest, ..
        } => Ok(vec![(*digest, below(output, manifest)?)]),
        TaskResult::Backbone {
            weights, digest, ..
        } => Ok(vec![(*digest, below(output, weights)?)]),
        TaskResult::Published { files, .. } => files
            .iter()
            .map(|file| {
                let digest =
                    (file.digest()).map_err(|error| wrong(format!("`{}`: {error}", file.path)))?;
                Ok((digest, below(output, &file.path)?))
            })
            .collect(),
        TaskResult::Predicted { .. } => Ok(Vec::new()),
    }
}

/// `folder/name`, where `name` has only ordinary parts.
pub fn below(folder: &Path, name: &str) -> Result<PathBuf, Fault> {
    let relative = Path::new(name);
    let ordinary = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !relative.components().all(ordinary) {
        return Err(wrong(format!(
            "`{name}` is no name of a file in the lease's folder"
        )));
    }
    Ok(folder.join(relative))
}

fn wrong(message: String) -> Fault {
    Fault::new(Code::Internal, message)
}

/// A fault of this machine's disk.
pub fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Fault {
    let code = if crate::is_full(error) {
        Code::DiskFull
    } else {
        Code::LocalFile
    };
    Fault::new(code, format!("cannot {verb} `{}`: {error}", path.display()))
}
