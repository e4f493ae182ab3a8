"""What a job alone says in place of its task's policy, as its row keeps it: it travels to whoever runs the job."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from jobd import measures
from jobd.errors import UsageError
from jobd.measures import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.policy import Policy

FIELDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "concurrency": measures.count,
    "timeout": measures.duration,
    "retries": measures.amount,
    "backoff": measures.duration,
    "rate": measures.rate,
}
_CACHED: Final = 1_024  # texts: one for each way in which jobs differ, not for each job


class Overrides(NamedTuple):
    """What a job says itself; None where its task's word counts. Times are seconds."""

    concurrency: int | None = None
    timeout: float | None = None
    retries: int | None = None
    backoff: float | None = None
    rate: Rate | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """Read them from the keywords of a submission.

        Raises:
            UsageError: a value that cannot be meant.
        """
        found = {}
        for name, parse in FIELDS.items():
            value = options.get(name)
            try:
                found[name] = None if value is None else parse(value)
            except UsageError as error:
                raise UsageError(f"{name}: {error}", hint=error.hint) from None
        return cls(**found)

    def json(self) -> dict[str, Any]:
        """Return them as a job's row keeps them."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def bounded(self) -> bool:
        """Whether the job's items may have to wait though slots are free."""
        return self.concurrency is not None or self.rate is not None


_NONE: Final = Overrides()


@functools.lru_cache(maxsize=_CACHED)
def of_policy(text: str) -> Overrides:
    """Return what a job says itself, from the policy that its row keeps; what cannot be meant there is left out."""
    try:
        own: Any = json.loads(text)
    except (ValueError, RecursionError):
        own = None
    if not isinstance(own, dict):
        return _NONE
    found: dict[str, Any] = {}
    for name, parse in FIELDS.items():
        try:
            value = own.get(name)
            found[name] = None if value is None else _rate(value) if name == "rate" else parse(value)
        except (UsageError, TypeError, ValueError):
            continue
    return Overrides(**found)


def overridden(policy: Policy, text: str) -> Policy:
    """Return a task's policy as it is for a job whose row keeps ``text``."""
    return policy if text == "{}" else _overridden(policy, text)


@functools.lru_cache(maxsize=_CACHED)
def _overridden(policy: Policy, text: str) -> Policy:
    own = of_policy(text)
    # What bounds a job comes beside what bounds its task, in place of nothing.
    said = {name: getattr(own, name) for name in ("timeout", "retries", "backoff")}
    return replace(policy, **{name: value for name, value in said.items() if value is not None})


def _rate(value: Any) -> Rate:
    times, seconds = value
    return Rate(measures.count(times), measures.duration(seconds))
