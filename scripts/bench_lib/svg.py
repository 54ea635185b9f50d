"""The tables as a drawing: bars for the geometric means, below them every row as coloured cells.

Plain SVG, written by hand: any browser and any viewer shows it, and nothing has to be installed.
"""
import math
from xml.sax.saxutils import escape

import machine
import summary
import text

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
INK, QUIET, FAINT, PAPER, OURS = "#1f2933", "#6b7785", "#e3e8ee", "#ffffff", "#0b6e69"
# Colours by log2 of the ratio: teal is ahead of the best peer, sand is level with it, red is far behind.
SCALE = ((-2.0, (7, 110, 105)), (-1.0, (72, 168, 158)), (-0.2, (205, 232, 226)), (0.0, (243, 244, 240)),
         (0.32, (253, 231, 190)), (1.0, (248, 178, 110)), (2.0, (229, 107, 80)), (4.0, (158, 42, 60)))
MARGIN, ROW, GAP, CELL = 36, 22, 9, 78
THEME_WIDTH, DETAIL_WIDTH, FIGURES_WIDTH = 86, 108, 216
BAR_ROW, BAR_WIDTH = 26, 330


def colour(ratio):
    """(fill, ink) of a cell."""
    at = min(max(math.log2(ratio), SCALE[0][0]), SCALE[-1][0])
    for (low, below), (high, above) in zip(SCALE, SCALE[1:]):
        if at <= high:
            share = (at - low) / (high - low)
            rgb = [round(b + share * (a - b)) for b, a in zip(below, above)]
            break
    light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    return "#{:02x}{:02x}{:02x}".format(*rgb), INK if light > 140 else "#ffffff"


class Drawing:
    """Collects elements; the size is known at the end."""

    def __init__(self):
        self.parts = []

    def text(self, x, y, what, size=12, fill=INK, anchor="start", weight=400):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
                          f'font-weight="{weight}">{escape(what)}</text>')

    def box(self, x, y, width, height, fill, radius=3, tip=None, line=None):
        title = f"<title>{escape(tip)}</title>" if tip else ""
        stroke = f' stroke="{line}" stroke-width="1.5"' if line else ""
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" '
                          f'fill="{fill}"{stroke}>{title}</rect>')

    def line(self, x1, y1, x2, y2, stroke=FAINT, dash=None):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashes}/>')

    def finish(self, width, height):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
                f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONT}">\n'
                f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def cells_width(table):
    return CELL * len(table.allocators)


def draw_bars(drawing, table, x, y):
    """The geometric means of one table; returns the lower edge."""
    drawing.text(x, y, f"{summary.METRICS[table.metric].capitalize()}, all rows together", 14, weight=600)
    means = [(name, table.mean(name)) for name in table.allocators if table.mean(name) is not None]
    longest = max((mean for _, mean in means), default=1)
    scale = BAR_WIDTH / max(longest, 1.3)
    y += 14
    top = y
    for name, mean in sorted(means, key=lambda item: item[1]):
        ours = name in table.ours
        drawing.text(x + 128, y + 15, name, 12, OURS if ours else INK, "end", 700 if ours else 400)
        drawing.box(x + 136, y + 3, max(mean * scale, 1), BAR_ROW - 9, OURS if ours else "#b8c4cf", 2)
        drawing.text(x + 142 + mean * scale, y + 15, text.figure(mean), 12, OURS if ours else QUIET,
                     weight=700 if ours else 400)
        y += BAR_ROW
    drawing.line(x + 136 + scale, top, x + 136 + scale, y, INK, "3 3")
    drawing.text(x + 136 + scale, y + 13, "best peer of each row", 10, QUIET, "middle")
    return y + 24


def draw_legend(drawing, x, y):
    steps = 40
    for step in range(steps):
        ratio = 2 ** (SCALE[0][0] + (SCALE[-1][0] - SCALE[0][0]) * step / (steps - 1))
        drawing.box(x + step * 8, y, 8.5, 12, colour(ratio)[0], 0)
    for ratio in (0.25, 0.5, 1, 2, 4, 16):
        place = (math.log2(ratio) - SCALE[0][0]) / (SCALE[-1][0] - SCALE[0][0])
        drawing.text(x + place * steps * 8, y + 25, f"{ratio:g}x", 10, QUIET, "start" if place == 0 else "middle")
    drawing.text(x + steps * 8 + 18, y + 10, "of the best peer of the row; smaller is better, outlined: best of all",
                 11, QUIET)


