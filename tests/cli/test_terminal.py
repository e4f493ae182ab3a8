"""Whatever text comes in, as a key, payload, result, error or output: a terminal is sent what prints and our signs."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kit.terminals import Terminal, acting

from jobd import cli

PROGRAM = """
from jobd import Fail, Jobd, Skip

app = Jobd()

@app.task
def work(text, ctx):
    ctx.progress(1, 2, text)
    ctx.log.error("%s", text)
    match len(text) % 4:
        case 0:
            raise Skip(text)
        case 1:
            raise ValueError(text)
        case 2:
            raise Fail(text)
    return {text: [text]}
"""
TARGET = "./program.py:work"
ACTING = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x1bc", "\r", "\n", "\b", "\t", "\x7f", "\u202e",
          "\u2066", "\u200b", "\u2028", "[red]", "\ufeff", "\U000e0001"]  # fmt: skip
# No NUL is in a key, and no lone surrogate in an argument.
PIECE = st.one_of(st.sampled_from(ACTING), st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
TEXT = st.lists(PIECE, min_size=1, max_size=12).map("".join)
numbers = itertools.count()


@pytest.fixture
def terminal(place, monkeypatch, jobd):
    (place / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    yield terminal
    terminal.close()


@settings(
    max_examples=3,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(TEXT, min_size=6, max_size=6, unique=True), name=TEXT)
def test_nothing_but_what_prints_and_our_own_signs_reaches_a_terminal(terminal, monkeypatch, place, texts, name):
    monkeypatch.setenv("JOBD_DB", str(place / f"{next(numbers)}.db"))
    typed = [
        ["run", TARGET, "--job-key", name, "--param", f"a={name}", "--", *texts],
        ["list"], ["show", "1"], ["show", "1", "--json"], ["items", "1"], ["items", "1", "--jsonl"], ["item", "1:#1"],
        ["item", "1:#2", "--json"], ["errors", "1"], ["history", "1", "--items"], ["logs", "1:#1"],
        ["logs", "1:#2", "--json"], ["results", "1"], ["results", "work", "--key", texts[0]], ["watch", "1"],
        ["item", f"1:{texts[0]}"], ["show", f"={name}"], ["fail", "1", "--reason", name], ["submit", name, "a"],
        ["watchlist", "add", "work", texts[0]], ["watchlist", "list"], ["retry", "1"], ["list", "--key", name],
    ]  # fmt: skip
    for arguments in typed:
        see(terminal, *arguments)
    # A command's own output is its own, raw, while it runs; what was kept of it is stored text like any other.
    cli.call(["map", "--job", "said", "printf '%s' {} >&2; printf '%s' {}; exit 3", *texts])
    for number in (7, 8, 9):
        assert see(terminal, "logs", f"2:#{number}") == see(terminal, "item", f"2:#{number}") == 0
    assert see(terminal, "errors", "2") == see(terminal, "items", "2") == see(terminal, "show", "2") == 0


def see(terminal, *arguments):
    """Run a command line on the terminal, look at all that came there, and return its exit code."""
    sys.modules.pop("program", None)
    code, came = terminal.call(*arguments)
    # What an attempt printed keeps its lines and its tabs.
    assert acting(came) <= ({"\t"} if arguments[0] == "logs" else set()), (arguments, came)
    assert "unexpected" not in came, (arguments, came)
    assert code in {0, 1, 2, 3, 4}, (arguments, came)
    return code
