"""While a command's modules are loaded nothing looks for garbage, and afterwards not among them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import gc
from pipelines import loading

loading.guard()
while_loading = gc.isenabled()
loading.unguard()
print(while_loading, gc.isenabled(), gc.get_freeze_count() > 0)
"""


def test_garbage_is_looked_for_when_all_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
