"""How far a long piece of work is: a bar on a terminal, nothing elsewhere, and the way for Ctrl-C to end it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from jobd import clock
from jobd.cli.interrupts import Interrupts
from jobd.cli.screen import Panel, bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from jobd.cli.session import Session

# What is over in a moment needs no bar.
_FROM: Final = 0.3
_EVERY: Final = 0.1
_COLUMNS: Final = 40


class Progress:
    """Within the context ``watch`` draws how far the work is, and raises KeyboardInterrupt after a Ctrl-C."""

    def __init__(self, session: Session, interrupts: Interrupts) -> None:
        self._session, self._interrupts = session, interrupts
        self._panel: Panel | None = None
        self._drawn = clock.awake() + _FROM - _EVERY

    def __enter__(self) -> Self:
        """Begin; nothing is drawn yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away: what is said next comes in its place."""
        if self._panel is not None:
            self._session.panel = None
            self._panel.close()

    def watch(self, stage: str, reached: int, whole: int) -> None:
        """Show ``reached`` of ``whole`` in this stage.

        Raises:
            KeyboardInterrupt: the user wants it to end.
        """
        if self._interrupts.count:
            raise KeyboardInterrupt
        if not self._session.talk.tty or clock.awake() - self._drawn < _EVERY:
            return
        self._drawn = clock.awake()
        if self._panel is None:
            self._panel = self._session.panel = Panel(self._session.talk)
        share = reached / whole if whole else 0.0
        talk = self._session.talk
        self._panel.draw([f"{stage:<10} {talk.paint(bar(_COLUMNS, share), 'green')} {int(share * 100):3}%"])


@contextmanager
def counting(session: Session, stage: str, whole: int) -> Iterator[Callable[[int], None]]:
    """Give what is to be told after each batch how many of ``whole`` it was so far.

    After a Ctrl-C it raises KeyboardInterrupt there: what was written holds, and nothing is half.
    """
    with Interrupts() as interrupts, Progress(session, interrupts) as progress:
        yield lambda count: progress.watch(stage, count, max(count, whole))
