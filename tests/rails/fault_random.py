#!/usr/bin/env python3
"""Random schedules of faults, each drawn from (seed, index) alone, on rigs that are up: every byte checked, nothing may hang.

    tests/rails/fault_random.py --n 200 --seed S [--only INDEX] [--kinds cut,reset,...] [--limit SECONDS] [--work DIR] RIG...

Rigs work side by side, one schedule at a time each; even indexes are drawn for rigs of 2 hosts, odd ones for rigs of 3. A
schedule has 1 to 4 faults at any NIC, at moments of every phase; at each moment, and over the whole schedule, every pair of
hosts keeps a rail that nothing kills. A job that ends with an error is a failure here as wrong bytes and a hang are: there was
a way left. Prints a line per schedule that failed, with what reproduces it, then the counts; status 1 when one failed."""
import argparse, collections, random, shutil, subprocess, os, sys, threading, time
import fault_run

DEADLY = ["cut", "silent", "deaf", "mute", "remove", "readdress", "flap"]
HARMLESS = ["slow", "lossy", "rename", "reset"]
QUICK = ["cut", "silent"]  # within a millisecond: for phases that last not much longer
KILOBYTES = [4096, 8192]
FIRST_RAIL_SPARED = ("reset",)  # rail 0 carries the bootstrap's connections, too: those are no lanes


class Schedule:
    def __init__(self, seed, index, kinds=None):
        self.kinds = kinds or DEADLY + DEADLY + HARMLESS
        self.index = index
        self.random = random.Random(f"{seed}:{index}")
        self.hosts = self.rails = 3 if index % 2 else 2
        self.dead = set()
        self.kb = self.random.choice(KILOBYTES)
        self.slots = self.random.choice([1, 1, 2])
        self.collective = self.random.choice(["all_reduce", "all_reduce", "mix"])
        self.steps = self.draw()

    def may_die(self, host, rail):
        dead = self.dead | {(host, rail)}
        pairs = [(a, b) for a in range(self.hosts) for b in range(a)]
        return all(any((a, r) not in dead and (b, r) not in dead for r in range(self.rails)) for a, b in pairs)

    def fault(self, hurry):
        r = self.random
        for _ in range(1000):
            host, rail = r.randrange(self.hosts), r.randrange(self.rails)
            verb = r.choice(QUICK if hurry and r.random() < 0.8 and set(QUICK) <= set(self.kinds) else self.kinds)
            if verb in DEADLY and ((host, rail) in self.dead or not self.may_die(host, rail)):
                continue
            if verb in HARMLESS and ((host, rail) in self.dead or rail == 0 and verb in FIRST_RAIL_SPARED):
                continue
            if verb in DEADLY:
                self.dead.add((host, rail))
            more = {"slow": [r.choice([5, 10, 25])], "lossy": [r.choice([1, 2, 5])],
                    "flap": [r.choice([60, 150, 400]), r.choice([0.4, 0.8])]}.get(verb, [])
            return verb, host, rail, more
        return None  # nothing is left that may die

    def draw(self):
        r, steps, call, last = self.random, [], 2, None
        for k in range(r.choice([1, 1, 2, 2, 3])):
            when = r.choice(["ready", "between", "first", "middle", "last", "last"]) if k == 0 else r.choice(
                ["stalled", "stalled", "soon", "soon", "last", "between"])
            drawn = self.fault(when in ("first", "last", "stalled"))
            if not drawn:
                break
            verb, host, rail, more = drawn
            at = {"ready": "ready", "between": f"between {call}", "first": f"call {call} 0", "middle": f"call {call} {r.randrange(5, 90)}",
                  "last": f"call {call} {r.choice([95, 97, 98])}", "stalled": "stalled", "soon": f"+{r.choice([0, 0.005, 0.02, 0.1, 0.3])}"}[when]
            steps.append(f"{at}: {verb} {host} {rail} {' '.join(map(str, more))}".strip())
            if r.random() < 0.3 and verb != "flap" or verb == "rename" or verb == "slow" and r.random() < 0.5:
                steps.append(f"+{r.choice([0.05, 0.3, 0.8])}: heal {host} {rail}")
            call += r.choice([1, 1, 2])
            last = verb
        steps.append(f"+{0.9 if last == 'flap' else 0}: more 2")
        return steps

    def limit(self, usual):
        """A call of 8 MiB takes 13 s where the only rail left is slowed to 5 Mbit/s, and three are made: late is not hung."""
        return usual * (4 if any(" slow " in f" {step} " and step.split()[-1] in ("5", "10") for step in self.steps) else 1)

    def script(self):
        return "; ".join(self.steps)

    def options(self):
        return ["--bytes", f"{self.kb}K", "--pause", "20", "--collective", self.collective]


