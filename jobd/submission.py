"""From the keywords of a submission to what the store keeps of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobd import arguments, codec, config, measures
from jobd.context import storable
from jobd.errors import UsageError
from jobd.items import normalise
from jobd.overrides import Overrides
from jobd.policy import tolerance
from jobd.steering import Steering
from jobd.store import submit as store_submit
from jobd.store.halting import HALT
from jobd.store.submission import Submission
from jobd.tasks import SubmitOptions

if TYPE_CHECKING:
    from jobd.policy import Policy
    from jobd.store import Store
    from jobd.store.submission import Submitted

_CHOICES: Final = {
    "changed": ("error", "keep", "requeue"),
    "duplicates": ("error", "skip"),
    "on": ("completed", "ended"),
}
_KEYWORDS: Final = tuple(SubmitOptions.__annotations__)
_TASKS: Final = 256  # whose submissions are remembered
_LARGEST: Final = 2**63 - 1


def submit(  # noqa: PLR0913 - what, by which rules, when and by whom
    store: Store,
    task: str,
    policy: Policy | None,
    items: Iterable[Any] | None,
    options: SubmitOptions,
    *,
    now: int,
    actor: str,
) -> Submitted:
    """Check the keywords and store the job; ``policy`` is None for a task that is not registered here.

    Raises:
        UsageError: an unknown keyword or a value that cannot be meant.
        and what :func:`jobd.store.submit.submit` raises.
    """
    wanted = prepare(task, policy, options) if options else _plain(task, policy)
    if options.get("after") is not None:
        wanted = replace(wanted, after=_after(store, options["after"]))
    pairs = normalise(items, task, options.get("item_key"))
    return store_submit.submit(store, wanted, pairs, now=now, actor=actor)


@functools.lru_cache(maxsize=_TASKS)
def _plain(task: str, policy: Policy | None) -> Submission:
    """Return what is kept of a submission without keywords: of every one of a task the same."""
    return prepare(task, policy, {})


def prepare(task: str, policy: Policy | None, options: SubmitOptions) -> Submission:
    """Return what the store keeps of a submission beside its items.

    Raises:
        UsageError: an unknown keyword or a value that cannot be meant.
    """
    config.refuse_unknown("keyword of a submission", options, _KEYWORDS)
    for name, choices in _CHOICES.items():
        value = options.get(name, choices[0])
        if value not in choices:
            raise UsageError(f"{name}: not {value!r}", hint=f"one of {', '.join(choices)}")
    allowed = options.get("tolerance")
    own = _own_policy(
        policy,
        Overrides.read(options),
        refresh=_refresh(task, policy, options.get("refresh", False)),
        halt=_halt(options.get("halt")),
    )
    not_before, target = options.get("not_before"), options.get("target")
    return Submission(
        task=_key("task", task),
        params=_params(options.get("params")),
        key=None if options.get("key") is None else _key("key", options["key"]),
        target=None if target is None else storable(arguments.text_of("target", target)),
        priority=_priority(options.get("priority", 0)),
        not_before=None if not_before is None else measures.moment(not_before),
        job_timeout_ms=_job_timeout(options.get("job_timeout"), policy),
        tolerance=tolerance(allowed) if allowed is not None else policy.tolerance if policy is not None else "0",
        policy=own,
        changed=options.get("changed", "error"),
        duplicates=options.get("duplicates", "error"),
        on=options.get("on", "completed"),
    )


def _after(store: Store, value: Any) -> tuple[int, ...]:
    """Return the ids of the jobs that are to be waited for; ``value`` is one of them or several, handles or ids."""
    if value is None:
        return ()
    several = value if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) else (value,)
    found: dict[int, None] = {}
    for one in several:
        if isinstance(one, Steering) and not one.is_in(store):
            raise UsageError(f"after: job {one.id} is in another database", hint="a job waits for those beside it")
        try:
            found[one.id if isinstance(one, Steering) else arguments.job_id(one)] = None
        except UsageError:
            raise UsageError(f"after: not a job: {one!a}", hint="after=job, after=7, after=[job, 7]") from None
    return tuple(found)


def _key(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{what}: not text: {value!r}")
    try:
        return codec.checked_key(value)
    except codec.NotStorable as error:
        raise UsageError(f"{what}: {error}") from None


def _params(value: Any) -> str:
    try:
        return codec.dumps(value, what="params")
    except codec.NotStorable as error:
        raise UsageError(str(error)) from None


def _priority(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -_LARGEST <= value <= _LARGEST:
        raise UsageError(f"priority: not a whole number: {value!r}")
    return value


def _job_timeout(value: Any, policy: Policy | None) -> int | None:
    """Return milliseconds: the submission's own, else the task's, else None for the setting of whoever runs it."""
    own = policy.job_timeout if policy is not None else None
    seconds = own if value is None else measures.duration(value)
    return None if seconds is None else max(1, int(seconds * 1000))


def _refresh(task: str, policy: Policy | None, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"refresh: not true or false: {value!a}")
    if value and policy is not None and policy.unique is None:
        raise UsageError(f"refresh: {task} is not unique", hint='@app.task(unique="day") makes it so')
    return value


def _halt(value: Any) -> int | None:
    try:
        return None if value is None else measures.count(value)
    except UsageError:
        raise UsageError(f"halt: not a count of failed items: {value!a}", hint="halt=3") from None


def _own_policy(policy: Policy | None, overrides: Overrides, *, refresh: bool, halt: int | None) -> str:
    """Return what the job says itself, and what of its task's policy whoever looks at it must know without the task."""
    own = overrides.json()
    if policy is not None and policy.stall_after is not None:
        own["stall_after"] = policy.stall_after
    if policy is not None and policy.once is not None:
        own |= policy.once.policy()
    if halt is not None:
        own[HALT] = halt
    if refresh:
        own["refresh"] = True
    return json.dumps(own) if own else "{}"
