"""Runs the hooks of one app.py for a web-app: one JSON request per line in, one JSON answer per line out, in order."""
import asyncio
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
import traceback

HOOKS = ("on_trigger", "on_receive_terminator", "on_receive_initiator")

# The pipes are kept for requests and answers: what the user's code prints goes to the log, and it can read nothing.
requests = os.fdopen(os.dup(0), "rb")
answers = os.dup(1)
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.dup2(2, 1)
sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
# A changed module must never be read from an old cache, and the directory may be read-only.
sys.dont_write_bytecode = True


def answer(value):
    rest = memoryview((json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n").encode("utf-8"))
    while rest:
        rest = rest[os.write(answers, rest):]


def leave_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def where(error, path):
    """The place of an error in the user's file, as file:line."""
    if isinstance(error, SyntaxError) and error.filename:
        return "%s:%s" % (error.filename, error.lineno)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return "%s:%s" % (path, lines[-1]) if lines else path


def load(path):
    sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path]
    spec = importlib.util.spec_from_file_location("app", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["app"] = module
    spec.loader.exec_module(module)
    hooks = {name: getattr(module, name) for name in HOOKS if hasattr(module, name)}
    for name, hook in hooks.items():
        if not callable(hook):
            raise TypeError("%s is not a function" % name)
    return hooks


def run(loop, hooks, name, arguments):
    result = hooks[name](*arguments)
    if inspect.isawaitable(result):
        async def finish():
            return await result
        result = loop.run_until_complete(finish())
    if name == "on_trigger" and not isinstance(result, dict):
        raise TypeError("on_trigger must return a dict, not %s" % type(result).__name__)
    if result is not None and not isinstance(result, dict):
        raise TypeError("%s must return None or a dict, not %s" % (name, type(result).__name__))
    return result


def kind_of(error):
    if isinstance(error, ValueError):
        return "invalid"
    return "denied" if isinstance(error, PermissionError) else "failed"


def text_of(error, kind):
    if kind != "failed" and str(error):
        return str(error)
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def main():
    path = os.path.abspath(sys.argv[1])
    try:
        hooks = load(path)
    except BaseException as error:
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        answer({"broken": "%s: %s" % (where(error, path), last)})
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    answer({"ready": list(hooks)})
    for line in requests:
        name, arguments = json.loads(line)
        try:
            result = run(loop, hooks, name, arguments)
        except BaseException as error:
            kind = kind_of(error)
            if kind == "failed":
                traceback.print_exc()
            answer({"error": text_of(error, kind), "kind": kind})
            continue
        try:
            answer({"ok": result})
        except (TypeError, ValueError, RecursionError) as error:
            answer({"error": "%s returned what is not JSON: %s" % (name, error), "kind": "failed"})


threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
main()
sys.stdout.flush()
os._exit(0)
