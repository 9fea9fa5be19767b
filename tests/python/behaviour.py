"""How the backend behaves: asynchronous, in order, in groups, under DDP, when something goes wrong."""
import datetime
import hashlib
import os
import signal
import threading
import time

import torch
import torch.distributed as dist

import railccl.torch

SECONDS = datetime.timedelta(seconds=1)


def _store():
    return dist.distributed_c10d._get_default_store()


def raises(kind, text, act):
    try:
        act()
    except kind as error:
        assert text in str(error), f"expected '{text}' in: {error}"
        return str(error)
    raise AssertionError(f"expected {kind.__name__} with '{text}', and nothing was raised")


# --- asynchronous ---

def returns_before_the_others_come(rank, n):
    """Rank 0's calls return although nobody else can have called: the others wait for a key that rank 0 sets
    afterwards."""
    a, b = torch.full((1000,), rank + 1.0), torch.full((3,), rank + 1.0)
    if rank != 0:
        _store().wait(["rank 0 has called"], 60 * SECONDS)
    works = [dist.all_reduce(a, async_op=True), dist.all_reduce(b, async_op=True), dist.barrier(async_op=True)]
    if rank == 0:
        assert not any(work.is_completed() for work in works)
        raises(RuntimeError, "not complete after the 0.05 s", lambda: works[0].wait(0.05 * SECONDS))
        _store().set("rank 0 has called", "yes")
    for work in works:
        work.wait()
        assert work.is_completed() and work.is_success()
    total = n * (n + 1) / 2
    assert torch.equal(a, torch.full((1000,), total)) and torch.equal(b, torch.full((3,), total))


def futures_carry_the_result(rank, n):
    t = torch.ones(5) * rank
    future = dist.all_reduce(t, async_op=True).get_future().then(lambda f: f.value()[0] * 2)
    assert torch.equal(future.wait(), torch.full((5,), float(n * (n - 1)))), future.wait()


def calls_run_in_order(rank, n):
    t, works = torch.ones(100), []
    for _ in range(30):
        works.append(dist.all_reduce(t, async_op=True))  # in place, each on the result of the one before
        works.append(dist.broadcast(t, 0, async_op=True))
    works[-1].wait()
    assert all(work.is_completed() for work in works)
    assert torch.equal(t.double(), torch.full((100,), float(n) ** 30, dtype=torch.float64).float().double())


# --- groups ---

def groups_work_side_by_side(rank, n):
    halves = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    mine, t = halves[rank % 2], torch.full((10,), float(rank))
    for _ in range(20):
        t.fill_(float(rank))
        dist.all_reduce(t, group=mine)
        assert t[0] == (2 if rank % 2 == 0 else 4), t
        everybody = torch.ones(2)
        dist.all_reduce(everybody)
        assert everybody[0] == n
    dist.broadcast(t.fill_(float(rank)), 2 + rank % 2, group=mine)  # a global rank
    assert t[0] == 2 + rank % 2
    dist.barrier()
    dist.destroy_process_group(mine)
    dist.all_reduce(t)


def groups_come_and_go(rank, n, store):
    for life in range(3):
        dist.init_process_group("railccl", store=dist.PrefixStore(str(life), store), rank=rank, world_size=n,
                                timeout=60 * SECONDS)
        t = torch.ones(3)
        dist.all_reduce(t)
        assert t[0] == n
        dist.destroy_process_group()


def one_rank_alone(rank, n):
    t = torch.arange(4.0)
    dist.all_reduce(t, dist.ReduceOp.AVG)
    out = [torch.zeros(4)]
    dist.all_gather(out, t)
    dist.all_to_all_single(out[0], t)
    dist.barrier()
    assert torch.equal(out[0], torch.arange(4.0))


# --- DDP ---

def _network(width=40):
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Linear(12, width), torch.nn.Tanh(), torch.nn.Linear(width, width),
                               torch.nn.Tanh(), torch.nn.Linear(width, 3)).double()


