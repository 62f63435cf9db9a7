# SPDX-License-Identifier: Apache-2.0
"""The layers of the package: which part may import which, checked on the source.

A part is a module or a package directly under dat_jax. Imports inside functions count too.
"""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "dat_jax"

BASE = {"errors", "config", "storage", "runtime", "types"}
WITH_JAX = {"types", "runtime"}
ISLANDS = {"model", "exits", "data"}
TERMS = {"losses", "metrics", "flops", "teacher_forcing"}
BELOW_ENGINES = BASE | ISLANDS | TERMS | {"checkpoints"}
ENGINES = {"training", "decoding"}
REPORTS = {"evaluation", "tuning"}
SCRIPTS = {
    "dat_jax.data.prepare": "prepare",
    "dat_jax.tuning.__main__": "tune",
    "dat_jax.distill": "distill",
    "dat_jax.export.__main__": "export_model",
    "dat_jax.explore.__main__": "explore_model",
    "dat_jax.info": "info",
}
"""Modules run by `python -m`. Each is a separate part that nobody imports."""

MAY_IMPORT = {
    "__init__": {"errors", "storage", "api"},
    "errors": set(),
    "types": set(),
    "storage": {"errors"},
    "config": {"errors", "storage"},
    "runtime": {"errors"},
    "cli": {"errors", "storage"},
    "model": BASE,
    "exits": BASE,
    "data": BASE - WITH_JAX,
    **dict.fromkeys(TERMS, BASE | ISLANDS | TERMS),
    "checkpoints": BASE,
    **dict.fromkeys(ENGINES, BELOW_ENGINES),
    "runs": BELOW_ENGINES | ENGINES,
    "evaluation": BELOW_ENGINES | {"decoding", "runs"},
    "tuning": BELOW_ENGINES | ENGINES | {"runs", "evaluation"},
    "export": BELOW_ENGINES | {"decoding", "runs"},
    "explore": BELOW_ENGINES | {"decoding", "evaluation"},
    "api": BELOW_ENGINES | ENGINES | REPORTS | {"runs", "export"},
    "prepare": BELOW_ENGINES | {"runs", "cli"},
    "tune": BELOW_ENGINES | REPORTS | {"runs", "cli"},
    "info": BELOW_ENGINES | REPORTS | {"runs", "cli"},
    "distill": BELOW_ENGINES | REPORTS | {"decoding", "runs", "cli"},
    "export_model": BELOW_ENGINES | {"api", "cli", "export"},
    "explore_model": BELOW_ENGINES | REPORTS | {"decoding", "runs", "cli", "explore"},
}
"""The parts that each part may import, in addition to itself."""

BENCHMARKS = {
    **{name: set() for name in ("decode", "compiled", "reproduce")},
    "report": {"decode", "compiled"},
    "gpu": {"decode"},
}
"""The packages of `benchmarks` that its parts may import in addition to themselves."""

