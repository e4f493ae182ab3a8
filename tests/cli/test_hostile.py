"""No stored text puts a control byte on a terminal, whatever shows it."""

import io
import sys

import pytest
from kit.terminals import OWN

from jobd import cli

HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202ebc\nd\r\x7f\u2028"
PROGRAM = """
from jobd import Jobd

app = Jobd()

@app.task
def hostile(x, ctx):
    ctx.log.error(x)
    raise ValueError(x)

@app.task
def fine(x):
    return [x]
"""
TARGET = "./program.py:hostile"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def shown(jobd, monkeypatch, tmp_path):
    """Run a command line on a terminal and return everything that came there."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("TERM", "xterm")
    del jobd

    def run(*arguments):
        sys.modules.pop("program", None)
        terminal = Terminal()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            cli.call(list(arguments))
        return terminal.getvalue()

    return run


def test_every_verb_escapes_what_it_shows(shown):
    first = ["run", TARGET, HOSTILE, "--job-key", HOSTILE, "--param", f"a={HOSTILE}"]
    for arguments in (
        first, ["run", "./program.py:fine", HOSTILE], ["list"], ["show", "1"], ["show", "1", "--json"], ["items", "1"],
        ["items", "1", "--jsonl"], ["item", "1:#1"], ["item", "2:#2"], ["errors", "1"], ["errors", "1", "--json"],
        ["history", "1", "--items"], ["logs", "1:#1"], ["logs", "1:#1", "--json"], ["watch", "1"], ["wait", "1"],
        ["results", "2"], ["results", "2", "--json"], ["retry", "1"], ["show", "1"], ["recover", "--check-only"],
        ["run", TARGET, "--job", "1"], ["submit", TARGET, "other", "--job-key", HOSTILE], ["cancel", f"={HOSTILE}"],
        ["tasks"], ["doctor"], ["item", f"1:{HOSTILE}x"], ["show", f"={HOSTILE}x"], [HOSTILE], ["show", HOSTILE],
        ["--app", HOSTILE, "tasks"], ["list", f"--{HOSTILE}"], ["list", "--since", HOSTILE], ["list", "--key", HOSTILE],
        ["submit", TARGET, "--range", HOSTILE], ["submit", TARGET, "--from", HOSTILE], ["submit", HOSTILE],
        ["submit", TARGET, "--at", HOSTILE], ["submit", TARGET, "--tolerance", HOSTILE], ["start", "--drain", HOSTILE],
        ["submit", TARGET, HOSTILE, HOSTILE], ["run", TARGET, "--job", HOSTILE], ["--db", f"/{HOSTILE}/x/y", "list"],
    ):  # fmt: skip
        words = OWN.sub("", shown(*arguments))
        left = {character for character in words if not character.isprintable() and character != "\n"}
        assert words.strip(), arguments
        assert not left, (arguments, left)
