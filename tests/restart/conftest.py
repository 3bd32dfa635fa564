"""Let the tests import the training beside this file, which is no package and on no path."""

import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("training", Path(__file__).with_name("training.py"))
assert spec is not None
assert spec.loader is not None
sys.modules["training"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["training"])
