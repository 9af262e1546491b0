//! EfficientNet-lite0 against a reference implementation and the published weights.

use crate::support::{photographs, published_weights};
use pomona_domain::dataset::{Filter, Fit};
use pomona_trainer::data::decode_square;
use pomona_trainer::network::{Arch, HeadPlan, Network, Pass};
use pomona_trainer::weights;
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

fn published() -> Network {
    let network = Network::new(
        Arch::EfficientnetLite0,
        &HeadPlan::linear(1000),
        Kind::Float,
        Device::Cpu,
    );
    network
        .load(&weights::read(&published_weights()).unwrap())
        .unwrap();
    network
}

/// Largest difference over the largest reference value.
fn relative(ours: &Tensor, reference: &Tensor) -> f64 {
    let worst = (ours.reshape(reference.size()) - reference)
        .abs()
        .max()
        .double_value(&[]);
    worst / reference.abs().max().double_value(&[])
}

#[test]
fn activations_agree_with_the_reference() {
    tch::set_num_threads(1);
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/efficientnet-lite0.safetensors"
    );
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let reference = |name: &str| {
        let view = file.tensor(name).unwrap();
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        let kind = if view.dtype() == safetensors::Dtype::U8 {
            Kind::Uint8
        } else {
            Kind::Float
        };
        Tensor::from_data_size(view.data(), &shape, kind)
    };
    let network = published();
    let image = reference("image_u8").permute([1, 2, 0]).contiguous();
    let mut pixels = vec![0u8; image.numel()];
    image.copy_data(&mut pixels, image.numel());
    let x = Arch::EfficientnetLite0
        .preprocess()
        .apply(&pixels, 1, 224, Kind::Float, Device::Cpu);
    let mut worst: Vec<(String, f64)> = Vec::new();
    let pooled = tch::no_grad(|| {
        network.forward_with(&x, |index, output| {
            let mean = output.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            match network.blocks()[index].name.as_str() {
                "_conv_stem" => {
                    worst.push(("stem".into(), relative(&mean, &reference("stem_mean"))));
                }
                "_conv_head" => {}
                block => {
                    let number = block.trim_start_matches("_blocks.");
                    let name = format!("blocks_{number}_mean");
                    if file.tensor(&name).is_ok() {
                        worst.push((name.clone(), relative(&mean, &reference(&name))));
                    }
                    if number == "14" {
                        worst.push((block.into(), relative(output, &reference("blocks_14"))));
                    }
                }
            }
        })
    });
    worst.push(("pooled".into(), relative(&pooled, &reference("pooled"))));
    let logits = tch::no_grad(|| network.forward(&x, Pass::Eval));
    worst.push(("logits".into(), relative(&logits, &reference("logits"))));
    // The stem, seven blocks, one whole cut, the features and the logits.
    assert_eq!(worst.len(), 11);
    for (name, difference) in worst {
        assert!(difference < 1e-4, "{name} differs by {difference:e}");
    }
}

#[test]
fn the_published_file_is_imported_whole() {
    let folder = tempfile::tempdir().unwrap();
    let result = pomona_trainer::network::import::import(
        "efficientnet-lite0",
        &published_weights(),
        folder.path(),
    )
    .unwrap();
    let pomona_domain::task::TaskResult::Backbone {
        weights: file,
        blocks,
        tensors,
        head_parameters,
        image_size,
        ..
    } = result
    else {
        panic!("not a backbone");
    };
    // 296 in the file, of which 49 count batches.
    assert_eq!(
        (tensors, head_parameters, image_size),
        (247, 1_281_000, 224)
    );
    assert_eq!(blocks.len(), 18);
    let parameters: u64 = blocks.iter().map(|block| block.parameters).sum();
    assert_eq!(parameters + head_parameters, 4_652_008);
    let cut = blocks
        .iter()
        .find(|block| block.name == "_blocks.14")
        .unwrap();
    assert_eq!(
        (cut.cut_bytes, cut.output_shape.as_slice()),
        (18_816, [192, 7, 7].as_slice())
    );
    let source = weights::read(&published_weights()).unwrap();
    let ours = weights::read(&folder.path().join(file)).unwrap();
    for (name, tensor) in &ours {
        assert_eq!(source[name].bytes, tensor.bytes, "{name}");
    }
}

/// Photographs and the ImageNet classes (by number) that are right for them.
const PHOTOGRAPHS: [(&str, std::ops::RangeInclusive<usize>); 20] = [
    ("bird/hen.png", 7..=8),
    ("bird/rooster.png", 7..=8),
    ("bird/magpie.png", 18..=18),
    ("bird/vulture.png", 23..=23),
    ("bird/owl.png", 24..=24),
    ("bird/peacock.png", 84..=84),
    ("bird/pink_flamingo.png", 130..=130),
    ("bird/pelican.png", 144..=144),
    ("bird/ostrich.png", 9..=9),
    ("mammal/echidna.png", 102..=102),
    ("mammal/koala.png", 105..=105),
    ("mammal/cats_lion.png", 291..=291),
    ("mammal/cats_tiger.png", 292..=292),
    ("mammal/equines_zebra.png", 340..=340),
    ("mammal/hippopotamus.png", 344..=344),
    ("mammal/elephant.png", 385..=386),
    ("fruit_veg/broccoli.png", 937..=937),
    ("fruit_veg/strawberry.png", 949..=949),
    ("fruit_veg/pineapple.png", 953..=953),
    ("fruit_veg/banana.png", 954..=954),
];

#[test]
fn photographs_are_told_apart_as_imagenet_names_them() {
    tch::set_num_threads(1);
    let network = published();
    let right = |(file, classes): &(&str, std::ops::RangeInclusive<usize>)| {
        let bytes = std::fs::read(photographs().join(file)).unwrap();
        let pixels = decode_square(&bytes, 224, Fit::Pad, Filter::Bilinear).unwrap();
        let x = network
            .arch()
            .preprocess()
            .apply(&pixels, 1, 224, Kind::Float, Device::Cpu);
        let logits = tch::no_grad(|| network.forward(&x, Pass::Eval));
        classes.contains(&(logits.argmax(1, false).int64_value(&[0]) as usize))
    };
    let wrong: Vec<&str> = PHOTOGRAPHS
        .iter()
        .filter(|one| !right(one))
        .map(|(file, _)| *file)
        .collect();
    eprintln!("wrong: {wrong:?}");
    assert!(wrong.len() <= 4, "not told: {wrong:?}");
}
