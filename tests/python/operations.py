"""Every operation on random tensors: against torch's own gloo where gloo has it, and against a sum written out in full
(every rank can make every rank's input, because a rank's input follows from its number)."""
import torch
import torch.distributed as dist

from torch.distributed import ReduceOp

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
OTHERS = [torch.bool, torch.complex64, torch.complex128]
GLOO_HAS = [torch.float32, torch.float64, torch.float16, torch.uint8, torch.int8, torch.int32, torch.int64]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-2, torch.bfloat16: 2e-1,
             torch.complex64: 1e-5, torch.complex128: 1e-12}

# A name and how to lay out the same elements.
LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.t().contiguous().t(),
    "every second column": lambda t: torch.stack([t, t], -1).flatten(-2)[..., ::2],
}
SHAPES = [(3, 5), (1, 1), (0, 4), (31, 67)]


def random(rank, dtype, shape, seed=0):
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).to(torch.bool)
    if dtype.is_complex:
        real = torch.float32 if dtype is torch.complex64 else torch.float64
        return torch.view_as_complex(torch.randn((*shape, 2), generator=generator, dtype=real))
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return torch.randint(0 if dtype is torch.uint8 else -9, 10, shape, generator=generator).to(dtype)


def oracle(kind, inputs):
    """The reduction in a wide type, back in the narrow one."""
    dtype, n = inputs[0].dtype, len(inputs)
    wide = dtype if dtype.is_complex else torch.float64 if dtype.is_floating_point else torch.int64
    stack = torch.stack([t.to(wide) for t in inputs])
    if kind == "SUM":
        out = stack.sum(0)
        return (out != 0) if dtype is torch.bool else out.to(dtype)
    if kind == "AVG":
        return (stack.sum(0) / n).to(dtype) if dtype.is_floating_point or dtype.is_complex else \
            torch.div(_wrapped(stack.sum(0), dtype), n, rounding_mode="trunc").to(dtype)
    if kind == "PRODUCT":
        return stack.prod(0).to(dtype)
    return (stack.amax(0) if kind == "MAX" else stack.amin(0)).to(dtype)


def _wrapped(total, dtype):
    return total if dtype is torch.int16 else total.to(dtype).to(torch.int64)


