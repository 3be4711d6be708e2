"""The summary prints what was measured, a share with its standard error."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.files import write_json
from pipelines import paths, summary


def test_shares_stand_with_their_standard_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "places", lambda: iter([("report", "there")]))
    metrics = {"text_to_image/objects_right": 0.96136, "text_to_image/objects_right_se": 0.0068, "image/x0_error/0.98": 0.75}
    write_json(paths.REPORTS / "evaluate" / "metrics.json", metrics)
    summary.print_results()
    lines = capsys.readouterr().out.splitlines()
    assert any("text_to_image/objects_right " in line and "0.961 +- 0.007" in line for line in lines)
    assert any("image/x0_error/0.98" in line and "0.750 " in line for line in lines)
    assert not any("_se" in line for line in lines)
    assert any("report" in line and "there" in line for line in lines)
