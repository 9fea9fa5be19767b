"""The backend "railccl" of torch.distributed, for CPU tensors.

    import torch.distributed, railccl.torch
    torch.distributed.init_process_group("railccl")      # rank, world size, store: torch's ways
    torch.distributed.all_reduce(tensor)

Everything torch.distributed calls is here, in two kinds:

    collectives       one communicator of the whole group, one thread, in call order; they return at once
    send, recv        a communicator of two ranks and a thread per (sender, receiver, tag), made at first use, so that
                      isend and irecv may be posted in any order, as with gloo

Errors of arguments are ValueErrors of the call; what goes wrong later is a RuntimeError of wait(), with the library's
own words. An operation that takes longer than the group's timeout is named and ends the communicator.
"""
import datetime
import itertools
import time
import weakref

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup

from railccl import library, tensors
from railccl import recovery
from railccl.channel import Channel
from railccl.recovery import gone, shrink_group
from railccl.work import Work

__all__ = ["RailcclProcessGroup", "NAME", "gone", "shrink_group"]

NAME = "railccl"
call = library.call
_groups = itertools.count()


def _list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _one(name, value):
    """torch hands single tensors over as lists of one."""
    values = _list(value)
    if len(values) != 1:
        raise ValueError(f"railccl: {name}: expected one tensor per rank, got {len(values)} (a rank is one device)")
    return values[0]


def _reduce_op(opts):
    return dist.ReduceOp.SUM if opts is None else getattr(opts, "reduceOp", opts)


def _root(opts):
    return opts if isinstance(opts, int) else 0 if opts is None else opts.rootRank


def _timeout_s(opts):
    timeout = getattr(opts, "timeout", None)
    seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else 0
    return seconds if seconds > 0 else None  # torch's "not said" is -1 ms


def _address(tensor):
    return tensor.data_ptr() or None


def _grouped(calls):
    """The calls begin together; the first failure is the one that is raised."""
    call("ncclGroupStart")
    first = None
    for one in calls:
        try:
            call(*one)
        except RuntimeError as error:
            first = first or error
    try:
        call("ncclGroupEnd")
    except RuntimeError as error:
        first = first or error
    if first is not None:
        raise first


