"""Hooks for both ends: `ferry initiator --hooks examples/app.py`, `ferry terminator --hooks examples/app.py`."""
import time


def on_trigger(payload, headers):
    if "n" not in payload:
        raise ValueError("give n")
    return {**payload, "sent": time.time()}


async def on_receive_terminator(payload):
    return {"n": payload["n"] + 1}
