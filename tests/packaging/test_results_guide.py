"""The guide to results: its program runs as it stands, block after block."""

import re
from pathlib import Path

GUIDE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_program_of_the_guide_runs_as_it_stands(tmp_path, monkeypatch, jobd_clock):
    # Where it stands still, no midnight comes between two blocks.
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "docs/results.md", "exec"), names)
    names["app"].close()
