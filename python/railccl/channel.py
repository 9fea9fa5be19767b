"""One communicator and the one thread that works for it.

The calls of a communicator come from one thread at a time, and on host memory a call returns when the operation is
complete. So each channel has a thread of its own, which runs jobs in the order in which they were submitted. The thread
knows nothing of the process group: a group that nobody holds any more is collected, and closes its channels.

    submit ──► queue ──► the channel's thread: joins the communicator, then job after job ──► Work finished or failed
                                    ▲
                         the watchdog: a job is late ──► ncclCommAbort

A channel is alive, failed (`failure` says why; every later job fails with that text), or closed.
"""
import atexit
import collections
import ctypes
import os
import queue
import threading
import time
import weakref

import torch

from railccl import library
from railccl.work import Work

_CLOSE = None          # in the queue: no more jobs
_EXIT_GRACE_S = 1.0    # what a job that is still running when the program ends gets
_CLOSE_GRACE_S = 60.0  # twice RAILCCL_FINALIZE_TIMEOUT_S's default: ncclCommDestroy answers before that

# C++ callers of torch before 2.7 keep only the C++ half of a Work; its Python half, which knows when it is complete,
# must be kept alive here. They wait at once or hold two at most (broadcasts of DDP's start).
_CPP_KEEPS_PYTHON = tuple(int(n) for n in torch.__version__.split(".")[:2]) >= (2, 7)
_RECENT = 0 if _CPP_KEEPS_PYTHON else 8


