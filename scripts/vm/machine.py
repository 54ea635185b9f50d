"""The emulated machine: what is asked for on numa-vm's command line, as a command line of qemu."""

import re

KIB = 1 << 10
MIB = 1 << 20


class MachineError(Exception):
    """A machine that cannot be; the text is one line for the user."""


def parse_bytes(text):
    match = re.fullmatch(r"(\d+)([MmGg])", text)
    if match is None:
        raise MachineError(f"{text!r} is no size (512M, 1G)")
    size = int(match[1]) * (MIB if match[2] in "Mm" else KIB * MIB)
    if size < 128 * MIB:
        raise MachineError(f"{text!r} is too little for a node (128M is the least)")
    return size


def parse_distances(text):
    """"10,20/20,10": a row of the matrix per node, in the units of the ACPI SLIT (10 = the node itself)."""
    rows = [row.split(",") for row in text.split("/")]
    for row in rows:
        for field in row:
            if not field.isdecimal() or not 10 <= int(field) <= 254:
                raise MachineError(f"{field!r} is no distance (10 to 254; rows end with /, fields with a comma)")
    return [[int(field) for field in row] for row in rows]


def parse_pools(text):
    """"64,0,,8": huge pages of 2 MiB per node; an empty field is 0."""
    if not re.fullmatch(r"[\d,]+", text):
        raise MachineError(f"{text!r} is no list of pages per node (64,0,16)")
    return [int(field or 0) for field in text.split(",")]


def parse_performance(text):
    """"65536:100,16384:250": MiB/s and ns of each node from its nearest CPUs, as the firmware tells (HMAT)."""
    if not re.fullmatch(r"\d+:\d+(,\d+:\d+)*", text):
        raise MachineError(f"{text!r} is no list of MiB/s:ns per node (65536:100,16384:250)")
    return [tuple(int(number) for number in field.split(":")) for field in text.split(",")]


class Machine:
    """Nodes are numbered: those with CPUs and memory first, then those without memory, then those without CPUs."""

    def __init__(self, nodes, memoryless, memory_only, cpus_per_node, node_bytes, distances, pools, performance,
                 kernel_args):
        self.with_memory = [*range(nodes), *range(nodes + memoryless, nodes + memoryless + memory_only)]
        self.with_cpus = [*range(nodes + memoryless)]
        self.count = nodes + memoryless + memory_only
        self.cpus_per_node = cpus_per_node
        self.node_bytes = node_bytes
        self.distances = distances
        self.pools = pools
        self.performance = performance
        self.kernel_args = kernel_args
        if self.count > 64:
            raise MachineError(f"{self.count} nodes, 64 are the most")
        # More CPUs need an interrupt controller that Linux does not set up on this board by default.
        if self.cpus_per_node * len(self.with_cpus) > 255:
            raise MachineError(f"{self.cpus_per_node * len(self.with_cpus)} CPUs, 255 are the most")
        if len(pools) > self.count:
            raise MachineError(f"--hugepages names {len(pools)} nodes, there are {self.count}")
        for node, pages in enumerate(pools):
            if pages and node not in self.with_memory:
                raise MachineError(f"--hugepages: node {node} has no memory")
            if pages * 2 * MIB >= node_bytes:
                raise MachineError(f"--hugepages: {pages} pages are more than node {node} has")
        if distances is not None:
            self._check_distances()
        if performance and (len(performance) != self.count or memoryless):
            raise MachineError("--performance: a field for each node is needed, and memory on each")

    def _check_distances(self):
        if [len(row) for row in self.distances] != [self.count] * self.count:
            raise MachineError(f"--distances: {self.count} rows of {self.count} fields are needed")
        for i, row in enumerate(self.distances):
            for j, distance in enumerate(row):
                # Linux drops the whole table otherwise, and all remote nodes are 20 apart.
                if (distance == 10) != (i == j):
                    raise MachineError(f"--distances: from node {i} to {j} is {distance}; 10 is a node's distance to "
                                       "itself and to no other")

    def pools_by_node(self):
        return [(node, pages) for node, pages in enumerate(self.pools) if pages]

    def _nearest_with_cpus(self, node):
        if node in self.with_cpus or self.distances is None:
            return node if node in self.with_cpus else 0
        return min(self.with_cpus, key=lambda other: self.distances[node][other])

    def _performance_options(self):
        """From its nearest CPUs a node has what is asked for, from others half the bandwidth and twice the latency."""
        for target, (bandwidth, latency) in enumerate(self.performance):
            for initiator in self.with_cpus:
                near = initiator == self._nearest_with_cpus(target)
                entry = f"hmat-lb,initiator={initiator},target={target},hierarchy=memory"
                yield f"{entry},data-type=access-latency,latency={latency if near else 2 * latency}"
                yield f"{entry},data-type=access-bandwidth,bandwidth={bandwidth if near else bandwidth // 2}M"

    def qemu_command(self, kernel_image, work):
        cpus = len(self.with_cpus) * self.cpus_per_node
        command = [
            "qemu-system-x86_64",
            # Software emulation only. /dev/kvm may exist without a guest ever coming up on it.
            "-accel", "tcg,thread=multi", "-cpu", "max",
            "-machine", "q35,hmat=on" if self.performance else "q35",
            "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{work}/console",
            "-smp", f"{cpus},sockets={len(self.with_cpus)},cores={self.cpus_per_node}",
            "-m", f"{len(self.with_memory) * self.node_bytes // MIB}M",
        ]
        for node in range(self.count):
            description = f"node,nodeid={node}"
            if node in self.with_cpus:
                first = node * self.cpus_per_node
                description += f",cpus={first}-{first + self.cpus_per_node - 1}"
            if node in self.with_memory:
                command += ["-object", f"memory-backend-ram,id=m{node},size={self.node_bytes // MIB}M"]
                description += f",memdev=m{node}"
            if self.performance:
                description += f",initiator={self._nearest_with_cpus(node)}"
            command += ["-numa", description]
        if self.distances is not None:
            for i, row in enumerate(self.distances):
                for j, distance in enumerate(row):
                    command += ["-numa", f"dist,src={i},dst={j},val={distance}"]
        for option in self._performance_options():
            command += ["-numa", option]
        command += [
            "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
            "-virtfs", f"local,path={work}/share,mount_tag=share,security_model=none",
            "-kernel", str(kernel_image), "-initrd", f"{work}/initramfs",
            # A panic ends qemu (-no-reboot). The stall detectors know nothing of eight CPUs that share two.
            "-append", " ".join(["console=ttyS0 panic=-1 loglevel=5 mitigations=off nowatchdog "
                                 "rcupdate.rcu_cpu_stall_suppress=1", self.kernel_args]).strip(),
        ]
        return command
