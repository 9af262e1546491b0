//! ResNet-18 and -50 (He et al. 2016), torchvision's names and its stride on the 3×3 convolution;
//! and a thin one for tests.

use super::Parts;
use super::builder::{Builder, Look, window};
use super::layer::Layer;

/// Blocks `conv1` and `layerS.K`. `bottleneck` units have three convolutions and expand by four.
/// `first` is the width of the first stage, doubled by each stage.
pub fn build(b: &mut Builder, first: i64, repeats: [usize; 4], bottleneck: bool) -> Parts {
    let mut parts = Parts::default();
    parts.block(b, "conv1", |b| {
        let stem = Look::square(7).stride(2);
        vec![
            b.conv("conv1", [3, first], stem, false),
            b.norm("bn1", first),
            Layer::Relu,
            Layer::MaxPool(window(3, 2, 1)),
        ]
    });
    let mut input = first;
    for (stage, repeats) in repeats.into_iter().enumerate() {
        let width = first << stage;
        for unit in 0..repeats {
            let stride = if stage > 0 && unit == 0 { 2 } else { 1 };
            let name = format!("layer{}.{unit}", stage + 1);
            let output = if bottleneck { 4 * width } else { width };
            parts.block(b, &name, |b| {
                vec![residual(
                    b,
                    &name,
                    [input, width, output],
                    stride,
                    bottleneck,
                )]
            });
            input = output;
        }
    }
    parts.pool = vec![Layer::GlobalAvgPool];
    parts
}

fn residual(
    b: &mut Builder,
    name: &str,
    [input, width, output]: [i64; 3],
    stride: i64,
    bottleneck: bool,
) -> Layer {
    let convs: Vec<([i64; 2], Look)> = if bottleneck {
        vec![
            ([input, width], Look::square(1)),
            ([width, width], Look::square(3).stride(stride)),
            ([width, output], Look::square(1)),
        ]
    } else {
        vec![
            ([input, width], Look::square(3).stride(stride)),
            ([width, output], Look::square(3)),
        ]
    };
    let last = convs.len();
    let mut main = Vec::new();
    for (index, (channels, look)) in convs.into_iter().enumerate() {
        let number = index + 1;
        main.push(b.conv(&format!("{name}.conv{number}"), channels, look, false));
        main.push(b.norm(&format!("{name}.bn{number}"), channels[1]));
        if number < last {
            main.push(Layer::Relu);
        }
    }
    let mut shortcut = Vec::new();
    if stride != 1 || input != output {
        let look = Look::square(1).stride(stride);
        shortcut.push(b.conv(
            &format!("{name}.downsample.0"),
            [input, output],
            look,
            false,
        ));
        shortcut.push(b.norm(&format!("{name}.downsample.1"), output));
    }
    Layer::Residual {
        main,
        shortcut,
        relu: true,
    }
}
