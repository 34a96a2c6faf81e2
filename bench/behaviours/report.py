"""The rows' results as text, as a table, and compared with the list of known gaps."""

from gaps import known_gaps


def cell(result):
    """`result` is {"passed", "tries", "why", "note"}, {"skipped"} or, where the harness itself failed, {"error"}."""
    if "skipped" in result:
        return "–"
    if "error" in result:
        return f"not measured: {result['error']}"
    score = f"{result['passed']}/{result['tries']}"
    if result["passed"] == result["tries"]:
        return f"**{score}**" + (f" ({result['note']})" if result["note"] else "")
    return f"{score}: {result['why']}"


def line(row, tunnel, result):
    shown = result.get("skipped") or cell(result).replace("**", "")
    return f"{row.name:<22} {tunnel:<8} {shown}"


def table(rows, tunnels, results):
    text = f"| what happens | passes when | {' | '.join(tunnels)} |\n|---|---|{'---|' * len(tunnels)}\n"
    for row in rows:
        cells = (cell(results[row.name, tunnel]).replace("|", "\\|") for tunnel in tunnels)
        text += f"| {row.title} | {row.rule} | {' | '.join(cells)} |\n"
    return text


def page(command, rows, tunnels, versions, results, machine):
    gaps = known_gaps("row") + known_gaps("claim")
    text = f"""# What TCP's users expect of a tunnel

Written by `{command}`; do not edit.

Each row is one behaviour, tried through each tunnel as many times as its score says, with the same builds on one machine.
There are three hosts in a row, as network namespaces: the client and the near tunnel on the first, the far tunnel on the second, the
application on the third. *direct* is the same path without a tunnel: what TCP itself does. A score in bold passed every
time, with the longest time that a try took in brackets; any other is followed by what was seen most often. A dash means
that there is nothing to try.

{table(rows, tunnels, results)}
## What Ferry does not pass

CI runs these rows with *direct* and *ferry*, and real clients whose links are cut meanwhile (`.ci/suites/behaviours`,
`.ci/suites/clients`). It fails on a row that fails, unless
[known-gaps.toml](../bench/behaviours/known-gaps.toml) gives the reason, and on a gap there that has closed. Known now:

"""
    text += "".join(f"* `{gap.get('row') or gap.get('claim')}`: {gap['reason']}\n" for gap in gaps) or "* nothing\n"
    text += "\n## Tunnels\n\n" + "".join(f"* {name}: {versions[name]}\n" for name in tunnels) + f"\n{machine}.\n"
    return text


def verdict(rows, known, results, tunnel="ferry"):
    """What CI has to complain about: rows that fail and are not known to, and the other way round."""
    gaps, complaints = {gap["row"] for gap in known_gaps("row")}, []
    for unknown in gaps - known:
        complaints.append(f"{unknown}: known-gaps.toml names a row that does not exist")
    for row in rows:
        result = results.get((row.name, tunnel))
        if result is None or "skipped" in result:
            continue
        if "error" in result:
            complaints.append(f"{row.name}: {cell(result)}")
            continue
        passes = result["passed"] == result["tries"]
        if passes and row.name in gaps:
            complaints.append(f"{row.name}: passes now; take it out of known-gaps.toml")
        if not passes and row.name not in gaps:
            complaints.append(f"{row.name}: {row.rule}: {cell(result)}")
    return complaints
