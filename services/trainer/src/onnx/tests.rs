use super::*;
use crate::network::{Arch, HeadPlan, host_tensor};
use proto::{AttributeType, Length, TensorProto};
use tch::{Device, Kind, Tensor};

const SIDE: u32 = 32;

fn labels() -> Vec<String> {
    ["a", "b \"quoted\"", "ü"].map(str::to_owned).to_vec()
}

fn drawn(seed: u64) -> Network {
    let network = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(3),
        Kind::Float,
        Device::Cpu,
    );
    network.draw(seed, 0, |_| true);
    network
}

fn written(seed: u64) -> ModelProto {
    model(&drawn(seed), SIDE, &labels()).unwrap()
}

fn images(count: i64) -> Tensor {
    Tensor::arange(count * 3 * 32 * 32, (Kind::Float, Device::Cpu))
        .sin()
        .reshape([count, 3, 32, 32])
}

/// Field numbers are those of the ONNX project's `onnx.proto3`: the bytes are written out by hand.
#[test]
fn messages_have_the_bytes_of_the_published_format() {
    let tensor = TensorProto {
        dims: vec![1],
        data_type: 1,
        name: "w".into(),
        raw_data: Bytes::from_static(&[0, 0, 128, 63]),
    };
    let wanted: &[u8] = &[
        0x08, 1, // dims
        0x10, 1, // data_type
        0x42, 1, b'w', // name
        0x4a, 4, 0, 0, 128, 63, // raw_data
    ];
    assert_eq!(tensor.encode_to_vec(), wanted);
    let told = graph::int("group", 0);
    let wanted: &[u8] = &[0x0a, 5, b'g', b'r', b'o', b'u', b'p', 0x18, 0, 0xa0, 1, 2];
    assert_eq!(told.encode_to_vec(), wanted);
    let told = graph::ints("pads", &[1, 1]);
    let wanted: &[u8] = &[
        0x0a, 4, b'p', b'a', b'd', b's', 0x40, 1, 0x40, 1, 0xa0, 1, 7,
    ];
    assert_eq!(told.encode_to_vec(), wanted);
    let told = graph::float("e", 1.0);
    let wanted: &[u8] = &[0x0a, 1, b'e', 0x15, 0, 0, 128, 63, 0xa0, 1, 1];
    assert_eq!(told.encode_to_vec(), wanted);
    assert_eq!(told.r#type(), AttributeType::Float);
}

#[test]
fn a_model_says_who_wrote_it_and_what_its_classes_are() {
    let model = written(1);
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    assert_eq!(model.producer_name, "pomona");
    let told = |key: &str| {
        let mut all = model.metadata_props.iter();
        all.find(|it| it.key == key).unwrap().value.clone()
    };
    assert_eq!(told("architecture"), "test-resnet");
    let names: Vec<String> = serde_json::from_str(&told("labels")).unwrap();
    assert_eq!(names, labels());
    let graph = model.graph.unwrap();
    let ends = [&graph.input[0], &graph.output[0]].map(|value| {
        let tensor = value.r#type.clone().unwrap().tensor_type.unwrap();
        let lengths = tensor.shape.unwrap().dim.into_iter();
        let lengths: Vec<Length> = lengths.map(|it| it.value.unwrap()).collect();
        (value.name.as_str(), lengths)
    });
    let (any, fixed) = (Length::Any("N".into()), Length::Fixed);
    let image = vec![any.clone(), fixed(3), fixed(32), fixed(32)];
    assert_eq!(ends[0], ("pixel_values", image));
    assert_eq!(ends[1], ("logits", vec![any, fixed(3)]));
}

#[test]
fn equal_networks_have_equal_bytes_and_others_have_others() {
    let bytes = |seed| encode(&written(seed)).unwrap();
    assert!(bytes(1) == bytes(1));
    assert!(bytes(1) != bytes(2));
}

#[test]
fn what_was_written_is_read_again_and_answers_as_the_network() {
    let network = drawn(1);
    let model = decode(encode(&written(1)).unwrap().into()).unwrap();
    assert!(model == written(1));
    for count in [1, 3] {
        check(&model, &network, &images(count)).unwrap();
    }
    let tensors = &model.graph.as_ref().unwrap().initializer;
    assert_eq!(tensors.len(), network.entries().len());
    for (tensor, entry) in tensors.iter().zip(network.entries()) {
        assert_eq!(tensor.name, entry.name);
        assert_eq!(tensor.raw_data, host_tensor(&entry.tensor).bytes);
    }
}

/// What `check` says to a model that somebody changed.
fn refused(change: impl Fn(&mut proto::GraphProto)) -> String {
    let mut model = written(1);
    change(model.graph.as_mut().unwrap());
    let fault = check(&model, &drawn(1), &images(2)).unwrap_err();
    assert_eq!(fault.code, Code::Internal);
    fault.message
}

#[test]
fn a_model_that_is_not_the_network_is_refused() {
    let attribute = |graph: &mut proto::GraphProto, name: &str, number: i64| {
        let told = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
        let strides = told.filter(|it| it.name == name);
        strides.last().unwrap().ints[0] = number;
    };
    let says = |message: String, part: &str| assert!(message.contains(part), "{message}");
    says(refused(|graph| graph.node.reverse()), "before it is there");
    says(
        refused(|graph| drop(graph.node.pop())),
        "no node gives `logits`",
    );
    says(
        refused(|graph| attribute(graph, "kernel_shape", 5)),
        "has another kernel",
    );
    says(
        refused(|graph| graph.initializer[0].dims.reverse()),
        "tensor `conv1.weight` is another",
    );
    says(refused(|graph| graph.output[0].name.push('s')), "`logits`");
    says(
        refused(|graph| {
            let mut relus = graph.node.iter_mut().filter(|node| node.op_type == "Relu");
            "Flatten".clone_into(&mut relus.next().unwrap().op_type);
        }),
        "is not told `axis`",
    );
    says(
        refused(|graph| {
            let mut norms = graph.node.iter_mut();
            let norm = norms.find(|node| node.op_type == "BatchNormalization");
            norm.unwrap().attribute[0].f = Some(0.5);
        }),
        "from the network's",
    );
}

#[test]
fn a_model_over_the_limit_of_protobuf_is_refused() {
    let model = written(1);
    let size = model.encoded_len() as u64;
    assert!(encode_within(&model, size).is_ok());
    let fault = encode_within(&model, size - 1).unwrap_err();
    assert_eq!(fault.code, Code::TooLarge);
    assert!(fault.message.contains(&size.to_string()), "{fault}");
    assert!(fault.hint.is_some());
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let fault = decode(Bytes::from_static(b"no model")).unwrap_err();
    assert_eq!(fault.code, Code::LocalFile);
}
