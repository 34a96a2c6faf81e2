"""What Ferry is known not to pass yet: known-gaps.toml. A gap that has closed is as much a failure as a new one."""

import tomllib
from pathlib import Path


def known_gaps(kind):
    """The list's entries about a "row" of the table or a "claim" about real clients."""
    text = Path(__file__).with_name("known-gaps.toml").read_text()
    return [gap for gap in tomllib.loads(text).get("gap", []) if kind in gap]
