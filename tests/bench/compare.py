#!/usr/bin/env python3
"""Kiln beside ONNX Runtime and OpenVINO on folders of models: answers, latency, start, compile time, memory, sizes.

    python3 compare.py FOLDER... [--kiln PATH] [--threads 1,2] [--seconds 3] [--only NAME,...] [--target T]
                       [--held FOLDER] [--markdown FILE] [--json FILE]

A model is NAME.onnx with NAME.npz beside it, which holds `in:NAME` for each input and `out:NAME` for each output
(models.py makes such a folder). Every engine is a process of its own. They take turns in slices of some 50 ms, so that
each round meets one state of the machine: the ratio to a peer is the median over the rounds of peer's slice by Kiln's
slice, and the ratio of a model is the one to the faster peer. Above 1 Kiln is faster. An engine that cannot load a model
is left out of it and named. A peer's times include the call from Python, 10 to 20 us. Peak memory is the highest of a
run's process, the part of Python and of the imported library taken off for the peers.

`--target x86-64-v3` compiles for AVX2. `--held FOLDER` takes peers that are held to AVX2 from there (hold_avx2.py makes
them). Without it OpenVINO is held by its own switch, which its matrix products ignore, and ONNX Runtime, which has none, is
shown and not counted.
Exit status 1 where Kiln fails or an answer is off by more than 1e-3 of the output's largest magnitude (int8 models,
named *_q...: by more than 5 % in more than 1 % of the values).
"""
import argparse
import glob
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = {"ort": "ONNX Runtime", "openvino": "OpenVINO"}


def stored(path):
    data = np.load(path[:-5] + ".npz")
    pick = lambda kind: {k[len(kind):]: data[k] for k in data.files if k.startswith(kind)}
    return pick("in:"), pick("out:")


