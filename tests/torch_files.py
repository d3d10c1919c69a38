"""Files as torch.save writes them, made without PyTorch: for tests of the reader."""

import io
import pickle
import zipfile

import numpy as np


class Named:
    """Pickled as the name of something in another module."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Id:
    def __init__(self, *entry):
        self.entry = entry


class _Pickler(pickle._Pickler):
    """Writes names, calls and persistent ids without having what they stand for."""

    def persistent_id(self, value):
        return value.entry if isinstance(value, Id) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def pickled_bytes(value):
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(value)
    return stream.getvalue()


def zip_file(path, content, storages=None, compression=zipfile.ZIP_STORED, order=None):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", content)
        if order:
            archive.writestr("net/byteorder", order)
        for key, values in (storages or {}).items():
            archive.writestr(f"net/data/{key}", values)
    return path


def storage_id(kind="FloatStorage", key="0", elements=6):
    return Id("storage", Named("torch", kind), key, "cpu", elements)


def tensor_call(storage=None, offset=0, shape=(2, 3), strides=(3, 1)):
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    ordered = Call(Named("collections", "OrderedDict"))
    return Call(rebuild, storage or storage_id(), offset, shape, strides, False, ordered)


def save(path, tensors):
    """Writes a state dict of float32 and int64 arrays as torch.save does."""
    entries, storages = {}, {}
    for number, (name, value) in enumerate(tensors.items()):
        kind = "LongStorage" if value.dtype == np.int64 else "FloatStorage"
        strides = tuple(step // value.itemsize for step in value.strides)
        storage = storage_id(kind, str(number), max(1, value.size))
        entries[name] = tensor_call(storage, 0, value.shape, strides)
        storages[str(number)] = value.tobytes()
    return zip_file(path, pickled_bytes(entries), storages)
