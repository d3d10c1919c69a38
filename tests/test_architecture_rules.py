"""The rules of the house, read from the source: who may import whom, and what no module does when it is imported.

A new module fails here until LAYERS says where it belongs.
"""

import ast
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

import deeplab_tf

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("deeplab_tf", "tools", "configs", "checkpoints")
TABLE = "LAYERS in tests/test_architecture_rules.py"

# Each layer may import those above it. "arch.*" stands for every module of the folder; a module may be listed before it
# exists. Names are those below deeplab_tf; tools, configs and checkpoints are packages below it once installed.
LAYERS = {
    "facts": """
        errors version arch arch.* fields train_config data_config run_config evaluation_config export_config
        crf_config config data data.catalog data.tfds_folder released papers papers.* serve_config
        pack_config contamination doctor.findings published""",
    "pure functions": """
        resizing portable_convolutions fake_quantization layers losses metrics schedules optimizers cost lattice crf
        visualize images
        upsampling boundary charts
        data.records data.transforms data.outlines data.pairs data.places
        doctor.labels doctor.likeness doctor.network""",
    "assemblers": """
        archives artefacts caffe download lite_file half_precision quantization tflite xnnpack
        sources recognize backbone head checkpoint initialize
        run_directory batch_statistics
        distribution progress summaries tally report_page thumbnails
        data.locate data.examples data.decoded_cache data.augment data.pipeline data.build data.beam data.voc
        data.ade20k data.cityscapes data.folder data.shapes data.tfds_builders""",
    "model": "model",
    "zoo": "zoo loading following inference_graph predictor runtime train_step",
    "verbs": """
        train evaluate validation vis predict certificate export report doctor doctor.* verify packers serving serving.*
        predict_beam""",
    "edge": "tools tools.* configs configs.* checkpoints",
}
# Steps within a layer. Facts and tools may import each other, as long as no circle comes of it; nothing else may.
SIDEWAYS = {
    ("crf", "lattice"),
    ("crf", "metrics"),
    ("boundary", "metrics"),
    ("layers", "fake_quantization"),
    ("layers", "resizing"),
    ("report_page", "tally"),
    ("thumbnails", "report_page"),
    ("report", "evaluate"),
    ("doctor.dataset", "doctor.samples"),
    ("doctor.dataset", "doctor.split"),
    ("doctor.split", "doctor.samples"),
    ("doctor.exports", "certificate"),
    ("doctor.predictions", "doctor.checkpoint"),
    ("doctor.predictions", "doctor.run"),
    ("doctor.run", "doctor.checkpoint"),
    ("doctor.predictions", "doctor.samples"),
    ("doctor.predictions", "doctor.split"),
    ("verify", "evaluate"),
    ("sources", "archives"),
    ("sources", "caffe"),
    ("checkpoint", "sources"),
    ("initialize", "sources"),
    ("run_directory", "checkpoint"),
    ("run_directory", "sources"),
    ("loading", "zoo"),
    ("following", "loading"),
    ("following", "zoo"),
    ("data.pairs", "data.places"),
    ("doctor.labels", "data.pairs"),
    ("data.pipeline", "data.augment"),
    ("data.pipeline", "data.decoded_cache"),
    ("data.pipeline", "data.examples"),
    ("data.beam", "data.build"),
    ("data.examples", "data.locate"),
    ("data.tfds_builders", "data.ade20k"),
    ("data.tfds_builders", "data.cityscapes"),
    ("data.tfds_builders", "data.shapes"),
    ("data.tfds_builders", "data.voc"),
    ("artefacts", "tflite"),
    ("half_precision", "lite_file"),
    ("quantization", "lite_file"),
    ("quantization", "xnnpack"),
    ("xnnpack", "lite_file"),
    ("tflite", "half_precision"),
    ("tflite", "lite_file"),
    ("tflite", "quantization"),
    ("inference_graph", "predictor"),
    ("runtime", "inference_graph"),
    ("runtime", "predictor"),
    ("upsampling", "resizing"),
    ("visualize", "images"),
    ("certificate", "predict"),
    ("export", "certificate"),
    ("export", "predict"),
    ("predict_beam", "predict"),
    ("serving.app", "serving.engine"),
    ("serving.app", "serving.protocol"),
    ("serving.app", "serving.refusal"),
    ("serving.engine", "serving"),
    ("serving.engine", "serving.batching"),
    ("serving.engine", "serving.pictures"),
    ("serving.engine", "serving.protocol"),
    ("serving.engine", "serving.refusal"),
    ("serving.pictures", "serving.refusal"),
    ("serving.protocol", "serving.pictures"),
    ("serving.protocol", "serving.refusal"),
    ("serving.server", "serving.app"),
    ("serving.server", "serving.engine"),
    ("validation", "evaluate"),
    ("train", "validation"),
}
FREE_LAYERS = ("facts", "edge")
# What a layer may import besides the standard library and deeplab_tf; layers that are not named here: anything.
PACKAGES = {
    "facts": {"numpy"},
    "pure functions": {"numpy", "tensorflow", "keras", "scipy", "PIL", "matplotlib"},
    "configs": {"numpy"},
}

