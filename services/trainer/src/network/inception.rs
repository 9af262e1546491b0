//! Inception v3 (Szegedy et al. 2016), torchvision's names, without the auxiliary classifier and
//! without the dropout before the head: a new head says its own.

use super::Parts;
use super::builder::{Builder, Look, window};
use super::layer::Layer;

/// One convolution of a branch: name, output channels, where it looks.
type Step = (&'static str, i64, Look);

/// Blocks `Conv2d_*` and `Mixed_*`.
pub fn build(b: &mut Builder) -> Parts {
    let mut parts = Parts::default();
    stem(b, &mut parts);
    for (name, input, pooled) in [
        ("Mixed_5b", 192, 32),
        ("Mixed_5c", 256, 64),
        ("Mixed_5d", 288, 64),
    ] {
        parts.block(b, name, |b| vec![mixed_a(b, name, input, pooled)]);
    }
    parts.block(b, "Mixed_6a", |b| vec![mixed_b(b, "Mixed_6a")]);
    for (name, width) in [
        ("Mixed_6b", 128),
        ("Mixed_6c", 160),
        ("Mixed_6d", 160),
        ("Mixed_6e", 192),
    ] {
        parts.block(b, name, |b| vec![mixed_c(b, name, width)]);
    }
    parts.block(b, "Mixed_7a", |b| vec![mixed_d(b, "Mixed_7a")]);
    for (name, input) in [("Mixed_7b", 1280), ("Mixed_7c", 2048)] {
        parts.block(b, name, |b| vec![mixed_e(b, name, input)]);
    }
    parts.pool = vec![Layer::GlobalAvgPool];
    parts
}

fn stem(b: &mut Builder, parts: &mut Parts) {
    let steps = [
        (
            "Conv2d_1a_3x3",
            3,
            32,
            Look::square(3).stride(2).valid(),
            false,
        ),
        ("Conv2d_2a_3x3", 32, 32, Look::square(3).valid(), false),
        ("Conv2d_2b_3x3", 32, 64, Look::square(3), true),
        ("Conv2d_3b_1x1", 64, 80, Look::square(1), false),
        ("Conv2d_4a_3x3", 80, 192, Look::square(3).valid(), true),
    ];
    for (name, input, output, look, pool) in steps {
        parts.block(b, name, |b| {
            let mut layers = basic(b, name, [input, output], look);
            if pool {
                layers.push(Layer::MaxPool(window(3, 2, 0)));
            }
            layers
        });
    }
}

/// Convolution, batch norm, ReLU.
fn basic(b: &mut Builder, name: &str, channels: [i64; 2], look: Look) -> Vec<Layer> {
    vec![
        b.conv(&format!("{name}.conv"), channels, look, false),
        b.norm(&format!("{name}.bn"), channels[1]),
        Layer::Relu,
    ]
}

/// Convolutions one after the other, after an optional pooling.
fn branch(b: &mut Builder, block: &str, input: i64, steps: &[Step]) -> Layer {
    let mut input = input;
    let mut layers = Vec::new();
    for &(name, output, look) in steps {
        layers.extend(basic(b, &format!("{block}.{name}"), [input, output], look));
        input = output;
    }
    Layer::Seq(layers)
}

fn pooled(b: &mut Builder, block: &str, input: i64, output: i64) -> Layer {
    let conv = branch(b, block, input, &[("branch_pool", output, Look::square(1))]);
    Layer::Seq(vec![Layer::AvgPool(window(3, 1, 1)), conv])
}

fn mixed_a(b: &mut Builder, block: &str, input: i64, pool: i64) -> Layer {
    let (one, three, five) = (Look::square(1), Look::square(3), Look::square(5));
    Layer::Parallel(vec![
        branch(b, block, input, &[("branch1x1", 64, one)]),
        branch(
            b,
            block,
            input,
            &[("branch5x5_1", 48, one), ("branch5x5_2", 64, five)],
        ),
        branch(
            b,
            block,
            input,
            &[
                ("branch3x3dbl_1", 64, one),
                ("branch3x3dbl_2", 96, three),
                ("branch3x3dbl_3", 96, three),
            ],
        ),
        pooled(b, block, input, pool),
    ])
}

fn mixed_b(b: &mut Builder, block: &str) -> Layer {
    let (one, three) = (Look::square(1), Look::square(3));
    let down = three.stride(2).valid();
    Layer::Parallel(vec![
        branch(b, block, 288, &[("branch3x3", 384, down)]),
        branch(
            b,
            block,
            288,
            &[
                ("branch3x3dbl_1", 64, one),
                ("branch3x3dbl_2", 96, three),
                ("branch3x3dbl_3", 96, down),
            ],
        ),
        Layer::MaxPool(window(3, 2, 0)),
    ])
}

fn mixed_c(b: &mut Builder, block: &str, width: i64) -> Layer {
    let (one, row, column) = (Look::square(1), Look::rect([1, 7]), Look::rect([7, 1]));
    Layer::Parallel(vec![
        branch(b, block, 768, &[("branch1x1", 192, one)]),
        branch(
            b,
            block,
            768,
            &[
                ("branch7x7_1", width, one),
                ("branch7x7_2", width, row),
                ("branch7x7_3", 192, column),
            ],
        ),
        branch(
            b,
            block,
            768,
            &[
                ("branch7x7dbl_1", width, one),
                ("branch7x7dbl_2", width, column),
                ("branch7x7dbl_3", width, row),
                ("branch7x7dbl_4", width, column),
                ("branch7x7dbl_5", 192, row),
            ],
        ),
        pooled(b, block, 768, 192),
    ])
}

fn mixed_d(b: &mut Builder, block: &str) -> Layer {
    let (one, row, column) = (Look::square(1), Look::rect([1, 7]), Look::rect([7, 1]));
    let down = Look::square(3).stride(2).valid();
    Layer::Parallel(vec![
        branch(
            b,
            block,
            768,
            &[("branch3x3_1", 192, one), ("branch3x3_2", 320, down)],
        ),
        branch(
            b,
            block,
            768,
            &[
                ("branch7x7x3_1", 192, one),
                ("branch7x7x3_2", 192, row),
                ("branch7x7x3_3", 192, column),
                ("branch7x7x3_4", 192, down),
            ],
        ),
        Layer::MaxPool(window(3, 2, 0)),
    ])
}

fn mixed_e(b: &mut Builder, block: &str, input: i64) -> Layer {
    let (one, three) = (Look::square(1), Look::square(3));
    let (row, column) = (Look::rect([1, 3]), Look::rect([3, 1]));
    let first = branch(b, block, input, &[("branch1x1", 320, one)]);
    let short = branch(b, block, input, &[("branch3x3_1", 384, one)]);
    let short_fork = Layer::Parallel(vec![
        branch(b, block, 384, &[("branch3x3_2a", 384, row)]),
        branch(b, block, 384, &[("branch3x3_2b", 384, column)]),
    ]);
    let long = branch(
        b,
        block,
        input,
        &[("branch3x3dbl_1", 448, one), ("branch3x3dbl_2", 384, three)],
    );
    let long_fork = Layer::Parallel(vec![
        branch(b, block, 384, &[("branch3x3dbl_3a", 384, row)]),
        branch(b, block, 384, &[("branch3x3dbl_3b", 384, column)]),
    ]);
    Layer::Parallel(vec![
        first,
        Layer::Seq(vec![short, short_fork]),
        Layer::Seq(vec![long, long_fork]),
        pooled(b, block, input, 192),
    ])
}
