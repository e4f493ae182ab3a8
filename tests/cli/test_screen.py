"""What a terminal gets: colours, cuts, tables, and a panel that is drawn again in place."""

import io

import pytest

from jobd.cli.screen import Cell, Panel, Screen, bar


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def eighty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("choice", "environment", "terminal", "coloured"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {"TERM": "dumb"}, True, False),
    ],
)
def test_colour_is_the_option_then_the_environment_then_the_terminal(
    monkeypatch, choice, environment, terminal, coloured
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    screen = Screen(Terminal() if terminal else io.StringIO(), choice)
    assert screen.coloured is coloured
    assert screen.paint("x", "red") == ("\x1b[31mx\x1b[0m" if coloured else "x")


def test_a_long_line_is_cut_on_a_terminal_and_whole_elsewhere():
    for stream, length in ((Terminal(), 80), (io.StringIO(), 200)):
        Screen(stream).write("x" * 200)
        assert len(stream.getvalue().rstrip("\n")) == length


def test_a_cut_closes_its_colour():
    screen = Screen(Terminal())
    assert screen.fit(screen.paint("x" * 100, "red")).endswith("…\x1b[0m")
    assert screen.fit("ab") == "ab"


@pytest.mark.parametrize("columns", ["1", "0", "-5", "many", "20", "100000"])
def test_no_width_breaks_a_table(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    stream = Terminal()
    Screen(stream).table(["A", "B"], [[Cell("x" * 50, right=True), Cell("日本" * 30, "red")]], stretch=0)
    assert stream.getvalue().count("\n") == 2


def test_a_table_without_rows_is_nothing():
    stream = Terminal()
    Screen(stream).table(["A"], [])
    assert stream.getvalue() == ""


def test_columns_stand_under_each_other():
    stream = io.StringIO()
    Screen(stream).table(["ID", "NAME"], [[Cell("7", right=True), Cell("a")], [Cell("10", right=True), Cell("b")]])
    assert stream.getvalue() == "ID  NAME\n 7  a\n10  b\n"


def test_a_panel_goes_back_over_what_it_drew():
    stream = Terminal()
    drawn = Panel(Screen(stream))
    drawn.draw(["one", "two"])
    drawn.draw(["three"])
    drawn.close()
    assert stream.getvalue() == "one\ntwo\n\x1b[2A\r\x1b[Jthree\n\x1b[1A\r\x1b[J"


def test_a_panel_never_outgrows_the_screen(monkeypatch):
    monkeypatch.setenv("LINES", "5")
    stream = Terminal()
    Panel(Screen(stream)).draw(str(number) for number in range(50))
    assert stream.getvalue() == "0\n1\n2\n3\n"


def test_lines_above_a_panel_push_it_down():
    stream = Terminal()
    screen = Screen(stream)
    drawn = Panel(screen)
    drawn.draw(["panel"])
    drawn.above(lambda: screen.sentence("a line of the log"))
    assert stream.getvalue() == "panel\n\x1b[1A\r\x1b[Ja line of the log\npanel\n"


def test_a_terminal_that_became_narrower_is_still_cleared(monkeypatch):
    stream = Terminal()
    drawn = Panel(Screen(stream))
    drawn.draw(["x" * 80])
    monkeypatch.setattr(Screen, "real_columns", 40)
    drawn.close()
    assert stream.getvalue().endswith("\x1b[2A\r\x1b[J")


def test_a_stream_that_cannot_encode_glyphs_gets_plain_ones():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")
    Screen(stream).write("✔ 1  ✗ 2  ▶ ██░")
    stream.flush()
    assert raw.getvalue() == b"v 1  x 2  > ##.\n"


@pytest.mark.parametrize(("share", "drawn"), [(0, "    "), (0.5, "██  "), (1, "████"), (2, "████"), (0.53, "██▏ ")])
def test_a_bar_has_eighths(share, drawn):
    assert bar(4, share) == drawn
