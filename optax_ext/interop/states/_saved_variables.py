"""The variables of an optimizer in a file that Keras saved: found, measured and checked before any of them is read."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Sequence
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from optax_ext._core.errors import ConfigError, shorten
from optax_ext._core.files import file_error
from optax_ext.interop.states._hdf5_heaps import check_heaps

_HDF5 = b"\x89HDF\r\n\x1a\n"  # the first bytes of a file of HDF5
_MAX_VARIABLES = 2**20  # in one file
_MAX_ATTRIBUTE = 2**20  # bytes; HDF5 takes no more than 2**16 as Keras writes them
_SMALL, _MAX_RATIO = 2**26, 100  # what a zip may unpack to: this many bytes, or this many times its own size
_FILTERS = frozenset({1, 2, 3})  # of HDF5's own: deflate, shuffle, checksum; others load a library
_NUMBERS = frozenset({"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint32", "uint64"})
_MAX_DEFLATE = 1032  # times, that deflate can shrink anything
_INNER = "inner_optimizer"  # of a loss-scale optimizer


class SavedVariable(NamedTuple):
    """A variable in an open file.

    Args:
      name: What Keras called it; None where the file has only its position.
      shape: Its shape.
      dtype: Its dtype.
      dataset: Where its values are.
      path: The file.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dataset: Any
    path: str

    def read(self) -> np.ndarray:
        """Return the values, as many as the shape says."""
        with reading(self.path):
            values = np.asarray(self.dataset[()])
        return values.view(self.dtype) if values.dtype.kind == "V" else values


@dataclasses.dataclass(frozen=True)
class SavedOptimizer:
    """What an open file holds of an optimizer.

    Args:
      path: The file.
      variables: Those of the optimizer itself, in Keras's order.
      of_loss_scale: Those that a loss-scale optimizer around it has besides.
    """

    path: str
    variables: Sequence[SavedVariable]
    of_loss_scale: Sequence[SavedVariable] = ()


