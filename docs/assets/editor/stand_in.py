"""A stand-in for JAX where there is none: the operations that schedules take, on one step at a time.

Importing this module puts it in place of `jax`. It has no formula of a learning rate: those of the package run on it.
Numbers are Python's, and floats are _rounded to _float32 after each operation, as JAX computes them.
"""

import bisect
import contextlib
import ctypes
import math
import operator
import sys
from types import ModuleType, SimpleNamespace


class Array:
    """An integer, a bool, or a float rounded to float32; or a list of these."""

    shape = ()

    def __init__(self, value):
        value = value.value if isinstance(value, Array) else value
        self.value = [_rounded(item) for item in value] if isinstance(value, list) else _rounded(value)

    @property
    def dtype(self):
        """The function that makes such numbers, which stands for their type."""
        return _float32 if isinstance(self.value, float) else _int32

    def astype(self, dtype):
        """Return the number in another type."""
        return _asarray(self, dtype)

    def __getitem__(self, index):
        return Array(self.value[index.value]) if isinstance(index, Array) else self  # which `[..., None]` leaves alone

    def __float__(self):
        return float(self.value)


def _rounded(number):
    return ctypes.c_float(number).value if isinstance(number, float) else number


def _elementwise(function):
    """Return a function of Python numbers as one of arrays: a float among its arguments makes floats of all."""

    def call(*arguments):
        values = [Array(argument).value for argument in arguments]
        if isinstance(values[-1], list):
            return Array([call(*values[:-1], item).value for item in values[-1]])
        if any(isinstance(value, float) for value in values):
            values = [value if isinstance(value, bool) else _rounded(float(value)) for value in values]
        try:
            result = function(*values)
        except (ZeroDivisionError, OverflowError):
            result = math.inf
        return Array(math.nan if isinstance(result, complex) else result)

    return call


for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "and"):
    call = _elementwise(getattr(operator, f"__{name}__"))
    setattr(Array, f"__{name}__", call)
    setattr(Array, f"__r{name}__", lambda self, other, call=call: call(other, self))
for name in ("lt", "le", "gt", "ge", "neg"):
    setattr(Array, f"__{name}__", _elementwise(getattr(operator, f"__{name}__")))


def _asarray(value, dtype=None):
    value = Array(value).value
    if dtype is not None:
        kind = int if dtype is _int32 else float
        value = [kind(item) for item in value] if isinstance(value, list) else kind(value)
    return Array(value)


def _int32(value):
    return _asarray(value, _int32)


def _float32(value):
    return _asarray(value, _float32)


def _bitcast(array, dtype):
    is_float = dtype is _float32
    of, to = (ctypes.c_int32, ctypes.c_float) if is_float else (ctypes.c_float, ctypes.c_int32)
    return Array(to.from_buffer_copy(of(array.value)).value)


jax, jnp = ModuleType("jax"), ModuleType("jax.numpy")
vars(jax).update(
    numpy=jnp,
    Array=Array,
    core=SimpleNamespace(Tracer=Array),
    lax=SimpleNamespace(bitcast_convert_type=_bitcast),
    jit=lambda function, **_: lambda step: function(Array(step)),
    ensure_compile_time_eval=contextlib.nullcontext,
)
vars(jnp).update(
    pi=math.pi,
    int32=_int32,
    float32=_float32,
    integer=_int32,
    floating=_float32,
    issubdtype=operator.is_,
    result_type=lambda kind: {int: _int32, float: _float32}[kind],
    iinfo=lambda dtype: SimpleNamespace(min=-(2**31), max=2**31 - 1, dtype=dtype),
    asarray=_asarray,
    shape=lambda array: (),
    full=lambda shape, value, dtype: _asarray(value, dtype),
    abs=_elementwise(abs),
    cos=_elementwise(math.cos),
    sqrt=_elementwise(math.sqrt),
    floor=_elementwise(math.floor),
    maximum=_elementwise(max),
    minimum=_elementwise(min),
    clip=_elementwise(lambda value, low, high: min(max(value, low), high)),
    where=_elementwise(lambda condition, chosen, other: chosen if condition else other),
    sum=lambda array, axis: Array(sum(array.value)),
    searchsorted=lambda array, value, side: Array(bisect.bisect_right(array.value, value.value)),
)
sys.modules.update({"jax": jax, "jax.numpy": jnp})
