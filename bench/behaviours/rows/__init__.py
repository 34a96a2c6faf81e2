"""The rows of the table: each a behaviour, what passes, and how often it is tried."""

import dataclasses
import typing

from tunnels import Settings

ROWS: list["Row"] = []


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    rule: str
    attempt: typing.Callable
    tries: int
    settings: Settings
    # Needs hosts of its own, for it breaks the network between them.
    network: bool
    # Is about the tunnel's processes: without a tunnel there is nothing to try.
    processes: bool
    # What is done to the lab before the tunnel starts.
    prepare: typing.Callable | None
    only: str | None
    # Waits for minutes and needs no processor meanwhile.
    waits: bool


def row(
    name, title, rule, tries=1, settings=None, network=False, processes=False, prepare=None, only=None, waits=False
):
    def add(attempt):
        settled = settings or Settings()
        ROWS.append(Row(name, title, rule, attempt, tries, settled, network, processes, prepare, only, waits))
        return attempt

    return add


def load():
    from rows import addresses, ending, opening, path, process, webapp  # noqa: F401

    return ROWS