def _batches(steps, size):
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(steps, size, 12, generator=generator, dtype=torch.float64)
    return x, torch.stack([x[..., 0] * x[..., 1], x[..., 2].sin(), x.sum(-1)], -1)


def _train(model, x, y, share=slice(None)):
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), []
    for step in range(len(x)):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x[step][share]), y[step][share])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().clone())
    return torch.stack(losses)


def ddp_learns_like_one_process(rank, n):
    """n ranks, each with its share of every batch, against one process with all of it."""
    x, y = _batches(steps=30, size=16)
    alone = _train(_network(), x, y)
    model = _network()
    if rank != 0:
        for parameter in model.parameters():
            parameter.data.fill_(float("nan"))  # DDP must bring rank 0's
    ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.005)
    share = 16 // n
    losses = _train(ddp, x, y, slice(rank * share, (rank + 1) * share))
    dist.all_reduce(losses, dist.ReduceOp.AVG)
    difference = (losses - alone).abs().max().item()
    assert difference < 1e-10, f"losses differ by {difference}: {losses[-3:]} and {alone[-3:]}"
    assert alone[-1] < alone[0] / 2, "the network learns nothing: the comparison proves nothing"


def ddp_communicates_during_backward(rank, n):
    """The first bucket is handed over before the gradient of the first layer, the last to be computed, exists."""
    group, events = dist.distributed_c10d._get_default_group(), []
    inner = type(group).allreduce

    def noted(self, *arguments):
        events.append("bucket")
        return inner(self, *arguments)

    type(group).allreduce = noted
    model = _network(width=400)  # more than the first bucket's 1 MiB
    ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.005)
    x, y = _batches(steps=3, size=4)
    for step in range(3):
        events.clear()
        out = ddp(x[step])
        handle = model[0].weight.register_hook(lambda _: events.append("first layer"))
        torch.nn.functional.mse_loss(out, y[step]).backward()
        handle.remove()
        if step > 0:  # the first step finds the order of the gradients
            assert "bucket" in events[:events.index("first layer")], events


def ddp_with_a_data_loader(rank, n):
    """Its worker processes are forked while the communicator lives."""
    x, y = _batches(steps=1, size=64)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[0], y[0]), batch_size=8, num_workers=2)
    ddp = torch.nn.parallel.DistributedDataParallel(_network())
    for _ in range(2):
        for inputs, targets in loader:
            torch.nn.functional.mse_loss(ddp(inputs), targets).backward()
    total = torch.cat([p.grad.flatten() for p in ddp.parameters()])
    rank_0 = total.clone()
    dist.broadcast(rank_0, 0)
    assert torch.equal(total, rank_0)


# --- what goes wrong ---

def bad_arguments_are_refused_by_name(rank, n):
    t = torch.ones(3)
    raises(ValueError, "ReduceOp.BAND is not offered", lambda: dist.all_reduce(t.int(), dist.ReduceOp.BAND))
    raises(ValueError, "of bool means nothing", lambda: dist.all_reduce(t.bool(), dist.ReduceOp.AVG))
    raises(ValueError, "sparse", lambda: dist.all_reduce(t.to_sparse()))
    raises(ValueError, "not in a group of", lambda: dist.broadcast(t, n + 3))
    raises(ValueError, "not 4 times", lambda: dist.all_gather_into_tensor(torch.zeros(3 * n + 1), t))
    raises(RuntimeError, "recv without src is not offered", lambda: dist.recv(t))
    raises(ValueError, "rank", lambda: dist.send(t, rank))
    dist.all_reduce(t)  # and the group is as good as before
    assert t[0] == n


def different_calls_are_told_apart(rank, n):
    """The library's own words reach Python, from wait() and through the future; the group is then over."""
    t = torch.ones(5000 if rank == 0 else 6000)
    work = dist.all_reduce(t, async_op=True)
    text = raises(RuntimeError, "ncclAllReduce", work.wait)
    assert "5000" in text and "6000" in text, text
    raises(RuntimeError, "ncclAllReduce", lambda: work.get_future().wait())
    assert not work.is_success() and work.exception() is not None
    raises(RuntimeError, "railccl", lambda: dist.all_reduce(torch.ones(2)))


