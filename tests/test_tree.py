"""Laws of the source tree itself."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest

from app.experiments.base import experiments

ROOT = Path(__file__).resolve().parents[1]
NOTICE = (ROOT / "NOTICE").read_text()

# The order in which to read the files: each imports only files above it.
ORDER = [
    "model.config",
    "model.linear",
    "model.dropout",
    "model.tokenizer",
    "model.norm",
    "model.mlp",
    "model.positions",
    "model.attention",
    "model.gpt",
    "model.sites",
    "model.edits",
    "model.edit_text",
    "model.edited",
    "model.trace",
    "model.reading",
    "model.sweep",
    "model.cache",
    "model.heads",
    "model.generate",
    "model.weights.names",
    "model.weights.checks",
    "model.weights.files",
    "model.weights.config_fields",
    "model.weights.config_json",
    "model.weights.byte_level",
    "model.weights.tokenizer_fields",
    "model.weights.tokenizer_files",
    "model.weights.folder",
    "model.weights.save",
    "model.weights.convert",
    "model.weights.sources",
    "model.weights.wheel",
    "model.weights.catalogue",
    "model.training.recipe",
    "model.training.record",
    "model.training.corpus",
    "model.training.initial",
    "model.training.run",
    "model.training.start",
    "app.settings",
    "app.errors",
    "app.schemas",
    "app.models",
    "app.edits",
    "app.engine",
    "app.figures",
    "app.views",
    "app.activations",
    "app.live.frame",
    "app.live.delta",
    "app.service",
    "app.middleware",
    "app.problems",
    "app.live.session",
    "app.compression",
    "app.templating",
    "app.openapi",
    "app.experiments.panels",
    "app.experiments.checks",
    "app.experiments.controls",
    "app.experiments.base",
    "app.experiments.run",
    "app.lessons.posts",
    "app.lessons.book",
    "app.lessons.embeddings",
    "app.lessons.geometry",
    "app.lessons.head",
    "app.lessons.recurrent",
    "app.lessons.cost",
    "app.lessons.clock",
    "app.lessons.head_arrays",
    "app.lessons.toy_head",
    *(EXPERIMENTS := sorted(experiment.work.__module__ for experiment in experiments().values())),
    "app.routes.api",
    "app.routes.activations",
    "app.routes.assets",
    "app.routes.health",
    "app.routes.live",
    "app.routes.pages",
    "app.routes.experiments",
    "app.main",
    "app.progress",
    "app.cli",
]


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path: Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return imported & set(ORDER)


def test_the_reading_order_names_every_file() -> None:
    files = [path for folder in ("model", "app") for path in (ROOT / folder).rglob("*.py")]
    assert sorted(ORDER) == sorted(_name(path) for path in files if path.name != "__init__.py")


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_files_above_it_in_the_reading_order(name: str) -> None:
    path = ROOT / Path(*name.split(".")).with_suffix(".py")
    above = set(ORDER[: ORDER.index(name)])
    assert _imports(path) <= above - set(
        EXPERIMENTS
    )  # no experiment imports another, and no other file imports a particular one


def _run(code: str) -> str:
    """What a fresh Python process prints."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": ""}
    ).stdout


def test_importing_the_app_reads_no_file_of_this_repository_but_code() -> None:
    opened = _run(
        "import sys\nsys.addaudithook(lambda event, args: print(args[0]) if event == 'open' else None)\nimport app.main"
    ).splitlines()
    opened_here = [path for path in opened if path.startswith(f"{ROOT}/") and not path.startswith(f"{ROOT}/.venv/")]
    assert opened_here
    assert [path for path in opened_here if not path.endswith((".py", ".pyc")) and ".pyc." not in path] == []


@pytest.mark.parametrize("module", ["app.figures", "app.schemas", "app.settings", "app.errors"])
def test_a_module_that_needs_no_torch_does_not_import_it(module: str) -> None:
    assert _run(f"import sys, {module}; print('torch' in sys.modules)").strip() == "False"


def test_the_readme_prints_the_files_in_the_reading_order() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = readme[readme.index("\nmodel/  ") : readme.index("\ntemplates/  static/")]
    printed = re.findall(r"^ +(\w+)\.py\b", tree, re.M)
    assert printed == [name.split(".")[-1] for name in ORDER if name not in EXPERIMENTS]


@pytest.mark.parametrize("package", ["plotly", "fastapi_offline", "ziamath", "latex2mathml"])
def test_notice_gives_the_license_of_every_package_whose_files_are_served(package: str) -> None:
    package_metadata = metadata(package)
    (entry,) = re.findall(rf"^  {package}: (.*?)(?=^\S|^  \S|\Z)", NOTICE, re.M | re.S)
    assert (package_metadata["License-Expression"] or package_metadata["License"]) in entry


def test_notice_names_every_package_whose_texts_the_shipped_model_was_trained_on() -> None:
    card = (ROOT / "model/weights/lookback-gpt/README.md").read_text()
    packages = re.findall(r"\| Debian, (\S+) \|", card)
    assert packages
    assert [package for package in packages if package not in NOTICE] == []


def test_every_license_file_that_notice_names_is_packaged() -> None:
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license-files"]
    named = set(re.findall(r"licenses/[\w.-]+\.txt", NOTICE))
    assert named == {str(path.relative_to(ROOT)) for path in (ROOT / "licenses").iterdir()}
    assert files == ["LICENSE", "NOTICE", "licenses/*"]
    assert {"!LICENSE", "!NOTICE", "!licenses"} <= set((ROOT / ".dockerignore").read_text().split())