def _await_key(store, key, timeout_s):
    """Asks now and then, instead of store.wait: that locks a TCPStore's client (torch 1.13), while another channel of this
    process may be about to set the key that the one awaited here depends on."""
    end, pause_s = time.monotonic() + timeout_s, 0.001
    while store.add(f"{key} is there", 0) == 0:
        if time.monotonic() > end:
            raise RuntimeError(f"railccl: no other rank has set the unique id ('{key}') within {timeout_s:g} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


class RailcclProcessGroup(ProcessGroup):
    """torch calls these methods from Python with lists, and some of them from C++ (DDP)."""

    def __init__(self, store, rank, size, timeout, comm=None):
        super().__init__(rank, size)
        self._rank, self._size, self._store = rank, size, store
        self._timeout_s = timeout.total_seconds()
        self._group = f"group {next(_groups)}"
        self._number, self._last = itertools.count(), 0
        self._torch_name, self._torch_text = self._group, "undefined"
        self._since = None  # works since _start_coalescing
        self._pairs = {}    # (sender, receiver, tag) -> Channel
        self._main = self._open(f"{self._group} of {size} ranks", rank, size, "id", rank == 0, comm)
        weakref.finalize(self, _close_all, self._main, self._pairs).atexit = False  # channel.py sees to the end
        try:
            self._main.joined.wait()
        except RuntimeError:
            self._main.close()
            raise

    def _open(self, name, rank, size, key, leads, comm=None):
        """A channel whose unique id travels through the store under `key`, unless it has its communicator already."""
        store, timeout_s = self._store, self._timeout_s

        def get_id():
            if leads:
                made = library.unique_id()
                store.set(key, made.hex())
                store.add(f"{key} is there", 1)
                return made
            _await_key(store, key, timeout_s)
            return bytes.fromhex(store.get(key).decode())

        return Channel(name, rank, size, timeout_s, get_id, comm)

    # --- names and ends ---

    def getBackendName(self):
        return NAME

    name = _get_backend_name = getBackendName

    def getRank(self):
        return self._rank

    def getSize(self):
        return self._size

    rank, size = getRank, getSize

    def setGroupName(self, name):  # torch from 2.1 on
        self._torch_name = name

    def getGroupName(self):
        return self._torch_name

    def setGroupDesc(self, text):
        self._torch_text = text

    def getGroupDesc(self):
        return self._torch_text

    def shutdown(self):
        _close_all(self._main, self._pairs)

    def abort(self):
        for channel in [self._main, *self._pairs.values()]:
            channel.abort(f"abort() was called on {self._group}")

    def set_timeout(self, timeout):
        self._timeout_s = timeout.total_seconds()
        for channel in [self._main, *self._pairs.values()]:
            channel.set_timeout(self._timeout_s)

    _set_default_timeout = set_timeout

    def _set_sequence_number_for_group(self):
        pass

    def _get_sequence_number_for_group(self):
        return self._last

    # --- one job ---

    def _submit(self, name, result, job, opts=None):
        self._last = next(self._number)
        work = Work(f"{name} {self._last} of {self._group}, rank {self._rank}", result)
        self._main.submit(work, job, _timeout_s(opts))
        if self._since is not None:
            self._since.append(work)
        return work

    def _start_coalescing(self, *_):
        self._since = []

    def _end_coalescing(self, *_):
        """One work for all since the start."""
        works, self._since = self._since or [], None

        def job(_):
            for work in works:
                work.wait()

        return self._submit("coalesced operations", [], job)

    # --- collectives that reduce ---

    def allreduce(self, tensor, opts=None):
        return self.allreduce_coalesced([_one("allreduce", tensor)], opts, "allreduce")

    def allreduce_coalesced(self, tensor_list, opts=None, name="allreduce_coalesced"):
        checked = [tensors.check(name, tensor) for tensor in _list(tensor_list)]
        plans = [(tensor, tensors.Reduction(name, _reduce_op(opts), tensor.dtype)) for tensor in checked]

        def job(comm):
            for tensor, reduction in plans:
                plain = tensors.readable(tensor)
                data = reduction.elements(plain)
                reduction.with_op(comm, data, lambda op: call(
                    "ncclAllReduce", _address(data), _address(data), data.numel(), reduction.type_of(data), op, comm,
                    None))
                tensors.give_back(tensor, data if reduction.must_copy() else plain)

        return self._submit(name, _list(tensor_list), job, opts)

    def reduce(self, tensor, opts=None, op=None):
        outer, root = _one("reduce", tensor), self._check_root("reduce", _root(opts))
        inner = tensors.check("reduce", outer)
        reduction = tensors.Reduction("reduce", op or _reduce_op(None if isinstance(opts, int) else opts), inner.dtype)

        def job(comm):
            plain = tensors.readable(inner)
            data = reduction.elements(plain)
            reduction.with_op(comm, data, lambda op: call(
                "ncclReduce", _address(data), _address(data), data.numel(), reduction.type_of(data), op, root, comm,
                None))
            if self._rank == root:
                tensors.give_back(inner, data if reduction.must_copy() else plain)

        return self._submit("reduce", [outer], job, opts)

    def reduce_scatter(self, output, input_lists, opts=None):
        outer = _one("reduce_scatter", output)
        inputs = self._per_rank("reduce_scatter", input_lists, None)
        return self._reduce_scatter("reduce_scatter", [(outer, inputs)], opts)

    def _reduce_scatter_base(self, output, whole, opts=None):
        return self.reduce_scatter_tensor_coalesced([output], [whole], opts, "reduce_scatter_tensor")

    def reduce_scatter_tensor_coalesced(self, outputs, wholes, opts=None, name="reduce_scatter_tensor_coalesced"):
        pairs = [(output, self._cut(name, whole, output)) for output, whole in zip(outputs, wholes)]
        return self._reduce_scatter(name, pairs, opts)

    def _reduce_scatter(self, name, pairs, opts):
        plans = []
        for outer, inputs in pairs:
            output = tensors.check(name, outer)
            inputs = [tensors.check(name, tensor) for tensor in inputs]
            self._check_same(name, [output] + inputs)
            if inputs[self._rank].numel() != output.numel():
                raise ValueError(f"railccl: {name}: this rank's input has {inputs[self._rank].numel()} elements, its "
                                 f"output {output.numel()}")
            plans.append((output, inputs, tensors.Reduction(name, _reduce_op(opts), output.dtype)))

        def job(comm):
            for output, inputs, reduction in plans:
                plain = tensors.writable(output)
                received = reduction.elements(plain)
                if tensors.even(inputs):
                    self._scatter_even(comm, received, inputs, reduction)
                else:
                    self._scatter_uneven(comm, received, inputs, reduction)
                tensors.give_back(output, received if reduction.must_copy() else plain)

        return self._submit(name, [outer for outer, _ in pairs], job, opts)

    def _scatter_even(self, comm, received, inputs, reduction):
        data = reduction.elements(tensors.joined(inputs))
        reduction.with_op(comm, data, lambda op: call(
            "ncclReduceScatter", _address(data), _address(received), received.numel(), reduction.type_of(data), op,
            comm, None))

    def _scatter_uneven(self, comm, received, inputs, reduction):
        """NCCL's ReduceScatter has equal blocks: one Reduce per rank, begun together."""
        blocks = [reduction.elements(tensors.readable(tensor)) for tensor in inputs]
        reduction.with_op(comm, received, lambda op: _grouped([
            ("ncclReduce", _address(block), _address(received) if root == self._rank else None, block.numel(),
             reduction.type_of(block), op, root, comm, None) for root, block in enumerate(blocks)]))

    # --- collectives that move ---

    def broadcast(self, tensor, opts=None, root=None):
        outer = _one("broadcast", tensor)
        inner = tensors.check("broadcast", outer)
        root = self._check_root("broadcast", _root(opts) if root is None else root)

        def job(comm):
            data = tensors.readable(inner) if self._rank == root else tensors.writable(inner)
            call("ncclBroadcast", _address(data), _address(data), *tensors.as_moved(data), root, comm, None)
            if self._rank != root:
                tensors.give_back(inner, data)

        return self._submit("broadcast", [outer], job, opts)

    def allgather(self, output_lists, tensor, opts=None):
        outer = self._per_rank("allgather", output_lists, None)
        return self._allgather("allgather", [(outer, _one("allgather", tensor))], [outer], opts)

    def allgather_coalesced(self, output_lists, tensor_list, opts=None):
        """torch gives one list per rank, each with one tensor per input."""
        by_input = [list(outputs) for outputs in zip(*output_lists)]
        return self._allgather("allgather_coalesced", list(zip(by_input, tensor_list)), output_lists, opts)

    def _allgather_base(self, whole, tensor, opts=None):
        return self.allgather_into_tensor_coalesced([whole], [tensor], opts, "allgather_into_tensor")

    def allgather_into_tensor_coalesced(self, wholes, tensor_list, opts=None, name="allgather_into_tensor_coalesced"):
        pairs = [(self._cut(name, whole, tensor), tensor) for whole, tensor in zip(wholes, tensor_list)]
        return self._allgather(name, pairs, list(wholes), opts)

    def _allgather(self, name, pairs, result, opts):
        plans = []
        for outputs, tensor in pairs:
            outputs, inner = [tensors.check(name, output) for output in outputs], tensors.check(name, tensor)
            self._check_same(name, [inner] + outputs)
            if len(outputs) != self._size or outputs[self._rank].numel() != inner.numel():
                raise ValueError(f"railccl: {name}: needs {self._size} outputs, mine of {inner.numel()} elements")
            plans.append((outputs, inner))

        def job(comm):
            for outputs, inner in plans:
                data = tensors.readable(inner)
                if tensors.even(outputs):
                    room = tensors.room_for(outputs)
                    call("ncclAllGather", _address(data), _address(room), *tensors.as_moved(data), comm, None)
                    tensors.hand_out(outputs, room)
                else:
                    self._gather_uneven(comm, outputs, data)

        return self._submit(name, result, job, opts)

    def _gather_uneven(self, comm, outputs, data):
        """NCCL's AllGather has equal blocks: one Broadcast per rank, begun together."""
        rooms = [tensors.writable(output) for output in outputs]
        _grouped([("ncclBroadcast", _address(data) if root == self._rank else None, _address(room),
                   *tensors.as_moved(room), root, comm, None) for root, room in enumerate(rooms)])
        for output, room in zip(outputs, rooms):
            tensors.give_back(output, room)

    def gather(self, output_lists, tensor, opts=None):
        outer, root = _one("gather", tensor), self._check_root("gather", _root(opts))
        inner = tensors.check("gather", outer)
        outputs = self._per_rank("gather", output_lists, root)
        checked = [tensors.check("gather", output) for output in outputs]
        self._check_blocks("gather", inner, checked)

        def job(comm):
            data = tensors.readable(inner)
            room = tensors.room_for(checked) if checked else None
            call("ncclGather", _address(data), _address(room) if checked else None, *tensors.as_moved(data), root, comm,
                 None)
            if checked:
                tensors.hand_out(checked, room)

        return self._submit("gather", outputs, job, opts)

    def scatter(self, output, input_lists, opts=None):
        outer, root = _one("scatter", output), self._check_root("scatter", _root(opts))
        inner = tensors.check("scatter", outer)
        checked = [tensors.check("scatter", tensor) for tensor in self._per_rank("scatter", input_lists, root)]
        self._check_blocks("scatter", inner, checked)

        def job(comm):
            room = tensors.writable(inner)
            data = tensors.joined(checked) if checked else None
            call("ncclScatter", _address(data) if checked else None, _address(room), *tensors.as_moved(room), root,
                 comm, None)
            tensors.give_back(inner, room)

        return self._submit("scatter", [outer], job, opts)

    def alltoall_base(self, output, whole, output_splits=(), input_splits=(), opts=None):
        name = "all_to_all_single"
        inner_out, inner_in = tensors.check(name, output), tensors.check(name, whole)
        self._check_same(name, [inner_out, inner_in])
        out_rows = self._rows(name, "output", inner_out, output_splits)
        in_rows = self._rows(name, "input", inner_in, input_splits)
        equal = not output_splits and not input_splits  # the same on all ranks, as torch asks

        def job(comm):
            data, room = tensors.readable(inner_in), tensors.writable(inner_out)
            if equal:
                count, kind = tensors.as_moved(data)
                call("ncclAlltoAll", _address(data), _address(room), count // self._size, kind, comm, None)
            else:
                self._exchange(comm, tensors.split_rows(room, out_rows), tensors.split_rows(data, in_rows))
            tensors.give_back(inner_out, room)

        return self._submit(name, [output], job, opts)

    def alltoall(self, outputs, inputs, opts=None):
        name = "all_to_all"
        if len(outputs) != self._size or len(inputs) != self._size:
            raise ValueError(f"railccl: {name}: needs {self._size} of each, got {len(outputs)} and {len(inputs)}")
        out, into = [tensors.check(name, t) for t in outputs], [tensors.check(name, t) for t in inputs]
        self._check_same(name, out + into)

        def job(comm):
            rooms = [tensors.writable(tensor) for tensor in out]
            self._exchange(comm, rooms, [tensors.readable(tensor) for tensor in into])
            for tensor, room in zip(out, rooms):
                tensors.give_back(tensor, room)

        return self._submit(name, list(outputs), job, opts)

    def _exchange(self, comm, rooms, blocks):
        """Block i to rank i, room i from rank i; what is empty does not travel. Sizes may differ."""
        mine = self._rank
        if rooms[mine].numel() != blocks[mine].numel():
            raise RuntimeError(f"railccl: all-to-all: rank {mine} keeps {blocks[mine].numel()} elements but has room "
                               f"for {rooms[mine].numel()}")
        rooms[mine].view(-1).copy_(blocks[mine].view(-1))
        calls = []
        for away in range(1, self._size):
            to, source = (mine + away) % self._size, (mine - away) % self._size
            if blocks[to].numel():
                calls.append(("ncclSend", _address(blocks[to]), *tensors.as_moved(blocks[to]), to, comm, None))
            if rooms[source].numel():
                room = rooms[source]
                calls.append(("ncclRecv", _address(room), *tensors.as_moved(room), source, comm, None))
        if calls:
            _grouped(calls)

    def barrier(self, opts=None):
        def job(comm):
            token = torch.zeros(1, dtype=torch.int32)
            call("ncclAllReduce", _address(token), _address(token), 1, library.INT32, library.SUM, comm, None)

        return self._submit("barrier", [], job, opts)

    # --- point to point ---

    def send(self, tensor, dst, tag=0):
        outer = _one("send", tensor)
        inner = tensors.check("send", outer)

        def job(comm):
            data = tensors.readable(inner)
            call("ncclSend", _address(data), *tensors.as_moved(data), 1, comm, None)

        return self._pair("send", dst, tag, self._rank, dst).submit(self._pair_work("send to", dst, outer, -1), job)

    def recv(self, tensor, src, tag=0):
        outer = _one("recv", tensor)
        inner = tensors.check("recv", outer)

        def job(comm):
            room = tensors.writable(inner)
            call("ncclRecv", _address(room), *tensors.as_moved(room), 0, comm, None)
            tensors.give_back(inner, room)

        return self._pair("recv", src, tag, src, self._rank).submit(self._pair_work("recv from", src, outer, src), job)

    def recv_anysource(self, tensor, tag=0):
        raise RuntimeError("railccl: recv without src is not offered: NCCL has no receive from any rank; "
                           "name the sender")

    def _pair_work(self, name, peer, outer, source):
        return Work(f"{name} rank {peer} of {self._group}, rank {self._rank}", [outer], source)

    def _pair(self, name, peer, tag, sender, receiver):
        """Rank 0 of the pair's communicator is the sender."""
        self._check_root(name, peer)
        if peer == self._rank:
            raise ValueError(f"railccl: {name}: rank {peer} is this rank; copy the tensor instead")
        key = (sender, receiver, tag)
        if key not in self._pairs:
            leads = sender == self._rank
            self._pairs[key] = self._open(f"{self._group} {sender}>{receiver} tag {tag}", 0 if leads else 1, 2,
                                          f"id {sender}>{receiver} tag {tag}", leads)
        return self._pairs[key]

    # --- checks ---

    def _check_root(self, name, root):
        if not 0 <= root < self._size:
            raise ValueError(f"railccl: {name}: rank {root} is not in a group of {self._size}")
        return root

    @staticmethod
    def _check_same(name, all_tensors):
        kinds = sorted({str(tensor.dtype) for tensor in all_tensors})
        if len(kinds) > 1:
            raise ValueError(f"railccl: {name}: tensors of one call have one type, not {' and '.join(kinds)}")

    def _check_blocks(self, name, inner, blocks):
        """gather, scatter: at the root one block per rank, all as large as the others' tensor."""
        self._check_same(name, [inner] + blocks)
        for rank, block in enumerate(blocks):
            if block.numel() != inner.numel():
                raise ValueError(f"railccl: {name}: the block of rank {rank} has {block.numel()} elements, the tensor "
                                 f"{inner.numel()}; all ranks' have the same size")

    def _per_rank(self, name, lists, root):
        """The one list of one tensor per rank, [] elsewhere than on the root (`root` None: every rank has one)."""
        given = [one for one in lists if len(one)] if lists and isinstance(lists[0], (list, tuple)) else \
            [lists] if lists else []
        if root is not None and root != self._rank:
            if given:
                raise ValueError(f"railccl: {name}: the list of tensors is the root's (rank {root}) alone")
            return []
        if len(given) != 1 or len(given[0]) != self._size:
            raise ValueError(f"railccl: {name}: needs one list of {self._size} tensors, one per rank")
        return list(given[0])

    def _cut(self, name, whole, block):
        """The tensor of n blocks as a list; the blocks of a plain tensor share its memory."""
        if whole.numel() != block.numel() * self._size:
            raise ValueError(f"railccl: {name}: {whole.numel()} elements are not {self._size} times {block.numel()}")
        if not tensors.is_plain(whole):
            raise ValueError(f"railccl: {name}: the tensor of all ranks' blocks must be contiguous")
        return list(whole.detach().view(-1).view(self._size, -1).unbind(0)) if whole.numel() else \
            [whole.detach().view(-1)] * self._size

    def _rows(self, name, which, tensor, splits):
        rows = tensor.shape[0] if tensor.dim() else 1
        if not splits:
            if rows % self._size:
                raise ValueError(f"railccl: {name}: {which} has {rows} rows, which {self._size} ranks cannot share "
                                 "evenly; pass split sizes")
            return [rows // self._size] * self._size
        if len(splits) != self._size or sum(splits) != rows or min(splits) < 0:
            raise ValueError(f"railccl: {name}: {which} splits {list(splits)} are not {self._size} numbers that add up "
                             f"to the {rows} rows")
        return list(splits)


def _close_all(main, pairs):
    for channel in list(pairs.values()):
        channel.close()
    main.close()


def _create(store, rank, size, timeout):
    return RailcclProcessGroup(store, rank, size, timeout, recovery.take_over())


def _register():
    if hasattr(dist.Backend, NAME.upper()):
        return
    try:
        dist.Backend.register_backend(NAME, _create, devices=["cpu"])
    except TypeError:  # torch before 2.0
        dist.Backend.register_backend(NAME, _create)


_register()