class Channel:
    def __init__(self, name, rank, size, timeout_s, get_id, comm=None):
        """Starts to join at once: `get_id()` gives the 128 bytes, on the channel's thread. Or takes over `comm`."""
        self.name, self.failure = name, None
        self._rank, self._size, self._timeout_s = rank, size, timeout_s
        self._pid = os.getpid()
        self._queue = queue.SimpleQueue()
        self._recent = collections.deque(maxlen=_RECENT)
        self._lock = threading.Lock()  # _comm, _running, failure, _closing
        self._comm = None              # ctypes.c_void_p; None before joining and after the end
        self._running = None           # (work, deadline) of the job that runs
        self._closing = False
        self.joined = Work(f"joining {name}", [])
        self._thread = threading.Thread(target=self._run, args=(get_id, comm), name=f"railccl {name}", daemon=True)
        self._thread.start()
        _watchdog.watch(self)

    # --- for the process group; any thread of the process that made it ---

    def submit(self, work, job, timeout_s=None):
        """`job(comm)` runs on the channel's thread and raises what goes wrong. Returns `work`."""
        if os.getpid() != self._pid:
            raise RuntimeError(f"railccl: {self.name} belongs to process {self._pid} and this is a child of it "
                               f"(process {os.getpid()}); a child makes a process group of its own")
        with self._lock:
            if self._closing:
                raise RuntimeError(f"railccl: {work.what}: the process group was destroyed")
            self._queue.put((work, job, timeout_s))
        if _RECENT:
            self._recent.append(work)
        return work

    def close(self, at_exit=False):
        """Completes what was submitted, leaves the communicator, ends the thread. At the end of the program what is
        still running is aborted instead. Idempotent; nothing in a child of the process that made it."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._closing:
                self._closing = True
                self._queue.put(_CLOSE)
        if threading.current_thread() is self._thread:
            return  # a callback let go of the last reference
        if at_exit:
            self._thread.join(_EXIT_GRACE_S)
            if self._thread.is_alive() and self._running is not None:
                self.abort("the program ended before it was complete")
        aborted = self.failure is not None  # the thread may still be in a call that cannot be aborted: joining
        self._thread.join(_EXIT_GRACE_S if aborted else self._timeout_s + _CLOSE_GRACE_S)

    def abort(self, why):
        """Ends the communicator now; jobs that were submitted fail with `why`. Any thread."""
        self._abort(why, None)

    def revoke(self):
        """Ends the operations of the communicator on all its ranks, and keeps it. Any thread."""
        with self._lock:
            if self._comm is None:
                raise RuntimeError(f"railccl: {self.name} has no communicator: {self.failure or 'it is being made'}")
            library.call("ncclCommRevoke", self._comm, 0)

    def set_timeout(self, timeout_s):
        self._timeout_s = timeout_s

    # --- the watchdog's ---

    def late(self, now):
        """Aborts when the running job is over its time. Returns the seconds until the next look is due."""
        running = self._running
        if running is None:
            return self._timeout_s / 4
        work, deadline, limit_s = running
        if now < deadline:
            return deadline - now
        self._abort(f"{work.what} did not complete within {limit_s:g} s (the timeout of init_process_group or "
                    "new_group, unless the call had its own); the communicator was aborted", running)
        return self._timeout_s / 4

    def _abort(self, why, only_if):
        with self._lock:
            if self.failure is not None or (only_if is not None and self._running is not only_if):
                return
            self.failure = why
            comm, self._comm = self._comm, None
            running = self._running
        if comm is not None:
            library.load().ncclCommAbort(comm)
        if running is not None:
            running[0].finish(RuntimeError(f"railccl: {why}"))
        self._fail_queued()

    def _fail_queued(self):
        try:
            while True:
                item = self._queue.get_nowait()
                if item is _CLOSE:
                    self._queue.put(_CLOSE)
                    return
                item[0].finish(RuntimeError(f"railccl: {item[0].what}: {self.failure}"))
        except queue.Empty:
            return

    # --- the channel's thread ---

    def _run(self, get_id, comm):
        torch.set_grad_enabled(False)  # of this thread
        self._step(self.joined, lambda _: self._join(get_id, comm), None)
        while True:
            item = self._queue.get()
            if item is _CLOSE:
                break
            self._step(*item)
            del item  # the tensors are the caller's again
        with self._lock:
            comm, self._comm = self._comm, None
            self.failure = self.failure or "the process group was destroyed"
        if comm is not None:
            library.load().ncclCommDestroy(comm)

    def _join(self, get_id, comm):
        library.load()
        if comm is None:
            comm = ctypes.c_void_p()
            joined_id = library.UniqueId.from_bytes(get_id())
            library.call("ncclCommInitRank", ctypes.byref(comm), self._size, joined_id, self._rank)
        with self._lock:
            if self.failure is None:
                self._comm = comm
                return
        library.load().ncclCommAbort(comm)  # too late

    def _step(self, work, job, timeout_s):
        limit_s = timeout_s or self._timeout_s
        with self._lock:
            failure, comm = self.failure, self._comm
            if failure is None:
                self._running = (work, time.monotonic() + limit_s, limit_s)
        if failure is not None:
            work.finish(RuntimeError(f"railccl: {work.what}: {failure}"))
            return
        error = None
        try:
            job(comm)
        except BaseException as raised:  # whatever it is belongs to who waits for the work
            error = raised if isinstance(raised, RuntimeError) else RuntimeError(f"railccl: {work.what}: {raised!r}")
        with self._lock:
            self._running = None
            if self.failure is not None:
                error = RuntimeError(f"railccl: {self.failure}")
            elif error is not None and work is self.joined:
                self.failure = str(error)
        work.finish(error)


class _Watchdog:
    """One sleeping thread per process, started with the first channel. It looks at least once a second."""

    def __init__(self):
        self._channels, self._pid, self._lock = weakref.WeakSet(), None, threading.Lock()

    def watch(self, channel):
        with self._lock:
            if self._pid != os.getpid():  # the first, or the first of a forked child
                self._pid, self._channels = os.getpid(), weakref.WeakSet()
                threading.Thread(target=self._run, name="railccl watchdog", daemon=True).start()
            self._channels.add(channel)

    def watched(self):
        with self._lock:
            return list(self._channels)

    def _run(self):
        while True:
            channels = self.watched()
            now = time.monotonic()
            pause_s = min([channel.late(now) for channel in channels], default=1.0)
            del channels
            time.sleep(min(max(pause_s, 0.01), 1.0))


_watchdog = _Watchdog()


def all_channels():
    """Of this process."""
    return _watchdog.watched()


@atexit.register
def _at_exit():
    """A program that ends without destroy_process_group() says goodbye all the same."""
    for channel in _watchdog.watched():
        channel.close(at_exit=True)
