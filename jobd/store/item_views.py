"""What reading returns of a job's items, of what they left and of its history: rows as those of ``views``."""

from typing import Any, Final, NamedTuple

from jobd.store.views import plain


class ItemView(NamedTuple):
    """An item. ``duration_ms`` is of the present attempt and known once it has ended."""

    id: int
    job_id: int
    key: str
    status: str
    attempt: int
    failures: int
    interruptions: int
    external_id: str | None
    started_at: int | None
    completed_at: int | None
    duration_ms: int | None
    error_type: str | None
    error: str | None
    progress: Any

    payload: Any
    daemon_id: int | None
    available_at: int
    deadline_at: int | None
    intent: str | None

    def json(self) -> dict[str, Any]:
        return {name: plain(name, getattr(self, name)) for name in _ITEM_JSON}


_ITEM_JSON: Final = ItemView._fields[: ItemView._fields.index("payload")]


class ResultView(NamedTuple):
    """A result. ``value`` is None, too, where it was pruned; ``pruned_at`` says so."""

    job_id: int
    key: str
    value: Any
    status: str
    source: str
    created_at: int
    has_data: bool

    item_id: int
    attempt: int
    period: str | None
    pruned_at: int | None

    def data(self) -> bytes | None:
        """Read the large companion that ``ctx.save_data`` left, as the bytes it was given; None where there is none."""
        return None

    def json(self) -> dict[str, Any]:
        return {name: plain(name, getattr(self, name)) for name in _RESULT_JSON}


_RESULT_JSON: Final = (
    "job_id", "key", "value", "status", "source", "created_at", "has_data", "item_id", "period", "pruned_at",
)  # fmt: skip


class WatchedView(NamedTuple):
    """A key on the watchlist; the rest is None until it ends for the first time since it was put there."""

    task: str
    key: str
    last_job_id: int | None
    last_status: str | None
    last_run_at: int | None

    def json(self) -> dict[str, Any]:
        return {name: plain(name, getattr(self, name)) for name in self._fields}


class EventView(NamedTuple):
    """A row of the history; ``item_key`` is None for the job's own and for bulk moves."""

    id: int
    job_id: int
    item_key: str | None
    name: str
    from_status: str | None
    to_status: str | None
    at: int
    actor: str
    attempt: int | None
    external_id: str | None
    message: str | None
    count: int | None  # type: ignore[assignment]  # the column's name, over the tuple's method

    def json(self) -> dict[str, Any]:
        return {name: plain(name, getattr(self, name)) for name in self._fields}


class ErrorGroup(NamedTuple):
    """The failed items of a job with one error; ``keys`` are the first few of them."""

    error_type: str | None
    error: str | None
    count: int  # type: ignore[assignment]  # as above
    first_at: int | None
    last_at: int | None
    keys: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        return {name: plain(name, getattr(self, name)) for name in self._fields}


class OutputView(NamedTuple):
    """What an attempt printed or logged: the last 64 KiB."""

    item_id: int
    attempt: int
    text: str
    truncated: bool

    def json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}
