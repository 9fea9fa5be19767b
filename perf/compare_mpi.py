#!/usr/bin/env python3
"""Compares all_reduce_perf and its sisters with MPI libraries on this host, in interleaved pairs.

The machine's mood changes from minute to minute, so a ratio is only taken between two runs that follow one another, the
order alternates, and the median of at least 9 such pairs is shown. Both sides check every element; a wrong one fails.

  perf/compare_mpi.py [--collective all_reduce,...] [--ranks 2,4] [--peer om_default,...] [--pairs 9] [--first 8] [--last 128M]
                      [--factor 4] [--json FILE] [--plot FILE.svg]

Floats, sum, out of place, plain memory; the time is that of the slowest rank. Needs Debian's libopenmpi-dev or libmpich-dev for
the peers, and gnuplot-nox for --plot.

Ratio: the peer's time divided by ours, 2.0 means we take half the time. Exit status 1 when anything was wrong.
"""
import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

VADER = ["--mca", "pml", "ob1", "--mca", "btl", "self,vader"]
YIELD = ["--mca", "mpi_yield_when_idle", "1"]
UCX = ["--mca", "pml", "ucx", "--mca", "pml_ucx_tls", "any", "--mca", "pml_ucx_devices", "any", "-x", "UCX_TLS=self,sm"]
SEGRING = ["--mca", "coll_tuned_use_dynamic_rules", "1", "--mca", "coll_tuned_allreduce_algorithm", "5",
           "--mca", "coll_tuned_allreduce_algorithm_segmentsize", "65536"]
QUIET = 0.93  # below that, times of runs that need all cores are 2 to 4 times too long
# busbw is algbw times this, as nccl-tests counts.
BUS_FACTOR = {"all_reduce": lambda n: 2 * (n - 1) / n, "reduce_scatter": lambda n: (n - 1) / n,
              "all_gather": lambda n: (n - 1) / n, "alltoall": lambda n: (n - 1) / n, "broadcast": lambda n: 1,
              "reduce": lambda n: 1, "gather": lambda n: (n - 1) / n, "scatter": lambda n: (n - 1) / n, "sendrecv": lambda n: 1}
PACKAGES = {"openmpi": "libopenmpi-dev", "mpich": "libmpich-dev"}
# Name: (launcher, options besides -np). What wins where: coll/sm for 2 ranks from 512 B on (it is off by default and does
# not yield), vader for 2 ranks below; ucx with yield for more ranks than cores, the segmented ring for its large sizes.
PEERS = {
    "om_default": ("openmpi", []),
    "om_vader": ("openmpi", VADER),
    "om_vader_yield": ("openmpi", VADER + YIELD),
    "om_sm": ("openmpi", VADER + ["--mca", "coll_sm_priority", "100"]),
    "om_ucx": ("openmpi", UCX + YIELD),
    "om_segring": ("openmpi", VADER + YIELD + SEGRING),
    "mp_default": ("mpich", []),
}


def size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    unit = units.get(text[-1].upper())
    return int(float(text[:-1]) * unit) if unit else int(text)


def size_text(size_bytes):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def idle_share(seconds=0.3):
    """How idle the machine's cores are while we do nothing: foreign load spoils times and ratios alike."""
    def read():
        with open("/proc/stat") as file:
            fields = [int(x) for x in file.readline().split()[1:9]]
        return fields[3] + fields[4], sum(fields)
    before = read()
    time.sleep(seconds)
    after = read()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def build_peer(launcher, folder):
    program = os.path.join(folder, "collective_mpi." + launcher)
    compiler = "mpicc." + launcher
    probe = subprocess.run([compiler, "-E", "-x", "c", "-include", "mpi.h", "/dev/null"], capture_output=True) \
        if shutil.which(compiler) else None
    if probe is None or probe.returncode != 0:
        sys.exit(f"{compiler} with its mpi.h is not there: apt-get install {PACKAGES[launcher]}")
    run([compiler, "-O2", "-o", program, os.path.join(HERE, "mpi", "collective_mpi.c")])
    return program


def first_size(n, options):
    """An element for the block of every rank."""
    return max(options.first, 4 * n)


def measure_peer(program, peer, collective, n, options):
    launcher, extra = PEERS[peer]
    if launcher == "openmpi":
        enough = n <= len(os.sched_getaffinity(0))
        command = ["mpirun.openmpi", "-np", str(n), "--oversubscribe", "--bind-to", "core" if enough else "none"] + extra
    else:
        command = ["mpiexec.hydra", "-np", str(n)] + extra
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    output = run(command + [program, collective, str(first_size(n, options)), str(options.last), str(options.factor)],
                 env=environment)
    times = {}
    for line in output.splitlines():
        if line.startswith("#"):
            times["name"] = line[2:]
        elif line.strip():
            bytes_, us, _, wrong = line.split()
            times[int(bytes_)] = float(us)
            if wrong != "0":
                sys.exit(f"{peer}: {wrong} wrong elements at {bytes_} bytes")
    return times


def measure_ours(collective, n, options, folder):
    path = os.path.join(folder, "ours.json")
    if os.path.exists(path):
        os.unlink(path)
    run([os.path.join(options.build, "bin", "railccl"), "run", "-n", str(n),
         os.path.join(options.build, "bin", collective + "_perf"), "-b", str(first_size(n, options)),
         "-e", str(options.last), "-f", str(options.factor), "-n", "0", "-a", "3", "-c", "1", "-J", path])
    with open(path) as file:
        report = json.load(file)
    if report["out_of_bounds"]["count"] != 0:
        sys.exit(f"{collective}_perf found wrong elements")
    return {row["size"]: row["out_of_place"]["time"] for row in report["results"]}


