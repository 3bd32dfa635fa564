"""Let the tests import the helpers beside this file, which are no package and on no path."""

import importlib.util
import sys
from pathlib import Path

for name in ("golden_data", "translation"):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