def a_late_rank_is_a_timeout(rank, n):
    """The group's timeout is 1.5 s; the last rank never calls. Who waits either notices, or hears from who noticed
    first. Returns what this rank was told."""
    if rank == n - 1:
        _store().wait(["seen"], 60 * SECONDS)
        return "nothing"
    began, told = time.monotonic(), "nothing"
    try:
        dist.all_reduce(torch.ones(3))
    except RuntimeError as error:
        told = str(error)
    assert time.monotonic() - began < 30
    raises(RuntimeError, "railccl", lambda: dist.all_reduce(torch.ones(3)))
    _store().add("aborted", 1)
    while rank == 0 and _store().add("aborted", 0) < n - 1:
        time.sleep(0.01)
    if rank == 0:
        _store().set("seen", "yes")
    return told


def a_missing_rank_at_the_start_is_a_timeout(rank, n, store):
    if rank == 1:
        return
    began = time.monotonic()
    raises(RuntimeError, "did not complete within 1 s", lambda: dist.init_process_group(
        "railccl", store=store, rank=rank, world_size=n, timeout=SECONDS))
    assert time.monotonic() - began < 30


def a_dead_rank_is_named(rank, n):
    dist.all_reduce(torch.ones(1))
    if rank == n - 1:
        os._exit(9)
    raises(RuntimeError, f"rank {n - 1}", lambda: [dist.all_reduce(torch.ones(100000)) for _ in range(1000)])


def _until_it_dies(step):
    """Steps until one fails. What it says, and after how many seconds since the last good one."""
    began = time.monotonic()
    for _ in range(10000):
        try:
            step()
            began = time.monotonic()
        except RuntimeError as error:
            return str(error), time.monotonic() - began
    raise AssertionError("nobody died")