class Many:
    def __init__(self, o):
        self.o, self.lock = o, threading.Lock()
        self.queues = {2: [], 3: []}
        for index in ([o.only] if o.only is not None else range(o.n)):
            self.queues[3 if index % 2 else 2].append(index)
        self.ends, self.phases, self.kinds, self.together = (collections.Counter() for _ in range(4))
        self.gap = []

    def next(self, hosts):
        with self.lock:
            return self.queues[hosts].pop(0) if self.queues[hosts] else None

    def one(self, rig, index):
        schedule = Schedule(self.o.seed, index, self.o.kinds)
        work = os.path.join(self.o.work, str(index))
        shutil.rmtree(work, ignore_errors=True)
        run = fault_run.Run(rig, schedule.slots, schedule.script(), schedule.options(), schedule.limit(self.o.limit), 0.5, work)
        end, line, text = run.run()
        with self.lock:
            self.ends[end] += 1
            self.phases.update(set(run.phases))
            self.together[len(run.faults)] += 1
            self.kinds.update(step.action[0] for step in run.steps if step.action[0] not in ("more", "heal"))
            if "gap" in line:
                self.gap.append((float(line["gap"]), index))
            if end != "right" or self.o.verbose:
                print(f"schedule {index} on {schedule.hosts} x {schedule.rails}, {schedule.slots} a host, {schedule.kb} KiB of {schedule.collective}: {end}")
                print(f"  {schedule.script()}")
                print("  " + " ".join(f"{k}={v}" for k, v in line.items()))
                for note in run.notes:
                    print("  " + note)
                if text:
                    print("  " + " ".join(text.split())[:600])
                print(f"  again: tests/rails/faults.sh --random {self.o.n} --seed {self.o.seed} --only {index}{' --kinds ' + ','.join(self.o.kinds) if self.o.kinds else ''}   (kept: {work})", flush=True)
        if end == "right" and not self.o.verbose:
            shutil.rmtree(work, ignore_errors=True)
        touched = {(s.action[1], s.action[2]) for s in run.steps if s.action[0] != "more"}
        for host, rail in touched:
            healed = subprocess.run(["bash", os.path.join(fault_run.HERE, "rig.sh"), "heal", rig, host, rail], capture_output=True, text=True)
            if healed.returncode:
                print(f"rig {rig}: heal {host} {rail}: {healed.stderr.strip()}", flush=True)

    def worker(self, rig):
        hosts = fault_run.Rig(rig).hosts
        while (index := self.next(hosts)) is not None:
            try:
                self.one(rig, index)
            except Exception as e:  # a harness that breaks is a failure, not a pass
                with self.lock:
                    self.ends["unrun"] += 1
                    print(f"schedule {index}: could not be run: {e!r}", flush=True)

    def go(self, rigs):
        start = time.monotonic()
        threads = [threading.Thread(target=self.worker, args=(rig,)) for rig in rigs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        left = sum(map(len, self.queues.values()))
        if left:
            self.ends["unrun"] += left
        show = lambda counter: ", ".join(f"{k} {v}" for k, v in sorted(counter.items(), key=lambda item: str(item[0])))
        print(f"seed {self.o.seed}: {sum(self.ends.values())} schedules: {show(self.ends)}; {time.monotonic() - start:.0f} s")
        print(f"phases hit, by schedules: {show(self.phases)}")
        print(f"faults per schedule: {show(self.together)}; kinds: {show(self.kinds)}")
        if self.gap:
            self.gap.sort()
            print(f"longest gap of a schedule: median {self.gap[len(self.gap) // 2][0]:.0f} ms, worst {self.gap[-1][0]:.0f} ms (schedule {self.gap[-1][1]})")
        missing = [p for p in ("between", "last", "connect", "repair") if not self.phases[p]]
        if missing and self.o.n >= 50 and self.o.only is None:
            print(f"no schedule hit: {', '.join(missing)}")
            return 1
        return 0 if set(self.ends) <= {"right"} else 1


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("--n", type=int, default=200)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--only", type=int)
    p.add_argument("--kinds", type=lambda text: text.split(","), help="only these, such as reset,cut: other schedules than without")
    p.add_argument("--limit", type=float, default=30)
    p.add_argument("--work", default="/tmp/railccl-faults")
    p.add_argument("--verbose", action="store_true")
    p.add_argument("--list", action="store_true", help="print the schedules and run nothing")
    p.add_argument("rigs", nargs="*")
    o = p.parse_args()
    if o.list:
        for index in [o.only] if o.only is not None else range(o.n):
            print(index, Schedule(o.seed, index, o.kinds).script())
        return 0
    return Many(o).go(o.rigs)


if __name__ == "__main__":
    sys.exit(main())
