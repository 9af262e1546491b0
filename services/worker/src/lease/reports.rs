//! What rank 0 says becomes reports in the spool, and the files it names are kept for upload.
//!
//! It must never name a file outside the lease's folder.

use super::Supervisor;
use super::end::Cause;
use crate::spool::Upload;
use crate::work::answer_files;
use pomona_api::trainer::Event;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Digest, Fault};
use std::path::{Component, Path};

impl Supervisor<'_> {
    /// Turns an event of rank 0 into a report.
    pub(super) fn report(&mut self, event: Event) {
        let made = match event {
            Event::Observed {
                trial,
                step,
                epoch,
                metrics,
                confusion,
            } => Ok(Some((
                ReportBody::Observed {
                    trial,
                    step,
                    epoch,
                    metrics,
                    confusion,
                },
                Vec::new(),
            ))),
            Event::Checkpoint {
                trial,
                checkpoint,
                step,
                epoch,
                path,
                digest,
                size,
                seconds,
            } => {
                self.tools.metrics.checkpointed(size, seconds);
                let body = ReportBody::Checkpoint {
                    trial,
                    checkpoint,
                    step,
                    epoch,
                    digest,
                    size,
                };
                let file = self.checkpoint(&path, digest);
                file.map(|file| file.map(|file| (body, vec![file])))
            }
            Event::TrialEnded { trial, outcome } => Ok(Some((
                ReportBody::TrialEnded { trial, outcome },
                Vec::new(),
            ))),
            Event::Result { task, result } => self.answer(&result).map(|files| {
                let result = Box::new(result);
                Some((ReportBody::Result { task, result }, files))
            }),
            Event::Started { .. }
            | Event::Progress { .. }
            | Event::Evaluating { .. }
            | Event::FeaturesMissing { .. }
            | Event::FeaturesPace { .. }
            | Event::Features { .. }
            | Event::Finished {}
            | Event::Stopped {}
            | Event::Failed { .. } => Ok(None),
        };
        match made {
            Ok(Some((body, files))) => self.put(body, files),
            Ok(None) => {}
            Err(fault) => self.end_for(Cause::Broken(Outcome::Crashed { fault })),
        }
    }

    /// The checkpoint's file, kept. `None` when the trainer has replaced it meanwhile.
    fn checkpoint(&self, path: &Path, digest: Digest) -> Result<Option<Upload>, Fault> {
        let leads_out = path.components().any(|part| part == Component::ParentDir);
        if leads_out || !path.starts_with(&self.order.output) {
            let text = format!(
                "the checkpoint `{}` is outside the lease's folder",
                path.display()
            );
            return Err(Fault::new(Code::Internal, text));
        }
        let kept = self.tools.outbox.keep(path)?;
        Ok(kept.map(|path| Upload { digest, path }))
    }

    /// The files of an answer, kept.
    fn answer(&self, result: &TaskResult) -> Result<Vec<Upload>, Fault> {
        let mut files = Vec::new();
        for (digest, path) in answer_files(result, &self.order.output)? {
            let kept = self.tools.outbox.keep(&path)?.ok_or_else(|| {
                let text = format!("the trainer did not write `{}`", path.display());
                Fault::new(Code::LocalFile, text)
            })?;
            files.push(Upload { digest, path: kept });
        }
        Ok(files)
    }

    /// What cannot be written down ends the lease, through no fault of the trial.
    pub(super) fn put(&mut self, body: ReportBody, files: Vec<Upload>) {
        let (lease, generation) = (self.order.lease, self.order.generation);
        if let Err(error) = self.tools.spool.put(lease, generation, body, files) {
            let fault = error.fault();
            tracing::error!(lease.id = %lease, "a report cannot be kept: {fault}");
            self.end_for(Cause::Broken(Outcome::NotStarted { fault }));
        }
    }
}
