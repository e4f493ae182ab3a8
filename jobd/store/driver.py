"""What a database has to answer for a store to stand on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import peewee

# A connection of the database's own library. They speak enough of the DB-API alike for ``execute``.
Connection = Any

BUSY_TIMEOUT_MS: Final = 5_000


class Driver(ABC):
    """One database. ``path`` names it for people."""

    path: str

    @abstractmethod
    def open(self) -> None:
        """Check the file, create it where there is none, and bring its connection settings in order."""

    @abstractmethod
    def connection(self) -> Connection:
        """Return the calling thread's connection, opened if need be."""

    @property
    @abstractmethod
    def database(self) -> peewee.Database:
        """The peewee database, for queries of a program's own; it has no connection but the calling thread's."""

    @abstractmethod
    def close(self) -> None:
        """Close the calling thread's connection."""

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Begin a transaction that holds the write lock from its first statement."""

    @abstractmethod
    def in_transaction(self, connection: Connection) -> bool:
        """Say whether a transaction is open, by the driver's own word."""

    @abstractmethod
    def holds_transaction(self) -> bool:
        """Say whether the calling thread has one open, opening no connection for it."""

    @abstractmethod
    def drop_transaction(self) -> bool:
        """Roll back what the calling thread left open, opening no connection for it; say whether there was any."""

    @abstractmethod
    def judge(self, error: BaseException) -> BaseException:
        """Return what ``error`` means: Transient, Permanent, StoreUnusable, or the error itself."""

    @abstractmethod
    def rows(self, *columns: str) -> str:
        """Return a subselect that turns one bound parameter, ``pack(rows)``, into rows of ``columns``.

        A whole batch is one statement and one step: statement by statement the interpreter's lock would change hands
        for every row, and a busy handler thread keeps it for 5 ms each time.
        """

    @abstractmethod
    def pack(self, rows: Sequence[Sequence[Any]]) -> str:
        """Return the parameter that ``rows()`` reads."""

    @abstractmethod
    def pairs(self, key: str, value: str) -> str:
        """Return a subselect that turns one bound parameter, ``pack_pairs(pairs)``, into rows of two columns.

        For two columns of text it takes two thirds of the time of ``rows``.
        """

    @abstractmethod
    def pack_pairs(self, pairs: Mapping[Any, str]) -> str:
        """Return the parameter that ``pairs()`` reads."""

    @abstractmethod
    def new_id(self, connection: Connection, statement: str, params: Sequence[Any]) -> int:
        """Insert one row and return the id that it was given."""

    @abstractmethod
    def gather(self, connection: Connection, columns: str, source: str, params: Sequence[Any]) -> list[list[Any]]:
        """Return the rows of ``select columns source`` in one step, for the same reason as ``rows``."""

    @abstractmethod
    def version(self) -> int:
        """Return a number that changes when another connection has committed."""
