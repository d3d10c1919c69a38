"""The rules of the house, read from the source: who may import whom, and what no module does when it is imported.

A new package fails here until FLOORS says where it belongs.
"""

import ast
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

import deeplab_tf
from deeplab_tf.arch import ARCHITECTURES

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("deeplab_tf", "tools", "configs", "checkpoints")

# A package imports packages of the floors below its own; inside a package modules import each other freely.
FLOORS = (
    ("errors", "version"),
    ("registration",),  # what Keras is told at import
    ("filesystems",),  # gs:// and its like
    ("files",),  # paths, and the one way to write
    ("documents",),  # JSON of our own, with the types of its fields
    ("arch", "catalog"),  # facts: backbones; data sets and palettes
    ("config",),  # every option
    ("ops", "zoo"),  # pure functions; released checkpoints and published rows
    ("network", "data", "configs"),  # Keras layers and the model; records and batches; recipes
    ("weights",),  # files of weights and the model directory
    ("inference",),  # images to classes, in TensorFlow or LiteRT
    ("evaluation", "exporting", "serving"),
    ("training", "labelling"),
    ("doctor", "benchmarks"),
    ("tools",),  # the commands
    ("checkpoints",),  # data alone
)
# What a package may import besides the standard library and deeplab_tf, where that is limited.
FACTS = {"numpy"}
PACKAGES = {
    **dict.fromkeys(("errors", "version", "registration", "arch", "catalog", "config", "configs"), FACTS),
    "ops": {*FACTS, "tensorflow", "keras", "scipy", "PIL", "pillow_heif", "tifffile"},
}
FACT_MODULES = ("config", "arch", "catalog.datasets", "catalog.image_facts", "zoo.released")

BANNED_NAMES = {"utils", "common", "misc", "helpers", "base", "core", "manager"}
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 6  # of a public function; what belongs together travels as a type

# Calls that touch files, the network, random state or devices, by the last part of the name or by its beginning.
IMPURE_ENDS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "makedirs", "glob", "rglob", "iterdir"),
    *("is_file", "is_dir", "exists", "listdir", "urlopen", "print", "seed", "set_seed", "set_random_seed", "system"),
    *("default_rng", "RandomState", "putenv", "load", "loads", "restore"),
}
IMPURE_BEGINNINGS = ("tf.config.", "tensorflow.config.", "np.random.", "random.", "requests.", "subprocess.", "shutil.")
# The package looks where its sibling folders are: in a checkout beside it, installed inside it.
ALLOWED_AT_IMPORT = {("deeplab_tf/__init__.py", "is_dir"), ("deeplab_tf/__init__.py", "is_file")}


