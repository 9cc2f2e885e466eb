"""Imports only go down the list of layers in docs/architecture.md."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.search(r"^```layers\n(.*?)^```$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M | re.S)[1]
LAYERS = {name: level for level, line in enumerate(BLOCK.splitlines()) for name in line.split()}
FILES = [ROOT / "main.py", *(path for folder in ("core", "data", "metrics") for path in (ROOT / folder).rglob("*.py"))]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
MODULES.pop("core")  # only a docstring


def layer(module):
    """The longest name of a layer that the module's name begins with."""
    return max((name for name in LAYERS if f"{module}.".startswith(f"{name}.")), key=len, default=None)


def imports(module):
    """Modules of this repository that a module imports, imports inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in MODULES else node.module for name in submodules}
    return names & MODULES.keys()


def test_every_module_has_a_layer_and_every_layer_a_module():
    assert [module for module in MODULES if layer(module) is None] == []
    assert {layer(module) for module in MODULES} == LAYERS.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module):
    assert [name for name in sorted(imports(module)) if LAYERS[layer(name)] < LAYERS[layer(module)]] == []


def test_imports_have_no_cycles():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()  # raises CycleError
