//! `dataset` and `backbone`.

use clap::{Args, Subcommand, ValueEnum};
use pomona_domain::dataset;
use std::path::PathBuf;

/// `pomona dataset`.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Import a folder with one sub-folder of images for each class
    Add(DatasetAddArgs),
    /// Data sets and their newest version
    #[command(after_help = "Example:
  pomona dataset list")]
    List,
    /// Classes, split and what was set aside
    #[command(after_help = "Examples:
  pomona dataset show flowers
  pomona dataset show flowers@2 --output json
  pomona dataset show flowers --samples test         the images of a split")]
    Show {
        /// The data set: `NAME`, or `NAME@V` for an older version.
        #[arg(value_name = "NAME[@V]")]
        name: String,
        /// List the images of a split.
        #[arg(long, value_enum, value_name = "SPLIT")]
        samples: Option<SplitArg>,
    },
}

/// `pomona dataset add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona dataset add flowers ./flowers
  pomona dataset add tux ./stamps --image-size 128 --group-pattern '_mirror$'
  pomona dataset add flowers ./flowers --split 70/15/15 --seed 1

A file that cannot be read as an image is set aside and counted, never fatal, never silent.
Exact copies and mirror images stay in one split. The same folder gives the same digest.")]
pub struct DatasetAddArgs {
    /// Name of the data set; a known name gets a new version.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Side of the square image in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(8..=4096))]
    pub image_size: u32,
    /// How a picture becomes a square.
    #[arg(long, value_enum, default_value = "pad")]
    pub fit: FitArg,
    /// Filter of the resize.
    #[arg(long, value_enum, default_value = "bilinear")]
    pub filter: FilterArg,
    /// Shares of train, val and test in percent.
    #[arg(long, value_name = "TRAIN/VAL/TEST", default_value = "60/20/20", value_parser = parse_split)]
    pub split: Shares,
    /// Seed of the split.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Regular expression: what it matches is taken out of a file's stem, and files of one class
    /// with the same rest stay in one split.
    #[arg(long, value_name = "REGEX")]
    pub group_pattern: Option<String>,
}

/// Shares of train, val and test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares(pub [u32; 3]);

/// `60/20/20`.
fn parse_split(text: &str) -> Result<Shares, String> {
    let shares: Vec<u32> = text
        .split('/')
        .map(|part| part.trim().parse().map_err(|_| part))
        .collect::<Result<_, &str>>()
        .map_err(|part| format!("`{part}` is not a whole number of percent"))?;
    let [train, val, test] = shares[..] else {
        return Err("three shares are needed, like 60/20/20".to_owned());
    };
    if u64::from(train) + u64::from(val) + u64::from(test) != 100 {
        return Err("the three shares must add up to 100".to_owned());
    }
    if train == 0 || val == 0 || test == 0 {
        return Err("each part needs a share above 0".to_owned());
    }
    Ok(Shares([train, val, test]))
}

/// How a picture becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FitArg {
    /// Padded with white: nothing is cut off.
    Pad,
    /// Shorter side resized, centre cut out.
    Crop,
    /// Resized without regard to its shape.
    Stretch,
}

impl From<FitArg> for dataset::Fit {
    fn from(fit: FitArg) -> Self {
        match fit {
            FitArg::Pad => Self::Pad,
            FitArg::Crop => Self::Crop,
            FitArg::Stretch => Self::Stretch,
        }
    }
}

/// Filter of the resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilterArg {
    /// Triangle filter with antialiasing.
    Bilinear,
    /// Catmull-Rom with antialiasing.
    Bicubic,
    /// Lanczos, three lobes.
    Lanczos3,
}

impl From<FilterArg> for dataset::Filter {
    fn from(filter: FilterArg) -> Self {
        match filter {
            FilterArg::Bilinear => Self::Bilinear,
            FilterArg::Bicubic => Self::Bicubic,
            FilterArg::Lanczos3 => Self::Lanczos3,
        }
    }
}

/// Which part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    /// What trains.
    Train,
    /// What chooses.
    Val,
    /// What judges.
    Test,
    /// Every part.
    All,
}

impl SplitArg {
    /// Whether a part is meant.
    pub fn has(self, split: dataset::Split) -> bool {
        match self {
            Self::Train => split == dataset::Split::Train,
            Self::Val => split == dataset::Split::Val,
            Self::Test => split == dataset::Split::Test,
            Self::All => true,
        }
    }
}

/// `pomona backbone`.
#[derive(Debug, Subcommand)]
pub enum BackboneCommand {
    /// Import pretrained weights: safetensors, or a PyTorch `.pth` (nothing in it is executed)
    #[command(after_help = "Examples:
  pomona backbone add lite0 --arch efficientnet-lite0 --weights efficientnet_lite0.pth
  pomona backbone add resnet18 --arch resnet18 --weights resnet18.safetensors

Architectures: efficientnet-lite0, resnet18, resnet50, vgg16, inception_v3.")]
    Add {
        /// Name of the backbone.
        name: String,
        /// Architecture.
        #[arg(long)]
        arch: String,
        /// The weights file.
        #[arg(long, value_name = "FILE")]
        weights: PathBuf,
    },
    /// Backbones in the catalogue
    #[command(after_help = "Example:
  pomona backbone list")]
    List,
    /// Blocks from the input: parameters, multiply-adds, bytes at each cut
    #[command(after_help = "Examples:
  pomona backbone show lite0
  pomona backbone show lite0 --frozen-depth all
  pomona backbone show lite0 --frozen-depth _blocks.14")]
    Show {
        /// The backbone.
        name: String,
        /// Show what this frozen depth trains: `all`, a number of blocks, or a block's name.
        #[arg(long, value_name = "DEPTH")]
        frozen_depth: Option<String>,
    },
}
