"""What a pass did, or would do, row by row with the evidence."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

KEPT: Final = 1_000
UNANSWERED: Final = "unanswered"  # the word for what a pass would have settled and could not
_REASONS: Final = 10
_OTHERS: Final = "for other reasons"


@dataclass(frozen=True, slots=True)
class Change:
    """One row that a pass moved: ``evidence`` says why, in words.

    ``item_id`` and ``key`` are None where a whole job moved; ``job_id`` where there is none
    yet, and ``from_status`` where there was none. ``since`` (Unix ms) is when the row came into
    ``from_status``, ``attempt`` the item's; both are for people and no part of the JSON.
    """

    job_id: int | None
    item_id: int | None
    key: str | None
    from_status: str | None
    to_status: str
    evidence: str
    since: int | None = None
    attempt: int | None = None

    def json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CHANGE_JSON}


_CHANGE_JSON: Final = ("job_id", "item_id", "key", "from_status", "to_status", "evidence")


class Tally:
    """Gathers the changes of a pass: the first 1,000 by name, all of them in number. Nobody reads a million lines."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.counts: Counter[str] = Counter()
        self.unnamed = 0
        self.stays: Counter[str] = Counter()

    def add(self, change: Change, word: str | None = None) -> None:
        """Count a change under ``word``, else under the status that it led to."""
        self.counts[word or change.to_status] += 1
        if len(self.changes) < KEPT:
            self.changes.append(change)
        else:
            self.unnamed += 1

    def stay(self, why: str) -> None:
        """Count an item that stays as it is though nobody runs it; the first reasons are kept."""
        self.counts[UNANSWERED] += 1
        self.stays[why if why in self.stays or len(self.stays) < _REASONS else _OTHERS] += 1

    def report(self, name: str, *, check_only: bool) -> Report:
        """Return it as the report of a pass."""
        return Report(name, check_only, self.changes, dict(self.counts), self.unnamed, dict(self.stays))


@dataclass(frozen=True, slots=True)
class Report:
    """One run of a pass; with ``check_only`` nothing was changed.

    ``counts`` adds up the changes in its own words; ``changes`` names the first of them, ``unnamed`` is how many more
    there were. ``stays`` says of what it would have settled and could not (``unanswered`` in ``counts``) how many it
    were, by why.
    """

    name: str
    check_only: bool
    changes: list[Change] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    unnamed: int = 0
    stays: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many changes there were, named or not."""
        return len(self.changes) + self.unnamed

    def json(self) -> dict[str, Any]:
        return {
            "pass": self.name,
            "check_only": self.check_only,
            "changes": [change.json() for change in self.changes],
            "counts": self.counts,
        }

    def dumps(self) -> str:
        """Return the whole as the text that ``passes.report`` keeps for whoever asked for the pass."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read what ``dumps`` wrote."""
        found = json.loads(text)
        return cls(**{**found, "changes": [Change(**change) for change in found["changes"]]})
