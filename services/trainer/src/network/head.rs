//! Heads: from pooled features to classes, under the name of the architecture's own head.

use super::builder::Builder;
use super::layer::Layer;
use pomona_domain::spec::Head;

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
