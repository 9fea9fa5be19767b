#!/usr/bin/env python3
"""One job with faults injected into its rig: what was hit, and how it ended. For faults.sh and by hand.

    tests/rails/fault_run.py [--limit S] [--settle S] [--keep DIR] RIG SLOTS "SCRIPT" [fault_meter's options ...]

runs fault_meter with SLOTS ranks on each host of a rig that is up (rig.sh), and carries the script out step by step:

    SCRIPT  STEP; STEP; ...       STEP  WHEN: ACTION [ARGUMENTS]
    WHEN    ready                 every rank has its communicator and made no call: no lane is connected
            call K P              call K (from 1) has begun, and the slowest rank has P per cent of it
            between K             every rank is between calls K and K + 1
            stalled               a rank inside a call has had nothing for 15 ms: a repair is under way. Not within a second: go on
            +S                    S seconds after the step before
    ACTION  a verb of rig.sh (cut silent deaf mute slow lossy rename readdress remove reset heal) with HOST RAIL ...
            flap HOST RAIL PERIOD_MS SECONDS    cut and healed, cut and healed
            more N                after N more calls of every rank, the meter stops

It prints one line of NAME=value, after it "error: ..." where there was one. Times are from the first fault on:
    end        right; wrong (bytes); error (the job ended with a text); hang (stopped after --limit seconds); died (of a signal)
    named      of an error: its text names a rail and both addresses
    phases     which phases the faults hit, by what ranks showed before and after each was injected: connect (it was there while the
               first call connected lanes), between, first (no byte of the call had come), middle, last (95 % of it had), repair (a rank
               was stalled by an earlier fault), unsure (it took long enough to fall between two), and missed (a step that waited in vain)
    gap        longest gap in delivered bytes at any rank in ms (delivery.h); gap_at: seconds after the first fault;
               blind: how long the meter itself was without CPU; calm: the longest gap before the fault
    barrier    the longest barrier in ms: what a fault between calls costs
    before, after, healed    MB/s delivered to a rank inside calls: until the first fault; from --settle seconds (1) after the last
               fault until something is healed; from 2 s after the last healing on
    left, back      the same as per cent of before
    own, others     of the NIC that was hit first, and of the least of the host's others: per cent of the rate that came in by it, after
    calls, wrong, s

Exit status: 0 right, 1 error, 3 wrong, 4 hang, 5 died, 2 could not be run."""
import argparse, glob, json, mmap, os, re, shutil, signal, struct, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.path.join(os.environ.get("BUILD", "build"), "bin")
START, INIT, READY, BARRIER, CALL, BETWEEN, DONE = range(7)
STALL_S = 0.015  # three looks of the meter
LAMING = ("cut", "silent", "deaf", "mute", "remove", "readdress", "reset", "flap")
LINE = struct.Struct("<IIQQQQ")
STATUS = {"right": 0, "error": 1, "wrong": 3, "hang": 4, "died": 5}


class Rank:
    def __init__(self, board, rank):
        self.phase, self.call, self.delivered, self.total, moved, self.wrong = LINE.unpack_from(board, 64 + 64 * rank)
        self.stalled_s = time.monotonic() - moved / 1e9 if self.phase == CALL and self.delivered < self.total else 0.0

    def share(self, call):
        """Per cent of a call that this rank has."""
        if self.call != call or self.phase not in (CALL, BETWEEN, BARRIER, DONE):
            return 100.0 if self.call > call else -1.0
        if self.phase != CALL:
            return 100.0
        return 100.0 * self.delivered / self.total if self.total else 0.0


