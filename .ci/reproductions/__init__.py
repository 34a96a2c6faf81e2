"""What was once reported broken, tried again from outside: the smallest input, and others of its kind.

Each row is a claim and what was seen. Rows are in a file for each area, and run a few at a time.
"""

import concurrent.futures
import dataclasses
import os
import sys
import threading
import time
import traceback
import typing

from local import Lab

AT_ONCE = 4
MOST_SECONDS = 175
ROWS: list["Row"] = []


@dataclasses.dataclass(frozen=True)
class Row:
    claim: str
    attempt: typing.Callable


class Broken(Exception):
    """What was seen is not what the row claims."""


class Unavailable(Exception):
    """This cannot be tried on this machine."""


def row(claim):
    """The function below tries the claim in a lab of its own, and returns what was seen."""

    def add(attempt):
        ROWS.append(Row(claim, attempt))
        return attempt

    return add


def expect(truth, otherwise):
    if not truth:
        raise Broken(otherwise)


def try_row(one):
    started = time.monotonic()
    try:
        with Lab(patience=0) as lab:
            verdict, seen = "ok", one.attempt(lab) or ""
    except Unavailable as reason:
        verdict, seen = "skipped", str(reason)
    except (Broken, OSError) as error:
        verdict, seen = "FAILED", str(error) or repr(error)
    except Exception:
        verdict, seen = "FAILED", traceback.format_exc(limit=-3)
    print(f"{verdict:<8}{one.claim}: {seen} ({time.monotonic() - started:.1f} s)", flush=True)
    return verdict


def run(words):
    """All rows, or those whose claim or function has one of the words; whether none has failed."""
    rows = [
        one for one in ROWS if not words or any(word in one.claim or word in one.attempt.__name__ for word in words)
    ]
    open_rows = {one.claim for one in rows}

    def overdue():
        print(f"FAILED  not over within {MOST_SECONDS} s:", *sorted(open_rows), sep="\n  ", flush=True)
        os._exit(1)

    watch = threading.Timer(MOST_SECONDS, overdue)
    watch.daemon = True
    watch.start()

    def tried(one):
        verdict = try_row(one)
        open_rows.discard(one.claim)
        return verdict

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = list(pool.map(tried, rows))
    failed = verdicts.count("FAILED")
    print(f"{len(rows)} rows: {verdicts.count('ok')} ok, {failed} failed, {verdicts.count('skipped')} skipped")
    sys.stdout.flush()
    return bool(rows) and not failed
