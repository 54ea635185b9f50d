# Recipe for Spack 1.0 and later: see README.md beside it. example.org stands for the place that you clone from.
from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *


class Numaheap(CMakePackage):
    """A malloc for Linux HPC nodes: huge pages, and every object on the NUMA node of the CPU that asked for it."""

    homepage = "https://example.org/numaheap"
    git = "https://example.org/numaheap.git"

    license("Apache-2.0")

    version("main", branch="main")

    # Not Release: its -O3 -DNDEBUG is nothing that numaheap is tested with.
    variant(
        "build_type",
        default="RelWithDebInfo",
        values=("RelWithDebInfo", "Debug"),
        description="CMake build type",
    )
    variant("hwloc", default=True, description="Ask hwloc, too, for kinds of memory and distances")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    # Opened at run time, found by the rpath that Spack gives to the library.
    depends_on("hwloc@2:", when="+hwloc")

    requires("platform=linux", msg="numaheap is for Linux with glibc")
    requires("target=x86_64:", msg="numaheap is for x86-64")
    conflicts("%gcc@:11", msg="numaheap is built with g++ 12 or later")

    def cmake_args(self):
        args = [
            self.define("NUMAHEAP_BUILD_TESTS", False),
            self.define("NUMAHEAP_BUILD_BENCH", False),
        ]
        if self.spec.satisfies("~hwloc"):
            # The system's header is not to be looked for either.
            args.append(self.define("NUMAHEAP_HWLOC_INCLUDE_DIR", ""))
        return args

    def test_run(self):
        """a program runs on the installed library"""
        numaheap = which(self.prefix.bin.numaheap)
        numaheap("run", "--", "true")
