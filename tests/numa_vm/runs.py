"""What is run on which machine: a table. Cases are those of numa_vm_placement; the names that begin with with_ need what
their run sets up."""

import dataclasses

PLACEMENT = r"^(a_great_many_|objects_|the_first_|an_array_|arrays_|calloc_|a_thread_that_)"
SHORT = (r"^(a_great_many_|objects_lie_on_the_node_of_their_thread$|an_array_lies|arrays_of_every_|arrays_that_grow_"
         r"|a_full_node_spills_|a_thread_that_)")


@dataclasses.dataclass
class Run:
    name: str
    cases: str                                   # a regular expression
    settings: list = dataclasses.field(default_factory=list)  # variables, for the library and for the cases
    front: list = dataclasses.field(default_factory=list)     # a command in front
    pools: list = None        # huge pages per node, where not those of numa_vm_test
    cpuset: tuple = None      # (CPUs, memory nodes) of a control group
    balancing: bool = False   # kernel.numa_balancing
    program: str = "numa_vm_placement"


def numactl(*words):
    return ["numactl", *words]


NODE_3 = numactl("--cpunodebind=3", "--membind=3")
ON_NODE_3 = r"^with_a_process_on_node_3_"
POOLS = [40, 40, 40, 40]

# The last node is a device's, which the firmware of the emulated machine cannot say: as `numaheap run` would pass it on.
WITH_A_DEVICE = ("NUMAHEAP_TOPOLOGY=nh1:r/p0-3/n0:524288:m:1:0,65536,100:0-1/n1:524288:m:1:0,65536,100:2-3"
                 "/n2:524288:m:1:0,262144,120:/n3:524288:m:1:0,16384,250:/n4:524288:m:1:4:"
                 "/d10,20,13,17,40,20,10,23,27,40,13,23,10,30,40,17,27,30,10,40x5,10")

