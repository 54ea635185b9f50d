"""Measures every row under every allocator in turn, several times over."""
import programs



class Results:
    """The raw values: runs[row name][allocator name] is a list of Measurements, one per round."""

    def __init__(self, rows, allocators):
        self.rows = rows
        self.allocators = allocators
        self.runs = {row.name: {allocator.name: [] for allocator in allocators} for row in rows}
        self.failures = []
        self.checksums = {}

    def add(self, row, allocator, measurement):
        """Takes a measurement in; refuses one whose work had another outcome than the first one's."""
        expected, by = self.checksums.setdefault(row.name, (measurement.checksum, allocator.name))
        if measurement.checksum != expected:
            raise programs.Failure(f"the check sum is {measurement.checksum}, under {by} it was {expected}")
        self.runs[row.name][allocator.name].append(measurement)

    def fail(self, row, allocator, why):
        """Notes the failure and gives the row up under this allocator, with what was measured so far."""
        self.failures.append(f"{row.name} under {allocator.name}: {why}")
        del self.runs[row.name][allocator.name]


def run(rows, allocators, count, quick, progress, measure=programs.measure):
    """A round is A B C, A B C, ... over all rows, so that whatever else the machine does hits all allocators alike, and
    a disturbance spoils one round only. `progress(text)` is called before each step and with every failure. When the
    user interrupts, what there is is returned, with a failure that says so."""
    results = Results(rows, allocators)
    try:
        run_rounds(results, count, quick, progress, measure)
    except KeyboardInterrupt:
        results.failures.append("interrupted before all rounds were through")
    return results


def run_rounds(results, count, quick, progress, measure):
    rows = results.rows
    for number in range(1, count + 1):
        for place, row in enumerate(rows, 1):
            progress(f"round {number} of {count}, row {place} of {len(rows)}: {row.name}")
            for allocator in results.allocators:
                if allocator.name not in results.runs[row.name]:
                    continue
                try:
                    results.add(row, allocator, measure(row, allocator, quick))
                except programs.Failure as failure:
                    results.fail(row, allocator, failure)
                    progress(f"FAILED: {results.failures[-1]}", lasting=True)