class Rig:
    """The verbs of rig.sh; cut, silent and what undoes them within a millisecond, by an `ip` that is running already."""

    def __init__(self, name):
        self.name = name
        with open(f"/run/{name}.rig") as f:
            self.hosts, self.rails, self.mbit, self.shuffle = [int(word) for word in f.read().split()[:4]]
        self.leaves = {}
        self.lock = threading.Lock()

    def leaf(self, rail, line):
        with self.lock:
            if rail not in self.leaves:
                self.leaves[rail] = subprocess.Popen(["ip", "-n", f"{self.name}-l{rail}", "-force", "-batch", "-"], stdin=subprocess.PIPE,
                                                     text=True, bufsize=1, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.leaves[rail].stdin.write(line + "\n")
            self.leaves[rail].stdin.flush()
        time.sleep(0.001)

    def warm(self):
        for rail in range(self.rails):
            self.leaf(rail, "link show leaf")

    def do(self, verb, host, rail, *more):
        if verb == "cut":
            return self.leaf(rail, f"link set h{host} down")
        if verb == "silent":
            return self.leaf(rail, f"link set h{host} nomaster")
        if verb == "join":
            return self.leaf(rail, f"link set h{host} master leaf up")
        done = subprocess.run(["bash", os.path.join(HERE, "rig.sh"), verb, self.name, str(host), str(rail), *map(str, more)],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"rig.sh {verb} {self.name} {host} {rail}: {done.stderr.strip()}")

    def nic(self, host, rail):
        return f"eth{(rail - host) % self.rails if self.shuffle else rail}"

    def close(self):
        for ip in self.leaves.values():
            ip.stdin.close()
            ip.wait()


class Step:
    def __init__(self, text):
        when, _, action = text.partition(":")
        self.text, self.when, self.action = text.strip(), when.split(), action.split()
        if not self.when or not self.action:
            raise ValueError(f"a step is 'WHEN: ACTION ...': {text!r}")


def parse(script):
    return [Step(text) for text in script.split(";") if text.strip()]


class Run:
    def __init__(self, rig_name, slots, script, meter=(), limit=120.0, settle=1.0, keep=None, env=None):
        self.rig, self.slots, self.steps, self.meter = Rig(rig_name), slots, parse(script), list(meter)
        self.limit, self.settle, self.env = limit, settle, env or {}
        self.n = self.rig.hosts * slots
        self.work = keep or tempfile.mkdtemp(prefix="faults-")
        os.makedirs(self.work, exist_ok=True)
        self.faults, self.heals, self.phases, self.notes, self.threads = [], [], [], [], []
        self.hit = None  # (host, rail) of the first fault
        self.lamed = -1e9  # when the last fault struck that ends lanes

    # ---- the board

    def ranks(self):
        return [Rank(self.board, r) for r in range(self.n)]

    def over(self):
        return self.job.poll() is not None or time.monotonic() > self.deadline

    def wait_for(self, true, limit_s=1e9):
        end = time.monotonic() + limit_s
        while not true(self.ranks()):
            if self.over() or time.monotonic() > end:
                return False
            time.sleep(0.0005)
        return True

    # ---- the script

    def await_step(self, when):
        word = when[0]
        if word.startswith("+"):
            end = time.monotonic() + float(word[1:])
            return self.wait_for(lambda ranks: time.monotonic() >= end)
        if word == "ready":
            return self.wait_for(lambda ranks: all(r.phase == READY for r in ranks))
        if word == "call":
            call, share = int(when[1]), float(when[2])
            return self.wait_for(lambda ranks: min(r.share(call) for r in ranks) >= share)
        if word == "between":
            call = int(when[1])
            self.wait_for(lambda ranks: all(r.call > call or (r.call == call and r.phase in (BETWEEN, BARRIER)) for r in ranks))
            return all(r.call == call and r.phase == BETWEEN for r in self.ranks())
        if word == "stalled":
            return self.wait_for(lambda ranks: any(r.stalled_s > STALL_S for r in ranks), 1.0)
        raise ValueError(f"when is {word!r}?")

    def phase_of(self, ranks):
        """What the ranks are at, in a word."""
        if any(r.phase < READY for r in ranks):
            return "init"
        if all(r.phase == READY for r in ranks):
            return "connect"
        if any(r.stalled_s > STALL_S for r in ranks) and time.monotonic() - self.lamed < 2:
            return "repair"
        inside = [r for r in ranks if r.phase == CALL]
        if not inside:
            return "between"
        if max(r.delivered for r in inside) == 0:
            return "connect" if all(r.call == 1 for r in inside) else "first"
        return "last" if min(r.delivered / max(r.total, 1) for r in inside) >= 0.95 else "middle"

    def inject(self, action):
        verb, host, rail, more = action[0], int(action[1]), int(action[2]), action[3:]
        before = self.phase_of(self.ranks())
        at = time.monotonic()
        if verb == "flap":
            self.threads.append(threading.Thread(target=self.flap, args=(host, rail, float(more[0]) / 1000, float(more[1]))))
            self.threads[-1].start()
        else:
            self.rig.do(verb, host, rail, *more)
        after = self.phase_of(self.ranks())
        self.notes.append(f"{at - self.began:.3f} {' '.join(action)}: {before}, {after}, took {1e3 * (time.monotonic() - at):.1f} ms")
        if verb == "heal":
            self.heals.append(at)
            return
        self.hit = self.hit or (host, rail)
        # It struck between the two looks. Where they differ nobody knows into which, unless it took no time; a stall afterwards is its own.
        sure = before == after or after == "repair" or time.monotonic() - at < 0.003
        self.phases.append(before if sure else "unsure")
        self.faults.append(at)
        if verb in LAMING:
            self.lamed = at

    def flap(self, host, rail, period, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.over():
            self.rig.do("cut", host, rail)
            time.sleep(period / 2)
            self.rig.do("join", host, rail)
            time.sleep(period / 2)
        self.heals.append(time.monotonic())

    def more(self, n):
        goal = max(r.call for r in self.ranks()) + n
        self.wait_for(lambda ranks: min(r.call if r.phase != CALL else r.call - 1 for r in ranks) >= goal)

    def carry_out(self):
        for step in self.steps:
            if step.when[0] != "ready":
                self.go()
            if not self.await_step(step.when):
                self.notes.append(f"{time.monotonic() - self.began:.3f} missed: {step.text}")
                self.phases.append("missed")
                if step.when[0] not in ("between", "stalled"):
                    return
            if self.over():
                return
            if step.action[0] == "more":
                self.more(int(step.action[1]))
            else:
                self.inject(step.action)
        self.go()

    def go(self):
        struct.pack_into("<I", self.board, 0, 1)

    # ---- the job

    def start(self):
        path = os.path.join(self.work, "board")
        with open(path, "wb") as f:
            f.truncate(64 * (1 + self.n))
        with open(path, "r+b") as f:
            self.board = mmap.mmap(f.fileno(), 0)
        hosts = ",".join(f"{self.rig.name}-h{h}:{self.slots}" for h in range(self.rig.hosts))
        wait = ["--wait"]
        env = {**os.environ, "NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "NET", "NCCL_DEBUG_FILE": os.path.join(self.work, "log.%p"), **self.env}
        self.out = open(os.path.join(self.work, "out"), "wb")
        self.rig.warm()
        self.began = time.monotonic()
        self.deadline = self.began + self.limit
        self.job = subprocess.Popen([os.path.join(BIN, "railccl"), "run", "-n", str(self.n), "--netns", hosts, "--no-prefix",
                                     os.path.join(os.path.dirname(BIN), "tests/rails/fault_meter"), "--calls", "0", "--board", path, "--json",
                                     os.path.join(self.work, "rank.%r"), *wait, *self.meter],
                                    stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, start_new_session=True)

    def finish(self):
        struct.pack_into("<I", self.board, 4, 1)
        self.go()
        hang = False
        try:
            self.job.wait(max(0.1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            hang = True
            self.stacks()
            os.killpg(self.job.pid, signal.SIGTERM)
            try:
                self.job.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.job.pid, signal.SIGKILL)
                self.job.wait()
        for thread in self.threads:
            thread.join()
        self.out.close()
        return hang

    def stacks(self):
        """Where a job that hangs hangs, if there is a debugger (in the work folder, for whoever looks)."""
        self.notes.append("hang: " + ", ".join(f"rank {i} phase {r.phase} call {r.call} {r.delivered}/{r.total}" for i, r in enumerate(self.ranks())))
        if not shutil.which("gdb"):
            return
        with open(os.path.join(self.work, "stacks"), "w") as f:
            for pid in subprocess.run(["pgrep", "-g", str(os.getpgid(self.job.pid)), "-P", str(self.job.pid)], capture_output=True, text=True).stdout.split():
                subprocess.run(["gdb", "-p", pid, "-batch", "-ex", "thread apply all bt 12"], stdout=f, stderr=subprocess.DEVNULL, timeout=20)

    def run(self):
        self.start()
        try:
            self.carry_out()
        finally:
            hang = self.finish()
            wrong = sum(r.wrong for r in self.ranks())
            self.rig.close()
        return self.judge(hang, wrong)

    # ---- the verdict

    def judge(self, hang, wrong):
        reports = []
        for path in glob.glob(os.path.join(self.work, "rank.*")):
            with open(path) as f:
                reports += [json.loads(line) for line in f if line.strip()]
        with open(os.path.join(self.work, "out"), errors="replace") as f:
            out = f.read()
        errors = [r["error"] for r in reports if "error" in r]
        killed = re.search(r"was killed by SIG(\w+)", out)
        text = self.first_error(reports) or out.strip()[-400:]
        if wrong or any(r["wrong"] for r in reports):
            end = "wrong"
        elif hang:
            end = "hang"
        elif killed and killed.group(1) not in ("TERM",) or "Sanitizer" in out:
            end, text = "died", out.strip()[-800:]
        elif self.job.returncode or len(reports) < self.n:
            end = "error"
        else:
            end = "right"
        line = {"end": end, "phases": ",".join(self.phases) or "none"}
        if end == "error":
            line["named"] = int(bool(errors) and bool(re.search(r"rail", text)) and len(set(re.findall(r"\b10\.77\.\d+\.\d+", text))) >= 2)
        line.update(self.figures(reports))
        line.update(calls=min((r["calls"] for r in reports), default=0), wrong=wrong, s=f"{time.monotonic() - self.began:.1f}")
        return end, line, text if end != "right" else ""

    @staticmethod
    def first_error(reports):
        failed = [r for r in reports if "error" in r]
        # The one that names a rail knows the cause; others know that somebody is gone.
        failed.sort(key=lambda r: ("rail" not in r["error"], r["rank"]))
        return f"rank {failed[0]['rank']}: {failed[0]['error']}" if failed else ""

    def figures(self, reports):
        if not reports or not self.faults:
            return self.rates(reports) if reports else {}
        first, best, at, calm, rank = self.faults[0], 0.0, 0.0, 0.0, -1
        for r in reports:
            for start, ms, call in r["gaps"] if "gaps" in r else []:
                if start + ms / 1000 < first:
                    calm = max(calm, ms) if call > 1 else calm
                elif ms > best:
                    best, at, rank = ms, start - first, r["rank"]
        line = dict(gap=f"{best:.0f}", gap_at=f"{at:.2f}", gap_rank=rank, blind=f"{max(r.get('blind_ms', 0) for r in reports):.0f}",
                    calm=f"{calm:.0f}", barrier=f"{max(r['barrier_ms'] for r in reports if 'barrier_ms' in r):.0f}")
        line.update(self.rates(reports))
        return line

    def rates(self, reports):
        first = self.faults[0] if self.faults else 1e12
        fault_end = self.faults[-1] if self.faults else 1e12
        healed = [t for t in self.heals if t > first]
        before = self.rate(reports, 0, first, skip_first_call=True)
        after = self.rate(reports, fault_end + self.settle, healed[0] if healed else 1e12)
        back = self.rate(reports, healed[-1] + 2.0, 1e12) if healed else 0
        line = dict(before=f"{before:.1f}", after=f"{after:.1f}", healed=f"{back:.1f}")
        if before:
            line.update(left=f"{100 * after / before:.1f}", back=f"{100 * back / before:.1f}")
        if self.hit:
            line.update(self.nics(reports, fault_end + self.settle, healed[0] if healed else 1e12))
        return line

    def buckets(self, report, start, end):
        """Numbers of the report's buckets that lie in the window wholly."""
        s = report.get("bucket_ms", 100) / 1000
        for i in range(len(report.get("delivered", []))):
            t = (report["first_bucket"] + i) * s
            if t >= start and t + s <= end:
                yield i

    def rate(self, reports, start, end, skip_first_call=False):
        got = calling = 0.0
        for r in reports:
            begin = max(start, r["call_s"][0][1]) if skip_first_call and len(r["call_s"]) > 1 else start
            for i in self.buckets(r, begin, end):
                got += r["delivered"][i]
                calling += r["calling_ms"][i]
        return got / calling / 1000 if calling >= 200 * len(reports) else 0.0

    def nics(self, reports, start, end):
        host, rail = self.hit
        report = next((r for r in reports if r["host"].endswith(f"-h{host}") and r.get("nics")), None)
        if not report:
            return {}
        rates = {}
        for k in range(self.rig.rails):
            nic = report["nics"].get(self.rig.nic(host, k))
            kib = ms = 0.0
            for i in self.buckets(report, start, end):
                if nic and report["calling_ms"][i] > 90:  # inside a call all the time
                    kib += nic["rx_kib"][i]
                    ms += report["calling_ms"][i]
            rates[k] = 100 * kib * 8.192 / ms / self.rig.mbit if ms else 0.0
        return dict(own=f"{rates[rail]:.1f}", others=f"{min((v for k, v in rates.items() if k != rail), default=0):.1f}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=True)
    parser.add_argument("--limit", type=float, default=120)
    parser.add_argument("--settle", type=float, default=1)
    parser.add_argument("--keep")
    parser.add_argument("rig")
    parser.add_argument("slots", type=int)
    parser.add_argument("script")
    parser.add_argument("meter", nargs=argparse.REMAINDER)
    o = parser.parse_args()
    run = Run(o.rig, o.slots, o.script, o.meter, o.limit, o.settle, o.keep)
    end, line, text = run.run()
    print(" ".join(f"{k}={v}" for k, v in line.items()))
    for note in run.notes:
        print("  " + note)
    if text:
        print("error: " + " ".join(text.split()))
    if not o.keep and end in ("right", "error"):
        shutil.rmtree(run.work, ignore_errors=True)
    elif end not in ("right", "error") or o.keep:
        print(f"kept: {run.work}")
    sys.exit(STATUS[end])


if __name__ == "__main__":
    main()
