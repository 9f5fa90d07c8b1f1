"""Who may import whom: imports only go down, and the two stages meet in the feature cache alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Floor by floor, from the ground up: modules, and packages with what is in them and stands nowhere
# else. A module imports from floors below its own, and from its own, where there is no circle.
FLOORS = [
    {"attnact"},
    {"attnact.errors", "attnact.vocabulary"},
    {"attnact.machine"},
    {"attnact.cache"},
    {"attnact.model"},
    {"attnact.released"},
    {"attnact.extract.datasets", "attnact.extract.frames", "attnact.train.config"},
    {"attnact.extract.networks", "attnact.train.feed", "attnact.train.loss"},
    {"attnact.train.scoring"},
    {"attnact.train.pictures"},
    {"attnact.extract", "attnact.train"},
    {"attnact.train.experiments"},
    {"attnact.recognise"},
    {"attnact.attend", "attnact.demo", "attnact.page", "attnact.study"},
    {"attnact.commands"},
    {"attnact.cli"},
    {"attnact.__main__"},
]
STAGES = ("attnact.extract", "attnact.train")


def modules() -> dict[str, Path]:
    """Every module by the name that it is imported by, without the links inside attnact."""
    found = {}
    for folder, package in (("attnact", ""), ("extract", "attnact."), ("train", "attnact.")):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if parts[:2] not in (("attnact", "extract"), ("attnact", "train")):
                found[package + ".".join(part for part in parts if part != "__init__")] = file
    return found


MODULES = modules()


def imports(name: str, whole: bool = True) -> set[str]:
    """The modules of ours that a module imports; with `whole`, also inside its functions."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively; always import through attnact."
            module = node.module or ""
            inside = {f"{module}.{alias.name}" for alias in node.names}
            # `from attnact.machine import ranks` imports a module, `from attnact import x` a name.
            found |= {path if path in MODULES else module for path in inside}
    return {module for module in found if module.split(".")[0] == "attnact"} - {name}


def floor(name: str) -> int:
    while not any(name in names for names in FLOORS):
        name = name.rpartition(".")[0]
    return next(i for i, names in enumerate(FLOORS) if name in names)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down(name):
    for imported in sorted(imports(name)):
        if name == "attnact" and imported == "attnact.recognise":
            continue  # `attnact.load`, which imports when it is called
        stages = {stage for stage in STAGES for it in (name, imported) if it.startswith(stage)}
        assert len(stages) < 2, f"{name} imports {imported}: the stages meet in the cache alone"
        assert floor(imported) <= floor(name), f"{name} imports {imported}, which stands above it"


def test_no_circles():
    left = {name: imports(name, whole=False) for name in MODULES}
    while left:
        free = {name for name, needed in left.items() if not needed & set(left)}
        assert free, f"these import each other in a circle: {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


def test_only_the_top_knows_both_stages():
    both = {
        name
        for name in MODULES
        if all(any(module.startswith(stage) for module in imports(name)) for stage in STAGES)
    }
    assert both <= {
        *("attnact.attend", "attnact.demo", "attnact.page.gallery"),
        *("attnact.recognise", "attnact.study"),
    }


def test_help_needs_no_heavy_library():
    program = (
        "import sys, attnact, attnact.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    heavy = ["torch", "h5py", "av", "matplotlib", "sklearn", "ray"]
    result = subprocess.run(
        [sys.executable, "-c", program, *heavy],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
