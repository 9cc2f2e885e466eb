"""Damaged and hostile versions of checkpoint files."""

import io
import os
import warnings
import zipfile

import torch
from torch import nn


class Trap:
    """Unpickling this would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def cut(data, chance):
    return data[: chance.randrange(len(data))]


def flip(data, chance):
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def overwrite(data, chance):
    start, size = chance.randrange(len(data)), chance.randrange(1, 200)
    return data[:start] + chance.randbytes(size) + data[start + size :]


def entries_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [[entry.filename, archive.read(entry)] for entry in archive.infolist()]


def packed(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two entries of the same name
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def shuffle_zip(data, chance):
    """Entries removed, swapped, emptied, renamed, doubled or compressed."""
    entries = entries_of(data)
    one, other = chance.sample(range(len(entries)), 2)
    change = chance.randrange(6)
    if change == 0:
        del entries[one]
    elif change == 1:
        entries[one][1], entries[other][1] = entries[other][1], entries[one][1]
    elif change == 2:
        entries[one][1] = b""
    elif change == 3:
        entries[one][0] = entries[one][0].replace("data", "other")
    elif change == 4:
        entries.append([entries[one][0], entries[other][1]])
    return packed(entries, zipfile.ZIP_DEFLATED if change == 5 else zipfile.ZIP_STORED)


def change_pickle(data, chance):
    """Some bytes of the description of the tensors, in a file that is right otherwise."""
    entries = entries_of(data)
    for entry in entries:
        if entry[0].endswith("data.pkl"):
            entry[1] = chance.choice((cut, flip, flip, overwrite))(entry[1], chance)
    return packed(entries)


def foreign(_data, chance, trap):
    """Foreign pickles in both formats of torch.save."""
    configs = [{"img_size": Trap(trap)}, {"img_size": "64"}, {"img_size": 2**70}, {"settings": {"batch_size": 1.5}}]
    contents = [Trap(trap), {"generator": Trap(trap)}, {"generator": {"a": 1}}, [1, 2], {1: 2}, None, "text"]
    return saved(chance.choice([*contents, *({"config": config} for config in configs)]), chance)


def saved(content, chance):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=chance.random() < 0.5)
    return file.getvalue()


TENSORS = (
    lambda t: t.to("meta"),
    lambda t: t.to_sparse(),
    lambda t: t.reshape(-1, 1).to_sparse_csr(),
    lambda t: torch.nested.nested_tensor([t, t]),
    lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda t: torch.quantize_per_channel(t.float(), torch.ones(len(t)), torch.zeros(len(t)), 0, torch.quint8),
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.complex64).conj(),
    lambda t: torch.complex(t, t).conj().imag,  # negative bit
    lambda t: torch.empty(t.shape, dtype=torch.float4_e2m1fn_x2),
    lambda t: torch.empty(t.shape, dtype=torch.bits8),
    nn.Parameter,
    nn.Buffer,
    lambda t: nn.UninitializedParameter(),
    lambda t: t * float("nan"),
    lambda t: t / 0,
    lambda t: t.double() * 1e300,
    lambda t: -t - 1,
    lambda t: t.flatten(),
    lambda t: t[None],
    lambda t: t[:0],
    lambda t: t.sum(),
    lambda t: t.mT,
    lambda t: torch.cat([t, t])[: len(t)],
    lambda t: torch.zeros(()).expand(t.shape),
    lambda t: torch.zeros(()).expand(2**40, 2**20),
    lambda t: torch.zeros(2, dtype=t.dtype),
    lambda t: t.tolist(),
    lambda t: t.numpy(),
    lambda t: t.untyped_storage(),
    *(lambda t, dtype=dtype: t.to(dtype) for dtype in (
        torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu,
        torch.int8, torch.uint16, torch.int64, torch.bool,
    )),
)  # fmt: skip
VALUES = (
    None, True, 3, -1, 2**70, 1e999, float("nan"), "", "text", "\ud800", b"bytes", (), [], {}, set(), 1j,
    torch.Size([2]), torch.device("cuda"), torch.float32, torch.tensor(float("nan")),
    {"generator": {}}, [[[[[[]]]]]], ..., int, print,
)  # fmt: skip


def change_content(data, chance):
    """A changed, removed, renamed, shared or added entry, most often a tensor of an unusual kind."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    for _ in range(20):
        try:
            return saved(changed(content, chance), chance)
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, UnicodeError):
            content = torch.load(io.BytesIO(data), weights_only=True)  # not every change suits every tensor
    return data


def changed(content, chance):
    places = list(places_of(content))
    tensors = [place for place in places if isinstance(place[0][place[1]], torch.Tensor)]
    holder, key = chance.choice(tensors if chance.random() < 0.7 else places)
    way = chance.randrange(10)
    if way < 6 and isinstance(holder[key], torch.Tensor):
        holder[key] = chance.choice(TENSORS)(holder[key])
    elif way == 6:
        del holder[key]
    elif way == 7 and isinstance(holder, dict):
        name = chance.choice(("module.", "_orig_mod.module.", "other.", "\x1b[2J", 7))
        holder[f"{name}{key}" if isinstance(name, str) else name] = holder.pop(key)
    elif way == 8:
        other, name = chance.choice(places)
        holder[key] = other[name]  # shared, perhaps with itself
    elif way == 9 and chance.random() < 0.2:
        return {chance.choice(("state_dict", "model", 3)): content, "epoch": 3}
    else:
        holder[key] = chance.choice(VALUES)
    return content


def places_of(content):
    """Yield (container, key) of all values in dicts and lists."""
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        yield content, key
        if isinstance(content[key], (dict, list)):
            yield from places_of(content[key])
