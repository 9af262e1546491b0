//! Hand-assembled PyTorch files.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor as a pickle describes it.
pub struct Described {
    /// Its name in the state dict.
    pub name: String,
    class: &'static str,
    key: String,
    elements: i32,
    offset: i32,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Described {
    /// A tensor in the storage `key` of `elements` elements.
    pub fn new(name: &str, class: &'static str, key: &str, elements: i32) -> Self {
        Self {
            name: name.to_owned(),
            class,
            key: key.to_owned(),
            elements,
            offset: 0,
            shape: Vec::new(),
            strides: Vec::new(),
        }
    }

    /// The same with another view.
    pub fn view(mut self, offset: i32, shape: &[i64], strides: &[i64]) -> Self {
        self.offset = offset;
        self.shape = shape.to_vec();
        self.strides = strides.to_vec();
        self
    }

    /// Writes the opcodes that describe it.
    pub fn write(&self, out: &mut Vec<u8>, legacy: bool) {
        out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(out, "storage");
        out.extend_from_slice(format!("ctorch\n{}\n", self.class).as_bytes());
        text(out, &self.key);
        text(out, "cpu");
        int(out, i64::from(self.elements));
        if legacy {
            out.push(b'N');
        }
        out.extend_from_slice(b"tQ");
        int(out, i64::from(self.offset));
        for numbers in [&self.shape, &self.strides] {
            out.push(b'(');
            for number in numbers {
                int(out, *number);
            }
            out.push(b't');
        }
        out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    }
}

/// BINUNICODE.
pub fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// LONG1.
fn int(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(&[0x8a, 8]);
    out.extend_from_slice(&number.to_le_bytes());
}

/// The opcodes of a state dict without protocol and stop.
pub fn body(tensors: &[Described], legacy: bool) -> Vec<u8> {
    let mut out = b"}(".to_vec();
    for tensor in tensors {
        text(&mut out, &tensor.name);
        tensor.write(&mut out, legacy);
    }
    out.push(b'u');
    out
}

/// A whole pickle of a state dict.
pub fn state_dict(tensors: &[Described], legacy: bool) -> Vec<u8> {
    let mut out = b"\x80\x02".to_vec();
    out.extend_from_slice(&body(tensors, legacy));
    out.push(b'.');
    out
}

/// The container before PyTorch 1.6.
pub fn legacy(tensors: &[Described], storages: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend_from_slice(b"\x80\x02M\xe9\x03.");
    out.extend_from_slice(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    out.extend_from_slice(&state_dict(tensors, true));
    out.extend_from_slice(b"\x80\x02](");
    for key in storages.keys() {
        text(&mut out, key);
    }
    out.extend_from_slice(b"e.");
    for (key, bytes) in storages {
        let of_key = tensors.iter().find(|tensor| tensor.key == *key);
        let count = of_key.map_or(0, |tensor| i64::from(tensor.elements));
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// The container since PyTorch 1.6.
pub fn zipped(root: &str, pickle: &[u8], storages: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry(format!("{root}/data.pkl"), pickle);
    entry(format!("{root}/byteorder"), b"little");
    for (key, bytes) in storages {
        entry(format!("{root}/data/{key}"), bytes);
    }
    entry(format!("{root}/version"), b"3\n");
    zip.finish().unwrap().into_inner()
}