def same(what, got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        raise AssertionError(f"{what}: {got.dtype} {tuple(got.shape)} is not {want.dtype} {tuple(want.shape)}")
    tolerance = TOLERANCE.get(want.dtype)
    if tolerance is None or want.numel() == 0:
        good = torch.equal(got, want)
    else:
        wide = want.dtype if want.dtype.is_complex else torch.float64
        scale = want.to(wide).abs().clamp(min=1)
        good = bool(((got.to(wide) - want.to(wide)).abs() <= tolerance * scale).all())
    if not good:
        raise AssertionError(f"{what}: got {got.flatten()[:8]}, want {want.flatten()[:8]}")


def kinds_of(dtype):
    if dtype is torch.bool:
        return ["SUM", "PRODUCT", "MAX", "MIN"]
    return ["SUM", "AVG"] if dtype.is_complex else ["SUM", "PRODUCT", "MAX", "MIN", "AVG"]


def gloo_takes(dtype, kind="SUM"):
    return dtype in GLOO_HAS and kind != "AVG"


def _reduced(what, ours, gloo_run, dtype, kind, inputs, gloo):
    same(f"{what} against the oracle", ours, oracle(kind, inputs))
    if gloo_takes(dtype, kind):
        theirs = inputs[dist.get_rank()].clone()
        gloo_run(theirs, gloo)
        same(f"{what} against gloo", ours, theirs)


def allreduce(rank, n):
    gloo = dist.new_group(backend="gloo")
    for dtype in FLOATS + INTEGERS + OTHERS:
        for kind in kinds_of(dtype):
            op = getattr(ReduceOp, kind)
            for shape in SHAPES:
                for layout, lay in LAYOUTS.items():
                    inputs = [random(r, dtype, shape) for r in range(n)]
                    ours = lay(inputs[rank].clone())
                    dist.all_reduce(ours, op)
                    _reduced(f"all_reduce {kind} {dtype} {shape} {layout}", ours,
                             lambda t, g: dist.all_reduce(t, op, group=g), dtype, kind, inputs, gloo)


def reduce(rank, n):
    gloo = dist.new_group(backend="gloo")
    for number, dtype in enumerate(FLOATS + INTEGERS + OTHERS):
        for kind in kinds_of(dtype):
            op, root = getattr(ReduceOp, kind), number % n
            for layout, lay in LAYOUTS.items():
                inputs = [random(r, dtype, (7, 11)) for r in range(n)]
                ours = lay(inputs[rank].clone())
                dist.reduce(ours, root, op)
                theirs = inputs[rank].clone()
                if gloo_takes(dtype, kind):
                    dist.reduce(theirs, root, op, group=gloo)
                if rank == root:
                    same(f"reduce {kind} {dtype} {layout}", ours, oracle(kind, inputs))
                    if gloo_takes(dtype, kind):
                        same(f"reduce {kind} {dtype} {layout} against gloo", ours, theirs)


def many_at_once(rank, n):
    """all_reduce_coalesced: tensors of several sizes in one call."""
    inputs = [[random(r, torch.float32, (size,)) for size in (1, 1000, 0, 17)] for r in range(n)]
    ours = [t.clone() for t in inputs[rank]]
    dist.all_reduce_coalesced(ours)
    for number, got in enumerate(ours):
        same(f"tensor {number}", got, oracle("SUM", [inputs[r][number] for r in range(n)]))


def premul_sum(rank, n):
    """Returns why not, where torch keeps the factor to itself."""
    op = torch.distributed._make_nccl_premul_sum(0.5 + rank)
    t = random(rank, torch.float64, (5, 3))
    try:
        dist.all_reduce(t, op)
    except ValueError as error:
        assert "does not tell the factor" in str(error), error
        return str(error)
    same("premul_sum", t, sum((0.5 + r) * random(r, torch.float64, (5, 3)) for r in range(n)))
    return None


def broadcast(rank, n):
    gloo = dist.new_group(backend="gloo")
    for number, dtype in enumerate(FLOATS + INTEGERS + OTHERS):
        root = number % n
        for shape in SHAPES:
            for layout, lay in LAYOUTS.items():
                ours = lay(random(rank, dtype, shape))
                dist.broadcast(ours, root)
                same(f"broadcast {dtype} {shape} {layout}", ours, random(root, dtype, shape))
                if dtype in GLOO_HAS:
                    theirs = random(rank, dtype, shape)
                    dist.broadcast(theirs, root, group=gloo)
                    same(f"broadcast {dtype} {shape} {layout} against gloo", ours, theirs)


def allgather(rank, n):
    gloo = dist.new_group(backend="gloo")
    for dtype in FLOATS + INTEGERS + OTHERS:
        for shape in SHAPES:
            want = [random(r, dtype, shape) for r in range(n)]
            for layout, lay in LAYOUTS.items():
                outputs = [lay(torch.zeros(shape, dtype=dtype)) for _ in range(n)]
                dist.all_gather(outputs, lay(want[rank]))
                for r in range(n):
                    same(f"all_gather {dtype} {shape} {layout} of rank {r}", outputs[r], want[r])
            whole = torch.zeros((n, *shape), dtype=dtype)  # outputs that are pieces of one buffer
            dist.all_gather(list(whole.unbind(0)), want[rank])
            same(f"all_gather into pieces {dtype} {shape}", whole, torch.stack(want))
            flat = torch.zeros((n * shape[0], *shape[1:]), dtype=dtype)
            dist.all_gather_into_tensor(flat, want[rank])
            same(f"all_gather_into_tensor {dtype} {shape}", flat, torch.cat(want))
            if dtype in GLOO_HAS and want[0].numel():
                theirs = [torch.zeros(shape, dtype=dtype) for _ in range(n)]
                dist.all_gather(theirs, want[rank], group=gloo)
                same(f"all_gather {dtype} {shape} against gloo", whole, torch.stack(theirs))


def allgather_uneven(rank, n):
    """Blocks of different sizes, an empty one among them."""
    for dtype in (torch.float32, torch.int16):
        want = [random(r, dtype, (3 * r, 2)) for r in range(n)]
        outputs = [torch.zeros((3 * r, 2), dtype=dtype) for r in range(n)]
        dist.all_gather(outputs, want[rank])
        for r in range(n):
            same(f"uneven all_gather {dtype} of rank {r}", outputs[r], want[r])


def gather_and_scatter(rank, n):
    gloo = dist.new_group(backend="gloo")
    for number, dtype in enumerate(FLOATS + INTEGERS + OTHERS):
        root = number % n
        for shape in SHAPES:
            want = [random(r, dtype, shape) for r in range(n)]
            for group in [None, gloo] if dtype in GLOO_HAS and want[0].numel() else [None]:
                outputs = [torch.zeros(shape, dtype=dtype).t().contiguous().t() for _ in range(n)]
                outputs = outputs if group is None else [t.contiguous() for t in outputs]
                dist.gather(want[rank], outputs if rank == root else None, dst=root, group=group)
                if rank == root:
                    same(f"gather {dtype} {shape}", torch.stack(outputs), torch.stack(want))
                mine = torch.zeros(shape, dtype=dtype)
                blocks = [random(100 + r, dtype, shape) for r in range(n)]
                dist.scatter(mine, blocks if rank == root else None, src=root, group=group)
                same(f"scatter {dtype} {shape}", mine, blocks[rank])


def reduce_scatter(rank, n):
    """gloo has none: its all_reduce of all blocks, of which this rank's is looked at, stands in."""
    gloo = dist.new_group(backend="gloo")
    for dtype in FLOATS + INTEGERS + OTHERS:
        for kind in kinds_of(dtype):
            op = getattr(ReduceOp, kind)
            for shape in ((3, 5), (0,), (257,)):
                blocks = [[random(r, dtype, shape, seed=b) for b in range(n)] for r in range(n)]
                want = oracle(kind, [blocks[r][rank] for r in range(n)])
                what = f"{kind} {dtype} {shape}"
                mine = torch.zeros(shape, dtype=dtype)
                dist.reduce_scatter(mine, [b.clone() for b in blocks[rank]], op)
                same(f"reduce_scatter {what}", mine, want)
                mine = torch.zeros(shape, dtype=dtype)
                if not dtype.is_complex:
                    dist.reduce_scatter_tensor(mine, torch.stack(blocks[rank]), op)
                    same(f"reduce_scatter_tensor {what}", mine, want)
                if gloo_takes(dtype, kind) and want.numel():
                    theirs = torch.stack(blocks[rank])
                    dist.all_reduce(theirs, op, group=gloo)
                    same(f"reduce_scatter {what} against gloo", mine, theirs[rank])


def reduce_scatter_uneven(rank, n):
    for dtype in (torch.float64, torch.int16):
        blocks = [[random(r, dtype, (2 * b, 3), seed=b) for b in range(n)] for r in range(n)]
        mine = torch.zeros((2 * rank, 3), dtype=dtype)
        dist.reduce_scatter(mine, blocks[rank])
        same(f"uneven reduce_scatter {dtype}", mine, oracle("SUM", [blocks[r][rank] for r in range(n)]))


def alltoall(rank, n):
    gloo = dist.new_group(backend="gloo")
    for dtype in FLOATS + INTEGERS + OTHERS:
        for width in (1, 5, 0):
            inputs = [random(r, dtype, (2 * n, width)) for r in range(n)]
            want = torch.cat([inputs[r][2 * rank:2 * rank + 2] for r in range(n)])
            out = torch.zeros((2 * n, width), dtype=dtype)
            dist.all_to_all_single(out, inputs[rank])
            same(f"all_to_all_single {dtype} {width}", out, want)
            if dtype in GLOO_HAS and width:
                theirs = torch.zeros((2 * n, width), dtype=dtype)
                dist.all_to_all_single(theirs, inputs[rank], group=gloo)
                same(f"all_to_all_single {dtype} {width} against gloo", out, theirs)


def alltoall_uneven(rank, n):
    """Rank r gives rank s (r + 2s) mod 4 rows: some of them none."""
    gloo = dist.new_group(backend="gloo")
    for dtype in (torch.float32, torch.int16, torch.bool, torch.complex64):
        rows = [[(r + 2 * s) % 4 for s in range(n)] for r in range(n)]
        blocks = [[random(r, dtype, (rows[r][s], 3), seed=s) for s in range(n)] for r in range(n)]
        received = [rows[r][rank] for r in range(n)]
        want = torch.cat([blocks[r][rank] for r in range(n)])
        out = torch.zeros((sum(received), 3), dtype=dtype)
        dist.all_to_all_single(out, torch.cat(blocks[rank]), received, rows[rank])
        same(f"uneven all_to_all_single {dtype}", out, want)
        outputs = [torch.zeros((rows[r][rank], 3), dtype=dtype) for r in range(n)]
        dist.all_to_all(outputs, blocks[rank])
        for r in range(n):
            same(f"all_to_all {dtype} of rank {r}", outputs[r], blocks[r][rank])
        if dtype is torch.float32:
            theirs = torch.zeros((sum(received), 3), dtype=dtype)
            dist.all_to_all_single(theirs, torch.cat(blocks[rank]), received, rows[rank], group=gloo)
            same("uneven all_to_all_single against gloo", out, theirs)


def send_and_recv(rank, n):
    """Around a ring, every rank sending first; then tags out of order, both directions at once, an empty message."""
    after, before = (rank + 1) % n, (rank - 1) % n
    for dtype in FLOATS + INTEGERS + OTHERS:
        for shape in ((3, 5), (300, 1000)):
            got = torch.zeros(shape, dtype=dtype).t().contiguous().t()
            pending = dist.isend(random(rank, dtype, shape), after)
            assert dist.recv(got, before) == before
            pending.wait()
            same(f"ring {dtype} {shape}", got, random(before, dtype, shape))
    got = [torch.zeros(4) for _ in range(3)]
    works = [dist.isend(torch.full((4,), 10.0 * rank + tag), after, tag=tag) for tag in (0, 1, 2)]
    works += [dist.irecv(got[tag], before, tag=tag) for tag in (2, 0, 1)]
    for work in works:
        work.wait()
    for tag in range(3):
        same(f"tag {tag}", got[tag], torch.full((4,), 10.0 * before + tag))
    left, right, empty = torch.zeros(2), torch.zeros(2), torch.zeros(0)
    ops = [dist.P2POp(dist.irecv, left, before), dist.P2POp(dist.irecv, right, after),
           dist.P2POp(dist.isend, torch.full((2,), float(rank)), after),
           dist.P2POp(dist.isend, torch.full((2,), float(rank)), before)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    same("from the left", left, torch.full((2,), float(before)))
    same("from the right", right, torch.full((2,), float(after)))
    for work in [dist.isend(empty, after), dist.irecv(torch.zeros(0), before)]:
        work.wait()


def barrier(rank, n, rounds=20):
    """Nobody leaves a barrier before everybody has come."""
    store = dist.distributed_c10d._get_default_store()
    for number in range(rounds):
        store.add(f"came {number}", 1)
        dist.barrier()
        came = store.add(f"came {number}", 0)
        assert came == n, f"round {number}: left when {came} of {n} had come"


def objects(rank, n):
    gathered = [None] * n
    dist.all_gather_object(gathered, {"rank": rank, "text": "x" * (10 * rank)})
    assert gathered == [{"rank": r, "text": "x" * (10 * r)} for r in range(n)], gathered
    listed = [[rank, "from"], None]
    dist.broadcast_object_list(listed, src=n - 1)
    assert listed == [[n - 1, "from"], None], listed
    at_root = [None] * n if rank == 1 else None
    dist.gather_object(rank * 1.5, at_root, dst=1)
    assert rank != 1 or at_root == [r * 1.5 for r in range(n)], at_root
    mine = [None]
    dist.scatter_object_list(mine, [f"for {r}" for r in range(n)] if rank == 2 else None, src=2)
    assert mine == [f"for {rank}"], mine