def source_files() -> list[pathlib.Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    """Returns the name below deeplab_tf, "" for the package itself."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts[1:] if parts[0] == "deeplab_tf" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


MODULES = {module_name(path): path for path in source_files()}


def room_of(module: str) -> str:
    """Returns the package, or the module of the root, that `module` lies in."""
    return module.partition(".")[0]


def floor_of(module: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms), None)


def imported_names(root: ast.AST, module: str, *, package: bool) -> Iterator[str]:
    """Yields the dotted names that `module` imports anywhere, inside functions too."""
    here = ["deeplab_tf", *module.split(".")] if module else ["deeplab_tf"]
    for node in ast.walk(root):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = here[: len(here) - node.level + package] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def resolve(name: str) -> str:
    """Returns the module of deeplab_tf that the dotted name is, or lies in; "" where it is the package alone."""
    below = name.removeprefix("deeplab_tf").removeprefix(".")
    below = deeplab_tf._PUBLIC.get(below, below)
    while below and below not in MODULES:
        below = below.rpartition(".")[0]
    return below


def imports_of(module: str) -> tuple[set[str], set[str]]:
    """Returns the modules of deeplab_tf and the other packages that `module` imports."""
    path = MODULES[module]
    names = list(imported_names(tree(path), module, package=path.name == "__init__.py"))
    ours = [name for name in names if name.split(".")[0] == "deeplab_tf"]
    others = {name.split(".")[0] for name in names} - {"deeplab_tf"}
    return {resolve(name) for name in ours} - {module}, others - set(sys.stdlib_module_names)


def import_problem(importer: str, imported: str) -> str | None:
    """Returns what is wrong with the import, or None."""
    if imported == "":
        return f"{importer} imports a name from deeplab_tf itself that is neither a module nor public"
    if room_of(importer) == room_of(imported) or floor_of(imported) < floor_of(importer):
        return None
    return f"{importer} imports {imported}, which is not on a floor below; see FLOORS"


def package_problem(importer: str, package: str) -> str | None:
    allowed = PACKAGES.get(room_of(importer))
    if allowed is not None and package not in allowed:
        return f"{importer} imports {package}: {room_of(importer)} may import {', '.join(sorted(allowed))} only"
    return None


LISTED = [module for module in MODULES if module]


def test_every_package_has_a_floor():
    rooms = {room_of(module) for module in LISTED}
    assert {room for room in rooms if floor_of(room) is None} == set(), "new: say in FLOORS where it belongs"


def test_the_root_holds_packages_and_four_files():
    names = {path.name for path in (ROOT / "deeplab_tf").iterdir() if path.is_file()}
    assert names == {"__init__.py", "errors.py", "files.py", "version.py", "py.typed"}


@pytest.mark.parametrize("module", LISTED)
def test_imports_flow_down(module):
    ours, packages = imports_of(module)
    problems = [import_problem(module, other) for other in sorted(ours)]
    problems += [package_problem(module, package) for package in sorted(packages)]
    assert not [problem for problem in problems if problem]


def for_type_checkers(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and dotted(statement.test).endswith("TYPE_CHECKING")


def test_the_package_itself_imports_its_version_and_what_it_tells_keras():
    body = [statement for statement in tree(MODULES[""]).body if not for_type_checkers(statement)]
    names = list(imported_names(ast.Module(body, []), "", package=True))
    assert {resolve(name) for name in names if name.startswith("deeplab_tf")} == {
        "version",
        "registration.deferred",
    }
    assert not {name.split(".")[0] for name in names} - {"deeplab_tf"} - set(sys.stdlib_module_names)


def test_type_checkers_see_the_public_names():
    (block,) = filter(for_type_checkers, tree(MODULES[""]).body)
    imported = {name.removeprefix("deeplab_tf.") for name in imported_names(block, "", package=True)}
    named = {f"{module}.{name}" for name, module in deeplab_tf._PUBLIC.items()}
    assert imported == named | set(deeplab_tf._PUBLIC_MODULES.values())


def test_no_imports_run_in_a_circle():
    # A package that its own modules import from (arch/spec from arch) is no circle: Python has begun it already.
    graph = {m: {o for o in imports_of(m)[0] if o and not m.startswith(f"{o}.")} for m in LISTED}
    while graph:
        leaves = {module for module, others in graph.items() if not others & set(graph)}
        assert leaves, f"a circle within {sorted(graph)}"
        graph = {module: others for module, others in graph.items() if module not in leaves}


@pytest.mark.parametrize(
    ("importer", "imported", "good"),
    [
        ("network.layers", "arch.spec", True),
        ("network.layers", "network.graph", True),
        ("network.layers", "data.records", False),
        ("config", "network.layers", False),
        ("config", "arch", True),
        ("weights.tf1", "training.optimizers", False),
        ("training.validation", "evaluation.evaluate", True),
        ("evaluation.evaluate", "training.train", False),
        ("exporting.export", "evaluation.evaluate", False),
        ("configs.voc", "config", True),
        ("configs.voc", "training.train", False),
        ("tools.train", "training.train", True),
        ("training.train", "tools.train", False),
        ("inference.predict", "", False),
    ],
)
def test_the_floors_mean_what_they_say(importer, imported, good):
    assert (import_problem(importer, imported) is None) == good


def test_imports_are_read_in_every_form():
    source = """
import deeplab_tf.arch.spec
from deeplab_tf import ModelConfig
from deeplab_tf.network import layers
from deeplab_tf.arch.nas import cells
from . import errors
from .catalog.datasets import DATASETS
def late():
    from deeplab_tf.version import __version__
    import absl.flags
"""
    names = list(imported_names(ast.parse(source), "model", package=False))
    ours = {resolve(name) for name in names if name.startswith("deeplab_tf")}
    assert ours == {"arch.spec", "config", "network.layers", "arch.nas", "errors", "catalog.datasets", "version"}
    assert "absl.flags" in names
    nested = ast.parse("from . import spec\nfrom ..errors import DeepLabError")
    assert list(imported_names(nested, "arch.nas", package=False)) == [
        "deeplab_tf.arch.spec",
        "deeplab_tf.errors.DeepLabError",
    ]
    assert list(imported_names(ast.parse("from . import spec"), "arch", package=True)) == ["deeplab_tf.arch.spec"]


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("tools")])
def test_flags_are_read_under_tools_only(module):
    path = MODULES[module]
    names = set(imported_names(tree(path), module, package=path.name == "__init__.py"))
    assert not {name for name in names if f"{name}.".startswith(("absl.flags.", "absl.app."))}


# Imports do nothing.


def dotted(node: ast.AST) -> str:
    """Returns a.b.c of a name or attribute; what stands before a call or an index is left out."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".removeprefix(".")
    return ""


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that importing the module evaluates: all but the bodies of functions, and of the main guard."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and dotted(getattr(child.test, "left", None)) == "__name__":
            continue
        if isinstance(child, functions):
            parts = [*child.args.defaults, *filter(None, child.args.kw_defaults), *getattr(child, "decorator_list", [])]
            for part in parts:
                yield part
                yield from run_at_import(part)
            continue
        yield child
        yield from run_at_import(child)


def impure_calls(root: ast.AST) -> list[str]:
    found = []
    for node in run_at_import(root):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            end = node.func.attr if isinstance(node.func, ast.Attribute) else name
            if end in IMPURE_ENDS or name.startswith(IMPURE_BEGINNINGS):
                found.append(f"{end} in line {node.lineno}")
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and dotted(node.value) == "os.environ":
            found.append(f"os.environ in line {node.lineno}")
    return found


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(ROOT)))
def test_importing_does_nothing(path):
    file = path.relative_to(ROOT).as_posix()
    found = [call for call in impure_calls(tree(path)) if (file, call.split(" ")[0]) not in ALLOWED_AT_IMPORT]
    assert not found, f"{file}: do it in a function, when it is asked for"


