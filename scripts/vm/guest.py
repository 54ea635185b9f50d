"""What boots inside the emulated machine: a kernel from Debian's package, and an initramfs that holds busybox, the
modules for the host's files, and `init`."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

# 9p over virtio is how the guest sees the host's files; overlay makes them writable without being written.
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay"]


class GuestError(Exception):
    """The guest could not be put together; the text is for the user."""


def run(command, what, **options):
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise GuestError(f"{what}: {lines[-1] if lines else 'failed'}")
    return result.stdout


class Kernel:
    """A kernel image and its modules, unpacked from the package that linux-image-amd64 stands for."""

    def __init__(self, directory):
        self.directory = directory
        self.image = directory / "vmlinuz"
        self.version = (directory / "version").read_text(encoding="ascii").strip()

    @staticmethod
    def cache():
        """Where it is kept between runs; removing the directory fetches a new one."""
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numaheap" / "vm-kernel"

    @classmethod
    def get(cls):
        cache = cls.cache()
        if not (cache / "version").exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            # Made complete beside its place and then renamed, so that of two at once one wins and none sees half.
            with tempfile.TemporaryDirectory(prefix="vm-kernel.", dir=cache.parent) as scratch:
                new = cls._unpack(Path(scratch))
                try:
                    new.rename(cache)
                except OSError as error:
                    if not (cache / "version").exists():
                        raise GuestError(f"{cache} cannot be made: {error.strerror}") from None
        return cls(cache)

    @staticmethod
    def _unpack(scratch):
        def package():
            depends = run(["apt-cache", "depends", "linux-image-amd64"], "no kernel package")
            return re.search(r"Depends: (linux-image-[0-9]\S*)", depends)
        # _apt, as which apt likes to download, has no access to a private directory.
        fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"]
        name = package()
        if name is None or subprocess.run([*fetch, name[1]], cwd=scratch, capture_output=True,
                                          check=False).returncode != 0:
            # A fresh machine has no lists, and old ones name versions that are gone.
            run(["apt-get", "-q", "update"], "the package lists could not be fetched")
            name = package()
            if name is None:
                raise GuestError("Debian's package linux-image-amd64 is not in the package lists")
            run([*fetch, name[1]], "the kernel could not be downloaded", cwd=scratch)
        [archive] = scratch.glob("*.deb")
        unpacked = scratch / "unpacked"
        run(["dpkg", "-x", str(archive), str(unpacked)], "the kernel's package could not be unpacked")
        [image] = unpacked.glob("boot/vmlinuz-*")
        version = image.name.removeprefix("vmlinuz-")
        new = scratch / "kernel"
        new.mkdir()
        shutil.copyfile(image, new / "vmlinuz")
        # usr/lib in packages of Debian 13 and later; modprobe looks into lib.
        [modules] = [path for path in (unpacked / "lib/modules", unpacked / "usr/lib/modules") if path.is_dir()]
        shutil.move(modules, new / "lib" / "modules")
        run(["depmod", "-b", str(new), version], "depmod failed")
        (new / "version").write_text(version + "\n", encoding="ascii")
        return new

    def module_files(self):
        """The modules to load, in that order, each after those it depends on."""
        files = []
        for module in MODULES:
            shown = run(["modprobe", "-d", str(self.directory), "-S", self.version, "--show-depends", module],
                        f"the kernel has no module {module}")
            for line in shown.splitlines():
                word = line.split()
                if word[0] == "insmod" and word[1] not in files:
                    files.append(word[1])
        return files


def write_initramfs(kernel, init, work):
    """Writes work/initramfs."""
    tree = work / "tree"
    for directory in ("bin", "modules", "proc", "sys", "dev", "share", "lower", "upper", "host"):
        (tree / directory).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    shutil.copy(init, tree / "init")
    (tree / "init").chmod(0o755)
    for place, file in enumerate(kernel.module_files()):
        shutil.copy(file, tree / "modules" / f"{place:02}-{Path(file).name}")
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    archive = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=tree, input=names.encode(),
                             capture_output=True, check=False)
    if archive.returncode != 0:
        raise GuestError(f"cpio: {archive.stderr.decode(errors='replace').strip()}")
    (work / "initramfs").write_bytes(archive.stdout)
    shutil.rmtree(tree)


def command_script(command):
    """The shell script that runs CMD in the guest as if here: same directory, same environment."""
    environment = [f"{name}={value}" for name, value in os.environ.items()]
    return f"cd {shlex.quote(os.getcwd())} || exit 126\nexec env -i {shlex.join(environment)} {shlex.join(command)}\n"
