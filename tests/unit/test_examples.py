"""The examples of the Python pages run as they are written, one block after the other in one folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from launch import environment

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/api.md", "docs/tutorial.md")


def blocks_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, tmp_path):
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks_of(page)), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_pages_have_examples():
    assert all(len(blocks_of(page)) > 3 for page in PAGES)
