#!/usr/bin/env python3
"""Training steps (forward, backward, Adam) in Kiln and in PyTorch, eager and compiled, in turns of some seconds each.

    compare.py [--kiln build/dev/bin/kiln] [--threads 1,2] [--only mlp_b128,...] [--rounds 3] [--seconds 1]

Needs python3 with torch and numpy, and a built `kiln`. Every engine is a process of its own; a line gives each one's median and
least milliseconds a step, its peak memory (of PyTorch without what importing it takes), and the ratio of Kiln to the faster of the two.
"""
import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ["mlp_b128", "mnist_cnn_b64", "char_lstm_b32_t64", "nanogpt_b8_t128", "cifar_resnet_b32"]


def inputs_of(name):
    import numpy as np

    draw = np.random.default_rng(0)
    floats = {"mlp_b128": (128, 784), "mnist_cnn_b64": (64, 1, 28, 28), "cifar_resnet_b32": (32, 3, 32, 32)}
    if name in floats:
        shape = floats[name]
        return draw.standard_normal(shape).astype("f4"), draw.integers(0, 10, shape[0])
    shape = (32, 64) if name == "char_lstm_b32_t64" else (8, 128)
    return draw.integers(0, 65, shape), draw.integers(0, 65, shape[0] * shape[1])


def peer(name, mode, threads):
    import torch
    from peers import make

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    net = make(name)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    call = net if mode == "eager" else torch.compile(net)
    x, y = (torch.from_numpy(v) for v in inputs_of(name))

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(call(x), y).backward()
        optimizer.step()

    for _ in range(3):
        step()
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            step()
            times.append((time.perf_counter() - begin) * 1e3)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - base
        print(json.dumps({"times_ms": times, "peak_mib": peak}), flush=True)


def peak_of(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def measure(name, threads, options, folder):
    import numpy as np

    package = os.path.join(folder, name + ".kiln")
    subprocess.run([options.kiln, "compile", os.path.join(HERE, name + ".kir"), "--keep-params", "-o", package], check=True,
                   stdout=subprocess.DEVNULL)
    files = []
    for key, value in zip("xy", inputs_of(name)):
        np.save(os.path.join(folder, key + ".npy"), value)
        files += ["--input", "%s=@%s" % (key, os.path.join(folder, key + ".npy"))]
    lines = {"kiln": [options.kiln, "bench", package, "--entry", "train_step", "--threads", str(threads), "--slices"] + files}
    for mode in ("eager", "compile"):
        lines[mode] = [sys.executable, os.path.abspath(__file__), "--peer", name, mode, "--threads", str(threads)]
    runs = {key: subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for key, line in lines.items()}
    times, peaks = {key: [] for key in runs}, {}
    for run in runs.values():
        run.stdout.readline()
    for _ in range(options.rounds):
        for key, run in runs.items():
            time.sleep(0.3)  # workers of the engine before spin for a while
            run.stdin.write("%g\n" % options.seconds)
            run.stdin.flush()
            said = json.loads(run.stdout.readline())
            times[key] += said["times_ms"]
            peaks[key] = said.get("peak_mib") or peak_of(run.pid)
    for run in runs.values():
        run.stdin.close()
        run.wait()
    return {key: (statistics.median(v), min(v), peaks[key]) for key, v in times.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kiln", default=os.path.join(HERE, "../../../build/dev/bin/kiln"))
    p.add_argument("--threads", default="1,2")
    p.add_argument("--only", default=",".join(CASES))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    options = p.parse_args()
    if options.peer:
        return peer(*options.peer, int(options.threads))
    ratios = []
    print("| case | threads | Kiln ms (min) | eager ms (min) | compiled ms (min) | times as fast | MiB: Kiln, eager, compiled |\n" + "| --- " * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(","):
            for threads in map(int, options.threads.split(",")):
                r = measure(name, threads, options, folder)
                ratios.append(min(r["eager"][0], r["compile"][0]) / r["kiln"][0])
                cells = ["%.2f (%.2f)" % r[key][:2] for key in ("kiln", "eager", "compile")]
                memory = ", ".join("%.0f" % r[key][2] for key in ("kiln", "eager", "compile"))
                print("| %s | %d | %s | %.2f | %s |" % (name, threads, " | ".join(cells), ratios[-1], memory), flush=True)
    print("geometric mean: %.2f" % math.exp(statistics.mean(map(math.log, ratios))))


main()