def draw_heads(drawing, table, x, y, what):
    drawing.text(x, y - 20, what, 14, weight=600)
    for place, name in enumerate(table.allocators):
        ours = name in table.ours
        drawing.text(x + (place + 0.5) * CELL - 2, y, name, 11.5, OURS if ours else INK, "middle", 700 if ours else 500)


def draw_cells(drawing, table, line, x, y):
    best = min(line.figures.values(), default=None)
    for place, name in enumerate(table.allocators):
        ratio = line.ratio(name)
        left = x + place * CELL
        if ratio is None:
            drawing.text(left + CELL / 2 - 2, y + 15, "-", 11.5, QUIET, "middle")
            continue
        fill, ink = colour(ratio)
        is_best = line.figures[name] == best
        tip = f"{line.name}, {name}: {text.with_unit(line.figures[name], line.unit)}\n{line.what}"
        drawing.box(left, y + 1, CELL - 4, ROW - 2, fill, tip=tip, line=INK if is_best else None)
        weight = 700 if name in table.ours or is_best else 400
        drawing.text(left + CELL / 2 - 2, y + 15.5, text.figure(ratio), 11.5, ink, "middle", weight)


def draw_figures(drawing, table, line, x, y):
    """Ours and the best peer's in the row's unit."""
    if table.ours:
        drawing.text(x + 86, y + 15.5, text.with_unit(line.figures.get(table.ours[0]), line.unit), 11, OURS, "end", 600)
    if line.best_peer:
        drawing.text(x + 98, y + 15.5, f"{line.best_peer} {text.with_unit(line.best, line.unit)}", 11, QUIET)


def draw_top(drawing, width, title, time, memory, described, note):
    """What was measured, and all rows together; returns the lower edge."""
    drawing.text(MARGIN, 52, title, 26, weight=700)
    drawing.text(MARGIN, 76, machine.one_line(described), 12, QUIET)
    drawing.text(MARGIN, 94, note, 12, QUIET)
    return max(draw_bars(drawing, time, MARGIN, 132), draw_bars(drawing, memory, width / 2, 132))


def draw_summary(title, time, memory, described, note):
    """The same without the rows, for the first page of a README."""
    drawing = Drawing()
    width = 2 * (MARGIN + BAR_WIDTH + 240)
    return drawing.finish(width, draw_top(drawing, width, title, time, memory, described, note))


def draw(title, time, memory, described, note):
    """The whole picture of two tables with the same rows."""
    drawing = Drawing()
    left_cells = MARGIN + THEME_WIDTH + DETAIL_WIDTH
    figures = left_cells + cells_width(time) + 4
    right_cells = figures + FIGURES_WIDTH + 20
    width = right_cells + cells_width(memory) + MARGIN

    edge = draw_top(drawing, width, title, time, memory, described, note)
    draw_legend(drawing, MARGIN, edge + 14)

    y = edge + 96
    draw_heads(drawing, time, left_cells, y, "Time")
    draw_heads(drawing, memory, right_cells, y, "Peak memory")
    if time.ours:
        drawing.text(figures + 86, y, time.ours[0], 11, OURS, "end", 700)
    drawing.text(figures + 98, y, "best peer", 11, QUIET)
    y += 8
    theme = None
    for line, memory_line in zip(time.lines, memory.lines):
        name, _, detail = line.name.partition("/")
        if name != theme:
            drawing.line(MARGIN, y + 4, width - MARGIN, y + 4)
            y += GAP
            drawing.text(MARGIN, y + 15.5, name, 12, weight=600)
            theme = name
        drawing.text(MARGIN + THEME_WIDTH, y + 15.5, detail, 12, QUIET)
        draw_cells(drawing, time, line, left_cells, y)
        draw_figures(drawing, time, line, figures, y)
        draw_cells(drawing, memory, memory_line, right_cells, y)
        y += ROW
    return drawing.finish(width, y + MARGIN)
