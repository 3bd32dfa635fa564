"""The training config in an HDF5 file of a whole model: JSON in an attribute of its root."""

from typing import TYPE_CHECKING, Any

from optax_ext._core.errors import shorten
from optax_ext._core.files import decode_text, file_error, read_json
from optax_ext.interop.containers._contents import MAX_BYTES

if TYPE_CHECKING:
    import h5py

_ATTRIBUTE = "training_config"
_INSTALL = "pip install 'optax_ext[keras]'"
_SAVE = "save the whole model with model.save('model.keras') after compiling it"


def read_hdf5(path: str) -> dict[str, Any]:
    """Return what Keras saved about the training of a model, by the attribute's name."""
    try:
        import h5py
    except ImportError as error:
        raise file_error(path, f"is HDF5, which needs h5py: install it with `{_INSTALL}` ({error})") from None
    try:
        # Only an attribute of the root is read, so that no link leads into another file.
        with h5py.File(path, "r", locking=False) as file:
            content = _read_attribute(file, path)
    except Exception as error:  # of whatever kind h5py makes of a damaged file
        if type(error).__module__ == "optax_ext.config":
            raise
        raise file_error(path, f"is no HDF5 file that can be read: {shorten(str(error))}") from None
    return {_ATTRIBUTE: read_json(decode_text(content, path), path)}


def _read_attribute(file: "h5py.File", path: str) -> bytes:
    import h5py

    if _ATTRIBUTE not in file.attrs:
        raise file_error(path, _what_is_missing(file))
    attribute = file.attrs.get_id(_ATTRIBUTE)
    kind = attribute.get_type()
    if attribute.shape != () or not isinstance(kind, h5py.h5t.TypeStringID):
        raise file_error(path, f"its attribute {_ATTRIBUTE} must be text")
    if attribute.get_storage_size() > MAX_BYTES:
        raise file_error(path, f"its attribute {_ATTRIBUTE} must have at most {MAX_BYTES} bytes")
    value: Any = file.attrs[_ATTRIBUTE]
    if not isinstance(value, str | bytes):
        raise file_error(path, f"its attribute {_ATTRIBUTE} must be text, got {shorten(value)}")
    content = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
    if len(content) > MAX_BYTES:
        raise file_error(path, f"its attribute {_ATTRIBUTE} must have at most {MAX_BYTES} bytes")
    return content


def _what_is_missing(file: "h5py.File") -> str:
    """Say what a file without a training config is."""
    if "model_config" in file.attrs:
        return (
            f"has no attribute {_ATTRIBUTE}: the model was saved without being compiled, or with"
            f" include_optimizer=False, so its optimizer is not in it; {_SAVE}"
        )
    if "layer_names" in file.attrs or {"layers", "_layer_checkpoint_dependencies"} & set(list(file)[:100]):
        return (
            f"holds weights alone, as model.save_weights writes them: the config of the optimizer is not in it; {_SAVE}"
        )
    return f"is no model of Keras: it has no attribute {_ATTRIBUTE}; {_SAVE}"
