"""The guide to how items run: its code registers what it says, and its crawler ends."""

from __future__ import annotations

import re
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "execution.md").read_text(encoding="utf-8")
PAGES = {"/": ["/a", "/b"], "/a": ["/b", "/"], "/b": ["/c"], "/c": []}


def test_its_code_means_what_it_says_and_the_crawler_sees_each_page_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide", "get": lambda url: types.SimpleNamespace(links=PAGES[url], title=f"title of {url}")}
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(compile(block, "docs/execution.md", "exec"), names)
    app = names["app"]
    policies = {name: task.policy for name, task in app.tasks.items()}
    assert (policies["convert"].isolation, policies["convert"].timeout, policies["convert"].recycle_after) == (
        "process", 300.0, 1000,
    )  # fmt: skip
    assert (policies["fetch"].isolation, policies["fetch"].concurrency) == ("asyncio", 200)
    assert (policies["upload"].retries, policies["upload"].backoff) == (5, 2.0)
    assert policies["upload"].retry_on == (OSError, TimeoutError)
    job = names["crawl"].submit(["/"])
    app.drain()
    assert {result.key: result.value for result in job.refresh().results()} == {
        page: f"title of {page}" for page in PAGES
    }
    assert job.status == "completed"
    app.close()