def _die_soon(after_s):
    """Somewhere in a call."""
    threading.Timer(after_s, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()


def survivors_shrink(rank, n, victims):
    """Some die while all add up. The others hear who within 3 s, and add up without them; a second life later once more."""
    side = dist.new_group(list(range(n)))  # with work of its own that never completes
    dist.all_reduce(torch.ones(1), group=side)
    if rank in victims:
        _die_soon(0.1)
    text, waited_s = _until_it_dies(lambda: dist.all_reduce(torch.ones(200000)))
    assert any(f"rank {v} (" in text for v in victims) or "revoked" in text, text
    assert waited_s < 3, waited_s
    began = time.monotonic()
    group = railccl.torch.shrink_group()
    took_s = time.monotonic() - began
    left = [r for r in range(n) if r not in victims]
    assert dist.get_world_size() == len(left) and left[dist.get_rank()] == rank, (dist.get_rank(), group)
    for _ in range(5):
        t = torch.full((1000,), float(rank))
        dist.all_reduce(t)
        assert t[0] == sum(left), t[0]
    got = [torch.zeros(2) for _ in left]
    dist.all_gather(got, torch.full((2,), float(rank)))
    assert [int(g[0]) for g in got] == left
    dist.barrier()
    me, m = dist.get_rank(), len(left)
    pair = dist.isend(torch.full((3,), float(me)), (me + 1) % m)  # ids of new pairs travel through the new store
    dist.recv(t[:3], (me - 1) % m)
    pair.wait()
    again = dist.new_group(list(range(m)))
    dist.all_reduce(t.fill_(1.0), group=again)
    assert t[0] == m
    return took_s


def one_waits_while_the_others_shrink(rank, n):
    """Nobody is dead: rank 0 is just not wanted. Rank 1 is in an operation that rank 0 never joins, until it is told."""
    if rank == 0:
        _store().wait(["went on"], 60 * SECONDS)
        return
    if rank == 1:
        raises(RuntimeError, "revoked this communicator", lambda: dist.all_reduce(torch.ones(3)))
    else:
        time.sleep(0.3)
    old_store = _store()
    railccl.torch.shrink_group([0])
    t = torch.ones(4)
    dist.all_reduce(t)
    assert t[0] == n - 1
    dist.barrier()
    if rank == 1:
        old_store.set("went on", "yes")


def ddp_goes_on(rank, n):
    """A worker dies while a network learns; the others wrap it again and it learns on."""
    x, y = _batches(steps=40, size=12)
    model = _network()
    ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.005)
    optimizer, losses, step, deaths = torch.optim.SGD(model.parameters(), lr=0.05), [], 0, 0
    while step < len(x):
        if rank == 1 and step == 13:
            _die_soon(0.002)
        share = slice(dist.get_rank(), None, dist.get_world_size())
        optimizer.zero_grad()
        try:
            loss = torch.nn.functional.mse_loss(ddp(x[step][share]), y[step][share])
            loss.backward()
        except RuntimeError as error:
            assert "rank 1 (" in str(error) or "revoked" in str(error), error
            railccl.torch.shrink_group()
            ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.005)  # has rank 0's weights
            at = torch.tensor([step])
            dist.broadcast(at, 0)  # rank 0 may have been a step ahead or behind
            step, deaths = int(at), deaths + 1
            continue
        optimizer.step()
        losses.append(loss.item())
        step += 1
    assert deaths == 1 and dist.get_world_size() == n - 1, (deaths, dist.get_world_size())
    total = torch.cat([p.detach().flatten() for p in model.parameters()])
    rank_0 = total.clone()
    dist.broadcast(rank_0, 0)
    assert torch.equal(total, rank_0), "the models have drifted apart"
    assert sum(losses[-5:]) < sum(losses[:5]), losses


def shrinking_is_refused_where_there_is_nothing_to_shrink(rank, n):
    raises(RuntimeError, "ncclCommShrink", lambda: railccl.torch.shrink_group([rank]))


def leaving_without_goodbye(rank, n, store):
    """No destroy_process_group, and the interpreter's own end; nothing hangs, nobody else fails."""
    import sys
    pid = os.fork()
    if pid == 0:
        code = "import sys; sys.exit(3)"
        try:
            dist.init_process_group("railccl", store=store, rank=rank, world_size=n, timeout=60 * SECONDS)
            t = torch.ones(3)
            dist.all_reduce(t)
            code = "import sys; sys.exit(0)" if t[0] == n else code
        finally:
            import atexit
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit("(0)" not in code)
    assert os.waitpid(pid, 0)[1] == 0


def a_child_is_told_to_make_its_own(rank, n):
    dist.all_reduce(torch.ones(2))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "nothing was raised"
        try:
            dist.all_reduce(torch.ones(2))
        except RuntimeError as error:
            text = str(error)
        os.write(write, text.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    text = os.read(read, 4000).decode()
    assert "a child makes a process group of its own" in text, text
    dist.all_reduce(torch.ones(2))


# --- the same bits ---

def digest(rank, n):
    """Sums whose last bits depend on the order of additions."""
    hashed = hashlib.sha256()
    for size in (1, 7, 1000, 300000):
        for dtype in (torch.float32, torch.float16):
            generator = torch.Generator().manual_seed(size + rank)
            t = (torch.randn(size, generator=generator) * 10.0 ** (rank * 2 - 3)).to(dtype)
            dist.all_reduce(t)
            hashed.update(t.numpy().tobytes())
            if size % n == 0:
                out = torch.zeros(size // n, dtype=dtype)
                dist.reduce_scatter_tensor(out, t)
                whole = torch.zeros(size, dtype=dtype)
                dist.all_gather_into_tensor(whole, out)
                hashed.update(whole.numpy().tobytes())
    return hashed.hexdigest()
