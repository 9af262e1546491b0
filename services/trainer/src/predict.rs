//! Prediction of pictures with a published folder: every picture gets an answer or a reason.

use crate::data;
use crate::publish::folder::{self, Served, ranked};
use pomona_domain::task::{ClassProbability, Prediction, TaskResult};
use pomona_domain::{Code, Fault};
use std::path::Path;
use tch::Device;

/// Pictures that a forward pass takes.
const BATCH: usize = 32;

/// Predicts the pictures of a tar, in its order. `beat` is called after every batch.
pub fn predict(
    model: &Path,
    pictures: &Path,
    top: u32,
    mut beat: impl FnMut(),
) -> Result<TaskResult, Fault> {
    let served = folder::open(model, Device::Cpu)?;
    let mut answers: Vec<Prediction> = Vec::new();
    let mut waiting = Waiting::default();
    for picture in data::read_pictures(pictures)? {
        let (path, bytes) = picture;
        let fault = match served.decode(&bytes) {
            Ok(pixels) => {
                waiting.add(answers.len(), &pixels);
                None
            }
            Err(fault) => Some(unreadable(fault)),
        };
        answers.push(Prediction {
            path,
            classes: Vec::new(),
            fault,
        });
        if waiting.places.len() == BATCH {
            waiting.answer(&served, top, &mut answers);
            beat();
        }
    }
    waiting.answer(&served, top, &mut answers);
    Ok(TaskResult::Predicted { pictures: answers })
}

fn unreadable(fault: Fault) -> Fault {
    Fault {
        code: Code::BadPicture,
        ..fault
    }
}

/// Decoded pictures of the next batch.
#[derive(Default)]
struct Waiting {
    places: Vec<usize>,
    pixels: Vec<u8>,
}

impl Waiting {
    fn add(&mut self, place: usize, pixels: &[u8]) {
        self.places.push(place);
        self.pixels.extend_from_slice(pixels);
    }

    fn answer(&mut self, served: &Served, top: u32, answers: &mut [Prediction]) {
        if self.places.is_empty() {
            return;
        }
        let rows = served.predict(&self.pixels, self.places.len());
        for (&place, row) in self.places.iter().zip(&rows) {
            answers[place].classes = ranked(row)
                .into_iter()
                .take(top.max(1) as usize)
                .map(|(class, probability)| ClassProbability {
                    label: served.labels[class].clone(),
                    probability: f64::from(probability),
                })
                .collect();
        }
        self.places.clear();
        self.pixels.clear();
    }
}
