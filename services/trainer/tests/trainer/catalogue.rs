//! Every architecture: names, shapes, sizes, freezing, and what loading refuses.

use pomona_domain::Code;
use pomona_domain::spec::FrozenDepth;
use pomona_trainer::network::{Arch, HeadPlan, Network, Pass, Role, host_tensor};
use pomona_trainer::weights::HostTensor;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

fn network(arch: Arch) -> Network {
    Network::new(arch, &HeadPlan::linear(1000), Kind::Float, Device::Cpu)
}

/// Drawn by libtorch, which is quicker for 138 million numbers.
fn random(arch: Arch) -> Network {
    tch::manual_seed(3);
    let network = network(arch);
    for entry in network
        .entries()
        .iter()
        .filter(|entry| entry.tensor.dim() > 1)
    {
        let fan_in = entry.tensor.numel() as f64 / entry.tensor.size()[0] as f64;
        let _drawn = tch::no_grad(|| {
            entry
                .tensor
                .shallow_clone()
                .normal_(0.0, (2.0 / fan_in).sqrt())
        });
    }
    network
}

#[test]
fn parameters_are_those_of_the_published_networks() {
    let auxiliary = 3_326_696;
    let expect = [
        (Arch::Resnet18, 11_689_512),
        (Arch::Resnet50, 25_557_032),
        (Arch::Vgg16, 138_357_544),
        (Arch::InceptionV3, 27_161_264 - auxiliary),
        (Arch::EfficientnetLite0, 4_652_008),
    ];
    for (arch, parameters) in expect {
        let network = network(arch);
        let ours: u64 = (0..network.blocks().len())
            .map(Some)
            .chain([None])
            .map(|block| network.count(block))
            .sum();
        assert_eq!(ours, parameters, "{}", arch.name());
    }
}

#[test]
fn names_are_those_of_the_published_state_dicts() {
    let expect: [(Arch, usize, &[&str]); 5] = [
        (
            Arch::Resnet18,
            102,
            &[
                "conv1.weight",
                "bn1.running_var",
                "layer2.0.downsample.1.bias",
                "layer4.1.conv2.weight",
                "fc.bias",
            ],
        ),
        (
            Arch::Resnet50,
            267,
            &[
                "layer1.0.downsample.0.weight",
                "layer3.5.bn3.running_mean",
                "layer4.2.conv3.weight",
            ],
        ),
        (
            Arch::Vgg16,
            32,
            &[
                "features.0.weight",
                "features.28.bias",
                "classifier.0.weight",
                "classifier.3.bias",
                "classifier.6.weight",
            ],
        ),
        (
            Arch::InceptionV3,
            472,
            &[
                "Conv2d_1a_3x3.conv.weight",
                "Mixed_5b.branch_pool.bn.weight",
                "Mixed_6a.branch3x3dbl_3.conv.weight",
                "Mixed_6e.branch7x7dbl_5.conv.weight",
                "Mixed_7a.branch7x7x3_4.conv.weight",
                "Mixed_7c.branch3x3dbl_3b.bn.running_var",
            ],
        ),
        (
            Arch::EfficientnetLite0,
            247,
            &[
                "_conv_stem.weight",
                "_bn0.bias",
                "_blocks.0._depthwise_conv.weight",
                "_blocks.15._expand_conv.weight",
                "_conv_head.weight",
                "_fc.weight",
            ],
        ),
    ];
    for (arch, count, names) in expect {
        let network = network(arch);
        let ours: Vec<&str> = network
            .entries()
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(ours.len(), count, "{}", arch.name());
        for name in names {
            assert!(ours.contains(name), "{} has no {name}", arch.name());
        }
    }
}

#[test]
fn measured_shapes_are_the_real_ones() {
    for arch in [
        Arch::Resnet18,
        Arch::Resnet50,
        Arch::Vgg16,
        Arch::InceptionV3,
        Arch::EfficientnetLite0,
    ] {
        let network = random(arch);
        let side = i64::from(arch.image_size());
        let x = Tensor::randn([1, 3, side, side], (Kind::Float, Device::Cpu));
        let blocks = network.catalogue();
        let features = tch::no_grad(|| {
            network.forward_with(&x, |index, output| {
                let shape: Vec<u64> = output.size()[1..].iter().map(|&side| side as u64).collect();
                assert_eq!(
                    blocks[index].output_shape,
                    shape,
                    "{} {}",
                    arch.name(),
                    blocks[index].name
                );
            })
        });
        assert_eq!(features.size(), [1, network.features()]);
        let logits = tch::no_grad(|| network.forward(&x, Pass::Eval));
        assert_eq!(logits.size(), [1, 1000]);
        assert!(
            logits.isfinite().all().int64_value(&[]) == 1,
            "{}",
            arch.name()
        );
    }
}

/// Values between -1 and 1 that look random, as tests/fixtures/reference_networks.py makes them.
fn noise(name: &str, shape: &[i64]) -> Tensor {
    let phase: u32 = name.bytes().map(u32::from).sum();
    let count = shape.iter().product::<i64>();
    let wave = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898 + f64::from(phase))
        .sin()
        * 43758.5453;
    (wave.remainder(1.0) * 2.0 - 1.0).reshape(shape)
}

