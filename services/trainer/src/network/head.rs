//! Heads: from pooled features to classes, under the name of the architecture's own head.

use super::arch::Arch;
use super::builder::{Builder, Entry, draw};
use super::layer::Layer;
use pomona_domain::spec::Head;
use tch::{Device, Kind};

/// Which head a network gets.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadPlan {
    /// Its kind.
    pub head: Head,
    /// Classes.
    pub classes: u32,
}

impl HeadPlan {
    /// The head that published weights have.
    pub fn linear(classes: u32) -> Self {
        Self {
            head: Head::Linear,
            classes,
        }
    }

    /// The head alone, drawn: its tensors in order, a weight (out × in) and a bias (out) for
    /// each of its linear layers.
    pub fn alone(&self, arch: Arch, device: Device, seed: u64, replicate: u32) -> Vec<Entry> {
        let mut builder = arch.builder(Kind::Float, device);
        self.build(&mut builder, arch.head_name(), arch.features());
        draw(&builder.entries, seed, replicate);
        builder.entries
    }

    /// The name that dropout masks of an MLP go by.
    pub fn dropout_name(arch: Arch) -> String {
        format!("{}.2", arch.head_name())
    }

    /// `NAME` for one linear layer; `NAME.0` and `NAME.3` for an MLP, as `nn.Sequential` of linear,
    /// ReLU, dropout and linear would name them.
    pub(super) fn build(&self, b: &mut Builder, name: &str, features: i64) -> Layer {
        let classes = i64::from(self.classes);
        match self.head {
            Head::Linear => b.linear(name, features, classes),
            Head::Mlp { hidden, dropout } => {
                let hidden = i64::from(hidden);
                Layer::Seq(vec![
                    b.linear(&format!("{name}.0"), features, hidden),
                    Layer::Relu,
                    Layer::Dropout {
                        name: format!("{name}.2"),
                        share: dropout,
                    },
                    b.linear(&format!("{name}.3"), hidden, classes),
                ])
            }
        }
    }
}
