//! Values of a pickle, and the bytes it is read from. Nothing here can call anything.
//!
//! Objects live in one arena and refer to each other by number, so that neither deep nesting nor a
//! cycle can hurt, and one limit bounds them all.

use super::{DType, bomb, damaged};
use pomona_domain::{Code, Fault};

/// Objects of one pickle.
const OBJECT_LIMIT: usize = 4_000_000;

/// A value on the machine's stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// None.
    None,
    /// True or False.
    Bool(bool),
    /// An integer. PyTorch's magic number has 80 bits.
    Int(i128),
    /// A float; nothing we read needs its value.
    Float,
    /// A string or bytes: a range of the pickle.
    Text(usize, usize),
    /// An allowed global.
    Global(Global),
    /// An object of the arena.
    Object(usize),
}

impl Value {
    /// The integer, if it is one.
    pub(super) fn int(self) -> Option<i128> {
        if let Self::Int(number) = self {
            Some(number)
        } else {
            None
        }
    }

    /// The range of the text, if it is one.
    pub(super) fn text(self) -> Option<(usize, usize)> {
        if let Self::Text(start, end) = self {
            Some((start, end))
        } else {
            None
        }
    }

    fn object(self) -> Option<usize> {
        if let Self::Object(number) = self {
            Some(number)
        } else {
            None
        }
    }
}

/// The only globals there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// A storage class with a type of elements.
    Storage(DType),
    /// A storage class of a type that is not read, or of none.
    OtherStorage,
}

impl Global {
    /// The allowed global of that name.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, Fault> {
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Ok(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Self::RebuildParameter),
            ("torch" | "torch.storage" | "torch.cuda", storage) if storage.ends_with("Storage") => {
                Ok(match storage {
                    "DoubleStorage" => Self::Storage(DType::F64),
                    "FloatStorage" => Self::Storage(DType::F32),
                    "HalfStorage" => Self::Storage(DType::F16),
                    "BFloat16Storage" => Self::Storage(DType::BF16),
                    "LongStorage" => Self::Storage(DType::I64),
                    "IntStorage" => Self::Storage(DType::I32),
                    "ShortStorage" => Self::Storage(DType::I16),
                    "CharStorage" => Self::Storage(DType::I8),
                    "ByteStorage" => Self::Storage(DType::U8),
                    "BoolStorage" => Self::Storage(DType::Bool),
                    _ => Self::OtherStorage,
                })
            }
            _ => Err(refused(&format!("{module}.{name}"))),
        }
    }
}

/// `UnsafePickle` that names what the file asked for.
pub(super) fn refused(what: &str) -> Fault {
    let what: String = what.chars().filter(|c| !c.is_control()).take(120).collect();
    Fault::new(
        Code::UnsafePickle,
        format!(
            "the weights file asks for `{what}`, which is not on the allow-list; nothing was \
             executed"
        ),
    )
    .hint("save the tensors alone: `torch.save(model.state_dict(), path)`, or use safetensors")
}

/// An object of the arena.
#[derive(Debug)]
pub(super) enum Object {
    /// A tuple, a list or a set.
    Sequence(Vec<Value>),
    /// A dictionary in the order of writing.
    Dict(Vec<(Value, Value)>),
    /// A description of a storage.
    Storage(StorageRef),
    /// A description of a tensor.
    Tensor(TensorRef),
}

/// Some bytes of the file under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StorageRef {
    /// The key: a range of the pickle.
    pub(super) key: (usize, usize),
    /// Type of its elements; `None` when it is not one of ours.
    pub(super) dtype: Option<DType>,
    /// Elements of the storage this one is (a part of).
    pub(super) elements: u64,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef {
    /// The storage's number in the arena.
    pub(super) storage: usize,
    /// Elements before the first one.
    pub(super) offset: u64,
    /// Lengths of the axes.
    pub(super) shape: Vec<u64>,
    /// Elements from one index of an axis to the next.
    pub(super) strides: Vec<u64>,
}