class Engine:
    """A process that says once how it started, and then answers seconds with {"times_ms": [...]}, a line each."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        bufsize=1, env={**os.environ, **(environment or {})})
        self.begin = self.read()
        self.medians, self.best = [], math.inf

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            words = self.process.stderr.read().strip().splitlines() or ["no message"]
            raise RuntimeError(words[-1][:200])
        return json.loads(line)

    def slice(self, seconds):
        print(seconds, file=self.process.stdin, flush=True)
        times = self.read()["times_ms"]
        self.medians.append(statistics.median(times))
        self.best = min(self.best, *times)

    def peak_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        return kib / 1024 - self.begin.get("base_mib", 0)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def run(command):
    """Runs to the end; seconds, and peak MiB where there is GNU time (a child of Python counts Python's own memory)."""
    timer = ["/usr/bin/time", "-f", "%M"] if os.path.exists("/usr/bin/time") else []
    start = time.perf_counter()
    done = subprocess.run(timer + command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    seconds = time.perf_counter() - start
    lines = done.stderr.strip().splitlines() or ["no message"]
    if done.returncode:
        raise RuntimeError(f"{os.path.basename(command[0])} {command[1]}: exit {done.returncode}: {lines[0][:200]}")
    return seconds, int(lines[-1]) / 1024 if timer else math.nan


def distance(got, want, name):
    """Of the worst value, as a part of the largest magnitude; infinite where the answer is wrong in kind."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return math.inf
    if want.size == 0 or want.dtype.kind in "biu":
        return 0.0 if np.array_equal(got, want) else math.inf
    if not np.array_equal(np.isnan(got), np.isnan(want)):
        return math.inf
    off = np.abs(got.astype("f8") - want.astype("f8")) / (np.abs(want[np.isfinite(want)]).max(initial=0) + 1e-12)
    off = off[np.isfinite(off)]
    if name.split("_")[-1].startswith("q"):
        return 0.0 if (off < 0.05).mean() >= 0.99 else math.inf
    return float(off.max(initial=0))


def measure(path, threads, options, work):
    name = os.path.basename(path)[:-5]
    inputs, outputs = stored(path)
    package, feed, sink = f"{work}/model.kiln", [], []
    for i, (key, value) in enumerate(inputs.items()):
        np.save(f"{work}/in{i}.npy", value)
        feed += ["--input", f"{key}=@{work}/in{i}.npy"]
    for i, key in enumerate(outputs):
        sink += ["--output", f"{key}=@{work}/out{i}.npy"]
    row = {"model": name, "threads": threads}
    flags = ["--target", options.target] if options.target else []
    row["compile_s"], row["compile_mib"] = run([options.kiln, "compile", path, "-o", package, *flags, *options.compile_arg])
    row["package_mib"], row["model_mib"] = os.path.getsize(package) / 2**20, os.path.getsize(path) / 2**20
    if os.path.exists(path + ".data"):
        row["model_mib"] += os.path.getsize(path + ".data") / 2**20
    # kiln-run is the runtime alone, so its memory is what running takes; kiln holds LLVM as well.
    runtime = os.path.join(os.path.dirname(options.kiln), "kiln-run")
    alone = os.path.exists(runtime)
    row["kiln_mib"] = run([*([runtime] if alone else [options.kiln, "run"]), package, *feed, *sink, "--threads", str(threads)])[1]
    row["error"] = max(distance(np.load(f"{work}/out{i}.npy"), want, name) for i, want in enumerate(outputs.values()))
    engines = {"kiln": Engine([options.kiln, "bench", package, *feed, "--threads", str(threads), "--slices"])}
    row["missing"] = {}
    held = {"ONEDNN_MAX_CPU_ISA": "AVX2"} if options.target == "x86-64-v3" or options.held else {}
    if options.held:
        held |= {"PYTHONPATH": os.path.abspath(options.held), "LD_PRELOAD": os.path.abspath(f"{options.held}/hold.so")}
    for peer in options.peers.split(","):
        try:
            engines[peer] = Engine([sys.executable, f"{HERE}/peer.py", peer, path, str(threads)], held)
        except RuntimeError as error:
            row["missing"][peer] = str(error)
    order, end = list(engines), time.perf_counter() + options.seconds * len(engines)
    while time.perf_counter() < end or len(engines["kiln"].medians) < 5:
        for engine in order:
            time.sleep(0.01)  # threads of the one before may still spin
            engines[engine].slice(options.slice)
        order = order[1:] + order[:1]
    for engine, e in engines.items():
        row[f"{engine}_ms"], row[f"{engine}_min_ms"] = statistics.median(e.medians), e.best
        row[f"{engine}_start_ms"] = e.begin["load_ms"] + e.begin["first_ms"]
        row.setdefault(f"{engine}_mib", e.peak_mib())
        e.close()
    counted = [p for p in engines if p != "kiln" and not (held and not options.held and p == "ort")]
    ratios = [statistics.median(a / b for a, b in zip(engines[p].medians, engines["kiln"].medians)) for p in counted]
    if ratios:
        row["ratio"] = min(ratios)
        row["ratio_min"] = min(engines[p].best for p in counted) / engines["kiln"].best
    row["rounds"] = len(engines["kiln"].medians)
    return row


def number(row, key, form):
    return format(row[key], form) if key in row else "-"


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def markdown(rows, heading):
    out = [heading, "", "| model | threads | Kiln ms | ONNX Runtime ms | OpenVINO ms | ratio | by minima | error | start ms | compile s | compile MiB | "
           "run MiB | peers' MiB | package / model |", "| --- |" + " ---: |" * 13]
    for r in rows:
        others = " / ".join(number(r, f"{p}_mib", ".0f") for p in PEERS)
        size = r["package_mib"] / r["model_mib"]
        out.append(f"| {r['model']} | {r['threads']} | {r['kiln_ms']:.3f} | {number(r, 'ort_ms', '.3f')} | {number(r, 'openvino_ms', '.3f')} | "
                   f"{number(r, 'ratio', '.2f')} | {number(r, 'ratio_min', '.2f')} | {r['error']:.1e} | {r['kiln_start_ms']:.1f} | {r['compile_s']:.2f} | "
                   f"{r['compile_mib']:.0f} | {r['kiln_mib']:.0f} | {others} | {size:.2f} |")
    for threads in sorted({r["threads"] for r in rows}):
        mine = [r for r in rows if r["threads"] == threads and "ratio" in r]
        if mine:
            worst = min(mine, key=lambda r: r["ratio"])
            out += ["", f"{threads} thread(s), {len(mine)} models: geometric mean {geometric([r['ratio'] for r in mine]):.2f} x the faster peer "
                    f"(by minima {geometric([r['ratio_min'] for r in mine]):.2f}), worst {worst['ratio']:.2f} ({worst['model']})"]
    for row in rows:
        for peer, reason in row["missing"].items():
            out.append(f"\n{row['model']}: {PEERS[peer]} left out: {reason}")
    return "\n".join(out) + "\n"


def peaks(kiln, path, threads, work, flags):
    """Multiply-adds that `threads` threads reach together, as the profile measures them with the target's vectors."""
    inputs, _ = stored(path)
    feed = []
    for i, (key, value) in enumerate(inputs.items()):
        np.save(f"{work}/peak{i}.npy", value)
        feed += ["--input", f"{key}=@{work}/peak{i}.npy"]
    subprocess.run([kiln, "compile", path, "-o", f"{work}/peak.kiln", *flags], capture_output=True)
    done = subprocess.run([kiln, "bench", f"{work}/peak.kiln", *feed, "--threads", str(threads), "--profile", "--json", "--seconds", "0.5"],
                          capture_output=True, text=True)
    return json.loads(done.stdout)["limits"]["fma_gflops"] if done.returncode == 0 else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--kiln", default="build/release/bin/kiln")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=3, help="for each engine, model and number of threads")
    parser.add_argument("--slice", type=float, default=0.05)
    parser.add_argument("--only", default="")
    parser.add_argument("--target", default="")
    parser.add_argument("--held", metavar="FOLDER", default="")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--compile-arg", action="append", default=[])
    parser.add_argument("--markdown", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    paths = [p for folder in options.folders for p in sorted(glob.glob(folder + "/*.onnx")) if os.path.exists(p[:-5] + ".npz")]
    if options.only:
        paths = [p for p in paths if os.path.basename(p)[:-5] in options.only.split(",")]
    if options.held and not os.path.exists(f"{options.held}/hold.so"):
        sys.exit(f"{options.held} holds no peers: make them with hold_avx2.py")
    if not paths:
        sys.exit("no NAME.onnx with a NAME.npz beside it there")
    rows, failed = [], []
    print(f"{'model':22} T {'kiln':>9} {'ort':>9} {'openvino':>9} ms {'ratio':>6} {'(min)':>6} {'error':>8} {'start':>8} {'compile':>14} {'run':>9}", flush=True)
    for path in paths:
        for threads in map(int, options.threads.split(",")):
            name = os.path.basename(path)[:-5]
            with tempfile.TemporaryDirectory() as work:
                try:
                    r = measure(path, threads, options, work)
                except (RuntimeError, OSError, ValueError) as error:
                    failed.append(name)
                    print(f"{name:22} {threads} FAILED {error}", flush=True)
                    continue
            rows.append(r)
            failed += [name] if r["error"] > 1e-3 else []
            print(f"{name:22} {threads} {r['kiln_ms']:9.3f} {number(r, 'ort_ms', '9.3f'):>9} {number(r, 'openvino_ms', '9.3f'):>9}    "
                  f"{number(r, 'ratio', '6.2f'):>6} {number(r, 'ratio_min', '6.2f'):>6} {r['error']:8.1e} {r['kiln_start_ms']:6.1f}ms "
                  f"{r['compile_s']:5.2f}s {r['compile_mib']:4.0f}MiB {r['kiln_mib']:5.0f}MiB", flush=True)
    with tempfile.TemporaryDirectory() as work:
        limits = {t: peaks(options.kiln, paths[0], t, work, ["--target", options.target] if options.target else []) for t in map(int, options.threads.split(","))}
    heading = "Multiply-add peak of this machine: " + ", ".join(f"{g:.0f} GFLOP/s on {t} thread(s)" for t, g in limits.items()) + "."
    heading += f" Target {options.target or 'host'}; times are medians of interleaved slices."
    text = markdown(rows, heading)
    print("\n" + "\n".join(line for line in text.splitlines() if line and not line.startswith("|")))
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(text)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)
    if failed:
        sys.exit(f"failed: {', '.join(sorted(set(failed)))}")


if __name__ == "__main__":
    main()
