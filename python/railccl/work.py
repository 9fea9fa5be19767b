"""What an operation of torch.distributed returns: something to wait for."""
import datetime
import threading

import torch
from torch._C._distributed_c10d import Work as _TorchWork


class Work(_TorchWork):
    """Finished once, by the channel's thread or by the watchdog, whoever comes first.

    Any thread may wait. `result` is what wait-ers of the future get: the list of output tensors.
    """

    def __init__(self, what, result, source=-1):
        super().__init__()
        self.what = what        # "allreduce 17 of group 0": for messages
        self._result = result
        self._source = source   # receives: the sender
        self._guard = threading.Lock()
        self._unfinished = threading.Lock()  # held until the end
        self._unfinished.acquire()
        self._error = None
        self._future = None     # made when somebody asks for it

    # --- for the channel ---

    def finish(self, error=None):
        """False: it was finished before. Callbacks of the future run here, on the calling thread."""
        with self._guard:
            if not self._unfinished.locked():
                return False
            self._error = error
            self._unfinished.release()
            future = self._future
        if future is not None:
            future.set_result(None)
        return True

    # --- torch.distributed.Work ---

    def wait(self, timeout=datetime.timedelta(0)):
        seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else float(timeout)
        if not self._unfinished.acquire(timeout=seconds if seconds > 0 else -1):
            raise RuntimeError(f"railccl: {self.what} is not complete after the {seconds:g} s that wait() was given")
        self._unfinished.release()
        if self._error is not None:
            raise RuntimeError(str(self._error)) from self._error
        return True

    def synchronize(self):
        self.wait()

    def is_completed(self):
        return not self._unfinished.locked()

    def is_success(self):
        return self.is_completed() and self._error is None

    def exception(self):
        return self._error

    def result(self):
        return self._result

    def source_rank(self):
        return self._source

    _source_rank = source_rank

    def get_future(self):
        """The error of a failed operation must be an error of the C++ future, which DDP looks at: only a callback that
        raises makes one."""
        with self._guard:
            if self._future is None:
                self._future = torch.futures.Future()
                if not self._unfinished.locked():
                    self._future.set_result(None)
            future = self._future
        return future.then(self._outcome)

    def _outcome(self, _):
        if self._error is not None:
            raise RuntimeError(str(self._error))
        return self._result
