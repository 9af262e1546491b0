//! VGG16 (Simonyan and Zisserman 2015), torchvision's names; and a small plain network for tests.

use super::Parts;
use super::builder::{Builder, Look, window};
use super::layer::Layer;

/// Channels of each convolution; 0 is a pooling.
const PLAN: [i64; 18] = [
    64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0,
];

/// Blocks `features.N` (each convolution with its pooling), `classifier.0` and `.3`.
pub fn build(b: &mut Builder) -> Parts {
    let mut parts = Parts::default();
    // torchvision counts the ReLU and the pooling, too.
    let (mut index, mut input) = (0, 3);
    for (place, &output) in PLAN.iter().enumerate() {
        if output == 0 {
            index += 1;
            continue;
        }
        let name = format!("features.{index}");
        parts.block(b, &name, |b| {
            let mut layers = vec![
                b.conv(&name, [input, output], Look::square(3), true),
                Layer::Relu,
            ];
            if PLAN[place + 1] == 0 {
                layers.push(Layer::MaxPool(window(2, 2, 0)));
            }
            layers
        });
        input = output;
        index += 2;
    }
    let dropout = |name: &str| Layer::Dropout {
        name: name.to_owned(),
        share: 0.5,
    };
    parts.block(b, "classifier.0", |b| {
        vec![
            Layer::AdaptiveAvgPool(7),
            Layer::Flatten,
            b.linear("classifier.0", 512 * 7 * 7, 4096),
            Layer::Relu,
            dropout("classifier.2"),
        ]
    });
    parts.block(b, "classifier.3", |b| {
        vec![
            b.linear("classifier.3", 4096, 4096),
            Layer::Relu,
            dropout("classifier.5"),
        ]
    });
    parts
}

/// Two convolutions without batch norm: what tests train where sums must be exact.
pub fn build_test(b: &mut Builder) -> Parts {
    let mut parts = Parts::default();
    for (name, channels) in [("conv1", [3, 8]), ("conv2", [8, 16])] {
        parts.block(b, name, |b| {
            let conv = b.conv(name, channels, Look::square(3).stride(2), true);
            vec![conv, Layer::Relu]
        });
    }
    parts.pool = vec![Layer::GlobalAvgPool];
    parts
}
