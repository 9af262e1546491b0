//! EfficientNet-lite0 (Tan and Le 2019; the lite variants have ReLU6 and no squeeze-excite) under
//! the names of lukemelas' PyTorch package, with TensorFlow's padding. Its dropout and its dropped
//! connections are left out: a new head says its own dropout.

use super::Parts;
use super::builder::{Builder, Look};
use super::layer::Layer;

/// Repeats, output channels, kernel, stride of the first, expansion.
const STAGES: [(usize, i64, i64, i64, i64); 7] = [
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
];

/// Blocks `_conv_stem`, `_blocks.N`, `_conv_head`.
pub fn build(b: &mut Builder) -> Parts {
    let mut parts = Parts::default();
    parts.block(b, "_conv_stem", |b| {
        let look = Look::square(3).stride(2).same();
        vec![
            b.conv("_conv_stem", [3, 32], look, false),
            b.norm("_bn0", 32),
            Layer::Relu6,
        ]
    });
    let (mut input, mut index) = (32, 0);
    for (repeats, output, kernel, first_stride, expand) in STAGES {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { first_stride } else { 1 };
            let look = Look::square(kernel).stride(stride).same();
            let name = format!("_blocks.{index}");
            parts.block(b, &name, |b| {
                vec![inverted(b, &name, [input, output], expand, look)]
            });
            input = output;
            index += 1;
        }
    }
    parts.block(b, "_conv_head", |b| {
        let look = Look::square(1).same();
        vec![
            b.conv("_conv_head", [input, 1280], look, false),
            b.norm("_bn1", 1280),
            Layer::Relu6,
        ]
    });
    parts.pool = vec![Layer::GlobalAvgPool];
    parts
}

/// Expand, filter each channel, project; with a shortcut where the shape stays.
fn inverted(
    b: &mut Builder,
    name: &str,
    [input, output]: [i64; 2],
    expand: i64,
    look: Look,
) -> Layer {
    let wide = input * expand;
    let mut main = Vec::new();
    if expand != 1 {
        let one = Look::square(1).same();
        main.push(b.conv(&format!("{name}._expand_conv"), [input, wide], one, false));
        main.push(b.norm(&format!("{name}._bn0"), wide));
        main.push(Layer::Relu6);
    }
    let depthwise = look.depthwise(wide);
    main.push(b.conv(
        &format!("{name}._depthwise_conv"),
        [wide, wide],
        depthwise,
        false,
    ));
    main.push(b.norm(&format!("{name}._bn1"), wide));
    main.push(Layer::Relu6);
    let one = Look::square(1).same();
    main.push(b.conv(&format!("{name}._project_conv"), [wide, output], one, false));
    main.push(b.norm(&format!("{name}._bn2"), output));
    if look.stride == 1 && input == output {
        Layer::Residual {
            main,
            shortcut: Vec::new(),
            relu: false,
        }
    } else {
        Layer::Seq(main)
    }
}
