//! Exported models against ONNX Runtime and the ONNX project's own checker: every network, every
//! head, at its own image size and at one that divides by nothing.

use crate::support::{clients_python, published_weights};
use pomona_domain::spec::Head;
use pomona_trainer::network::{Arch, HeadPlan, Network, Role};
use pomona_trainer::{onnx, weights};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Images that are fed at once.
const BATCH: i64 = 3;
/// How far logits may be apart.
const TOLERANCE: f64 = 1e-4;

const LINEAR: Head = Head::Linear;
const MLP: Head = Head::Mlp {
    hidden: 24,
    dropout: 0.5,
};

fn labels(count: u32) -> Vec<String> {
    (0..count)
        .map(|class| format!("class {class} “ü”"))
        .collect()
}

/// Weights that keep the size of activations, and batch norms that have seen something: drawn by
/// libtorch, which is quicker for 138 million numbers.
fn drawn(arch: Arch, head: &Head, classes: u32) -> Network {
    tch::manual_seed(5);
    let plan = HeadPlan {
        head: head.clone(),
        classes,
    };
    let network = Network::new(arch, &plan, Kind::Float, Device::Cpu);
    for entry in network.entries() {
        let mut tensor = entry.tensor.detach();
        let matrix = tensor.dim() > 1;
        let _drawn = if matrix {
            let fan_in = tensor.numel() as f64 / tensor.size()[0] as f64;
            tensor.normal_(0.0, (2.0 / fan_in).sqrt())
        } else if entry.role == Role::Buffer && entry.name.ends_with("running_var") {
            tensor.uniform_(0.5, 2.0)
        } else if entry.name.ends_with(".weight") {
            tensor.uniform_(0.4, 1.2)
        } else {
            tensor.normal_(0.0, 0.2)
        };
    }
    network
}

/// ONNX Runtime's logits of `x` and of its first image alone, and what the model says of itself.
fn answers(model: &[u8], x: &Tensor, side: u32) -> (Vec<f32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("model.onnx"), model).unwrap();
    std::fs::write(path("images"), bytes(x)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx_check.py");
    let done = std::process::Command::new(clients_python())
        .arg(script)
        .args(["model.onnx", "images", "logits", &side.to_string()])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words}");
    let logits = std::fs::read(path("logits")).unwrap();
    let (numbers, rest) = logits.as_chunks::<4>();
    assert!(rest.is_empty());
    let logits = numbers.iter().map(|it| f32::from_le_bytes(*it)).collect();
    (logits, serde_json::from_slice(&done.stdout).unwrap())
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.contiguous();
    let mut bytes = vec![0; 4 * flat.numel()];
    flat.copy_data_u8(&mut bytes, flat.numel());
    bytes
}

/// The network's logits are ONNX Runtime's, for three images and for one.
fn check(network: &Network, side: u32, classes: u32) {
    tch::set_num_threads(1);
    let labels = labels(classes);
    let model = onnx::model(network, side, &labels).unwrap();
    let pixels = i64::from(side);
    let x = Tensor::randn([BATCH, 3, pixels, pixels], (Kind::Float, Device::Cpu));
    onnx::check(&model, network, &x).unwrap();
    let model = onnx::encode(&model).unwrap();
    let (theirs, told) = answers(&model, &x, side);
    assert_eq!(
        told,
        json!({
            "inputs": [["pixel_values", "tensor(float)", ["N", 3, side, side]]],
            "outputs": [["logits", "tensor(float)", ["N", classes]]],
            "opset": [["", 17]],
            "ir": 8,
            "producer": "pomona",
            "labels": labels,
            "external": 0,
        })
    );
    let forward =
        |x: &Tensor| tch::no_grad(|| network.forward(x, pomona_trainer::network::Pass::Eval));
    let ours = Tensor::cat(&[forward(&x), forward(&x.narrow(0, 0, 1))], 0);
    let theirs = Tensor::from_slice(&theirs).reshape([BATCH + 1, i64::from(classes)]);
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    let (apart, scale) = (largest(&(&theirs - &ours)), largest(&ours));
    let name = network.arch().name();
    assert!(scale > 0.1, "{name} at {side} says nothing: {scale:e}");
    assert!(
        apart <= TOLERANCE,
        "{name} at {side}: {apart:e} of {scale:e}"
    );
}

/// Both heads, one of them at another image size.
fn check_arch(arch: Arch, other_side: u32) {
    check(&drawn(arch, &LINEAR, 6), arch.image_size(), 6);
    check(&drawn(arch, &MLP, 2), arch.image_size(), 2);
    check(&drawn(arch, &MLP, 6), other_side, 6);
}

#[test]
fn test_networks_give_onnx_runtimes_logits() {
    check_arch(Arch::TestConvnet, 45);
    check_arch(Arch::TestResnet, 45);
}

#[test]
fn resnet18_gives_onnx_runtimes_logits() {
    check_arch(Arch::Resnet18, 97);
}

#[test]
fn resnet50_gives_onnx_runtimes_logits() {
    check_arch(Arch::Resnet50, 97);
}

/// At 160 pixels its pooling makes 7 rows of 5.
#[test]
fn vgg16_gives_onnx_runtimes_logits() {
    check(&drawn(Arch::Vgg16, &LINEAR, 6), 224, 6);
    check(&drawn(Arch::Vgg16, &MLP, 6), 160, 6);
}

#[test]
fn inception_v3_gives_onnx_runtimes_logits() {
    check_arch(Arch::InceptionV3, 107);
}

#[test]
fn efficientnet_lite0_gives_onnx_runtimes_logits() {
    check_arch(Arch::EfficientnetLite0, 97);
}

#[test]
fn the_published_lite0_gives_onnx_runtimes_logits() {
    let plan = HeadPlan::linear(1000);
    let network = Network::new(Arch::EfficientnetLite0, &plan, Kind::Float, Device::Cpu);
    network
        .load(&weights::read(&published_weights()).unwrap())
        .unwrap();
    tch::manual_seed(5);
    check(&network, 224, 1000);
}

/// A network that is missing here is missing above.
#[test]
fn every_architecture_is_checked() {
    let checked = [
        Arch::EfficientnetLite0,
        Arch::InceptionV3,
        Arch::Resnet18,
        Arch::Resnet50,
        Arch::Vgg16,
    ];
    assert_eq!(Arch::ALL, checked);
}
