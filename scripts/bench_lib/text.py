"""The tables as text."""
import summary

NAME_WIDTH = 22
MARK = "!"
# The next unit and how many make one of it.
LARGER = {"ns": ("us", 1000), "us": ("ms", 1000), "ms": ("s", 1000), "KiB": ("MiB", 1024), "MiB": ("GiB", 1024)}


def figure(value):
    """Three digits that matter, however large."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def with_unit(value, unit):
    """In the unit in which it has few digits: 68.1 us/op, not 68100 ns/op."""
    if value is None:
        return "-"
    prefix, slash, rest = unit.partition("/")
    while prefix in LARGER and value >= LARGER[prefix][1]:
        prefix, factor = LARGER[prefix]
        value /= factor
    return f"{figure(value)} {prefix}{slash}{rest}"


def cell(line, name, ours):
    ratio = line.ratio(name)
    mark = MARK if name in ours and line.behind(name) else " "
    return f"{figure(ratio)}{mark}"


def table(shown):
    width = max(10, max(map(len, shown.allocators), default=0) + 2)
    title = f"{summary.METRICS[shown.metric]}: ratio to the best peer of the row, below 1.00 is ahead of it"
    if shown.ours:
        title += f"; {MARK} marks what is above {summary.BEHIND} of {', '.join(shown.ours)}"
    head = f"{'':{NAME_WIDTH}}" + "".join(f"{name + ' ':>{width}}" for name in shown.allocators)
    head += "".join(f"{name:>{width + 6}}" for name in shown.ours[:1]) + "   best peer"
    out = [title, "", head]
    theme = None
    for line in shown.lines:
        if theme is not None and theme != line.name.split("/")[0]:
            out.append("")
        theme = line.name.split("/")[0]
        text = f"{line.name:{NAME_WIDTH}}" + "".join(f"{cell(line, name, shown.ours):>{width}}"
                                                      for name in shown.allocators)
        text += "".join(f"{with_unit(line.figures.get(name), line.unit):>{width + 6}}" for name in shown.ours[:1])
        out.append(text + f"   {line.best_peer or '-'} {with_unit(line.best, line.unit)}".rstrip())
    out += ["", f"{'geometric mean':{NAME_WIDTH}}" + "".join(f"{figure(shown.mean(name)) + ' ':>{width}}"
                                                             for name in shown.allocators)]
    return "\n".join(out) + "\n" + conclusion(shown)


def conclusion(shown):
    """What the table comes to, in words."""
    out = []
    single = shown.best_single_peer()
    for name in shown.ours:
        if shown.mean(name) is None:
            continue
        text = f"{name}: {figure(shown.mean(name))} x the best peer of each row (geometric mean)"
        if single:
            text += f"; {single[0]}, the best single peer: {figure(single[1])} x"
        behind = shown.rows_behind(name)
        text += f"; {len(behind)} of {shown.rows_of(name)} rows above {summary.BEHIND}"
        if behind:
            text += ":\n  " + ", ".join(f"{line.name} {figure(line.ratio(name))}" for line in behind)
        unsteady = shown.unsteady(name)
        if unsteady:
            text += (f"\n  not to be trusted, rounds differ by more than {summary.UNSTEADY} x: "
                     + ", ".join(line.name for line in unsteady))
        out.append(text)
    return "\n".join(out) + "\n" if out else ""