RUNS = {
    "four_nodes": [
        Run("without a policy", r"^(?!with_|a_memory_only_|a_great_many_)"),
        Run("on huge pages of the pools", r"^a_great_many_|^with_even_pools_", ["NH_PAGES=hugetlb"], pools=[64, 64, 64, 64]),
        Run("on transparent huge pages", PLACEMENT + r"|^the_pages_of_an_array|^a_full_node_spills_",
            ["NUMAHEAP_HUGEPAGES=thp", "NH_PAGES=thp"]),
        Run("on base pages", PLACEMENT, ["NUMAHEAP_HUGEPAGES=off", "NH_PAGES=base"]),
        Run("a scavenge", r"^with_pools_a_scavenge_", ["NUMAHEAP_SCAVENGE_DELAY=400ms"], pools=[64, 64, 0, 0]),
        Run("NUMAHEAP_LIMIT", r"^with_a_limit_", ["NUMAHEAP_LIMIT=96M", "NUMAHEAP_SCAVENGE_DELAY=10m"]),
        # Not the cases that tell of each page: the kernel moves some.
        Run("NUMA balancing", r"^with_numa_balancing_|^an_array_lies|^a_full_node_spills_", balancing=True),
        Run("NUMAHEAP_POLICY=bind:1", r"^with_node_1_|^with_a_binding_to_node_1_", ["NUMAHEAP_POLICY=bind:1"]),
        Run("NUMAHEAP_POLICY=bind:0,1", r"^with_nodes_0_and_1_", ["NUMAHEAP_POLICY=bind:0,1"]),
        Run("NUMAHEAP_POLICY=preferred:1", r"^with_node_1_", ["NUMAHEAP_POLICY=preferred:1"]),
        Run("numactl --membind", r"^with_a_binding_to_node_3_", front=NODE_3),
        Run("numactl --membind=1", r"^with_a_binding_to_node_1_", front=numactl("--membind=1")),
        Run("numactl --interleave", r"^with_interleaving_", front=numactl("--interleave=all")),
        Run("numactl --preferred", r"^with_a_preference_", front=numactl("--preferred=2")),
        Run("NUMAHEAP_LARGE=interleave", r"^with_interleaving_|^with_large_objects_interleaved_", ["NUMAHEAP_LARGE=interleave"]),
        Run("a cpuset", r"^with_a_cpuset_of_nodes_2_and_3_", cpuset=("4-7", "2-3")),
        Run("a cpuset of one node", r"^with_a_binding_to_node_3_(everything|more)_", cpuset=("6-7", "3")),
        Run("threads that OpenMP binds", r"^arrays_of_every_", ["OMP_PROC_BIND=true", "OMP_PLACES=cores"]),
        Run("arrays beside pools", r"^arrays_", pools=[64, 64, 64, 64]),
        Run("arrays that rest", r"^with_a_short_delay_", ["NUMAHEAP_SCAVENGE_DELAY=400ms"]),
        Run("bound by --membind", ON_NODE_3, front=numactl("--membind=3"), pools=POOLS),
        Run("bound by --cpunodebind", ON_NODE_3, front=numactl("--cpunodebind=3"), pools=POOLS),
        Run("bound by both", ON_NODE_3, front=NODE_3, pools=POOLS),
        Run("bound by a cpuset", ON_NODE_3, cpuset=("6-7", "3"), pools=POOLS),
        Run("bound by NUMAHEAP_POLICY", ON_NODE_3, ["NUMAHEAP_POLICY=bind:3"], pools=POOLS),
        Run("bound by CPUs at the start", r"^with_node_0_at_the_start_", front=["taskset", "--cpu-list", "0-1"]),
        Run("a cpuset that changes", r"^with_a_cpuset_that_changes_", cpuset=("0-7", "0-3")),
        Run("a cpuset with memory elsewhere", r"^with_a_cpuset_elsewhere_", cpuset=("0-1", "2-3")),
        Run("static data", r"_small_static_", program="numa_vm_static_24"),
        Run("much static data", r"_transparent_", program="numa_vm_static_512"),
        Run("static data on the pools", r"_the_pools_", ["NUMAHEAP_STATIC=2m"], pools=[270, 270, 270, 270],
            program="numa_vm_static_512"),
    ],
    "two_nodes": [
        Run("without a policy", SHORT + r"|^a_consumer_"),
        Run("pools of most memory", r"^with_pools_of_most_memory_", pools=[360, 360]),
        Run("numactl --membind=1", r"^with_a_binding_to_node_1_", front=numactl("--cpunodebind=1", "--membind=1")),
        Run("numactl --interleave", r"^with_interleaving_", front=numactl("--interleave=all")),
    ],
    "eight_nodes": [
        Run("without a policy", SHORT + r"|^the_structures_"),
        Run("numactl --membind", r"^with_a_binding_to_node_3_everything_", front=NODE_3),
        Run("numactl --interleave", r"^with_interleaving_", front=numactl("--interleave=all")),
    ],
    "odd_nodes": [
        Run("without a policy", SHORT + r"|^calloc_|^the_first_|^a_memory_only_"),
        Run("pools", r"^with_pools_on_the_nodes_", pools=[64, 64]),
        Run("on transparent huge pages", SHORT, ["NUMAHEAP_HUGEPAGES=thp"]),
        Run("NUMAHEAP_POLICY=bind:3", r"^with_a_binding_to_node_3_everything_", ["NUMAHEAP_POLICY=bind:3"]),
        Run("NUMAHEAP_POLICY=preferred:1", r"^with_node_1_", ["NUMAHEAP_POLICY=preferred:1"]),
        Run("numactl --membind", r"^with_a_binding_to_node_3_everything_", front=numactl("--membind=3")),
    ],
    "kinds_of_memory": [
        Run("without a policy", r"^objects_lie_on_the_node_of_their_thread$|^an_array_lies|^a_full_node_spills_"),
        Run("memory by what it is good for", r"^with_kinds_"),
        Run("NUMAHEAP_POLICY=bandwidth", r"^with_the_policy_bandwidth_", ["NUMAHEAP_POLICY=bandwidth"]),
        Run("NUMAHEAP_LARGE=bandwidth:1M-16M", r"^with_sizes_for_fast_memory_", ["NUMAHEAP_LARGE=bandwidth:1M-16M"]),
        Run("a device", r"^with_a_device_", [WITH_A_DEVICE]),
        Run("NUMAHEAP_NODES=!0,4", r"^with_nodes_left_out_", ["NUMAHEAP_NODES=!0,4"]),
        Run("numactl --membind=2", r"^with_a_binding_to_node_2_", front=numactl("--membind=2")),
    ],
}
