"""Generated files are what the code says now."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load_generate():
    """Import ``scripts/generate``, whose name has no ending."""
    loader = SourceFileLoader("generate", str(ROOT / "scripts" / "generate"))
    spec = spec_from_loader("generate", loader)
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


FILES = load_generate().FILES


@pytest.mark.parametrize("name", FILES)
def test_generated_file_is_fresh(name):
    """The committed file is what ``scripts/generate`` writes."""
    assert (ROOT / name).read_text(encoding="utf-8") == FILES[name](), "run .venv/bin/python scripts/generate"


@pytest.mark.parametrize("name", FILES)
def test_rendering_twice_gives_the_same(name):
    """No generated file depends on chance or time."""
    assert FILES[name]() == FILES[name]()
