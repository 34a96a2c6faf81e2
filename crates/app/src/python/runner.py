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
from decimal import Decimal

HOOKS = ("on_trigger", "on_receive_terminator", "on_receive_initiator")

# Characters of an error, frames of a traceback, and bytes of an answer.
MAX_TEXT = 2000
MAX_FRAMES = 40
MAX_ANSWER = 4 << 20

loop = None

# The pipes are kept for requests and answers: what the user's code prints goes to the log, and it can read nothing.
requests = os.fdopen(os.dup(0), "rb")
answers = os.dup(1)
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.dup2(2, 1)
sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
# A changed module must never be read from an old cache, and the directory may be read-only.
sys.dont_write_bytecode = True


class Exact(float):
    """A number that a float cannot hold: to the user's code the nearest float, and written as it came where it is passed on."""

    def __new__(cls, text):
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __reduce__(self):
        return float, (float(self),)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


class Numbers:
    """Reads a request's numbers, and remembers whether one of them is Exact."""

    def __init__(self):
        self.exact = False

    def read(self, text):
        value = float(text)
        written = repr(value)
        if written == text or self.same(written, text):
            return value
        self.exact = True
        return Exact(text)

    @staticmethod
    def same(one, other):
        try:
            return Decimal(one) == Decimal(other)
        except ArithmeticError:
            return False


def dump(value):
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def dump_exact(value):
    """As dump(), which knows nothing of Exact."""
    if isinstance(value, Exact):
        return value.text
    if isinstance(value, dict):
        # dump() makes a text of a key, with the colon after it.
        return "{%s}" % ",".join(dump({key: 0})[1:-2] + dump_exact(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(map(dump_exact, value))
    return dump(value)


def encode(value, dump=dump):
    return (dump(value) + "\n").encode("utf-8")


def answer(text):
    rest = memoryview(text)
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
        if name != "on_trigger" and not takes_headers(hook):
            hooks[name] = lambda payload, headers, hook=hook: hook(payload)
    return hooks


def takes_headers(hook):
    """Whether a receiving hook has a place for headers: a second argument that is named so, or that has to be given."""
    try:
        parameters = list(inspect.signature(hook, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return False
    if len(parameters) < 2 or parameters[1].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        return False
    return parameters[1].name == "headers" or parameters[1].default is inspect.Parameter.empty


def run(hooks, name, arguments):
    result = hooks[name](*arguments)
    if inspect.isawaitable(result):
        async def finish():
            return await result
        result = event_loop().run_until_complete(finish())
    if name == "on_trigger" and not isinstance(result, dict):
        raise TypeError("on_trigger must return a dict, not %s" % type(result).__name__)
    if result is not None and not isinstance(result, dict):
        raise TypeError("%s must return None or a dict, not %s" % (name, type(result).__name__))
    return result


def event_loop():
    """The one loop of this process; another if the user's code has closed it."""
    global loop
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


def kind_of(error):
    if isinstance(error, ValueError):
        return "invalid"
    return "denied" if isinstance(error, PermissionError) else "failed"


def text_of(error, kind):
    """What the error says, in bounds. Its own text may be an error, too."""
    try:
        text = str(error) if kind != "failed" else ""
        text = text or "".join(traceback.format_exception_only(type(error), error)).strip()
    except BaseException:
        text = type(error).__name__
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def print_traceback(error):
    """Prints where the user's code failed: neither this file's frames nor asyncio's in front of it."""
    try:
        place = error.__traceback__
        while place and (place.tb_frame.f_globals is globals() or is_asyncio(place.tb_frame)):
            place = place.tb_next
        traceback.print_exception(type(error), error, place, limit=-MAX_FRAMES)
    except BaseException:
        pass


def is_asyncio(frame):
    return str(frame.f_globals.get("__name__")).split(".")[0] == "asyncio"


def failed(error, kind):
    return encode({"error": text_of(error, kind), "kind": kind})


def reply(hooks, line):
    """The answer to one request. Whatever is raised on the way costs this call only, and never the process."""
    numbers = Numbers()
    try:
        name, arguments = json.loads(line, parse_float=numbers.read)
    except BaseException as error:
        return encode({"error": "Python cannot read the payload: %s" % text_of(error, "failed"), "kind": "invalid"})
    try:
        result = run(hooks, name, arguments)
    except BaseException as error:
        kind = kind_of(error)
        if kind == "failed":
            print_traceback(error)
        return failed(error, kind)
    try:
        text = encode({"ok": result}, dump_exact if numbers.exact else dump)
    except BaseException as error:
        text = text_of(error, "failed")
        return encode({"error": "the answer of %s is not JSON: %s" % (name, text), "kind": "failed"})
    if len(text) > MAX_ANSWER:
        return encode({"error": "%s returned %d bytes, more than any message may have" % (name, len(text)), "kind": "failed"})
    return text


def main():
    path = os.path.abspath(sys.argv[1])
    try:
        hooks = load(path)
    except BaseException as error:
        answer(encode({"broken": "%s: %s" % (where(error, path), text_of(error, "failed").splitlines()[-1].strip())}))
        return
    event_loop()
    answer(encode({"ready": list(hooks)}))
    for line in requests:
        answer(reply(hooks, line))


threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
main()
sys.stdout.flush()
os._exit(0)
