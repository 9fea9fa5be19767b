"""The cases of check_torch.sh, in TAP. Without arguments all of them, else those whose name contains one."""
import os
import subprocess
import sys
import time
import traceback
import warnings

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(os.getcwd(), "python")]

import behaviour  # noqa: E402
import jobs  # noqa: E402
import operations  # noqa: E402

warnings.filterwarnings("ignore", message=".*will be deprecated.*")


class Skip(Exception):
    pass


def on_ranks(body, **options):
    return lambda: jobs.run(body, **options)


def premul():
    why = jobs.run(operations.premul_sum)[0]
    if why:
        raise Skip(why)


def a_rank_is_late():
    told = jobs.run(behaviour.a_late_rank_is_a_timeout, n=3, timeout_s=1.5)[:2]
    assert any("did not complete within 1.5 s" in text for text in told), told
    assert all("did not complete within 1.5 s" in text or "ncclCommAbort" in text for text in told), told


def same_bits_everywhere():
    places = {"shared memory": {}, "shared memory again": {}, "TCP in one host": {"NCCL_SHM_DISABLE": "1"},
              "four hosts": lambda rank: {"NCCL_HOSTID": f"h{rank}"},
              "two hosts": lambda rank: {"NCCL_HOSTID": f"h{rank // 2}"}}
    seen = {}
    for name, env in places.items():
        def all_env(rank, env=env):
            return {**(env(rank) if callable(env) else env), "RAILCCL_DETERMINISTIC": "1"}
        digests = set(jobs.run(behaviour.digest, env=all_env))
        assert len(digests) == 1, f"{name}: ranks differ"
        seen[name] = digests.pop()
    assert len(set(seen.values())) == 1, seen


def the_example_goes_on():
    """As its first lines say, over torch's own store: python/examples/go_on.py."""
    tool = os.path.join(os.path.dirname(os.environ["RAILCCL_LIBRARY"]), "..", "bin", "railccl")
    for hosts in (1, 2):
        ran = subprocess.run([tool, "run", "-n", "4", "--hosts-emulate", str(hosts), "--keep-going", sys.executable,
                              "python/examples/go_on.py"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             timeout=100, env={**os.environ, "PYTHONPATH": os.path.join(os.getcwd(), "python")})
        for text in ("rank 1 (", "3 workers train on", "3 workers have learned it"):
            assert text in ran.stdout, f"'{text}' is missing: {ran.stdout}"


OPERATIONS = [
    ("all_reduce", operations.allreduce), ("reduce", operations.reduce), ("broadcast", operations.broadcast),
    ("all_gather and all_gather_into_tensor", operations.allgather),
    ("gather and scatter", operations.gather_and_scatter),
    ("reduce_scatter and reduce_scatter_tensor", operations.reduce_scatter), ("all_to_all_single", operations.alltoall),
]
CASES = [(f"{name}: all types, layouts and sizes, against gloo", on_ranks(body)) for name, body in OPERATIONS] + [
    ("all_reduce_coalesced", on_ranks(operations.many_at_once)),
    ("PREMUL_SUM", premul),
    ("all_gather of different sizes", on_ranks(operations.allgather_uneven)),
    ("reduce_scatter of different sizes", on_ranks(operations.reduce_scatter_uneven)),
    ("all_to_all of different sizes, against gloo", on_ranks(operations.alltoall_uneven)),
    ("send, recv, isend, irecv, tags, batches", on_ranks(operations.send_and_recv)),
    ("barrier", on_ranks(operations.barrier)),
    ("objects", on_ranks(operations.objects)),
    ("all operations between two hosts", on_ranks(lambda rank, n: [body(rank, n) for body in (
        operations.many_at_once, operations.allgather_uneven, operations.alltoall_uneven, operations.send_and_recv,
        operations.objects)], env=lambda rank: {"NCCL_HOSTID": f"h{rank // 2}"})),
    ("a call returns before the others have called", on_ranks(behaviour.returns_before_the_others_come)),
    ("futures carry the result", on_ranks(behaviour.futures_carry_the_result)),
    ("calls run in order", on_ranks(behaviour.calls_run_in_order)),
    ("groups side by side", on_ranks(behaviour.groups_work_side_by_side)),
    ("groups come and go", on_ranks(behaviour.groups_come_and_go, n=2, init=False)),
    ("a group of one rank", on_ranks(behaviour.one_rank_alone, n=1)),
    ("DDP over 4 processes has the losses of one process", on_ranks(behaviour.ddp_learns_like_one_process)),
    ("DDP communicates while it computes", on_ranks(behaviour.ddp_communicates_during_backward)),
    ("DDP with a DataLoader's processes", on_ranks(behaviour.ddp_with_a_data_loader, n=2)),
    ("bad arguments are refused by name", on_ranks(behaviour.bad_arguments_are_refused_by_name)),
    ("ranks that call different things are told so", on_ranks(behaviour.different_calls_are_told_apart)),
    ("a rank that never calls is a timeout", a_rank_is_late),
    ("a rank that never starts is a timeout", on_ranks(
        behaviour.a_missing_rank_at_the_start_is_a_timeout, n=2, init=False)),
    ("a rank that dies is named", on_ranks(behaviour.a_dead_rank_is_named, n=3, may_die=(2,))),
    ("a worker dies, the others shrink and go on", on_ranks(behaviour.survivors_shrink, may_die=(2,), arguments=((2,),))),
    ("rank 0, which may have the store, dies, the others go on", on_ranks(
        behaviour.survivors_shrink, may_die=(0,), arguments=((0,),), tcp=True)),
    ("two of five die, the others go on", on_ranks(
        behaviour.survivors_shrink, n=5, may_die=(1, 4), arguments=((1, 4),))),
    ("a worker of two hosts dies, the others go on", on_ranks(
        behaviour.survivors_shrink, may_die=(1,), arguments=((1,),), env=lambda rank: {"NCCL_HOSTID": f"h{rank // 2}"})),
    ("who waits is told that the others shrink", on_ranks(behaviour.one_waits_while_the_others_shrink)),
    ("DDP goes on learning without a worker that died", on_ranks(behaviour.ddp_goes_on, may_die=(1,))),
    ("the example goes on", the_example_goes_on),
    ("a group cannot shrink around its caller", on_ranks(
        behaviour.shrinking_is_refused_where_there_is_nothing_to_shrink, n=2)),
    ("leaving without destroy_process_group", on_ranks(behaviour.leaving_without_goodbye, n=2, init=False)),
    ("a child is told to make its own group", on_ranks(behaviour.a_child_is_told_to_make_its_own, n=2)),
    ("the same bits wherever the ranks sit", same_bits_everywhere),
]


def main(wanted):
    cases = [case for case in CASES if not wanted or any(word in case[0] for word in wanted)]
    print(f"1..{len(cases)}", flush=True)
    failed = 0
    for number, (name, body) in enumerate(cases, 1):
        began = time.monotonic()
        try:
            body()
            print(f"ok {number} - {name}", flush=True)
        except Skip as why:
            print(f"ok {number} - {name} # SKIP {why}", flush=True)
        except Exception:
            failed += 1
            print(f"not ok {number} - {name}")
            print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()[-40:]), flush=True)
        if os.environ.get("V"):
            print(f"# {time.monotonic() - began:.1f} s", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
