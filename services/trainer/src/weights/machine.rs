//! The pickle machine: opcodes in, a value out, nothing called.
//!
//! Opcodes are those of CPython's `pickletools` up to protocol 5, without the ones that no weights
//! file needs (out-of-band buffers). The four that construct something check what they are asked
//! for against [`Global`]; every other global was refused when it was named.

use super::pickle::{Arena, Global, Input, Object, StorageRef, TensorRef, Value, refused};
use super::{bomb, damaged};
use pomona_domain::Fault;
use std::collections::BTreeMap;

/// Values on the stack, marks, memo entries.
const STACK_LIMIT: usize = 2_000_000;
/// Arguments of what is built; a long list copied over and over would cost hours.
const ARGUMENTS_LIMIT: usize = 16;
/// Axes of a tensor.
const AXES_LIMIT: usize = 64;

/// Runs one pickle from `input` to its end and gives its value. Objects go into `arena`.
pub(super) fn run(input: &mut Input<'_>, arena: &mut Arena) -> Result<Value, Fault> {
    let mut machine = Machine {
        input,
        arena,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    loop {
        let opcode = machine.input.byte()?;
        if opcode == b'.' {
            return machine.pop();
        }
        machine.step(opcode)?;
        if machine.stack.len() + machine.memo.len() + machine.marks.len() > STACK_LIMIT {
            return Err(bomb(
                "the weights file describes more than 2 million values",
            ));
        }
    }
}

struct Machine<'m, 'a> {
    input: &'m mut Input<'a>,
    arena: &'m mut Arena,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: BTreeMap<usize, Value>,
}

impl Machine<'_, '_> {
    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            // Protocol and frames say nothing that matters here.
            0x80 => self.input.byte().map(|_| ()),
            0x95 => self.input.take(8).map(|_| ()),
            b'0' => self.pop().map(|_| ()),
            b'1' => self.marked().map(|_| ()),
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([top, top]);
                Ok(())
            }
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'p' | b'q' | b'r' | 0x94 => self.remember(opcode),
            b'g' | b'h' | b'j' => self.recall(opcode),
            b'c' | 0x93 | b'i' => self.global(opcode),
            b'R' | 0x81 | 0x92 | b'o' => self.construct(opcode),
            b'b' => self.build(),
            b'P' | b'Q' => self.persistent(opcode),
            0x82..=0x84 => Err(refused("an entry of Python's extension registry")),
            b't' | 0x85..=0x87 | b')' | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => {
                self.collect(opcode)
            }
            b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(opcode),
            _ => {
                let value = self.literal(opcode)?;
                self.stack.push(value);
                Ok(())
            }
        }
    }

    fn literal(&mut self, opcode: u8) -> Result<Value, Fault> {
        let input = &mut *self.input;
        Ok(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(i128::from(input.byte()?)),
            b'M' => Value::Int(input.number(2)? as i128),
            b'J' => Value::Int(input.signed(4)?),
            0x8a => {
                let length = input.number(1)?;
                Value::Int(input.signed(length)?)
            }
            0x8b => {
                let length = input.number(4)?;
                Value::Int(input.signed(length)?)
            }
            b'I' | b'L' => {
                let line = input.line()?;
                match input.str(line)?.trim_end_matches('L') {
                    "01" => Value::Bool(true),
                    "00" => Value::Bool(false),
                    digits => Value::Int(
                        digits
                            .parse()
                            .map_err(|_| damaged("an integer of the weights file is damaged"))?,
                    ),
                }
            }
            b'F' => input.line().map(|_| Value::Float)?,
            b'G' => input.take(8).map(|_| Value::Float)?,
            b'S' => {
                // Quoted; escapes are left as they are, no key has any.
                let (start, end) = input.line()?;
                if end - start < 2 {
                    return Err(damaged("a string of the weights file is damaged"));
                }
                Value::Text(start + 1, end - 1)
            }
            b'V' => {
                let (start, end) = input.line()?;
                Value::Text(start, end)
            }
            b'U' | 0x8c | b'C' => {
                let length = input.number(1)?;
                input.text(length)?
            }
            b'T' | b'X' | b'B' => {
                let length = input.number(4)?;
                input.text(length)?
            }
            0x8d | 0x8e => {
                let length = input.number(8)?;
                input.text(length)?
            }
            _ => {
                return Err(damaged(format!(
                    "the weights file has the unknown opcode 0x{opcode:02x}"
                )));
            }
        })
    }

    fn collect(&mut self, opcode: u8) -> Result<(), Fault> {
        let object = match opcode {
            b')' | b']' | 0x8f => Object::Sequence(Vec::new()),
            b'}' => Object::Dict(Vec::new()),
            b'd' => Object::Dict(pairs(&self.marked()?)?),
            0x85..=0x87 => {
                let length = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(length).ok_or_else(empty)?;
                Object::Sequence(self.stack.split_off(start))
            }
            _ => Object::Sequence(self.marked()?),
        };
        let value = self.arena.add(object)?;
        self.stack.push(value);
        Ok(())
    }

    fn extend(&mut self, opcode: u8) -> Result<(), Fault> {
        let more = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.marked()?,
        };
        self.arena.hold(more.len())?;
        let target = *self.stack.last().ok_or_else(empty)?;
        match self.arena.get_mut(target) {
            Some(Object::Sequence(items)) if !matches!(opcode, b's' | b'u') => items.extend(more),
            Some(Object::Dict(items)) if matches!(opcode, b's' | b'u') => {
                items.extend(pairs(&more)?);
            }
            _ => return Err(damaged("the weights file adds to what is no list")),
        }
        Ok(())
    }

    fn remember(&mut self, opcode: u8) -> Result<(), Fault> {
        let index = match opcode {
            b'p' => self.line_number()?,
            b'q' => self.input.number(1)?,
            b'r' => self.input.number(4)?,
            _ => self.memo.len(),
        };
        let top = *self.stack.last().ok_or_else(empty)?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), Fault> {
        let index = match opcode {
            b'g' => self.line_number()?,
            b'h' => self.input.number(1)?,
            _ => self.input.number(4)?,
        };
        let value = *self
            .memo
            .get(&index)
            .ok_or_else(|| damaged("the weights file recalls what it never stored"))?;
        self.stack.push(value);
        Ok(())
    }

    fn line_number(&mut self) -> Result<usize, Fault> {
        let line = self.input.line()?;
        self.input
            .str(line)?
            .parse()
            .map_err(|_| damaged("a number of the weights file is damaged"))
    }

    /// Looks a global up: what is not on the list is refused here, before anything could use it.
    fn global(&mut self, opcode: u8) -> Result<(), Fault> {
        let (module, name) = if opcode == 0x93 {
            let name = text(Some(self.pop()?))?;
            (text(Some(self.pop()?))?, name)
        } else {
            (self.input.line()?, self.input.line()?)
        };
        let (module, name) = (self.input.str(module)?, self.input.str(name)?);
        let global = Global::find(module, name)?;
        if opcode == b'i' {
            let arguments = self.marked()?;
            return self.make(Value::Global(global), &arguments);
        }
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// REDUCE, NEWOBJ, NEWOBJ_EX and OBJ: all build one of our own few objects.
    fn construct(&mut self, opcode: u8) -> Result<(), Fault> {
        if opcode == b'o' {
            let mut arguments = self.marked()?;
            if arguments.is_empty() {
                return Err(empty());
            }
            let what = arguments.remove(0);
            return self.make(what, &arguments);
        }
        if opcode == 0x92 {
            // Keyword arguments: nothing we build has any.
            self.pop()?;
        }
        let arguments = self.pop()?;
        let what = self.pop()?;
        let arguments = self
            .arena
            .sequence(arguments)
            .filter(|arguments| arguments.len() <= ARGUMENTS_LIMIT)
            .ok_or_else(misdescribed)?
            .to_vec();
        self.make(what, &arguments)
    }

    fn make(&mut self, what: Value, arguments: &[Value]) -> Result<(), Fault> {
        if arguments.len() > ARGUMENTS_LIMIT {
            return Err(misdescribed());
        }
        let Value::Global(global) = what else {
            return Err(refused("a call of what is no global"));
        };
        let value = match global {
            Global::OrderedDict => {
                let items = self.ordered(arguments)?;
                self.arena.add(Object::Dict(items))?
            }
            Global::RebuildTensor => {
                let tensor = self.tensor(arguments).ok_or_else(misdescribed)?;
                self.arena.add(Object::Tensor(tensor))?
            }
            Global::RebuildParameter => {
                let data = *arguments.first().ok_or_else(misdescribed)?;
                self.arena.tensor(data).ok_or_else(misdescribed)?;
                data
            }
            Global::Storage(_) | Global::OtherStorage => {
                return Err(refused("a call of a storage class"));
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// The arguments of `OrderedDict`: none, or a list of pairs.
    fn ordered(&self, arguments: &[Value]) -> Result<Vec<(Value, Value)>, Fault> {
        let Some(first) = arguments.first() else {
            return Ok(Vec::new());
        };
        let items = self.arena.sequence(*first).ok_or_else(misdescribed)?;
        items
            .iter()
            .map(|pair| match self.arena.sequence(*pair) {
                Some([key, value]) => Ok((*key, *value)),
                _ => Err(misdescribed()),
            })
            .collect()
    }

    /// `(storage, offset, shape, strides, requires_grad, hooks[, metadata])`.
    fn tensor(&self, arguments: &[Value]) -> Option<TensorRef> {
        let [
            Value::Object(storage),
            Value::Int(offset),
            shape,
            strides,
            ..,
        ] = arguments
        else {
            return None;
        };
        self.arena.storage(*storage)?;
        let numbers = |value: Value| -> Option<Vec<u64>> {
            let items = self.arena.sequence(value)?;
            if items.len() > AXES_LIMIT {
                return None;
            }
            items
                .iter()
                .map(|item| item.int().and_then(|number| u64::try_from(number).ok()))
                .collect()
        };
        let (shape, strides) = (numbers(*shape)?, numbers(*strides)?);
        (shape.len() == strides.len()).then_some(TensorRef {
            storage: *storage,
            offset: u64::try_from(*offset).ok()?,
            shape,
            strides,
        })
    }

    /// BUILD gives an object its attributes. State dicts carry `_metadata`, which says nothing
    /// about tensors; parameters may carry Python attributes. Both are dropped.
    fn build(&mut self) -> Result<(), Fault> {
        self.pop()?;
        let target = *self.stack.last().ok_or_else(empty)?;
        match self.arena.get(target) {
            Some(Object::Dict(_) | Object::Tensor(_)) => Ok(()),
            Some(Object::Sequence(_) | Object::Storage(_)) | None => {
                Err(refused("attributes on what is no state dict"))
            }
        }
    }

    /// `('storage', class, key, location, elements[, view])` names bytes of the file.
    fn persistent(&mut self, opcode: u8) -> Result<(), Fault> {
        if opcode == b'P' {
            return Err(damaged("the weights file names storages by text"));
        }
        let id = self.pop()?;
        let items = self.arena.sequence(id).ok_or_else(misdescribed)?;
        let kind = text(items.first().copied())?;
        if self.input.str(kind)? != "storage" {
            return Err(refused("source code of a module"));
        }
        let [
            _,
            Value::Global(class),
            Value::Text(start, end),
            _,
            Value::Int(elements),
            view @ ..,
        ] = items
        else {
            return Err(misdescribed());
        };
        if view.first().is_some_and(|view| *view != Value::None) {
            return Err(damaged(
                "the weights file has views of storages, which are not read",
            ));
        }
        let dtype = match class {
            Global::Storage(dtype) => Some(*dtype),
            Global::OtherStorage => None,
            Global::OrderedDict | Global::RebuildTensor | Global::RebuildParameter => {
                return Err(misdescribed());
            }
        };
        let storage = StorageRef {
            key: (*start, *end),
            dtype,
            elements: u64::try_from(*elements).map_err(|_| misdescribed())?,
        };
        let value = self.arena.add(Object::Storage(storage))?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(empty());
        }
        self.stack.pop().ok_or_else(empty)
    }

    fn marked(&mut self) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or_else(empty)?;
        if mark > self.stack.len() {
            return Err(empty());
        }
        Ok(self.stack.split_off(mark))
    }
}

fn text(value: Option<Value>) -> Result<(usize, usize), Fault> {
    value
        .and_then(Value::text)
        .ok_or_else(|| damaged("the weights file names something by no string"))
}

fn pairs(flat: &[Value]) -> Result<Vec<(Value, Value)>, Fault> {
    if flat.len() % 2 == 1 {
        return Err(damaged("a dictionary of the weights file lacks a value"));
    }
    Ok(flat.chunks_exact(2).map(|two| (two[0], two[1])).collect())
}

fn empty() -> Fault {
    damaged("the weights file takes from an empty stack")
}

fn misdescribed() -> Fault {
    damaged("the weights file describes a tensor in an unknown way")
}