@contextlib.contextmanager
def open_saved(path: str | os.PathLike[str]) -> Generator[SavedOptimizer, None, None]:
    """Open a ``.keras`` or ``.h5`` file, and find the variables of its optimizer.

    Args:
      path: The file.

    Yields:
      What it holds. Its variables can be read while it is open.

    Raises:
      ConfigError: If the file is of another kind, is damaged, or holds no optimizer or no variables of one, or if h5py
        is not installed.
    """
    if not isinstance(path, str | os.PathLike):
        raise file_error(shorten(path), f"the path of the file must be text, got {type(path).__name__}")
    name = os.fspath(path)
    if os.path.isdir(name):
        text = (
            "must be a .keras or .h5 file, got a directory. A SavedModel keeps the state of its optimizer in a "
            "checkpoint that only TensorFlow reads: save the model again, in an environment with TensorFlow, by "
            f"tf_keras.models.load_model({name!r}).save('model.h5')"
        )
        raise file_error(name, text)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(name, "rb"))
            is_hdf5, is_zip = file.read(len(_HDF5)) == _HDF5, zipfile.is_zipfile(file)
        except (OSError, ValueError) as error:
            raise file_error(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if is_hdf5:
            yield _in_hdf5(stack.enter_context(_open_hdf5(file, name)), name)
        elif is_zip:
            weights = stack.enter_context(tempfile.TemporaryFile())
            _unpack(file, weights, name)
            yield _in_weights(stack.enter_context(_open_hdf5(weights, name)), name)
        else:
            raise file_error(name, "must be a .keras file, which is a zip, or an .h5 file, which is HDF5")


# ---------------------------------------------------------------------------------------------------------
# The containers


def _unpack(file: IO[bytes], weights: IO[bytes], path: str) -> None:
    """Copy the weights in a .keras file to a file of their own, since HDF5 jumps about in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if "model.weights.json" in names:
                raise file_error(
                    path, "has its weights in several shards: save it as one, by model.save('model.keras')"
                )
            if "model.weights.h5" not in names:
                text = f"must hold model.weights.h5, as model.save('model.keras') writes it, got {shorten(names)}"
                raise file_error(path, text)
            size = archive.getinfo("model.weights.h5").file_size
            if size > max(_SMALL, _MAX_RATIO * os.fstat(file.fileno()).st_size):
                raise file_error(path, f"model.weights.h5 unpacks to {size} bytes, too many for a file of this size")
            with archive.open("model.weights.h5") as member:
                shutil.copyfileobj(member, weights)
    except ConfigError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from None
    weights.flush()


@contextlib.contextmanager
def _open_hdf5(file: IO[bytes], path: str) -> Generator[Any, None, None]:
    """Open HDF5; what goes wrong in it, here or while variables are read, is the file's fault."""
    try:
        import h5py  # pyright: ignore[reportMissingTypeStubs] # an extra, which nothing else needs
    except ImportError:
        text = "is or holds HDF5, which needs h5py, an extra: pip install 'optax_ext[keras]'"
        raise file_error(path, text) from None
    check_heaps(file, path)
    try:
        opened = h5py.File(file, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from None
    with opened:
        yield opened


def _in_hdf5(file: Any, path: str) -> SavedOptimizer:
    """Find the optimizer in a whole model that is one file of HDF5, in which variables have names."""
    with reading(path):
        group = _child(file, "optimizer_weights", path)
        if group is None:
            raise file_error(path, _NO_STATE)
        variables = [_variable(group, name, name, path) for name in _names(group, path)]
    ends = [n for n, variable in enumerate(variables, 1) if (variable.name or "").endswith("/dynamic_scale")]
    end = ends[0] if ends else 0
    return SavedOptimizer(path, variables[end:], variables[:end])


def _in_weights(file: Any, path: str) -> SavedOptimizer:
    """Find the optimizer in the weights of a .keras file, in which variables have positions."""
    with reading(path):
        whole, inner = (_positions(file, place, path) for place in ("optimizer/vars", f"optimizer/{_INNER}/vars"))
    if not whole:
        raise file_error(path, f"{_NO_STATE}. tf_keras.optimizers.legacy are saved whole in .h5 files only")
    if not inner:
        return SavedOptimizer(path, whole)
    return SavedOptimizer(path, inner, whole[: max(0, len(whole) - len(inner))])


_NO_STATE = "holds no state of the optimizer: it was saved before the first step, or without the optimizer"


# ---------------------------------------------------------------------------------------------------------
# Variables


def _names(group: Any, path: str) -> list[str]:
    """Return the names of an optimizer's variables, which Keras splits over several attributes where they are long."""
    keys = ["weight_names"] if "weight_names" in group.attrs else []
    while f"weight_names{len(keys)}" in group.attrs:
        keys.append(f"weight_names{len(keys)}")
    if not keys:
        raise file_error(path, "must list the optimizer's variables in weight_names, which is missing")
    names = [name for key in keys for name in _texts(group, key, path)]
    if len(names) > _MAX_VARIABLES:
        raise file_error(path, f"weight_names must list at most {_MAX_VARIABLES} variables, got {len(names)}")
    return names


def _texts(group: Any, key: str, path: str) -> list[str]:
    """Return an attribute that is a list of texts, and of no more than Keras writes in one."""
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    attribute = group.attrs.get_id(key)
    size = attribute.get_storage_size()
    if not isinstance(attribute.get_type(), h5py.h5t.TypeStringID) or size > _MAX_ATTRIBUTE:
        raise file_error(path, f"{key} must be a list of texts of at most {_MAX_ATTRIBUTE} bytes in all")
    texts = np.asarray(group.attrs[key]).ravel()
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _positions(file: Any, place: str, path: str) -> list[SavedVariable]:
    group = _child(file, place, path)
    if group is None:
        return []
    if len(group) > _MAX_VARIABLES:
        raise file_error(path, f"{place} must hold at most {_MAX_VARIABLES} variables")
    return [_variable(group, str(position), None, path) for position in range(len(group))]


def _child(group: Any, place: str, path: str) -> Any:
    """Return what is at a place below a group, or None; raise an error where a link leads out of the file."""
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    parent = group
    for part in filter(None, place.split("/")):
        if not isinstance(group, h5py.Group) or part not in group:
            return None
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise file_error(path, f"{parent.name.rstrip('/')}/{place} must be in the file itself, got a link")
        group = group[part]
    return group


def _variable(group: Any, place: str, name: str | None, path: str) -> SavedVariable:
    """Check that a variable is of plain numbers that are in the file, as many as its shape says."""
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    where = f"{group.name}/{place}"
    dataset = _child(group, place, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise file_error(path, f"{where} must be an array, which is missing")
    dtype: Any = dataset.dtype
    if dtype.kind == "V" and dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":  # as Keras marks it
        dtype = np.dtype(jnp.bfloat16)
    elif dtype.newbyteorder("=").name not in _NUMBERS:
        raise file_error(path, f"{where} must hold numbers, got {shorten(dtype)}")
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(n)[0] for n in range(plist.get_nfilters())}
    if dataset.is_virtual or dataset.external or not filters <= _FILTERS:
        raise file_error(path, f"{where} must be in the file itself, without filters of other libraries")
    stored = dataset.id.get_storage_size() * (_MAX_DEFLATE if filters else 1)
    if dataset.nbytes > max(stored, 8):
        text = f"{where} of shape {dataset.shape} needs {dataset.nbytes} bytes, and the file holds at most {stored}"
        raise file_error(path, text)
    return SavedVariable(name, dataset.shape, dtype, dataset, path)


@contextlib.contextmanager
def reading(path: str) -> Generator[None, None, None]:
    """Turn what h5py raises into an error of the file."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> Exception:
    return file_error(path, f"is damaged, or not as Keras writes it: {shorten(str(error))}")
