"""The hooks of this pod. What they return is what is sent."""


def on_receive_terminator(payload: dict) -> dict | None:
    """Runs for every message that arrives, at least once. Return a dict to reply with it, or None.
    An exception is tried again, and after 3 times puts the message among the dead (GET /dead)."""
    return None


def on_trigger(payload: dict, headers: dict) -> dict:
    """Runs for a POST /trigger here, and sends the other way."""
    return payload
