# SPDX-License-Identifier: BSD-3-Clause
"""How soon a register is answered while storage is stalled.

A DMA read goes to a disk that `flaky` delays for seconds; meanwhile latency-client reads a register again and again.
The same without that read, and a bare ping-pong with a process that does nothing else (the floor), take turns with it:
what a busy machine does to an answer it does to all three. `waited` are late answers during which the kernel had client or
server wait for a core; what is late without that and beyond the floor's share is ours."""

from measuring import SERVER_CORE

QUICK, SECONDS, ROUNDS, DELAY = 0.2, 1.0, 4, 2
LATE_US = 50
NOISE = 1               # in a thousand: what is late beyond the floor's share and still says nothing


def section(bench):
    seconds, rounds = (QUICK, 1) if bench.arguments.quick else (SECONDS, ROUNDS)
    print(f"\nregisters over vfio-user, read while storage is stalled; late: after {LATE_US} µs")
    print(f"{'':20}{'answers':>10}{'p50':>10}{'p99':>10}{'p99.9':>10}{'max µs':>12}{'late ‰':>10}{'waited ‰':>10}", flush=True)
    for kind in ("ide", "pvscsi"):
        server = bench.device(kind, [{"flaky": {"delay": f"{DELAY}s", "ops": "read"}}, {"null": {}}])
        found = bench.ask_client("latency", server, "--device", kind, "--rounds", rounds, "--seconds", seconds,
                                 "--server-cpu", SERVER_CORE)
        bench.results[f"latency {kind}"] = found
        for situation, run in found.items():
            print(f"{f'{kind}, {situation}':20}{run['count']:>10}{run['p50_us']:>10.1f}{run['p99_us']:>10.1f}"
                  f"{run['p999_us']:>10.1f}{run['max_us']:>12.1f}{1e3 * run['late'] / run['count']:>10.2f}"
                  f"{1e3 * run['explained'] / run['count']:>10.2f}", flush=True)


def unexplained(run):
    """Of a thousand answers, those that were late without a wait for a core."""
    return 1e3 * (run["late"] - run["explained"]) / run["count"]


def targets(results, row):
    for kind in ("ide", "pvscsi"):
        found = results.get(f"latency {kind}")
        row(f"{kind} register while stalled, p99", found and found["stalled"]["p99_us"], LATE_US, False, "µs")
        row(f"{kind} register while stalled, p99.9 to the floor's",
            found and found["stalled"]["p999_us"] / found["floor"]["p999_us"], 1.5, False)
        row(f"{kind} register while stalled, late beyond the floor",
            found and unexplained(found["stalled"]) - unexplained(found["floor"]), NOISE, False, "‰")


SECTIONS = {"latency": section}
