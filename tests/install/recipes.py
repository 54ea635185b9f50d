"""recipes.py PACKAGING BUILD PREFIX VERSION PACKAGES: the recipes against the project as it is.

Reads package.py and the easyconfig with stand-ins for Spack and EasyBuild, and compares what they and the files for
containers name (options of CMake, files, packages, the version) with a built tree, an unpacked archive in PREFIX and
the .deb files in PACKAGES.
"""
import pathlib
import re
import sys
import types

packaging, build, prefix = (pathlib.Path(word) for word in sys.argv[1:4])
version, packages = sys.argv[4], pathlib.Path(sys.argv[5])
failures = []


def expect(condition, text):
    if not condition:
        failures.append(text)


options = set(re.findall(r"^(\w+):", (build / "CMakeCache.txt").read_text(), re.M))


def check_options(recipe, text):
    named = re.findall(r"-D(\w+)=", text)
    expect(named, f"{recipe}: names no option")
    for name in named:
        expect(name in options, f"{recipe}: CMake knows no {name}")


def spack():
    """Directives are noted; define() gives CMake's argument, as Spack's does."""
    said = []

    class CMakePackage:
        @staticmethod
        def define(name, value):
            return f"-D{name}={value}"

    cmake = types.ModuleType("spack_repo.builtin.build_systems.cmake")
    cmake.CMakePackage = CMakePackage
    package = types.ModuleType("spack.package")
    for directive in ("conflicts", "depends_on", "license", "requires", "variant", "version"):
        setattr(package, directive, lambda *words, _name=directive, **named: said.append((_name, words, named)))
    started = []
    package.which = lambda path: lambda *words: started.append((path, words))
    parents = ("spack", "spack_repo", "spack_repo.builtin", "spack_repo.builtin.build_systems")
    sys.modules.update({name: types.ModuleType(name) for name in parents})
    sys.modules.update({cmake.__name__: cmake, package.__name__: package})

    names = {}
    exec(compile((packaging / "package.py").read_text(), "package.py", "exec"), names)
    recipe = names["Numaheap"]()
    for variants in ("+hwloc", "~hwloc"):
        recipe.spec = types.SimpleNamespace(satisfies=lambda text, has=variants: text == has)
        check_options(f"package.py {variants}", " ".join(recipe.cmake_args()))
    recipe.prefix = types.SimpleNamespace(bin=types.SimpleNamespace(numaheap=str(prefix / "bin/numaheap")))
    recipe.test_run()
    expect(started == [(str(prefix / "bin/numaheap"), ("run", "--", "true"))], f"package.py: its test starts {started}")
    needed = [words[0] for name, words, _ in said if name == "depends_on"]
    wanted = re.search(r"cmake_minimum_required\(VERSION ([\d.]+)", (packaging.parent / "CMakeLists.txt").read_text()).group(1)
    expect(f"cmake@{wanted}:" in needed, f"package.py: CMake {wanted} is needed, and it asks for {needed}")


def easybuild():
    path = packaging / f"numaheap-{version}-GCCcore-12.3.0.eb"
    # Names that EasyBuild gives to every easyconfig.
    names = {"SOURCE_TAR_GZ": "%(name)s-%(version)s.tar.gz", "SHLIB_EXT": "so"}
    exec(compile(path.read_text(), path.name, "exec"), names)
    expect(names["version"] == version, f"{path.name}: has version {names['version']}")
    toolchain = names["toolchain"]
    expect(path.name == f"{names['name']}-{version}-{toolchain['name']}-{toolchain['version']}.eb", f"{path.name}: its name")
    check_options(path.name, names["configopts"])
    for kind, found in (("files", pathlib.Path.is_file), ("dirs", pathlib.Path.is_dir)):
        for name in names["sanity_check_paths"][kind]:
            expect(found(prefix / name), f"{path.name}: {name} is not installed")


def containers():
    text = (packaging / "Dockerfile").read_text()
    check_options("Dockerfile", text)
    made = [package.name for package in packages.glob("*.deb")]
    if not made:
        print("skipped: names of .deb files in the files for containers, as there are none")
        return
    for pattern in re.findall(r"/build/(\S+\.deb)", text):
        expect(list(packages.glob(pattern)), f"Dockerfile: no package is called {pattern}")
    for name in re.findall(r"build/packages/(\S+\.deb)", (packaging / "numaheap.def").read_text()):
        expect(name in made, f"numaheap.def: no package is called {name}: {made}")


spack()
easybuild()
containers()
for text in failures:
    print("FAILED: " + text)
sys.exit(1 if failures else 0)
