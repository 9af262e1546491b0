"""Writes name, dtype, shape and SHA-256 of every tensor of a legacy `.pth` file as JSON.

Independent of the crate: Python's own unpickler with every global replaced by a stub, and a
strided copy element by element. Made with: python3 digests.py FILE.pth > FILE.json
"""

import hashlib
import json
import pickle
import struct
import sys
from collections import OrderedDict

SIZES = {"FloatStorage": 4, "LongStorage": 8}
TYPES = {"FloatStorage": "F32", "LongStorage": "I64"}


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, size, stride)
        if module == "torch" and name in SIZES:
            return name
        raise ValueError(f"{module}.{name}")

    def persistent_load(self, key):
        return key


def elements(data, width, offset, size, stride):
    if not size:
        yield data[offset * width : (offset + 1) * width]
    else:
        for index in range(size[0]):
            yield from elements(data, width, offset + index * stride[0], size[1:], stride[1:])


def contiguous(size, stride):
    step = 1
    for length, found in zip(reversed(size), reversed(stride)):
        if length != 1 and found != step:
            return False
        step *= length
    return True


with open(sys.argv[1], "rb") as file:
    for _ in range(3):
        Unpickler(file).load()
    tensors = Unpickler(file).load()
    keys = Unpickler(file).load()
    kinds = {storage[2]: storage[1] for storage, *_ in tensors.values()}
    data = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        data[key] = file.read(count * SIZES[kinds[key]])
    assert not file.read()

rows = {}
for name, (storage, offset, size, stride) in tensors.items():
    width = SIZES[storage[1]]
    digest = hashlib.sha256()
    for element in elements(data[storage[2]], width, offset, size, stride):
        digest.update(element)
    rows[name] = {
        "dtype": TYPES[storage[1]],
        "shape": list(size),
        "contiguous": contiguous(size, stride),
        "sha256": digest.hexdigest(),
    }
print("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(rows.items())) + "\n}")
