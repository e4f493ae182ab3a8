"""Code that the person who types names: an app, or the function of a task.

`./file.py:func` or `pkg.mod:func` imports; a bare name is looked up among the registered tasks and imports nothing.
Names that come from the database never arrive here.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobd.cli.explain import did_you_mean
from jobd.cli.text import escape
from jobd.errors import NotFound, UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from jobd.app import Jobd
    from jobd.cli.session import Session
    from jobd.tasks import Task


def is_code(target: str) -> bool:
    """Say whether a target names code rather than a registered task."""
    return ":" in target or _is_file(target)


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
    if not _is_file(place):
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


def _is_file(place: str) -> bool:
    return place.endswith(".py") or place.startswith((".", "/", "~")) or os.sep in place


def _load(place: str) -> ModuleType:
    if not place:
        raise UsageError("no module before the colon", hint="for example ./file.py:func or pkg.mod:func")
    try:
        return _load_file(Path(place).expanduser()) if _is_file(place) else _load_module(place)
    except (UsageError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's module may raise anything, SystemExit too
        raise UsageError(
            f"cannot import {place}: {type(error).__name__}: {_first_line(error)}",
            hint=_where(error) or "the same again with --debug shows where",
        ) from error


def _load_module(name: str) -> ModuleType:
    """Import a module by name; the working directory counts, as it does for ``python -m``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return import_module(name)


def _load_file(path: Path) -> ModuleType:
    """Import a file; its directory counts for its own imports, as it does for ``python file.py``."""
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None or name in sys.stdlib_module_names:
        name = f"_{name}_file"
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"not a Python file: {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _where(error: BaseException) -> str | None:
    """Return the innermost line of the user's own code, or None."""
    trace, place = error.__traceback__, None
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename} line {trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        return f"look at {error.filename} line {error.lineno}"
    return f"look at {place}" if place and "importlib" not in place and __file__ not in place else None
