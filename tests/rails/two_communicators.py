"""One rank of two: a communicator that moves nothing, then, when FOLDER/go is there, one made of it and an AllReduce.
    two_communicators.py LIBRARY FOLDER RANK"""
import ctypes
import os
import sys
import time

library, folder, rank = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3])
COUNT = 1 << 20


class Id(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 128)]


def must(result):
    if result != 0:
        library.ncclGetLastError.restype = ctypes.c_char_p
        sys.exit("rank %d: %d: %s" % (rank, result, library.ncclGetLastError(None).decode()))


def wait_for(name):
    while not os.path.exists(os.path.join(folder, name)):
        time.sleep(0.01)


def put(name, data=b""):
    with open(os.path.join(folder, name + ".part"), "wb") as f:
        f.write(data)
    os.rename(os.path.join(folder, name + ".part"), os.path.join(folder, name))


ident = Id()
if rank == 0:
    must(library.ncclGetUniqueId(ctypes.byref(ident)))
    put("id", bytes(ident))
wait_for("id")
with open(os.path.join(folder, "id"), "rb") as f:
    ident = Id.from_buffer_copy(f.read())
first, second = ctypes.c_void_p(), ctypes.c_void_p()
library.ncclCommInitRank.argtypes = [ctypes.c_void_p, ctypes.c_int, Id, ctypes.c_int]
must(library.ncclCommInitRank(ctypes.byref(first), 2, ident, rank))
put("ready%d" % rank)
wait_for("go")
began = time.monotonic()
must(library.ncclCommSplit(first, 0, rank, ctypes.byref(second), None))
give = (ctypes.c_float * COUNT)(*([rank + 1.0] * COUNT))
got = (ctypes.c_float * COUNT)()
must(library.ncclAllReduce(give, got, ctypes.c_size_t(COUNT), 7, 0, second, None))
if list(got) != [3.0] * COUNT:
    sys.exit("rank %d: a wrong sum" % rank)
must(library.ncclCommDestroy(second))
must(library.ncclCommDestroy(first))
print("rank %d: right after %.1f s" % (rank, time.monotonic() - began))
