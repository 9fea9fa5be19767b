"""What check_torch_wheel.sh asks a Python environment: which NCCL do its packages call? One question per run."""
import ctypes
import os
import sys


def file_of(function):
    """The file that a function of a library lies in."""
    class Info(ctypes.Structure):
        _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("address", ctypes.c_void_p)]
    info = Info()
    assert ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    return os.path.realpath(info.file.decode())


def mapped():
    """All libnccl.so that this process has mapped."""
    lines = open("/proc/self/maps").read().splitlines()
    return sorted({line.split(None, 5)[5] for line in lines if "/libnccl.so" in line})


def torch(before=None):
    if before:
        ctypes.CDLL(before, mode=ctypes.RTLD_GLOBAL)
    import torch
    import torch.distributed
    library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cuda.so"))
    print("torch", torch.__version__, "available", torch.distributed.is_nccl_available())
    print("calls", file_of(library.ncclAllReduce))
    print("id", torch.cuda.nccl.unique_id()[:8])
    print("mapped", *mapped())


def cupy():
    from cupy.cuda import nccl
    print("cupy, version", nccl.get_version())
    print("id", bytes(nccl.get_unique_id()[:8]))
    print("mapped", *mapped())


def cupy_sum(ranks):
    """Ranks as processes add up ordinary memory through cupy's communicator."""
    import multiprocessing
    from cupy.cuda import nccl
    identity = nccl.get_unique_id()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=cupy_rank, args=(ranks, identity, rank)) for rank in range(1, ranks)]
    for worker in workers:
        worker.start()
    cupy_rank(ranks, identity, 0)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0, worker.exitcode
    print("sum right on", ranks, "ranks")


def cupy_rank(ranks, identity, rank):
    import numpy
    from cupy.cuda import nccl
    comm = nccl.NcclCommunicator(ranks, identity, rank)
    data = numpy.arange(10007, dtype=numpy.float32) * (rank + 1)
    comm.allReduce(data.ctypes.data, data.ctypes.data, data.size, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, 0)
    assert (data == numpy.arange(10007, dtype=numpy.float32) * (ranks * (ranks + 1) // 2)).all()
    comm.destroy()


if __name__ == "__main__":
    {"torch": torch, "cupy": cupy, "cupy_sum": lambda n: cupy_sum(int(n))}[sys.argv[1]](*sys.argv[2:])
