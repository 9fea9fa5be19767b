"""Going on in the same processes when workers have died.

    try:
        loss.backward()
    except RuntimeError as error:                  # "... rank 2 (host a, pid 4711) died ..."
        railccl.torch.shrink_group()               # the default group, without those who are gone
        ddp = DistributedDataParallel(ddp.module)  # which holds the old group

All survivors call it; whoever still waits in an operation is told by the first one that calls (ncclCommRevoke), so its
wait() raises, too. The store of the old group may have been in a process that died: the new group gets one of its own.
"""
import ctypes
import datetime
import os
import socket

import torch.distributed as dist

from railccl import channel, library

_SHRINK_ABORT = 1
_ATTEMPTS = 3       # one more worker may die while the others shrink
_ADDRESS_BYTES = 256

_handed_over = None  # the communicator of the group that torch is about to make


def take_over():
    """For the process group that is being made: the communicator that it has already, or None."""
    global _handed_over
    comm, _handed_over = _handed_over, None
    return comm


def gone():
    """The ranks of the default group whose processes are no more."""
    return _on_main(_default_group(), "asking who is gone", _ask_gone)


def shrink_group(ranks_to_exclude=None):
    """Makes the default group anew without `ranks_to_exclude` (None: those who are gone), and returns it.

    Called by all that stay, with the same ranks. Every other group of the process ends with the old default group; those
    that are still wanted are made again with new_group. Ranks are numbered anew, in the old order. RuntimeError: a rank
    did not come, or its list is another; the old group stays as it is, and the call may be made again."""
    global _handed_over
    old = _default_group()
    old._main.revoke()
    comm, excluded = _shrink(old, ranks_to_exclude)
    timeout = datetime.timedelta(seconds=old._timeout_s)
    rank = old.getRank() - sum(r < old.getRank() for r in excluded)
    size = old.getSize() - len(excluded)
    try:
        store = _new_store(comm, rank, size, timeout)
        for other in channel.all_channels():
            other.abort("its group was shrunk")
        dist.destroy_process_group()
        _handed_over = comm
        dist.init_process_group("railccl", store=store, rank=rank, world_size=size, timeout=timeout)
    except BaseException:
        if take_over() is not None or not dist.is_initialized():
            library.load().ncclCommAbort(comm)
        raise
    return _default_group()


def _default_group():
    group = dist.distributed_c10d._get_default_group()
    if not hasattr(group, "_main"):
        raise RuntimeError(f"railccl: the default group is of {type(group).__name__}, not of the backend railccl")
    return group


def _on_main(group, what, job):
    """Runs job(comm) on the thread of the group's communicator and returns its result."""
    result = []
    work = channel.Work(f"{what} of {group._group}, rank {group.getRank()}", [])
    group._main.submit(work, lambda comm: result.append(job(comm, group.getSize())))
    work.wait()
    return result[0]


def _ask_gone(comm, size):
    ranks, n = (ctypes.c_int * size)(), ctypes.c_int()
    library.call("railCommGone", comm, ranks, ctypes.byref(n))
    return list(ranks[:n.value])


def _shrink(old, wanted):
    """The new communicator and the ranks that it is without."""
    for attempt in range(_ATTEMPTS):
        excluded = sorted(set(gone() if wanted is None else wanted))

        def job(comm, _):
            smaller, ranks = ctypes.c_void_p(), (ctypes.c_int * max(1, len(excluded)))(*excluded)
            library.call("ncclCommShrink", comm, ranks, len(excluded), ctypes.byref(smaller), None, _SHRINK_ABORT)
            return smaller

        try:
            return _on_main(old, "shrinking", job), excluded
        except RuntimeError:
            if wanted is not None or attempt == _ATTEMPTS - 1 or gone() == excluded:
                raise


def _new_store(comm, rank, size, timeout):
    """A store of the new rank 0, whose address travels over the new communicator."""
    store, address = None, ctypes.create_string_buffer(_ADDRESS_BYTES)
    if rank == 0:
        store = dist.TCPStore(_own_address(), 0, size, True, timeout, wait_for_workers=False)
        address.value = f"{_own_address()} {store.port}".encode()
    at = ctypes.addressof(address)
    library.call("ncclBroadcast", at, at, _ADDRESS_BYTES, library.UINT8, 0, comm, None)
    if rank == 0:
        return store
    host, port = address.value.decode().split()
    return dist.TCPStore(host, int(port), size, False, timeout, wait_for_workers=False)


def _own_address():
    """By which the other hosts know this one: that of the way to the launch's first host, else the host's name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((os.environ.get("MASTER_ADDR", socket.gethostname()), 9))
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
