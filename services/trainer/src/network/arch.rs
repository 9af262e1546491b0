//! The architectures: names, sizes, preprocessing, and who builds them.

use super::builder::Builder;
use super::{Parts, inception, lite0, resnet, vgg};
use pomona_domain::backbone::check_image;
use pomona_domain::{Code, Fault};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// ResNet-18.
    Resnet18,
    /// ResNet-50.
    Resnet50,
    /// VGG16 without batch norm.
    Vgg16,
    /// Inception v3.
    InceptionV3,
    /// EfficientNet-lite0.
    EfficientnetLite0,
    /// Two convolutions, for tests; not in the catalogue.
    TestConvnet,
    /// A thin ResNet, for tests; not in the catalogue.
    TestResnet,
}

/// From 8-bit values to what a network was trained on: (value − mean) / scale, per channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Taken away, in 8-bit units.
    pub mean: [f64; 3],
    /// Divided by, in 8-bit units.
    pub scale: [f64; 3],
}

impl Preprocess {
    /// Pixels [N, H, W, 3] in bytes → [N, 3, H, W], channels together in memory as they come.
    pub fn apply(
        &self,
        pixels: &[u8],
        count: usize,
        side: u32,
        kind: Kind,
        device: Device,
    ) -> Tensor {
        let table: [[f32; 256]; 3] = std::array::from_fn(|channel| {
            let (mean, scale) = (self.mean[channel], self.scale[channel]);
            std::array::from_fn(|value| ((value as f64 - mean) / scale) as f32)
        });
        let mut values = Vec::with_capacity(pixels.len());
        for pixel in pixels.chunks_exact(3) {
            for (table, &value) in table.iter().zip(pixel) {
                values.push(table[usize::from(value)]);
            }
        }
        let side = i64::from(side);
        Tensor::from_slice(&values)
            .reshape([count as i64, side, side, 3])
            .permute([0, 3, 1, 2])
            .to_device(device)
            .to_kind(kind)
    }
}

impl Arch {
    /// The catalogue.
    pub const ALL: &'static [Self] = &[
        Self::EfficientnetLite0,
        Self::InceptionV3,
        Self::Resnet18,
        Self::Resnet50,
        Self::Vgg16,
    ];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resnet18 => "resnet18",
            Self::Resnet50 => "resnet50",
            Self::Vgg16 => "vgg16",
            Self::InceptionV3 => "inception_v3",
            Self::EfficientnetLite0 => "efficientnet-lite0",
            Self::TestConvnet => "test-convnet",
            Self::TestResnet => "test-resnet",
        }
    }

    /// The architecture of a name.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let known = Self::ALL
            .iter()
            .chain(&[Self::TestConvnet, Self::TestResnet]);
        known
            .copied()
            .find(|arch| arch.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|arch| arch.name()).collect();
                Fault::new(
                    Code::UnknownArch,
                    format!("there is no architecture `{name}`"),
                )
                .hint(format!("use one of {}", names.join(", ")))
            })
    }

    /// Side of the image that the published weights were trained for.
    pub fn image_size(self) -> u32 {
        match self {
            Self::Resnet18 | Self::Resnet50 | Self::Vgg16 | Self::EfficientnetLite0 => 224,
            Self::InceptionV3 => 299,
            Self::TestConvnet | Self::TestResnet => 32,
        }
    }

    /// Width of the pooled features, which a head reads.
    pub fn features(self) -> i64 {
        match self {
            Self::Resnet18 => 512,
            Self::Resnet50 | Self::InceptionV3 => 2048,
            Self::Vgg16 => 4096,
            Self::EfficientnetLite0 => 1280,
            Self::TestConvnet => 16,
            Self::TestResnet => 64,
        }
    }

    /// Whether images of this side can be fed.
    pub fn check_image(self, side: u32) -> Result<(), Fault> {
        check_image(self.name(), side)
    }

    /// What the published weights were trained on. torchvision's Inception undoes ImageNet's
    /// normalisation for its own, (x / 255 − 0.5) / 0.5; lite0 wants (x − 127) / 128.
    pub fn preprocess(self) -> Preprocess {
        let unit = |values: [f64; 3]| values.map(|value| value * 255.0);
        match self {
            Self::Resnet18
            | Self::Resnet50
            | Self::Vgg16
            | Self::TestConvnet
            | Self::TestResnet => Preprocess {
                mean: unit([0.485, 0.456, 0.406]),
                scale: unit([0.229, 0.224, 0.225]),
            },
            Self::InceptionV3 => Preprocess {
                mean: unit([0.5; 3]),
                scale: unit([0.5; 3]),
            },
            Self::EfficientnetLite0 => Preprocess {
                mean: [127.0; 3],
                scale: [128.0; 3],
            },
        }
    }

    /// Blocks from the input that bfloat16 carries: their features keep a mean-centred cosine above
    /// 0.999 to those in 32 bits (T6; lite0 with its published weights, the others with drawn ones).
    /// Rounded after every layer, the pooled features of none of them do.
    pub fn bf16_blocks(self) -> usize {
        match self {
            // `layer3.0`
            Self::Resnet18 => 6,
            // `layer2.0`
            Self::Resnet50 => 5,
            // `features.21`
            Self::Vgg16 => 10,
            // `Mixed_6a`
            Self::InceptionV3 => 9,
            // `_blocks.0`
            Self::EfficientnetLite0 => 2,
            Self::TestConvnet | Self::TestResnet => 0,
        }
    }

    /// Name of the source head, which a new head takes over.
    pub fn head_name(self) -> &'static str {
        match self {
            Self::Resnet18
            | Self::Resnet50
            | Self::InceptionV3
            | Self::TestConvnet
            | Self::TestResnet => "fc",
            Self::Vgg16 => "classifier.6",
            Self::EfficientnetLite0 => "_fc",
        }
    }

    /// Whether a published state dict may have this tensor although the network does not.
    pub(super) fn is_ignored(self, name: &str) -> bool {
        name.ends_with(".num_batches_tracked")
            || (self == Self::InceptionV3 && name.starts_with("AuxLogits."))
    }

    /// lite0's statistics move by 0.01 a step and its eps is TensorFlow's; the others have
    /// PyTorch's, Inception with its own eps.
    pub(super) fn builder(self, kind: Kind, device: Device) -> Builder {
        match self {
            Self::Resnet18
            | Self::Resnet50
            | Self::Vgg16
            | Self::TestConvnet
            | Self::TestResnet => Builder::new(kind, device, 1e-5, 0.1),
            Self::InceptionV3 => Builder::new(kind, device, 1e-3, 0.1),
            Self::EfficientnetLite0 => Builder::new(kind, device, 1e-3, 0.01),
        }
    }

    pub(super) fn build(self, b: &mut Builder) -> Parts {
        match self {
            Self::Resnet18 => resnet::build(b, 64, [2, 2, 2, 2], false),
            Self::Resnet50 => resnet::build(b, 64, [3, 4, 6, 3], true),
            Self::Vgg16 => vgg::build(b),
            Self::InceptionV3 => inception::build(b),
            Self::EfficientnetLite0 => lite0::build(b),
            Self::TestConvnet => vgg::build_test(b),
            Self::TestResnet => resnet::build(b, 8, [1, 1, 1, 1], false),
        }
    }
}
