"""The C calls of libnccl.so.2 that the backend uses, through ctypes.

The library is looked for, first found wins: $RAILCCL_LIBRARY, beside this package, in the build folder of the source
tree that this package lies in, and where the loader looks. It must be railccl's: another libnccl.so.2 has no host
memory. ctypes lets go of Python's lock during every call, so other threads run while one of them communicates.
"""
import ctypes
import os
import threading

UNIQUE_ID_BYTES = 128

# ncclDataType_t
INT8, UINT8, INT32, UINT32, INT64, UINT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16, FLOAT8E4M3, FLOAT8E5M2 = range(12)
# ncclRedOp_t
SUM, PROD, MAX, MIN, AVG = range(5)
# ncclScalarResidence_t
SCALAR_HOST_IMMEDIATE = 1

_SUCCESS, _IN_PROGRESS = 0, 7


class UniqueId(ctypes.Structure):
    """ncclUniqueId; C passes it by value."""
    _fields_ = [("internal", ctypes.c_char * UNIQUE_ID_BYTES)]

    @classmethod
    def from_bytes(cls, data):
        if len(data) != UNIQUE_ID_BYTES:
            raise ValueError(f"railccl: a unique id has {UNIQUE_ID_BYTES} bytes, not {len(data)}")
        return cls.from_buffer_copy(data)

    def to_bytes(self):
        return ctypes.string_at(ctypes.byref(self), UNIQUE_ID_BYTES)


_int, _size, _pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
_COMM, _STREAM = _pointer, _pointer

_PROTOTYPES = {
    "ncclGetVersion": [ctypes.POINTER(_int)],
    "ncclGetUniqueId": [ctypes.POINTER(UniqueId)],
    "ncclCommInitRank": [ctypes.POINTER(_COMM), _int, UniqueId, _int],
    "ncclCommDestroy": [_COMM],
    "ncclCommAbort": [_COMM],
    "ncclCommRevoke": [_COMM, _int],
    "ncclCommShrink": [_COMM, _pointer, _int, ctypes.POINTER(_COMM), _pointer, _int],
    "railCommGone": [_COMM, _pointer, ctypes.POINTER(_int)],
    "ncclAllReduce": [_pointer, _pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclReduce": [_pointer, _pointer, _size, _int, _int, _int, _COMM, _STREAM],
    "ncclBroadcast": [_pointer, _pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclReduceScatter": [_pointer, _pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclAllGather": [_pointer, _pointer, _size, _int, _COMM, _STREAM],
    "ncclAlltoAll": [_pointer, _pointer, _size, _int, _COMM, _STREAM],
    "ncclGather": [_pointer, _pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclScatter": [_pointer, _pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclSend": [_pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclRecv": [_pointer, _size, _int, _int, _COMM, _STREAM],
    "ncclGroupStart": [],
    "ncclGroupEnd": [],
    "ncclRedOpCreatePreMulSum": [ctypes.POINTER(_int), _pointer, _int, _int, _COMM],
    "ncclRedOpDestroy": [_int, _COMM],
}

_lock = threading.Lock()
_loaded = None  # (ctypes.CDLL, path); written once, under _lock


def _candidates():
    asked = os.environ.get("RAILCCL_LIBRARY")
    if asked:
        return [asked]  # who names one file means that file
    here = os.path.dirname(os.path.abspath(__file__))
    beside = os.path.join(here, "libnccl.so.2")
    built = os.path.join(here, "..", "..", os.environ.get("BUILD", "build"), "lib", "libnccl.so.2")
    return [path for path in (beside, os.path.normpath(built)) if os.path.exists(path)] + ["libnccl.so.2"]


def _load():
    tried = []
    for path in _candidates():
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL)
        except OSError as error:
            tried.append(f"{path}: {error}")
            continue
        if not hasattr(library, "railGetVersion"):
            tried.append(f"{path}: not railccl's (railGetVersion is missing)")
            continue
        for name, arguments in _PROTOTYPES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _int
        texts = {"ncclGetErrorString": [_int], "ncclGetLastError": [_COMM], "railGetVersion": []}
        for name, arguments in texts.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_char_p
        return library, path
    raise ImportError("railccl: no libnccl.so.2 of railccl found; set RAILCCL_LIBRARY to its path. Tried: "
                      + "; ".join(tried))


def load():
    """The library, loaded at the first call. ImportError says what was tried. Any thread."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load()
        return _loaded[0]


def path():
    """The file that is used, as it was given to the loader."""
    load()
    return _loaded[1]


def call(name, *arguments):
    """Calls `name`; RuntimeError with the call, the result and ncclGetLastError's text unless it succeeds."""
    library = load()
    if name.startswith("ncclCommInit"):
        library.railUseHostMemory(1)  # of this thread: tensors here are the CPU's, whatever the machine has
    result = getattr(library, name)(*arguments)
    if result != _SUCCESS:
        said = library.ncclGetErrorString(result).decode(errors="replace")
        why = library.ncclGetLastError(None).decode(errors="replace")
        raise RuntimeError(f"railccl: {name}: {said}" + (f": {why}" if why else ""))


def unique_id():
    """A new unique id, as bytes. Any thread."""
    made = UniqueId()
    call("ncclGetUniqueId", ctypes.byref(made))
    return made.to_bytes()