@pytest.mark.parametrize(
    "line",
    [
        "DATA = open('x').read()",
        "DATA = pathlib.Path('x').read_text()",
        "np.random.seed(0)",
        "tf.random.set_seed(1)",
        "tf.config.set_visible_devices([], 'GPU')",
        "os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'",
        "class A:\n    data = json.load(handle)",
        "def f(rng=np.random.default_rng(0)):\n    pass",
        "if True:\n    print('loaded')",
    ],
)
def test_doing_something_at_import_is_noticed(line):
    assert impure_calls(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "def f():\n    return open('x')",
        "RATES = tuple(sorted({6, 12}))",
        "_register = keras.saving.register_keras_serializable(package='deeplab_tf')",
        "if __name__ == '__main__':\n    print(1)",
        "key = lambda path: path.is_file()",
    ],
)
def test_what_is_no_deed_passes(line):
    assert not impure_calls(ast.parse(line))


def test_facts_do_not_import_tensorflow():
    names = ["deeplab_tf", *(f"deeplab_tf.{name}" for name in FACT_MODULES)]
    code = f"import sys, {', '.join(names)}; print(*{{'tensorflow', 'keras', 'absl', 'PIL'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


# Choices.


def beginnings() -> set[str]:
    """Returns the names and scopes of all backbones, and what is left of each after one of its underscores."""
    names = {name for a in ARCHITECTURES.values() for name in (a.name, a.scope)}
    return {"_".join(name.split("_")[first:]) for name in names for first in range(name.count("_") + 1)}


def choices_by_name(root: ast.AST) -> list[str]:
    """Returns the comparisons, and tests for a beginning or an end, with a text that begins a backbone's name."""
    found = []
    for node in ast.walk(root):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in ("startswith", "endswith"):
            parts = node.args
        constants = (leaf.value for part in parts for leaf in ast.walk(part) if isinstance(leaf, ast.Constant))
        texts = [text for text in constants if isinstance(text, str) and len(text) > 2]
        if any(name.startswith(text) for text in texts for name in beginnings()):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) != "arch"])
def test_backbones_are_told_apart_by_their_fields(module):
    # What depends on the backbone is a field of its row in arch/: a new one then cannot be forgotten elsewhere.
    assert not choices_by_name(tree(MODULES[module]))


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ('bounded = "xception" in architecture.name', False),
        ('if architecture.scope.startswith(("Mobilenet", "vgg_16")): pass', False),
        ('stride = 32 if scope == "MobilenetV3" else 16', False),
        ('wide = entry.name.startswith("edgetpu")', False),
        ('strategy = name == "tpu"', True),
        ('config = ModelConfig(model_variant="xception_65")', True),
        ("bounded = architecture.bounded", True),
    ],
)
def test_a_choice_by_name_is_noticed(line, good):
    assert (not choices_by_name(ast.parse(line))) == good


def test_one_module_imports_what_is_private_in_tensorflow():
    private = ("tensorflow.lite.", "tensorflow.python.")
    names = {module: imported_names(tree(MODULES[module]), module, package=False) for module in LISTED}
    assert [m for m in LISTED if any(name.startswith(private) for name in names[m])] == ["weights.lite_format"]


# Names and sizes.


def test_modules_are_named_for_what_they_are():
    paths = [*source_files(), *(ROOT / "tests").glob("*.py")]
    words = {path: {path.stem, *path.relative_to(ROOT).parts[:-1]} for path in paths}
    assert not {path.relative_to(ROOT).as_posix() for path, names in words.items() if names & BANNED_NAMES}


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(ROOT)))
def test_there_are_no_lambda_layers(path):
    # They are not saved with a model, and a name says what a layer does.
    lines = [node.lineno for node in ast.walk(tree(path)) if dotted(node).rpartition(".")[2] == "Lambda"]
    assert not lines


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path):
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Returns the names of a function's parameters, without self and cls."""
    given = function.args
    found = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [one.arg for one in found if one and one.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_take_few_parameters(path):
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    counts = {node.name: len(parameters_of(node)) for node in functions if not node.name.startswith("_")}
    assert not {name: count for name, count in counts.items() if count > MOST_PARAMETERS}
