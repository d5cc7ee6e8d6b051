"""The house's arrows: who may import whom, and who alone speaks to MLflow and opens storage."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "models": {"models"},
    "training": {"training", "models"},
    "mlflow_server": {"mlflow_server"},
    "studies": {"studies", "training", "models", "mlflow_server"},
}
SOURCES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def calls(path: Path) -> set[str]:
    """The names of everything that a file calls."""
    nodes = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    return {getattr(node, "id", getattr(node, "attr", "")) for node in nodes}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & set(MAY_IMPORT) <= MAY_IMPORT[package]


def test_only_mlflow_server_imports_mlflow():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES if "mlflow" in imported(path)} == {
        "mlflow_server"
    }


def test_only_storage_opens_optunas_storage():
    openers = [path.name for path in SOURCES if {"RDBStorage", "load_study"} & calls(path)]
    assert openers == ["storage.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_read_or_written_through_pickle(path):
    assert "pickle" not in imported(path)
    text = path.read_text()
    assert not re.search(r"(?<!safetensors\.)torch\.(load|save)\(|allow_pickle=True", text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_owns(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_readme_names_every_module():
    readme = (ROOT / "README.md").read_text()
    modules = [path.name for path in SOURCES if path.name != "__init__.py"]
    assert [name for name in modules if name not in readme] == []