WITHOUT_JAX = BASE - WITH_JAX | {"__init__", "data", "cli"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
OUTSIDE = {"train", "decode", "benchmarks", "configs", "tests"}


def modules(package: Path) -> dict[str, Path]:
    """The file of every module under `package`, by dotted name."""
    named = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(source: str) -> Iterator[str]:
    """Every full name that the source imports; relative ones start with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def part_of(module: str) -> str:
    """The part of the package that a module belongs to."""
    if module in SCRIPTS:
        return SCRIPTS[module]
    return module.split(".")[1] if "." in module else "__init__"


def forbidden(module: str, imported: str) -> str | None:
    """The complaint about one import, or None."""
    part, top = part_of(module), imported.split(".")[0]
    if imported.startswith("."):
        return f"{module} imports {imported}: write the name in full"
    if top in OUTSIDE:
        return f"{module} imports {imported}: the package does not know its scripts"
    if top in JAX and part in WITHOUT_JAX:
        return f"{module} imports {imported}: {part} does without JAX"
    if f"{imported}.".startswith("flax.linen.") and part != "model":
        return f"{module} imports {imported}: only model imports flax.linen"
    if top == "dat_jax" and part_of(imported) not in MAY_IMPORT[part] | {part}:
        return f"{module} imports {imported}: {part} may not import {part_of(imported)}"
    return None


def violations(package: Path) -> list[str]:
    """All violations of the rules above in the package, one line each."""
    named = modules(package)
    unplaced = sorted({part_of(module) for module in named} - MAY_IMPORT.keys())
    if unplaced:
        return [f"dat_jax.{part} has no place: add it to MAY_IMPORT" for part in unplaced]

    found = []
    graph = {}
    for module, path in named.items():
        imported = sorted(set(imports(path.read_text(encoding="utf-8"))))
        found += [line for name in imported if (line := forbidden(module, name))]
        targets = {name if name in named else name.rpartition(".")[0] for name in imported}
        graph[module] = targets & named.keys()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("a cycle of imports: " + " -> ".join(reversed(error.args[1])))
    return found


def test_the_package_respects_its_layers():
    assert violations(PACKAGE) == []


def test_the_packages_of_benchmarks_respect_their_layers():
    for module, path in modules(PACKAGE.parent / "benchmarks").items():
        names = [name.split(".") for name in imports(path.read_text(encoding="utf-8"))]
        imported = {parts[1] for parts in names if parts[0] == "benchmarks"} & BENCHMARKS.keys()
        part = module.split(".")[1]
        assert imported <= BENCHMARKS.get(part, set()) | {part}, module


def test_loading_a_model_does_not_import_training():
    named = modules(PACKAGE)
    seen, remaining, outside = set[str](), ["dat_jax.api"], set[str]()
    while remaining:
        seen.add(module := remaining.pop())
        for name in imports(named[module].read_text(encoding="utf-8")):
            target = name if name in named else name.rpartition(".")[0]
            outside.add(name.partition(".")[0])
            remaining += [target] if target in named.keys() - seen else []
    assert {module for module in seen if module.startswith("dat_jax.training.")} == {
        "dat_jax.training.files"
    }
    assert "optax" not in outside


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("model/a.py", "from dat_jax.exits import rules", "model may not import exits"),
        ("exits/a.py", "import dat_jax.model.decoder", "exits may not import model"),
        ("exits/a.py", "from dat_jax import data", "exits may not import data"),
        ("training/a.py", "from dat_jax.decoding.beam import init", "may not import decoding"),
        ("decoding/a.py", "from dat_jax.training import step", "may not import training"),
        ("decoding/a.py", "from dat_jax.evaluation import scores", "may not import evaluation"),
        ("losses.py", "from dat_jax.training import step", "losses may not import training"),
        ("config/a.py", "from dat_jax.types import Params", "config may not import types"),
        ("evaluation/a.py", "from dat_jax.cli.command_line import run", "import cli"),
        ("data/a.py", "import jax.numpy as jnp", "data does without JAX"),
        ("data/a.py", "def f():\n    from flax import struct", "data does without JAX"),
        ("data/a.py", "from dat_jax.types import Array", "data may not import types"),
        ("training/a.py", "from flax import linen as nn", "only model imports flax.linen"),
        ("training/a.py", "import flax.linen as nn", "only model imports flax.linen"),
        ("training/a.py", "from flax.linen import Dense", "only model imports flax.linen"),
        ("training/a.py", "from configs import base", "does not know its scripts"),
        ("training/a.py", "from .step import TrainState", "write the name in full"),
        ("training/a.py", "import dat_jax.training.b", "a cycle of imports: dat_jax.training."),
        ("novelty.py", "", "dat_jax.novelty has no place: add it to MAY_IMPORT"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, line, complaint):
    package = tmp_path / "dat_jax"
    planted = {"__init__.py": "", "training/b.py": "from dat_jax.training import a", file: line}
    for name, text in {"training/a.py": "from dat_jax import config", **planted}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (violation,) = violations(package)
    assert complaint in violation


def test_allowed_imports_give_no_violation(tmp_path):
    allowed = {
        "model/a.py": "import flax.linen as nn\nfrom dat_jax.config import ModelConfig",
        "losses.py": "from dat_jax.metrics import Mean\nfrom dat_jax.model import a",
        "metrics.py": "import jax",
        "training/a.py": "import dat_jax.losses\nfrom dat_jax.training.b import c",
        "training/b.py": "from dat_jax.data import batching",
        "tuning/a.py": "from dat_jax.evaluation import scores\nfrom dat_jax.decoding import beam",
    }
    for name, text in allowed.items():
        path = tmp_path / "dat_jax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert violations(tmp_path / "dat_jax") == []
