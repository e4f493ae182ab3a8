"""Code by name: a module, a file, and where another process finds a function of this one."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAIN: Final = "__main__"
# The program that a process imports which does not run it; ``multiprocessing`` calls it so, too.
IMPORTED_MAIN: Final = "__mp_main__"
_LOCAL: Final = "<locals>"


class Place(NamedTuple):
    """Where a function is: its module, its name in there, the module's file, and of ``python -m`` the program's name.

    It is made from a function that the running program has, never from data.
    """

    module: str
    name: str
    file: str | None
    program: str | None


def place_of(function: Any, named: str) -> Place:
    """Return where another process finds ``function``; ``named`` is what a person calls it.

    Raises:
        UsageError: it cannot be imported by a name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name.replace(_LOCAL, ""):
        raise UsageError(
            f"{named} has no name by which a process could import it: {function!r}",
            hint="def at the top level of a module",
        )
    if _LOCAL in name:
        raise UsageError(
            f"{named} is made inside a function ({module}: {name}), where no process can import it",
            hint="move it to the top level of its module",
        )
    loaded = sys.modules.get(module)
    if not _leads_to(loaded, name, function):
        raise UsageError(
            f"{named} cannot be imported by a process: {module}.{name} is something else",
            hint="a function at the top level of a module, under its own name",
        )
    file = getattr(loaded, "__file__", None)
    spec = getattr(loaded, "__spec__", None)
    if module == MAIN and file is None and spec is None:
        raise UsageError(
            f"{named} is of a program without a file, which no process can import",
            hint="put it into a module of its own",
        )
    return Place(module, name, file and str(Path(file).resolve()), spec.name if module == MAIN and spec else None)


def _leads_to(module: ModuleType | None, name: str, function: Any) -> bool:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    # Under the name of a decorated function there is its task.
    return function in {found, getattr(found, "function", None)} if found is not None else False


def find(place: Place) -> Any:
    """Import what is at ``place`` and return it: a function, or the task that it was made.

    Raises:
        BaseException: whatever the module raises; AttributeError where the name is not there any more.
    """
    found: Any = _module(place)
    for part in place.name.split("."):
        found = getattr(found, part)
    return found


def _module(place: Place) -> ModuleType:
    if place.module == MAIN:
        return _imported_main(place)
    if place.module in sys.modules:
        return sys.modules[place.module]
    if place.file is None or _origin(place.module) == place.file:
        return import_module(place.module)
    return load_file(Path(place.file), place.module)


def _origin(name: str) -> str | None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return str(Path(spec.origin).resolve()) if spec is not None and spec.origin is not None else None


def _imported_main(place: Place) -> ModuleType:
    """Import the program under another name, so that what is below ``if __name__ == "__main__"`` does not run."""
    loaded = sys.modules.get(IMPORTED_MAIN)
    if loaded is not None:
        return loaded
    module = ModuleType(IMPORTED_MAIN)
    sys.modules[IMPORTED_MAIN] = module
    try:
        import runpy  # noqa: PLC0415 - only for what a program itself holds

        if place.program is not None:
            content = runpy.run_module(place.program, run_name=IMPORTED_MAIN, alter_sys=True)
        else:
            content = runpy.run_path(str(place.file), run_name=IMPORTED_MAIN)
    except BaseException:
        sys.modules.pop(IMPORTED_MAIN, None)
        raise
    module.__dict__.update(content)
    sys.modules[MAIN] = sys.modules[IMPORTED_MAIN] = module
    return module


def class_name(one: type) -> str:
    """Return the name of a class by which another process knows it: of an error's, whether it is tried again."""
    module = MAIN if one.__module__ == IMPORTED_MAIN else one.__module__
    return f"{module}:{one.__qualname__}"


@contextmanager
def apart() -> Iterator[None]:
    """Within the block this process imports a program for another one that runs it."""
    global _apart  # noqa: PLW0603 - of the process
    former, _apart = _apart, True
    try:
        yield
    finally:
        _apart = former


def is_apart() -> bool:
    """Say whether this process imports a program at present that another one runs."""
    return _apart


_apart = False


def refuse_apart(does: str) -> None:
    """Refuse what a program does at its top level while a worker process imports it.

    Raises:
        UsageError: one does at present.
    """
    if is_apart():
        raise UsageError(
            f"a worker process imports this program, which {does} at its top level",
            hint='put that below if __name__ == "__main__":',
        )


def load_module(name: str) -> ModuleType:
    """Import a module by name; the working directory counts, as it does for ``python -m``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return import_module(name)


def load_file(path: Path, name: str | None = None) -> ModuleType:
    """Import a file; its directory counts for its own imports, as it does for ``python file.py``.

    Raises:
        UsageError: there is no such file, or it is not Python.
    """
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    name = name or _free_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
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


def _free_name(path: Path) -> str:
    loaded = sys.modules.get(path.stem)
    ours = loaded is not None and getattr(loaded, "__file__", None) == str(path)
    return path.stem if ours or (loaded is None and path.stem not in sys.stdlib_module_names) else f"_{path.stem}_file"


def is_file(place: str) -> bool:
    """Say whether what a person typed names a file rather than a module."""
    return place.endswith(".py") or place.startswith((".", "/", "~")) or os.sep in place


def why(error: BaseException) -> tuple[str, str | None]:
    """Return why an import failed, in one line, and where to look: the innermost line of the user's own code."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", _where(error)


def _where(error: BaseException) -> str | None:
    trace, place = error.__traceback__, None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # Those of the import itself, and of who asked for it, are nobody's to mend.
        if file != __file__ and "importlib" not in file and "runpy" not in file:
            place = f"{file} line {trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        return f"look at {error.filename} line {error.lineno}"
    return f"look at {place}" if place else None
