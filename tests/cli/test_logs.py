"""`logs`: what a command printed, byte for byte where a program reads it, and harmless where a person does."""

from __future__ import annotations

import base64
import json
import sys

import pytest
from kit.forked import run

BYTES = bytes(range(256))
OCTAL = "".join(f"\\{byte:03o}" for byte in BYTES)


@pytest.fixture
def printed(app, tmp_path):
    """Run a script as item a of job 1."""

    def send(script):
        params = {"command": [f": {{}}; {script}"], "shell": True, "cwd": str(tmp_path)}
        app.submit("shell", [{"item": "a"}], item_key="item", params=params)
        app.drain()

    return send


@pytest.fixture
def logs(path):
    def ask(*options):
        command = [sys.executable, "-m", "jobd", "--db", str(path), "logs", "1:a", *options]
        return run(command, capture_output=True)

    return ask


def test_either_stream_comes_back_byte_for_byte_to_where_it_belongs(printed, logs):
    printed(f"printf '{OCTAL}'; printf 'err\\377' >&2")
    answer = logs()
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, BYTES, b"err\xff")


def test_json_has_text_as_it_is_and_other_bytes_in_base64(printed, logs):
    printed("echo text; printf '\\377' >&2")
    record = json.loads(logs("--json").stdout)
    encoded = base64.b64encode(b"\xff").decode()
    assert (record["stdout"], record["stderr"], record["truncated"]) == ("text\n", {"bytes": encoded}, False)


def test_that_the_beginning_was_cut_is_said(printed, logs):
    printed(f"{sys.executable} -c 'print(\"x\" * 100_000)'")
    answer = logs()
    assert len(answer.stdout) == 65_536
    assert answer.stderr == b"only the last 64 KiB were kept\n"


def test_a_command_that_printed_nothing_has_no_output(printed, logs):
    printed("true")
    answer = logs()
    assert (answer.returncode, answer.stdout) == (3, b"")
    assert b"has left no output" in answer.stderr
