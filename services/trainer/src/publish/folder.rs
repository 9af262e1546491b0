//! A published folder: its files, and how it is opened again.

use crate::data;
use crate::network::{Arch, HeadPlan, Network};
use crate::{fault, weights};
use pomona_api::trainer::PublishWork;
use pomona_domain::dataset::{Filter, Fit, ImportOptions};
use pomona_domain::spec::Head;
use pomona_domain::{Code, Fault};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind};

/// The weights.
pub const MODEL: &str = "model.safetensors";
/// The network with its weights, for runtimes other than ours.
pub const ONNX: &str = "model.onnx";
/// How the MLflow client loads it.
pub const MLMODEL: &str = "MLmodel";
/// What they are.
pub const CONFIG: &str = "config.json";
/// From a picture to the network's input.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// The card.
pub const README: &str = "README.md";
/// Where it comes from.
pub const LINEAGE: &str = "lineage.json";

/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Who reads it.
    pub library_name: String,
    /// Architecture.
    pub architecture: String,
    /// Name and digest of the backbone.
    pub backbone: Source,
    /// Head.
    pub head: Head,
    /// Side of the input in pixels.
    pub image_size: u32,
    /// Blocks that were frozen, counted from the input.
    pub frozen_depth: u32,
    /// The last frozen block, if one was.
    pub frozen_through: Option<String>,
    /// Classes.
    pub num_labels: u32,
    /// Number → class.
    pub id2label: BTreeMap<u32, String>,
    /// Class → number.
    pub label2id: BTreeMap<String, u32>,
    /// Type of the tensors.
    pub torch_dtype: String,
}

/// A name and a digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its SHA-256.
    pub sha256: String,
}

impl Config {
    /// The config of a trained network.
    pub fn new(work: &PublishWork, network: &Network, classes: &[String], image_size: u32) -> Self {
        let numbered = || {
            classes
                .iter()
                .enumerate()
                .map(|(id, class)| (id as u32, class.clone()))
        };
        let depth = network.depth();
        Self {
            library_name: "pomona".to_owned(),
            architecture: network.arch().name().to_owned(),
            backbone: Source {
                name: work.backbone.name.clone(),
                sha256: work.backbone.digest.hex(),
            },
            head: work.spec.transfer.head.clone(),
            image_size,
            frozen_depth: depth as u32,
            frozen_through: depth
                .checked_sub(1)
                .map(|last| network.blocks()[last].name.clone()),
            num_labels: classes.len() as u32,
            id2label: numbered().collect(),
            label2id: numbered().map(|(id, class)| (class, id)).collect(),
            torch_dtype: "float32".to_owned(),
        }
    }
}

/// `preprocessor_config.json`, in the words that Hugging Face's image processors use where there is
/// one: decode, alpha on white, fit to a square, then (value / 255 − mean) / std.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessor {
    /// Who reads it.
    pub image_processor_type: String,
    /// Resized.
    pub do_resize: bool,
    /// Side.
    pub size: Size,
    /// How a picture becomes a square.
    pub fit: Fit,
    /// The filter.
    pub interpolation: Filter,
    /// The filter's number in Pillow.
    pub resample: u32,
    /// Multiplied by `rescale_factor`.
    pub do_rescale: bool,
    /// 1 / 255.
    pub rescale_factor: f64,
    /// Mean and deviation are applied.
    pub do_normalize: bool,
    /// Means in units of 0 to 1.
    pub image_mean: [f64; 3],
    /// Deviations in units of 0 to 1.
    pub image_std: [f64; 3],
}

/// A size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Preprocessor {
    /// What the data set's options and the architecture say.
    pub fn new(arch: Arch, options: &ImportOptions) -> Self {
        let preprocess = arch.preprocess();
        let side = options.image_size;
        Self {
            image_processor_type: "PomonaImageProcessor".to_owned(),
            do_resize: true,
            size: Size {
                height: side,
                width: side,
            },
            fit: options.fit,
            interpolation: options.filter,
            resample: match options.filter {
                Filter::Lanczos3 => 1,
                Filter::Bilinear => 2,
                Filter::Bicubic => 3,
            },
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: preprocess.mean.map(|value| value / 255.0),
            image_std: preprocess.scale.map(|value| value / 255.0),
        }
    }
}

/// A published folder, ready to predict.
pub struct Served {
    /// The network with the folder's weights.
    pub network: Network,
    /// Classes by number.
    pub labels: Vec<String>,
    /// From a picture to the network's input.
    pub preprocessor: Preprocessor,
}

/// Opens a published folder.
pub fn open(folder: &Path, device: Device) -> Result<Served, Fault> {
    let config: Config = read_json(&folder.join(CONFIG))?;
    let preprocessor: Preprocessor = read_json(&folder.join(PREPROCESSOR))?;
    let arch = Arch::parse(&config.architecture)?;
    consistent(&config, &preprocessor, arch, folder)?;
    let plan = HeadPlan {
        head: config.head.clone(),
        classes: config.num_labels,
    };
    let mut network = Network::new(arch, &plan, Kind::Float, device);
    network.load(&weights::read(&folder.join(MODEL))?)?;
    let all = network.blocks().len();
    network.freeze(all);
    Ok(Served {
        network,
        labels: config.id2label.into_values().collect(),
        preprocessor,
    })
}

/// Refuses a folder whose files do not agree: half of what they say would be obeyed.
fn consistent(
    config: &Config,
    preprocessor: &Preprocessor,
    arch: Arch,
    folder: &Path,
) -> Result<(), Fault> {
    let preprocess = arch.preprocess();
    let same = |found: [f64; 3], ours: [f64; 3]| {
        let pairs = found.iter().zip(ours);
        pairs
            .into_iter()
            .all(|(found, ours)| (found - ours / 255.0).abs() < 1e-9)
    };
    let wrong = if config.num_labels as usize != config.id2label.len() {
        format!("`{CONFIG}`: `num_labels` is not the number of classes in `id2label`")
    } else if !same(preprocessor.image_mean, preprocess.mean)
        || !same(preprocessor.image_std, preprocess.scale)
    {
        format!("`{PREPROCESSOR}`: `image_mean` and `image_std` are not those of the architecture")
    } else {
        return Ok(());
    };
    let message = format!("`{}` is no published model: {wrong}", folder.display());
    Err(Fault::new(Code::LocalFile, message).hint("pull it again; its files are not to be edited"))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Fault> {
    let text = std::fs::read(path).map_err(|error| fault::file("read", path, &error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Fault::new(
            Code::LocalFile,
            format!("`{}` does not parse: {error}", path.display()),
        )
    })
}

impl Served {
    /// A picture's bytes as the pixels that the network sees.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let p = &self.preprocessor;
        data::decode_square(bytes, p.size.height, p.fit, p.interpolation)
    }

    /// Probabilities of decoded pictures, a row for each.
    pub fn predict(&self, pixels: &[u8], count: usize) -> Vec<Vec<f32>> {
        let side = self.preprocessor.size.height;
        let preprocess = self.network.arch().preprocess();
        let x = preprocess.apply(pixels, count, side, Kind::Float, self.network.device());
        let classes = self.labels.len();
        let mut flat = vec![0f32; count * classes];
        self.network
            .probabilities(&x)
            .copy_data(&mut flat, count * classes);
        flat.chunks_exact(classes.max(1))
            .map(<[f32]>::to_vec)
            .collect()
    }
}

/// Classes by falling probability; the first of equals first.
pub fn ranked(row: &[f32]) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order
}
