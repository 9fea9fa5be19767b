"""Runs one function on n ranks, each a process of its own with torch.distributed made over "railccl".

The ranks are forked from this process, which has imported torch and started no thread: a job costs a fork, not an
import. What a rank raises, or a rank that hangs or dies, fails the job.
"""
import datetime
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback

import torch
import torch.distributed as dist

LIMIT_S = 120


def run(body, n=4, env=None, init=True, timeout_s=60, may_die=(), arguments=(), tcp=False):
    """body(rank, n, *arguments) on every rank. Returns what they returned, in rank order; RuntimeError says who failed.
    `env`: variables for all ranks, or a function rank -> variables. `init` False: the body makes its own groups and
    gets store= as well. `tcp`: the store is rank 0's, and dies with it."""
    folder = tempfile.mkdtemp(prefix="railccl-torch-")
    sys.stdout.flush()
    children = {}
    try:
        for rank in range(n):
            pid = os.fork()
            if pid == 0:
                _child(body, rank, n, env, init, timeout_s, folder, arguments, tcp)
            children[pid] = rank
        return _collect(children, n, folder, may_die)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _child(body, rank, n, env, init, timeout_s, folder, arguments, tcp):
    status = 1
    try:
        torch.set_num_threads(1)
        os.environ.update(env(rank) if callable(env) else env or {})
        import railccl.torch  # noqa: F401  (registers; the library is loaded with the first group)
        store = _tcp_store(folder, rank, n) if tcp else dist.FileStore(os.path.join(folder, "store"), n)
        if init:
            dist.init_process_group("railccl", store=store, rank=rank, world_size=n,
                                    timeout=datetime.timedelta(seconds=timeout_s))
            answer = body(rank, n, *arguments)
            if dist.is_initialized():
                dist.destroy_process_group()
        else:
            answer = body(rank, n, store, *arguments)
        with open(os.path.join(folder, f"answer {rank}"), "wb") as file:
            pickle.dump(answer, file)
        status = 0
    except BaseException:
        with open(os.path.join(folder, f"failure {rank}"), "w") as file:
            file.write(traceback.format_exc())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _tcp_store(folder, rank, n):
    path = os.path.join(folder, "port")
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, n, True, wait_for_workers=False)
        with open(path + " new", "w") as file:
            file.write(str(store.port))
        os.rename(path + " new", path)
        return store
    while not os.path.exists(path):
        time.sleep(0.005)
    return dist.TCPStore("127.0.0.1", int(open(path).read()), n, False, wait_for_workers=False)


def _collect(children, n, folder, may_die):
    left, end = dict(children), time.monotonic() + LIMIT_S
    statuses = {}
    while left and time.monotonic() < end:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in left:
            statuses[left.pop(pid)] = status
        elif pid == 0:
            time.sleep(0.005)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    said = []
    for rank in range(n):
        path = os.path.join(folder, f"failure {rank}")
        if os.path.exists(path):
            said.append(f"rank {rank}:\n{open(path).read()}")
        elif rank in left.values():
            said.append(f"rank {rank} did not end within {LIMIT_S} s")
        elif statuses[rank] != 0 and rank not in may_die:
            said.append(f"rank {rank} ended with status {statuses[rank]:#x}")
    if said:
        raise RuntimeError("\n".join(said))
    answers = [os.path.join(folder, f"answer {rank}") for rank in range(n)]
    return [pickle.load(open(path, "rb")) if os.path.exists(path) else None for path in answers]
