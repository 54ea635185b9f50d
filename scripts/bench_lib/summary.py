"""What the raw values say: medians (or the best rounds), ratios to the best peer of each row, geometric means.

Smaller is better throughout. No input or output here; tests/bench has the arithmetic done by hand.
"""
import math
import statistics
from dataclasses import dataclass

# A row of ours that is so many times the best peer's is marked.
BEHIND = 1.25
# Rounds that differ by more than this factor make a figure that is not to be trusted.
UNSTEADY = 1.25
METRICS = {"value": "time", "peak_kib": "memory"}


def geometric_mean(values):
    """None of nothing."""
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


@dataclass(frozen=True)
class Line:
    """One row of a table. An allocator under which the row failed is missing from them."""
    name: str
    unit: str
    what: str
    figures: dict
    best_peer: str | None  # None where no peer has a figure
    spreads: dict  # the largest round by the smallest, by allocator

    @property
    def best(self):
        return self.figures[self.best_peer] if self.best_peer else None

    def ratio(self, allocator):
        """To the best peer; None where either is missing."""
        if self.best_peer is None or allocator not in self.figures:
            return None
        return self.figures[allocator] / self.best

    def behind(self, allocator):
        ratio = self.ratio(allocator)
        return ratio is not None and ratio > BEHIND


@dataclass(frozen=True)
class Table:
    """One metric of all rows."""
    metric: str
    lines: list
    ours: list  # allocator names
    peers: list

    @property
    def allocators(self):
        return self.ours + self.peers

    def mean(self, allocator):
        """The geometric mean of its ratios to each row's best peer, over the rows that it has."""
        return geometric_mean(line.ratio(allocator) for line in self.lines if line.ratio(allocator) is not None)

    def unsteady(self, allocator):
        """The lines whose ratio cannot be trusted, since its rounds or those of the best peer differ too much."""
        return [line for line in self.lines if line.ratio(allocator) is not None
                and max(line.spreads[allocator], line.spreads[line.best_peer]) > UNSTEADY]

    def rows_of(self, allocator):
        return sum(line.ratio(allocator) is not None for line in self.lines)

    def best_single_peer(self):
        """(name, its mean) of the peer with the smallest mean among those with all rows; None without one."""
        complete = max((self.rows_of(name) for name in self.peers), default=0)
        means = [(self.mean(name), name) for name in self.peers if complete and self.rows_of(name) == complete]
        return (min(means)[1], min(means)[0]) if means else None

    def rows_behind(self, allocator):
        """The lines in which it is behind the best peer by more than BEHIND, the worst first."""
        return sorted((line for line in self.lines if line.behind(allocator)), key=lambda line: -line.ratio(allocator))


def tabulate(results, metric, over_rounds=statistics.median):
    """The table of one metric ("value" or "peak_kib"); `over_rounds` makes one figure of the figures of all rounds."""
    peers = [allocator.name for allocator in results.allocators if allocator.peer]
    ours = [allocator.name for allocator in results.allocators if not allocator.peer]
    lines = []
    for row in results.rows:
        rounds = {name: [getattr(run, metric) for run in runs] for name, runs in results.runs[row.name].items() if runs}
        figures = {name: over_rounds(values) for name, values in rounds.items()}
        spreads = {name: max(values) / min(values) for name, values in rounds.items()}
        best = min((name for name in peers if name in figures), key=lambda name: figures[name], default=None)
        lines.append(Line(row.name, row.unit if metric == "value" else "KiB", row.what, figures, best, spreads))
    return Table(metric, lines, ours, peers)
