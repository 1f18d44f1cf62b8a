"""The read model: balances of accounts in SQLite, with the offsets and the versions of streams in the same transaction.

Kafka's consumer groups remember an offset *beside* the read model, so that a crash between the two applies events twice or
never. Here one transaction has both, and the version filter (docs/topics.md, "Order and repetition") drops what a relay
publishes again.
"""

import sqlite3
from dataclasses import dataclass

SCHEMA = """
create table if not exists accounts (stream text primary key, owner text not null, cents integer not null);
create table if not exists streams (stream text primary key, version integer not null, event_id text not null);
create table if not exists offsets (
    topic text not null, partition integer not null, next_offset integer not null, primary key (topic, partition));
"""


class Gap(Exception):
    """A stream's next version did not come: something is lost, or an operator has skipped it. Ask before you go on."""


class Fork(Exception):
    """Another event under a version that was applied: the store lost history that was published. docs/operations.md, "Forked"."""


@dataclass(frozen=True)
class BankAccountOpened:
    owner: str


@dataclass(frozen=True)
class MoneyPaidIn:
    cents: int


@dataclass(frozen=True)
class MoneyWithdrawn:
    cents: int


@dataclass(frozen=True)
class TransferSent:
    cents: int
    to: str


@dataclass(frozen=True)
class TransferReceived:
    cents: int
    # `from` is a word of Python's.
    from_: str


TYPES = {it.__name__: it for it in (BankAccountOpened, MoneyPaidIn, MoneyWithdrawn, TransferSent, TransferReceived)}


def typed(event_type, fields):
    """The event as an object of its class; None for a type that this consumer does not know."""
    known = TYPES.get(event_type.rpartition(".")[2])
    return known and known(**{"from_" if name == "from" else name: value for name, value in fields.items()})


class ReadModel:
    def __init__(self, path):
        # Transactions are begun by hand: `with self.transaction()`.
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(SCHEMA)

    def transaction(self):
        # Immediate: a second process waits here, and then sees the versions that the first one wrote.
        self.database.execute("begin immediate")
        return self.database

    def next_offset(self, topic, partition):
        row = self.database.execute(
            "select next_offset from offsets where topic = ? and partition = ?", (topic, partition)).fetchone()
        return row and row[0]

    def passed(self, topic, partition, offset):
        self.database.execute("insert or replace into offsets values (?, ?, ?)", (topic, partition, offset + 1))

    def is_new(self, stream, version, event_id, previous=None):
        """The version filter. True: apply it; False: a duplicate. previous: header ce_previousversion, if there."""
        row = self.database.execute("select version, event_id from streams where stream = ?", (stream,)).fetchone()
        last_version, last_id = row or (-1, None)
        if version == last_version and event_id != last_id:
            raise Fork(f"fork: {stream} version {version}: {last_id} was applied, {event_id} came")
        if (version - 1 if previous is None else int(previous)) > last_version:
            raise Gap(f"gap: {stream} version {last_version + 1} is missing, {version} came")
        if version <= last_version:
            return False
        self.database.execute("insert or replace into streams values (?, ?, ?)", (stream, version, event_id))
        return True

    def apply(self, stream, event):
        match event:
            case BankAccountOpened(owner):
                self.database.execute("insert into accounts values (?, ?, 0)", (stream, owner))
            case MoneyPaidIn(cents) | TransferReceived(cents, _):
                self._move(stream, cents)
            case MoneyWithdrawn(cents) | TransferSent(cents, _):
                self._move(stream, -cents)
            case None:
                pass  # A type that is newer than this consumer: its version counts, its content does not matter here.

    def _move(self, stream, cents):
        self.database.execute("update accounts set cents = cents + ? where stream = ?", (cents, stream))

    def balances(self):
        return dict(self.database.execute("select stream, cents from accounts order by stream"))