/// All objects of one pickle.
#[derive(Debug, Default)]
pub(super) struct Arena {
    objects: Vec<Object>,
    /// Values held by all sequences and dictionaries.
    held: usize,
}

impl Arena {
    pub(super) fn add(&mut self, object: Object) -> Result<Value, Fault> {
        match &object {
            Object::Sequence(items) => self.hold(items.len())?,
            Object::Dict(items) => self.hold(2 * items.len())?,
            Object::Storage(_) | Object::Tensor(_) => {}
        }
        self.hold(1)?;
        self.objects.push(object);
        Ok(Value::Object(self.objects.len() - 1))
    }

    /// Counts values against the limit.
    pub(super) fn hold(&mut self, more: usize) -> Result<(), Fault> {
        self.held += more;
        if self.held > OBJECT_LIMIT {
            return Err(bomb(
                "the weights file describes more than 4 million values",
            ));
        }
        Ok(())
    }

    pub(super) fn get(&self, value: Value) -> Option<&Object> {
        self.objects.get(value.object()?)
    }

    pub(super) fn get_mut(&mut self, value: Value) -> Option<&mut Object> {
        self.objects.get_mut(value.object()?)
    }

    pub(super) fn storage(&self, number: usize) -> Option<&StorageRef> {
        match self.objects.get(number)? {
            Object::Storage(storage) => Some(storage),
            Object::Sequence(_) | Object::Dict(_) | Object::Tensor(_) => None,
        }
    }

    /// Every storage that the pickle named.
    pub(super) fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            Object::Sequence(_) | Object::Dict(_) | Object::Tensor(_) => None,
        })
    }

    pub(super) fn sequence(&self, value: Value) -> Option<&[Value]> {
        match self.get(value)? {
            Object::Sequence(items) => Some(items),
            Object::Dict(_) | Object::Storage(_) | Object::Tensor(_) => None,
        }
    }

    pub(super) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.get(value)? {
            Object::Dict(items) => Some(items),
            Object::Sequence(_) | Object::Storage(_) | Object::Tensor(_) => None,
        }
    }

    pub(super) fn tensor(&self, value: Value) -> Option<&TensorRef> {
        match self.get(value)? {
            Object::Tensor(tensor) => Some(tensor),
            Object::Sequence(_) | Object::Dict(_) | Object::Storage(_) => None,
        }
    }
}

/// The bytes of a pickle and a place in them.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let end = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(damaged("the weights file is cut off in its description"));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned little-endian number of up to 8 bytes.
    pub(super) fn number(&mut self, bytes: usize) -> Result<usize, Fault> {
        let mut number = [0u8; 8];
        number[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(number)).map_err(|_| damaged("a length is too large"))
    }

    /// A signed little-endian number of up to 16 bytes.
    pub(super) fn signed(&mut self, bytes: usize) -> Result<i128, Fault> {
        if bytes > 16 {
            return Err(damaged("an integer of the weights file is too large"));
        }
        let taken = self.take(bytes)?;
        let negative = taken.last().is_some_and(|last| last & 0x80 != 0);
        let mut number = [if negative { 0xFF } else { 0 }; 16];
        number[..bytes].copy_from_slice(taken);
        Ok(i128::from_le_bytes(number))
    }

    /// A text of `n` bytes, as a range.
    pub(super) fn text(&mut self, n: usize) -> Result<Value, Fault> {
        let start = self.at;
        self.take(n)?;
        Ok(Value::Text(start, self.at))
    }

    /// The range of a line without its end.
    pub(super) fn line(&mut self) -> Result<(usize, usize), Fault> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let Some(length) = rest.iter().take(4096).position(|byte| *byte == b'\n') else {
            return Err(damaged("the weights file is cut off in its description"));
        };
        self.at = start + length + 1;
        Ok((start, start + length))
    }

    pub(super) fn str(&self, (start, end): (usize, usize)) -> Result<&'a str, Fault> {
        std::str::from_utf8(&self.bytes[start..end])
            .map_err(|_| damaged("a name of the weights file is not UTF-8"))
    }
}