#[test]
fn networks_give_torchvisions_numbers() {
    let text = include_str!("../fixtures/reference_networks.json");
    let reference: serde_json::Value = serde_json::from_str(text).unwrap();
    for arch in [
        Arch::Resnet18,
        Arch::Resnet50,
        Arch::Vgg16,
        Arch::InceptionV3,
    ] {
        let network = network(arch);
        tch::no_grad(|| {
            for entry in network.entries() {
                let shape = entry.tensor.size();
                let noise = noise(&entry.name, &shape);
                let value = match shape.as_slice() {
                    [_, rest @ ..] if !rest.is_empty() => {
                        noise * (2.4 / (rest.iter().product::<i64>() as f64).sqrt())
                    }
                    _ if entry.name.ends_with("running_var") => noise * 0.5 + 1.0,
                    _ if entry.name.ends_with("weight") => noise * 0.1 + 1.0,
                    _ => noise * 0.1,
                };
                entry.tensor.shallow_clone().copy_(&value);
            }
        });
        let expect = &reference["networks"][arch.name()];
        let side = expect["side"].as_i64().unwrap();
        let x = noise("image", &[1, 3, side, side]).to_kind(Kind::Float);
        let logits = tch::no_grad(|| network.forward(&x, Pass::Eval));
        let logits: Vec<f64> = (&logits.reshape(-1).to_kind(Kind::Double))
            .try_into()
            .unwrap();
        let expect: Vec<f64> = serde_json::from_value(expect["logits"].clone()).unwrap();
        let largest = expect
            .iter()
            .fold(0f64, |most, value| most.max(value.abs()));
        assert!(largest > 0.01, "{}: {largest}", arch.name());
        for (ours, theirs) in logits.iter().step_by(25).zip(&expect) {
            let off = (ours - theirs).abs() / largest;
            assert!(off < 1e-4, "{}: {ours} is not {theirs}", arch.name());
        }
    }
}

#[test]
fn multiply_adds_are_the_published_ones() {
    let giga = |arch| {
        network(arch)
            .catalogue()
            .iter()
            .map(|block| block.macs)
            .sum::<u64>() as f64
            / 1e9
    };
    assert!((giga(Arch::Resnet18) - 1.814).abs() < 0.01);
    assert!((giga(Arch::Resnet50) - 4.09).abs() < 0.02);
    assert!((giga(Arch::Vgg16) - 15.47).abs() < 0.02);
    assert!((giga(Arch::InceptionV3) - 5.71).abs() < 0.02);
    assert!((giga(Arch::EfficientnetLite0) - 0.385).abs() < 0.01);
}

#[test]
fn a_depth_is_a_number_a_block_a_stage_or_all() {
    let network = network(Arch::Resnet18);
    let named = |name: &str| network.resolve(&FrozenDepth::Named(name.into()));
    assert_eq!(network.resolve(&FrozenDepth::Blocks(0)).unwrap(), 0);
    assert_eq!(named("conv1").unwrap(), 1);
    assert_eq!(named("layer3.0").unwrap(), 6);
    assert_eq!(named("layer3").unwrap(), 7);
    assert_eq!(named("all").unwrap(), 9);
    let unknown = named("layer5").unwrap_err();
    assert_eq!(unknown.code, Code::UnknownBlock);
    let near = named("layer3.2").unwrap_err();
    assert!(near.hint.unwrap().contains("did you mean `layer"));
    assert_eq!(
        network.resolve(&FrozenDepth::Blocks(10)).unwrap_err().code,
        Code::UnknownBlock
    );
}

fn state(network: &Network) -> BTreeMap<String, HostTensor> {
    network
        .entries()
        .iter()
        .map(|entry| (entry.name.clone(), host_tensor(&entry.tensor)))
        .collect()
}

#[test]
fn loading_names_the_tensor_that_does_not_fit() {
    let network = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(4),
        Kind::Float,
        Device::Cpu,
    );
    let whole = state(&network);
    let mut missing = whole.clone();
    missing.remove("layer2.0.bn1.weight");
    let mut extra = whole.clone();
    extra.insert("layer9.weight".into(), whole["fc.bias"].clone());
    let mut misshapen = whole.clone();
    misshapen.insert("fc.weight".into(), whole["fc.bias"].clone());
    let mut counted = whole.clone();
    counted.insert("bn1.num_batches_tracked".into(), whole["fc.bias"].clone());
    let cases = [
        (missing, Code::MissingTensor, "layer2.0.bn1.weight"),
        (extra, Code::ExtraTensor, "layer9.weight"),
        (misshapen, Code::MisshapenTensor, "fc.weight"),
    ];
    for (tensors, code, name) in cases {
        let fault = network.load(&tensors).unwrap_err();
        assert_eq!(fault.code, code);
        assert!(fault.message.contains(name), "{}", fault.message);
    }
    network.load(&counted).unwrap();
    // Another head may stand where the backbone had its own.
    let other = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(9),
        Kind::Float,
        Device::Cpu,
    );
    other.load_backbone(&whole).unwrap();
}

#[test]
fn frozen_blocks_learn_nothing_and_drawing_repeats() {
    let mut network = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(4),
        Kind::Float,
        Device::Cpu,
    );
    network.draw(5, 0, |_| true);
    let digest = network.digest(|_| true);
    network.draw(5, 1, |_| true);
    assert_ne!(network.digest(|_| true), digest);
    network.draw(5, 0, |_| true);
    assert_eq!(network.digest(|_| true), digest);
    network.freeze(3);
    assert!(network.trainable().iter().all(|(name, _)| {
        !name.starts_with("conv1") && !name.starts_with("layer1") && !name.starts_with("layer2")
    }));
    assert!(network.live().any(|entry| entry.role == Role::Buffer));
    let all = network.blocks().len();
    network.freeze(all);
    assert_eq!(network.trainable().len(), 2);
}
