"""Code that the person who types names: an app, or the function of a task.

`./file.py:func` or `pkg.mod:func` imports; a bare name is looked up among the registered tasks and imports nothing.
Names that come from the database never arrive here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobd.cli.explain import did_you_mean
from jobd.cli.text import escape
from jobd.errors import NotFound, UsageError
from jobd.loading import is_file, load_file, load_module, why

if TYPE_CHECKING:
    from types import ModuleType

    from jobd.app import Jobd
    from jobd.cli.session import Session
    from jobd.tasks import Task


def is_code(target: str) -> bool:
    """Say whether a target names code rather than a registered task."""
    return ":" in target or is_file(target)


def load_task(session: Session, target: str) -> Task[Any, Any]:
    """Return the task that ``target`` names; code brings its own app along where it has one.

    Raises:
        UsageError: the code cannot be imported, or is not a function.
        NotFound: no task of that name is registered here.
    """
    if not is_code(target):
        return _registered(session.app, target)
    from jobd.tasks import Task

    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = _load(place)
    if not name:
        raise UsageError(f"{escape(target)} names a file, not a function", hint=_functions(module, target))
    found = _attribute(module, name, place)
    if isinstance(found, Task):
        if found.app is not session.app_or_none:
            session.adopt(found.app)
        return found
    if not callable(found) or isinstance(found, type):
        raise UsageError(f"{escape(target)} is not a function", hint=_functions(module, place))
    known = session.app.tasks.get(getattr(found, "__name__", name))
    return known if known is not None and known.function is found else session.app.task(found)


def load_app(name: str) -> Jobd:
    """Return the app that ``MODULE:ATTR`` or ``./file.py`` names; a module with one app needs no attribute.

    Raises:
        UsageError: there is no app, or there are several.
    """
    from jobd.app import Jobd

    place, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    module = _load(place)
    if attribute:
        found = _attribute(module, attribute, place)
        if not isinstance(found, Jobd):
            raise UsageError(f"{escape(name)} is not a Jobd app", hint='app = Jobd("jobs.db") makes one')
        return found
    apps = {label: value for label, value in vars(module).items() if isinstance(value, Jobd)}
    if len(set(map(id, apps.values()))) != 1:
        names = ", ".join(f"{place}:{label}" for label in apps)
        raise UsageError(
            f"{escape(place)} holds {len(apps) or 'no'} Jobd app{'s' if apps else ''}",
            hint=f"name one: {names}" if apps else 'app = Jobd("jobs.db") makes one',
        )
    return next(iter(apps.values()))


def absolute(name: str) -> str:
    """Return what names an app, with a file's path made absolute."""
    place, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    if not is_file(place):
        return name
    path = str(Path(place).expanduser().absolute())
    return f"{path}:{attribute}" if attribute else path


def _registered(app: Jobd, name: str) -> Task[Any, Any]:
    found = app.tasks.get(name)
    if found is None:
        hint = (
            did_you_mean(name, app.tasks) or "name its code (./file.py:func or pkg.mod:func), or give --app ./file.py"
        )
        raise NotFound(f"no task '{escape(name)}' is registered here", hint=hint)
    return found


def _load(place: str) -> ModuleType:
    if not place:
        raise UsageError("no module before the colon", hint="for example ./file.py:func or pkg.mod:func")
    try:
        return load_file(Path(place).expanduser()) if is_file(place) else load_module(place)
    except (UsageError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's module may raise anything, SystemExit too
        reason, where = why(error)
        raise UsageError(
            f"cannot import {place}: {reason}", hint=where or "the same again with --debug shows where"
        ) from error


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = did_you_mean(part, (label for label in dir(found) if not label.startswith("__")))
            raise UsageError(
                f"{escape(place)} has no '{escape(name)}'", hint=hint or _functions(module, place)
            ) from None
    return found


def _functions(module: ModuleType, place: str) -> str | None:
    from jobd.tasks import Task

    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, Task) or getattr(value, "__module__", None) == module.__name__)
    ]
    return f"it has: {', '.join(f'{place}:{name}' for name in own[:5])}" if own else None
