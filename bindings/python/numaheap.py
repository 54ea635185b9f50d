"""numpy arrays on NUMA nodes, statistics and heap profiles of the numaheap allocator. README.md tells how it is used.

All functions may be called from several threads.
"""
import ctypes
import errno
import json
import os
from collections import namedtuple

__all__ = ["Placement", "on_node", "LOCAL", "INTERLEAVED", "FIRST_TOUCH", "BANDWIDTH", "LATENCY", "CAPACITY", "WEIGHTED",
           "empty", "zeros", "node_of", "verify", "nodes", "local_node", "trim", "stats", "profile_start", "profile_stop",
           "profile_dump", "version"]

_STRICT, _ZERO, _NOSCAN = 1, 2, 4
_CACHE_LINE = 64

Placement = namedtuple("Placement", "where node flags")
Placement.__doc__ = "Where memory shall lie, as struct numaheap_placement in numaheap.h."
LOCAL = Placement(0, -1, 0)
INTERLEAVED = Placement(2, -1, 0)
FIRST_TOUCH = Placement(3, -1, 0)
BANDWIDTH = Placement(4, -1, 0)
LATENCY = Placement(5, -1, 0)
CAPACITY = Placement(6, -1, 0)
WEIGHTED = Placement(7, -1, 0)


def on_node(node, strict=False):
    """On that node; with strict no other one helps out when it is full."""
    return Placement(1, node, _STRICT if strict else 0)


class _CPlacement(ctypes.Structure):
    _fields_ = [("where", ctypes.c_int32), ("node", ctypes.c_int32), ("flags", ctypes.c_uint32)]


_FUNCTIONS = {
    "version": (ctypes.c_char_p,),
    "alloc": (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(_CPlacement)),
    "free": (None, ctypes.c_void_p),
    "node_of": (ctypes.c_int, ctypes.c_void_p),
    "verify": (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(_CPlacement)),
    "node_count": (ctypes.c_uint,),
    "node_id": (ctypes.c_int, ctypes.c_uint),
    "local_node": (ctypes.c_int,),
    "trim": (ctypes.c_size_t,),
    "stats_json": (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t),
    "profile_start": (ctypes.c_int, ctypes.c_size_t),
    "profile_stop": (None,),
    "profile_dump": (ctypes.c_int, ctypes.c_char_p),
}
_SONAME = "libnumaheap.so.0"


def _load():
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "numaheap_version"):
        name = os.environ.get("NUMAHEAP_LIBRARY") or _SONAME
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            raise ImportError("numaheap: cannot load the library: %s; preload it, or set NUMAHEAP_LIBRARY to the path of %s"
                              % (error, _SONAME)) from None
    for name, (result, *arguments) in _FUNCTIONS.items():
        try:
            function = getattr(library, "numaheap_" + name)
        except AttributeError:
            raise ImportError("numaheap: the library in use has no numaheap_%s: it is none, or older than this package"
                              % name) from None
        function.restype, function.argtypes = result, arguments
    return library


_library = _load()
version = _library.numaheap_version().decode()

_MEANINGS = {
    errno.EINVAL: (ValueError, "no such place, or a node that does not exist or has no memory"),
    errno.EPERM: (PermissionError, "this process may not use the node, or the kernel lets it bind no memory"),
    errno.ENOMEM: (MemoryError, "not enough memory at this place"),
}


def _error():
    code = ctypes.get_errno()
    kind, text = _MEANINGS.get(code, (OSError, os.strerror(code)))
    return kind(code, text) if issubclass(kind, OSError) else kind(text)


class _Memory:
    """Owns a piece of the heap. An array that is made from it keeps it alive, and so does each view of that array."""

    def __init__(self, size, placement, flags):
        here = _CPlacement(placement.where, placement.node, placement.flags | flags)
        self._address = None
        self._address = _library.numaheap_alloc(size, _CACHE_LINE, here)
        if self._address is None:
            raise _error()
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (self._address, False)}

    # The function is bound here because the module's names may be gone when the interpreter ends.
    def __del__(self, free=_library.numaheap_free):
        free(self._address)


def _array(shape, dtype, placement, order, flags):
    import numpy

    dtype = numpy.dtype(dtype)
    if dtype.hasobject:
        raise ValueError("arrays of Python objects cannot be placed")
    extents = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    size = dtype.itemsize
    for extent in extents:
        if extent < 0:
            raise ValueError("negative dimensions are not allowed")
        size *= int(extent)
    if size > ctypes.c_size_t(-1).value >> 1:
        raise MemoryError(_MEANINGS[errno.ENOMEM][1])
    # Numbers hold no pointers, so small arrays may be packed more densely.
    memory = numpy.asarray(_Memory(size, placement, flags | _NOSCAN))
    return numpy.ndarray(extents, dtype, memory, order=order)


def empty(shape, dtype=float, placement=LOCAL, order="C"):
    """As numpy.empty, at a place. Aligned to a cache line."""
    return _array(shape, dtype, placement, order, 0)


def zeros(shape, dtype=float, placement=LOCAL, order="C"):
    """As numpy.zeros, at a place. Memory that the kernel hands out as zeroes is not written to, so that FIRST_TOUCH holds."""
    return _array(shape, dtype, placement, order, _ZERO)


def node_of(array):
    """The node of the first page of an array, or of the page at an address (an int). None: nobody has written to it yet."""
    address = array if isinstance(array, int) else array.__array_interface__["data"][0]
    node = _library.numaheap_node_of(address)
    if node >= 0:
        return node
    if ctypes.get_errno() == errno.ENOENT:
        return None
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def verify(array, placement):
    """Whether all of a contiguous array lies where the placement asks for it; what nobody has written to does not count."""
    if not array.flags.forc:
        raise ValueError("the array is not contiguous")
    answer = _library.numaheap_verify(array.__array_interface__["data"][0], array.nbytes, _CPlacement(*placement))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer == 1


def nodes():
    """The numbers of the nodes that may be asked for."""
    return [_library.numaheap_node_id(index) for index in range(_library.numaheap_node_count())]


def local_node():
    """The node that LOCAL means here and now."""
    return _library.numaheap_local_node()


def trim():
    """Gives free memory back to the operating system. Returns the number of bytes."""
    return _library.numaheap_trim()


def stats():
    """All figures as a dict; numaheap.h explains the keys at numaheap_stats_json."""
    capacity = 0
    while True:
        text = ctypes.create_string_buffer(capacity + 1)
        length = _library.numaheap_stats_json(text, capacity + 1)
        if length <= capacity:
            return json.loads(text.value.decode()) if length else {}
        capacity = 2 * length  # figures grow while they are written


def _require_malloc():
    """A profile is one of malloc, and tells nothing where malloc is another library's."""
    if _address_of(ctypes.CDLL(None).malloc) != _address_of(_library.malloc):
        raise RuntimeError("the malloc of this process is not numaheap's: preload libnumaheap.so to profile it")


def _address_of(function):
    return ctypes.cast(function, ctypes.c_void_p).value


def profile_start(interval=0):
    """Samples one object in about every interval bytes from now on, 0: 512 KiB; or changes the interval."""
    _require_malloc()
    if _library.numaheap_profile_start(interval) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def profile_stop():
    """Ends it. Objects that were sampled are followed until they are freed."""
    _library.numaheap_profile_stop()


def profile_dump(path):
    """Writes what was sampled so far, for `numaheap profile`. %p, %h, %r, %e in the name: process, host, rank, program."""
    _require_malloc()
    if _library.numaheap_profile_dump(os.fsencode(path)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, "nothing was ever sampled" if code == errno.EINVAL else os.strerror(code), path)
