"""The core knows nothing of its front ends."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "bitmar_core").rglob("*.py"))
FRONT_ENDS = {"typer", "click", "rich", "textual", "bitmar_cli", "bitmar_tui"}


def imported(source: str) -> set[str]:
    """Top-level names of everything that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module"):
            found |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return found


def test_the_scan_finds_imports_everywhere():
    assert imported("def f():\n  import rich.text\n  from typer import Option\nimportlib.import_module('textual.app')") == {"rich", "typer", "textual"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_core_imports_no_front_end(path: Path):
    assert imported(path.read_text(encoding="utf-8")) & FRONT_ENDS == set()


@pytest.mark.parametrize("module", ["events", "errors", "config", "robots", "paths", "safe_yaml", "memory.store", "checkpoint.folder"])
def test_light_modules_do_not_load_torch(module: str):
    code = f"import sys, bitmar_core.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode == 0
