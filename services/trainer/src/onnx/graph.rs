//! Builds a graph: constants, nodes in order, names that are each given once.
//!
//! A node gives one value, which has the node's name. It knows nothing of networks.

use super::proto::{
    AttributeProto, AttributeType, DimensionProto, FLOAT, GraphProto, Length, NodeProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use bytes::Bytes;

/// A graph that grows.
#[derive(Debug, Default)]
pub struct Graph {
    graph: GraphProto,
}

impl Graph {
    /// An empty graph of this name.
    pub fn new(name: &str) -> Self {
        let graph = GraphProto {
            name: name.to_owned(),
            ..GraphProto::default()
        };
        Self { graph }
    }

    /// A constant of 32-bit floats; `bytes` are row-major and little-endian. A name that is there
    /// already keeps what it has.
    pub fn constant(&mut self, name: &str, dims: Vec<i64>, bytes: Bytes) {
        if self.graph.initializer.iter().any(|it| it.name == name) {
            return;
        }
        self.graph.initializer.push(TensorProto {
            dims,
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data: bytes,
        });
    }

    /// The same from numbers.
    pub fn floats(&mut self, name: &str, dims: Vec<i64>, values: &[f32]) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, dims, bytes.into());
    }

    /// A node under its own name, which its output gets, too.
    pub fn named(&mut self, name: &str, op: &str, input: &[&str], told: Vec<AttributeProto>) {
        self.graph.node.push(NodeProto {
            input: input.iter().map(|&name| name.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute: told,
        });
    }

    /// A node that is named by its place; gives its output's name.
    pub fn node(&mut self, op: &str, input: &[&str], told: Vec<AttributeProto>) -> String {
        let name = format!("{op}_{}", self.graph.node.len());
        self.named(&name, op, input, told);
        name
    }

    /// The graph from `input` to the output of the last node, which is renamed. The first length of
    /// both shapes, that of the batch, is left open.
    pub fn finish(mut self, input: (&str, &[i64]), output: (&str, &[i64])) -> GraphProto {
        if let Some(name) = self
            .graph
            .node
            .last_mut()
            .and_then(|last| last.output.first_mut())
        {
            output.0.clone_into(name);
        }
        self.graph.input = vec![value(input.0, input.1)];
        self.graph.output = vec![value(output.0, output.1)];
        self.graph
    }
}

/// A tensor of 32-bit floats of `N` images, each of this shape.
fn value(name: &str, shape: &[i64]) -> ValueInfoProto {
    let batch = Length::Any("N".to_owned());
    let lengths = std::iter::once(batch).chain(shape.iter().map(|&side| Length::Fixed(side)));
    let dim = lengths.map(|length| DimensionProto {
        value: Some(length),
    });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: FLOAT,
                shape: Some(TensorShapeProto { dim: dim.collect() }),
            }),
        }),
    }
}

/// An attribute that is one whole number.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: Some(value),
        r#type: AttributeType::Int.into(),
        ..AttributeProto::default()
    }
}

/// An attribute that is whole numbers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints.into(),
        ..AttributeProto::default()
    }
}

/// An attribute that is a float.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        f: Some(value),
        r#type: AttributeType::Float.into(),
        ..AttributeProto::default()
    }
}