def compare(peer, collective, n, options, folder):
    program = build_peer(PEERS[peer][0], folder)
    pairs, idle = [], []
    for pair in range(options.pairs):
        idle.append(idle_share())
        sides = ["ours", "peer"] if pair % 2 == 0 else ["peer", "ours"]
        times = {}
        for side in sides:
            times[side] = measure_ours(collective, n, options, folder) if side == "ours" else \
                measure_peer(program, peer, collective, n, options)
        pairs.append(times)
        print(f"  {collective}, {peer}, {n} ranks: pair {pair + 1} of {options.pairs}", file=sys.stderr)
    rows = []
    sizes = zip(sorted(pairs[0]["ours"]), sorted(b for b in pairs[0]["peer"] if b != "name"))
    for bytes_, asked in sizes:  # ours: what whole blocks of all ranks have of the bytes asked for
        ours = [p["ours"][bytes_] for p in pairs]
        theirs = [p["peer"][asked] for p in pairs]
        ratios = [t / o for o, t in zip(ours, theirs)]
        median = statistics.median(ours)
        rows.append({"bytes": bytes_, "ours_us": median, "peer_us": statistics.median(theirs), "ours_min_us": min(ours),
                     "peer_min_us": min(theirs), "ratio": statistics.median(ratios), "ratio_min": min(ratios),
                     "ratio_max": max(ratios), "ours_busbw_GB_per_s": bytes_ / median * BUS_FACTOR[collective](n) / 1000})
    return {"collective": collective, "peer": peer, "peer_name": pairs[0]["peer"].get("name", ""), "ranks": n, "pairs": options.pairs,
            "idle_share_min": min(idle), "idle_share_median": statistics.median(idle), "rows": rows}


def show(result):
    print(f"\n{result['collective']}, {result['ranks']} ranks against {result['peer']} ({result['peer_name']}), {result['pairs']} interleaved pairs, "
          "float sum out of place")
    print(f"{'size':>10} {'ours us':>11} {'peer us':>11} {'ratio':>7} {'(min..max)':>15} {'our busbw GB/s':>15}")
    for row in result["rows"]:
        spread = f"({row['ratio_min']:.2f}..{row['ratio_max']:.2f})"
        print(f"{size_text(row['bytes']):>10} {row['ours_us']:>11.2f} {row['peer_us']:>11.2f} {row['ratio']:>7.2f} {spread:>15} "
              f"{row['ours_busbw_GB_per_s']:>15.2f}")
    if result["idle_share_min"] < QUIET:
        print(f"NOT TO BE QUOTED: other programs were running; the cores were only {result['idle_share_min']:.0%} idle before the "
              f"worst pair, {result['idle_share_median']:.0%} before the median one, and should be {QUIET:.0%}")


def plot(results, path):
    """Ratio over size, a line per comparison; above 1 we are faster."""
    if not shutil.which("gnuplot"):
        sys.exit(f"--plot {path}: gnuplot is not there: apt-get install gnuplot-nox")
    script = [f"set terminal svg size 900,540 background rgb 'white'; set output '{path}'", "set logscale xy 2",
              "set xlabel 'bytes'; set ylabel 'peer / ours (median of pairs)'; set key outside right; set grid",
              "set format x '%.0b%B'", "set arrow from graph 0, first 1 to graph 1, first 1 nohead lw 2 lc rgb 'black'"]
    lines = []
    for i, result in enumerate(results):
        script.append(f"$d{i} << E\n" + "\n".join(f"{r['bytes']} {r['ratio']}" for r in result["rows"]) + "\nE")
        lines.append(f"$d{i} with linespoints title '{result['collective']} {result['ranks']} {result['peer']}' noenhanced")
    subprocess.run(["gnuplot"], input="\n".join(script + ["plot " + ", ".join(lines)]) + "\n", text=True, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collective", default="all_reduce", help="one or more of: " + " ".join(BUS_FACTOR))
    parser.add_argument("--ranks", default="2,4", help="numbers of ranks (2,4)")
    parser.add_argument("--peer", default="om_default", help="one or more of: " + " ".join(PEERS))
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs (9)")
    parser.add_argument("--first", type=size, default=8, help="first size (8)")
    parser.add_argument("--last", type=size, default=128 << 20, help="last size (128M)")
    parser.add_argument("--factor", type=int, default=4, help="factor between sizes (4)")
    parser.add_argument("--json", help="also write the results there")
    parser.add_argument("--plot", help="also draw the ratios there, as SVG (gnuplot-nox)")
    parser.add_argument("--build", default=os.path.join(ROOT, os.environ.get("BUILD", "build")), help="build folder")
    options = parser.parse_args()
    peers = options.peer.split(",")
    for peer in peers:
        if peer not in PEERS:
            parser.error(f"--peer {peer}: one or more of {' '.join(PEERS)}")
    collectives = options.collective.split(",")
    for collective in collectives:
        if collective not in BUS_FACTOR:
            parser.error(f"--collective {collective}: one or more of {' '.join(BUS_FACTOR)}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for collective, n, peer in itertools.product(collectives, options.ranks.split(","), peers):
            results.append(compare(peer, collective, int(n), options, folder))
            show(results[-1])
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"cores": len(os.sched_getaffinity(0)), "results": results}, file, indent=1)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
