"""Writes what was measured: the tables on stdout, the raw values as JSON, the drawing."""
import json
import statistics
import subprocess
from pathlib import Path

import allocators
import summary
import svg
import text

FORMAT = 1  # of the JSON file


def commit():
    """Of the tree that these scripts belong to, with "-dirty" where files were changed; "" outside of git."""
    try:
        return subprocess.run(["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"],
                              capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def as_json(kind, options, results, described, tables):
    return {
        "format": FORMAT,
        "kind": kind,
        "quick": options.quick,
        "rounds": options.rounds,
        "realtime": options.realtime,
        "time_is": "best" if options.best else "median",
        "machine": described,
        "commit": commit(),
        "allocators": [{"name": a.name, "peer": a.peer, "library": str(a.library) if a.library else None,
                        "version": allocators.version_of(a) if a.peer else "", "settings": a.settings}
                       for a in results.allocators],
        "rows": [{"row": row.name, "unit": row.unit, "what": row.what,
                  "checksum": results.checksums.get(row.name, (None,))[0],
                  "runs": {name: [{"value": run.value, "peak_kib": run.peak_kib} for run in runs]
                           for name, runs in results.runs[row.name].items()}}
                 for row in results.rows],
        "geometric_means": {summary.METRICS[table.metric]: {name: table.mean(name) for name in table.allocators}
                            for table in tables},
        "rows_behind": {name: {line.name: line.ratio(name) for line in tables[0].rows_behind(name)}
                        for name in tables[0].ours},
        "failures": results.failures,
    }


def how(kind, options):
    """What was run, in a line for people."""
    rounds = f"{options.rounds} round" + ("s" if options.rounds > 1 else "")
    return (kind + (", short form" if options.quick else "") + (", best of " if options.best else ", median of ")
            + rounds + (", ahead of all other programs of the machine (SCHED_RR)" if options.realtime else ""))


def write(kind, title, options, results, described):
    """Prints the tables and writes KIND.txt, KIND.json, KIND.svg and its head alone, KIND-summary.svg, or where the options say."""
    over_rounds = {"value": min if options.best else statistics.median, "peak_kib": statistics.median}
    tables = [summary.tabulate(results, metric, over_rounds[metric]) for metric in summary.METRICS]
    shown = "\n".join(text.table(table) for table in tables)
    note = how(kind, options)
    print(shown)
    files = {
        options.out / f"{kind}.txt": f"{note}\n\n{shown}",
        options.json or options.out / f"{kind}.json":
            json.dumps(as_json(kind, options, results, described, tables), indent=1) + "\n",
        options.svg or options.out / f"{kind}.svg": svg.draw(title, *tables, described, note),
        options.out / f"{kind}-summary.svg": svg.draw_summary(title, *tables, described, note),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(files)