BANNED_NAMES = {"utils", "common", "misc", "helpers", "base", "core", "manager"}
LONGEST_FUNCTION = 60

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


def layer_of(module: str) -> str | None:
    for layer, names in LAYERS.items():
        if module in names.split() or f"{module.rpartition('.')[0]}.*" in names.split():
            return layer
    return None


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
    layers, (low, high) = list(LAYERS), (layer_of(imported), layer_of(importer))
    if importer.startswith("configs") and low != "facts" and not imported.startswith("configs"):
        return f"{importer} imports {imported}: recipes import facts only"
    if imported == "":
        return f"{importer} imports a name from deeplab_tf itself that is neither a module nor public"
    if low == high:
        fine = high in FREE_LAYERS or (importer, imported) in SIDEWAYS
        return None if fine else f"{importer} imports {imported}: {high} do not import each other; see SIDEWAYS"
    if layers.index(low) > layers.index(high):
        return f"{importer} ({high}) imports {imported} ({low}): imports flow down from the table's first layer"
    return None


def package_problem(importer: str, package: str) -> str | None:
    layer = "configs" if importer.startswith("configs") else layer_of(importer)
    if layer in PACKAGES and package not in PACKAGES[layer]:
        return f"{importer} imports {package}: {layer} may import {', '.join(sorted(PACKAGES[layer]))} only"
    return None


LISTED = [module for module in MODULES if module]


@pytest.mark.parametrize("module", LISTED)
def test_every_module_has_a_layer(module):
    assert layer_of(module), f"{MODULES[module].relative_to(ROOT)} is new: say in {TABLE} where it belongs"


@pytest.mark.parametrize("module", LISTED)
def test_imports_flow_down(module):
    if layer_of(module) is None:
        pytest.fail(f"{module} is not in {TABLE}")
    ours, packages = imports_of(module)
    unknown = [other for other in ours if other and layer_of(other) is None]
    assert not unknown, f"not in {TABLE}"
    problems = [import_problem(module, other) for other in sorted(ours)]
    problems += [package_problem(module, package) for package in sorted(packages)]
    assert not [problem for problem in problems if problem]


def test_the_package_itself_imports_its_version_alone():
    assert imports_of("") == ({"version"}, set())


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
        ("layers", "arch.spec", True),
        ("layers", "losses", False),
        ("config", "layers", False),
        ("config", "arch", True),
        ("backbone", "head", False),
        ("checkpoint", "model", False),
        ("validation", "evaluate", True),
        ("evaluate", "train", False),
        ("model", "zoo", False),
        ("zoo", "model", True),
        ("configs.voc", "config", True),
        ("configs.voc", "train", False),
        ("tools.train", "train", True),
        ("train", "tools.train", False),
        ("predict", "", False),
    ],
)
def test_the_table_means_what_it_says(importer, imported, good):
    assert (import_problem(importer, imported) is None) == good


def test_imports_are_read_in_every_form():
    source = """
import deeplab_tf.arch.spec
from deeplab_tf import ModelConfig, layers
from deeplab_tf.arch.nas import cells
from . import errors
from .data.catalog import DATASETS
def late():
    from deeplab_tf.version import __version__
    import absl.flags
"""
    names = list(imported_names(ast.parse(source), "model", package=False))
    ours = {resolve(name) for name in names if name.startswith("deeplab_tf")}
    assert ours == {"arch.spec", "config", "layers", "arch.nas", "errors", "data.catalog", "version"}
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
    names = ["deeplab_tf", *(f"deeplab_tf.{name}" for name in ("config", "arch", "data.catalog", "released"))]
    code = f"import sys, {', '.join(names)}; print(*{{'tensorflow', 'keras', 'absl', 'PIL'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


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
