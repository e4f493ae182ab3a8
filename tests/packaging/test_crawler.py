"""The crawler of the examples: a frontier that grows, also through kills, and ends when nothing of it is open."""

from __future__ import annotations

import collections
import contextlib
import http.server
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobd import Jobd
from jobd.store.invariants import check

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "crawler.py"
SECONDS = 60
PAGES = 300


class Site(http.server.ThreadingHTTPServer):
    """Pages that link to others of theirs, and how often each was asked for."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pages):
        self.pages = pages
        self.asked = collections.Counter()
        self.reached = {}
        super().__init__(("127.0.0.1", 0), Pages)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/1"


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        number = int(self.path.strip("/") or 1)
        self.server.asked[number] += 1
        if reached := self.server.reached.get(self.server.asked.total()):
            reached.set()
        links = (2 * number, 2 * number + 1, number // 2, (number * 7) % self.server.pages)
        body = f"<title>page {number}</title>" + "".join(
            f'<a href="/{link}#top">on</a>' for link in links if 0 < link <= self.server.pages
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    site = Site(PAGES)
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    yield site
    site.shutdown()
    site.server_close()


def crawl(database, site):
    command = [sys.executable, "-m", "jobd", "--db", str(database), "run", f"{PROGRAM}:crawl", "--job-key", "site"]
    return subprocess.Popen([*command, site.url], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_through_three_kills_every_page_is_seen_and_it_ends_when_nothing_is_open(tmp_path, site):
    database = tmp_path / "crawl.db"
    for part in (1, 2, 3):
        reached = site.reached[site.asked.total() + PAGES // 5] = threading.Event()
        one = crawl(database, site)
        assert reached.wait(SECONDS), f"the crawl ended before its kill {part}"
        one.send_signal(signal.SIGKILL)
        assert one.wait(SECONDS) == -signal.SIGKILL
        one.stderr.close()
    one = crawl(database, site)
    said = one.communicate(timeout=SECONDS)[1].decode()
    assert one.returncode == 0, said
    with contextlib.closing(Jobd(database)) as app:
        job = app.job("=site")
        assert (job.status, job.counts.total, job.counts.completed) == ("completed", PAGES, PAGES)
        assert check(app.store) == []
        interrupted = sum(item.interruptions for item in job.items(limit=PAGES + 1))
        assert next(job.results()).value["title"] == "page 1"
    assert set(site.asked) == set(range(1, PAGES + 1))
    # What was stored is never asked for again: only what was running at a kill is.
    assert sum(site.asked.values()) <= PAGES + interrupted
