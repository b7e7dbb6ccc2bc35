"""The architecture: who may import whom, what an import costs, and one public path per name."""

import ast
import graphlib
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import TESTS

import jaxreg

ROOT = Path(jaxreg.__file__).parent

# A module imports from lower layers and from its own folder. A new one gets its line here.
LAYERS = {
    "prox": 0, "_convolution": 0, "_quickly": 0,
    "_tree": 1,
    "_names": 2,
    "metrics": 2, "_check": 2,
    "select": 3, "value": 3, "noise": 4, "terms": 4, "flatness": 4, "reparametrize": 4,
    "penalty": 4,
    "leaf": 5, "splitting": 5,
    "penalties": 6, "objective": 6, "stationarity": 6,
    "convert": 7, "coupling": 7, "report": 7, "storage": 7,
    "grid": 8, "scores": 7, "choice": 8, "expected": 9,
    "fit": 9, "results": 10,
    "sweeps": 11,
    "tune": 12,
    "jaxreg": 13,
    "testing": 14, "cli": 14,
    "__main__": 15,
}  # fmt: skip

# The operators of a penalty make combinations, which are penalties.
CIRCLE = {f"jaxreg.penalty.{part}" for part in ("base", "combine", "sums")}

HEAVY = (
    "flax",
    "orbax",
    "matplotlib",
    "sklearn",
    "pandas",
    "rich",
    "hypothesis",
    "torch",
    "optuna",
    "scipy",
)


def component(module):
    """The key in LAYERS: `jaxreg.prox.group` is part of prox, `jaxreg` is itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def source_modules():
    for file in sorted(ROOT.rglob("*.py")):
        parts = ("jaxreg", *file.relative_to(ROOT).with_suffix("").parts)
        yield (
            ".".join(parts[:-1] if parts[-1] == "__init__" else parts),
            ast.parse(file.read_text(encoding="utf-8")),
        )


def is_module(name):
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(tree):
    """Every module of jaxreg that a syntax tree imports, at its top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "jaxreg")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer; write jaxreg.module"
            source = node.module or ""
            if source.split(".")[0] == "jaxreg":
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    yield inner if is_module(inner) else source


MODULES = dict(source_modules())


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_lower_layers(module):
    mine = component(module)
    assert mine in LAYERS, f"{module} has no layer yet: give it one in LAYERS"
    for other in imported(MODULES[module]):
        theirs = component(other)
        assert theirs in LAYERS, f"{other}, imported by {module}, has no layer"
        allowed = theirs == mine or LAYERS[theirs] < LAYERS[mine]
        assert allowed, f"{module} (layer {LAYERS[mine]}) imports {other} (layer {LAYERS[theirs]})"


def runs(tree):
    """The syntax tree without what only a type checker imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    return tree


def test_no_folder_has_a_circle():
    """Each module of a folder comes after those it imports, in some order."""
    graph = {
        module: {o for o in imported(runs(tree)) if component(o) == component(module)} - {module}
        for module, tree in MODULES.items()
    }
    for module in CIRCLE:
        graph[module] -= CIRCLE
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(MODULES) <= set(order)


def functions():
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{module}.{node.name}", node


def test_functions_fit_on_a_screen():
    """Sixty lines at most, beside the docstring."""
    for name, node in functions():
        lines = node.end_lineno - node.lineno + 1
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            lines -= first.end_lineno - first.lineno + 1
        assert lines <= 60, f"{name} has {lines} lines"


def test_tests_mirror_the_package_and_never_import_each_other():
    rooms = {p.name for p in TESTS.iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert rooms - {p.name for p in ROOT.iterdir()} <= {"support", "laws", "accelerator", "attacks"}
    for file in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            sources = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            sources += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(s.split(".")[-1].startswith("test_") for s in sources), file


def test_every_layer_of_the_table_exists():
    assert {component(module) for module in MODULES} == set(LAYERS)


def test_the_check_sees_imports_of_every_form():
    tree = ast.parse(
        "import jaxreg.leaf\nfrom jaxreg import _tree, l1\n"
        "def f():\n    from jaxreg.prox.group import x\n    import numpy"
    )
    assert sorted(imported(tree)) == ["jaxreg", "jaxreg._tree", "jaxreg.leaf", "jaxreg.prox.group"]


def test_importing_jaxreg_is_light_and_starts_no_backend():
    code = (
        "import sys, jaxreg\n"
        "from jax._src import xla_bridge\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], xla_bridge.backends_are_initialized())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # A started backend would make jax.distributed.initialize fail afterwards.
    assert (run.stdout.strip(), run.returncode) == ("[] False", 0), run.stderr


def test_public_names_resolve_sorted_and_once():
    names = jaxreg.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(jaxreg, name) is not None, name


def test_what_the_package_imports_by_name_is_public():
    tree = MODULES["jaxreg"]
    found = {
        a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    } - {"trackers"}  # a module
    assert found - set(dir(jaxreg)) == set()
    assert {n for n in found if not n.startswith("_")} == set(jaxreg.__all__)


def public_modules():
    for info in pkgutil.walk_packages(jaxreg.__path__, "jaxreg."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            yield importlib.import_module(info.name)


def test_there_is_one_public_path_per_name():
    """Beside `jaxreg.NAME` a name is listed where it is defined and in the folder around that."""
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if name in jaxreg.__all__ and thing is getattr(jaxreg, name):
                home = (
                    thing.__module__ if inspect.isroutine(thing) or inspect.isclass(thing) else ""
                )
                second = home and f"{home}.".startswith(f"{module.__name__}.") is False
                assert not second, (
                    f"{name} is public as jaxreg.{name} and as {module.__name__}.{name}"
                )


def test_every_public_module_lists_its_names():
    for module in public_modules():
        listed = getattr(module, "__all__", None)
        assert listed is not None or module.__name__ == "jaxreg.cli", module.__name__
        assert all(getattr(module, name, None) is not None for name in listed or ())


@pytest.mark.parametrize("name", [n for n in jaxreg.__all__ if callable(getattr(jaxreg, n))])
def test_public_functions_and_classes_have_docstrings(name):
    assert len((getattr(jaxreg, name).__doc__ or "").strip()) > 30
