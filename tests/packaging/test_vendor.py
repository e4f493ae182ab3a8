"""The vendor of the examples: ordered once, asked until it is there, and told truly however it ends."""

from __future__ import annotations

import collections
import http.server
import json
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobd.store.invariants import check

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "vendor.py"
SECONDS = 60


class Vendor(http.server.ThreadingHTTPServer):
    """Snapshots by name: how often each is not there yet, and what it comes to. It keeps what was asked of it.

    The answer to an order of a name in ``mute`` is never given: ``heard`` is set when the order has been taken.
    """

    daemon_threads = True

    def __init__(self):
        self.ids, self.orders = {}, collections.Counter()
        self.polls = collections.Counter()
        self.until, self.comes_to = collections.Counter(), {}
        self.mute, self.heard, self.ended = set(), threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), Answers)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        vendor, (_, _, name, key) = self.server, self.path.split("/")
        vendor.orders[name] += 1
        found = vendor.ids.setdefault(key, f"snap-{name}-{vendor.orders[name]}")
        if name in vendor.mute:
            vendor.heard.set()
            vendor.ended.wait(SECONDS)
            return
        self.say({"id": found})

    def do_GET(self):
        vendor, parts = self.server, self.path.split("/")
        if parts[1] == "orders":
            found = vendor.ids.get(parts[3])
            self.say({"id": found} if found else {}, 200 if found else 404)
            return
        name = parts[2].split("-")[1]
        vendor.polls[name] += 1
        state = vendor.comes_to.get(name) if vendor.polls[name] >= vendor.until[name] else None
        self.say(state or {"state": "building"})

    def say(self, what, code=200):
        body = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def vendor():
    vendor = Vendor()
    threading.Thread(target=vendor.serve_forever, daemon=True).start()
    yield vendor
    vendor.ended.set()
    vendor.shutdown()
    vendor.server_close()


@pytest.fixture
def app(path, vendor, monkeypatch):
    monkeypatch.setenv("JOBD_DB", str(path))
    monkeypatch.setenv("VENDOR", vendor.url)
    app = runpy.run_path(str(PROGRAM))["app"]
    yield app
    assert check(app.store) == []
    app.close()


@pytest.fixture
def ordered(app):
    """Order a snapshot, and return its job when the vendor has it."""

    def order(name):
        job = app.submit("snapshot", [name])
        app.drain()
        return job.refresh()

    return order


@pytest.fixture
def pass_by(app, jobd_clock):
    """Let minutes pass, a tick and a drain in each."""

    def minutes(count):
        for _ in range(count):
            jobd_clock.move(minutes=1)
            app.tick()
            app.drain()

    return minutes


def jobd(path, *arguments):
    """Return what the command line prints."""
    command = [sys.executable, "-m", "jobd", "--db", str(path), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def ready(result):
    return {"state": "ready", "result": result}


def history(job):
    return [(event.name, event.external_id) for event in job.events(items=True) if event.item_key]


def test_one_that_answers_after_three_polls_completes(app, vendor, ordered, pass_by, path):
    vendor.until["prices"], vendor.comes_to["prices"] = 3, ready({"rows": 3})
    job = ordered("prices")
    assert "waiting" in jobd(path, "show", job.id)
    assert json.loads(jobd(path, "list", "--external", "snap-prices-1", "--json"))[0]["id"] == job.id
    pass_by(7)
    (result,) = job.refresh().results()
    assert (job.status, result.value, result.source) == ("completed", {"rows": 3}, "outside")
    assert history(job) == [("defer", "snap-prices-1"), ("complete", "snap-prices-1")]
    assert (vendor.orders["prices"], vendor.polls["prices"]) == (1, 3)
    assert "completed" in jobd(path, "show", job.id)


def test_one_that_fails_fails_with_what_the_vendor_says(app, vendor, ordered, pass_by, path):
    vendor.comes_to["prices"] = {"state": "failed", "why": "no such market"}
    job = ordered("prices")
    pass_by(1)
    assert (job.refresh().status, job.item("prices").error) == ("failed", "no such market")
    assert history(job) == [("defer", "snap-prices-1"), ("fail", "snap-prices-1")]
    assert "no such market" in jobd(path, "show", job.id)


def test_one_that_never_answers_fails_at_its_deadline(app, vendor, ordered, pass_by, path):
    job = ordered("prices")
    pass_by(119)
    assert job.refresh().status == "running"
    pass_by(2)
    assert (job.refresh().status, job.item("prices").error_type) == ("failed", "TimeOut")
    assert history(job) == [("defer", "snap-prices-1"), ("time_out", "snap-prices-1")]
    assert "no answer from outside by its deadline" in jobd(path, "show", job.id)


def test_one_that_answers_after_we_gave_up_completes_all_the_same(app, vendor, ordered, pass_by, path):
    job = ordered("prices")
    pass_by(121)
    assert job.refresh().status == "failed"
    jobd(path, "deliver", f"{job.id}:prices", '{"rows": 3}')
    (result,) = job.refresh().results()
    assert (job.status, result.value, result.source) == ("completed", {"rows": 3}, "outside")
    assert [name for name, _ in history(job)] == ["defer", "time_out", "reconcile"]
    assert [event.name for event in job.events()][-2:] == ["fail", "reconcile"]
    assert "completed" in jobd(path, "show", job.id)


def test_a_daemon_killed_between_the_answer_and_our_record_leaves_one_order(app, vendor, path):
    vendor.mute.add("prices")
    vendor.comes_to["prices"] = ready({"rows": 3})
    command = [sys.executable, "-m", "jobd", "run", f"{PROGRAM}:snapshot", "--job-key", "k", "prices"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **streams) as daemon:
        assert vendor.heard.wait(SECONDS)
        daemon.send_signal(signal.SIGKILL)
        assert daemon.wait(SECONDS) == -signal.SIGKILL
    job = app.job("=k")
    (item,) = job.items()
    assert (item.status, item.intent) == ("running", "a snapshot of prices")
    app.drain()
    (result,) = job.refresh().results()
    assert (job.status, result.value, result.source) == ("completed", {"rows": 3}, "verify")
    assert vendor.orders["prices"] == 1
    assert "verify: it is done" in jobd(path, "history", "--items", job.id)
    assert "completed" in jobd(path, "show", job.id)
