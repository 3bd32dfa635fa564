"""What records the arithmetic of a recipe's source: parts of its files at a pinned commit, parameters, and the file."""

import argparse
import ast
import importlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data" / "zoo"
UPDATES = 5
Tree = dict[str, Any]  # arrays by their paths


class Sources:
    """Files of clones, at pinned commits."""

    def __init__(self, folder: Path, source: str) -> None:
        """Read from the clone in a folder of clones; the source is as in "owner/name@commit"."""
        self.repository, self.commit = source.split("@")
        self.clone = folder / self.repository.split("/")[1]
        self.read_files: list[str] = []

    def text(self, file: str) -> str:
        self.read_files.append(file)
        command = ["git", "-C", str(self.clone), "show", f"{self.commit}:{file}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def take(self, file: str, names: Sequence[str], **world: Any) -> SimpleNamespace:
        """Run the functions, classes and assignments of these names, wherever they stand in the file, in `world`."""

        def defines(node: ast.AST) -> bool:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                return node.name in names
            targets = node.targets if isinstance(node, ast.Assign) else []
            return any(isinstance(target, ast.Name) and target.id in names for target in targets)

        nodes: Any = [node for node in ast.walk(ast.parse(self.text(file))) if defines(node)]
        exec(compile(ast.Module(nodes, []), file, "exec"), world)
        return SimpleNamespace(**{name: world[name] for name in names})

    def call(self, file: str, function: str, **world: Any) -> Any:
        """Evaluate the first call of a function in the file, such as the one that makes the optimizer."""
        calls = (node for node in ast.walk(ast.parse(self.text(file))) if isinstance(node, ast.Call))
        call = next(node for node in calls if ast.unparse(node.func) == function)
        return eval(compile(ast.Expression(call), file, "eval"), world)

    def arguments(self, file: str, command: str, **world: Any) -> Any:
        """Parse a command with the parser of the file."""
        world = {"parser": argparse.ArgumentParser(), "Path": Path, **world}
        self.run_statements(file, "parser.add_argument", world)
        return world["parser"].parse_args(command.split())

    def run_statements(self, file: str, of: str, world: dict[str, Any]) -> None:
        """Run the statements of the file that call functions whose names start with `of`."""

        def calls(node: ast.AST) -> bool:
            call = node.value if isinstance(node, ast.Expr) else None
            return isinstance(call, ast.Call) and ast.unparse(call.func).startswith(of)

        nodes: Any = [node for node in ast.walk(ast.parse(self.text(file))) if calls(node)]
        exec(compile(ast.Module(nodes, []), file, "exec"), world)

    def words(self) -> str:
        return f"{self.repository}@{self.commit}: {', '.join(dict.fromkeys(self.read_files))}"


def draw(shapes: Mapping[str, tuple[int, ...]], size: float) -> tuple[Tree, list[Tree]]:
    """Draw parameters, and gradients of a size that lets weight decay be seen, with few digits."""
    random = np.random.default_rng(0)

    def numbers(shape: tuple[int, ...], size: float) -> np.ndarray:
        drawn = random.normal(size=shape) * size
        return np.array([float(f"{number:.4g}") for number in drawn.flat]).reshape(shape)

    params = {name: numbers(shape, 1.0) for name, shape in shapes.items()}
    return params, [{name: numbers(shape, size) for name, shape in shapes.items()} for _ in range(UPDATES)]


def take_keras_steps(optimizer: Any, params: Tree, grads: Sequence[Tree], start: int) -> list[Tree]:
    """Return by how much an optimizer of Keras moves variables in each of some steps, the first of which is `start`."""
    tf: Any = importlib.import_module("tensorflow")
    variables = {name: tf.Variable(param, name=name) for name, param in params.items()}
    optimizer.iterations.assign(start)
    updates: list[Tree] = []
    for grad in grads:
        before = {name: variable.numpy() for name, variable in variables.items()}
        optimizer.apply_gradients([(tf.constant(grad[name]), variables[name]) for name in variables])
        updates.append({name: variables[name].numpy() - old for name, old in before.items()})
    return updates


def telling_steps(warmup_steps: int, total_steps: int) -> list[int]:
    """Return the steps at which a warm-up and what follows it are worth comparing."""
    w, t = warmup_steps, total_steps
    return [0, 1, 2, w // 2, w - 1, w, w + 1, (w + t) // 2, (w + 3 * t) // 4, t - 2, t - 1]


def write(recipe: str, source: str, content: Mapping[str, Any]) -> None:
    """Write a recording, with numbers to nine digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if hasattr(value, "__array__"):  # of NumPy, JAX or PyTorch
            return plain(np.asarray(value).tolist())
        return float(f"{value:.9g}") if isinstance(value, float) else value

    lines = []
    parts: dict[str, Any] = {"recipe": f"{recipe}.yaml", "source": source, "made_by": "real code", **plain(content)}
    for key, value in parts.items():
        if key in ("rates", "params", "average"):
            items = [f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in value.items()]
            lines.append(f" {json.dumps(key)}: {{\n" + ",\n".join(items) + "\n }")
        elif isinstance(value, list):
            lines.append(f" {json.dumps(key)}: [\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    (DATA / f"{recipe}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
