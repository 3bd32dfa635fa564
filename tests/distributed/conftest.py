"""Let the tests import the helper beside this file, which is no package and on no path."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("small_training", Path(__file__).with_name("small_training.py"))
assert _spec is not None
assert _spec.loader is not None
sys.modules["small_training"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["small_training"])
