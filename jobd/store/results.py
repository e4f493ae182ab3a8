"""Reading results: those of a job, the history of a task or of a key, the newest one. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd.errors import NotFound
from jobd.store.attempt import load_data
from jobd.store.details import pass_over, total
from jobd.store.item_views import ResultView
from jobd.store.standing import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobd.store.base import Connection, Store

PAGE: Final = 2_000

_RESULT_COLUMNS: Final = (
    "i.job_id, r.key, r.value, r.status, r.source, r.created_at,"
    " exists (select 1 from result_data d where d.item_id = r.item_id and d.attempt = r.attempt) as has_data,"
    " r.item_id, r.attempt, r.period, r.pruned_at"
)
_OF_ITEM: Final = "results r join job_items i on i.id = r.item_id"


_RESULTS: Final = (
    f"select {_RESULT_COLUMNS} from job_items i cross join results r on r.item_id = i.id"
    " where +i.job_id = ? and i.id > ? and (? is null or i.status = ?) order by i.id limit ?"
)
_RESULTS_OF_FEW: Final = f"select {_RESULT_COLUMNS} from {_OF_ITEM} where i.job_id = ? order by +i.id"
_RESULT_OF_ONE: Final = f"select {_RESULT_COLUMNS} from {_OF_ITEM} where i.job_id = ? and i.key = ?"


def results(store: Store, job_id: int, key: str | None = None) -> Iterator[ResultView]:
    """Yield the results of a job in the order of its items, page by page in constant memory; with ``key`` of one item.

    Each page is a snapshot of its own: an iteration that takes its time keeps no transaction open.

    Raises:
        NotFound: there is no such job; raised by the call, not by the first result.
    """
    items = store.read(lambda connection: total(connection, job_id))
    if key is None and items > PAGE:
        return _paged_results(store, job_id)
    text, params = (_RESULTS_OF_FEW, (job_id,)) if key is None else (_RESULT_OF_ONE, (job_id, key))
    found = store.read(lambda connection: connection.execute(text, params).fetchall())
    return (_result(store, row) for row in found)


def _paged_results(store: Store, job_id: int) -> Iterator[ResultView]:
    after: int | None = None
    while True:

        def work(connection: Connection, after: int | None = after) -> list[Any]:
            return pass_over(connection, _RESULTS, job_id, None, after, PAGE)

        found = [_result(store, row) for row in store.read(work)]
        yield from found
        if len(found) < PAGE:
            return
        after = found[-1].item_id


_OF_KEY: Final = (
    f"select {_RESULT_COLUMNS} from {_OF_ITEM} where r.task = ? and r.key = ? and r.item_id < ?"
    " order by r.item_id desc limit ?"
)
# The newest results of all tasks are mostly enough for a page of a busy one; the index, which has them by key and so
# unsorted, is for a task that is rare among them.
_NEAR: Final = (
    f"select {_RESULT_COLUMNS} from {_OF_ITEM} where r.item_id in (select item_id from"
    " (select item_id, task from results where item_id < ? order by item_id desc limit 2000) as n where task = ?)"
    " order by r.item_id desc limit ?"
)
_OF_TASK: Final = (
    f"select {_RESULT_COLUMNS} from {_OF_ITEM} where r.item_id in (select item_id from results"
    " where task = ? and item_id < ? order by item_id desc limit ?) order by r.item_id desc"
)


def results_of(
    store: Store, task: str, key: str | None = None, *, limit: int = 100, before: int = 2**63 - 1
) -> list[ResultView]:
    """Return the results of a task, or of one key of it, newest item first; the next page is that ``before`` an id."""

    def work(connection: Connection) -> list[Any]:
        if key is not None:
            return list(connection.execute(_OF_KEY, (task, key, before, limit)).fetchall())
        near = connection.execute(_NEAR, (before, task, limit)).fetchall()
        return list(near if len(near) == limit else connection.execute(_OF_TASK, (task, before, limit)).fetchall())

    return [_result(store, row) for row in store.read(work)]


# Text: this is asked for every key of a page or a program, and is one step down an index.
_LATEST: Final = (
    f"select {_RESULT_COLUMNS} from {_OF_ITEM} where r.task = ? and r.key = ? order by r.item_id desc limit 1"
)


def latest_result(store: Store, task: str, key: str) -> ResultView:
    """Return the newest result of a key.

    Raises:
        NotFound: the task has left none under this key.
    """
    row = store.read(lambda connection: connection.execute(_LATEST, (task, key)).fetchone())
    if row is None:
        raise NotFound(f"{task} has no result for {key!a}", hint=f"jobd results {task} shows what it has")
    return _result(store, row)


class _WithData(ResultView):
    """A result that has data, and knows the store to read it from when it is asked for."""

    _store: Store

    def data(self) -> bytes | None:
        return load_data(self._store, self.item_id)


def _result(store: Store, row: Sequence[Any]) -> ResultView:
    job_id, key, value, status, source, created_at, has_data, *rest = row
    kind = _WithData if has_data else ResultView
    result = kind(job_id, key, parsed(value), status, source, created_at, bool(has_data), *rest)
    if isinstance(result, _WithData):
        result._store = store  # noqa: SLF001 - its maker's
    return result
