"""The hooks of this pod. What they return is what is sent."""


def on_trigger(payload: dict, headers: dict) -> dict:
    """Runs for every POST /trigger; headers have names in lower case, and none for an auto-trigger.
    ValueError refuses with 400, PermissionError with 403. Return what goes to the terminator."""
    return payload
