#!/usr/bin/env python3
"""The loss that the small GPT over characters reaches in Kiln and in PyTorch, in the same steps on the same batches.

    reach.py TEXT [--kiln build/dev/bin/kiln] [--steps 600] [--seeds 2]

Needs python3 with torch and numpy. TEXT is tiny Shakespeare, or another text with at most 65 characters. Both begin with random weights of their
own, as their libraries draw them; what is compared is the mean loss of the last tenth of the steps, averaged over the seeds. Exit status 0 if
Kiln's is at most 2 % off.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from peers import make  # noqa: E402

BATCH, WINDOW = 8, 128


def batches(text, steps, seed):
    names = sorted(set(text))
    assert len(names) <= 65, "the model has 65 characters, the text %d" % len(names)
    ids = np.array([names.index(c) for c in text], dtype="i8")
    at = np.random.default_rng(seed).integers(0, len(ids) - WINDOW - 1, steps * BATCH)
    return np.stack([ids[i:i + WINDOW] for i in at]), np.stack([ids[i + 1:i + 1 + WINDOW] for i in at])


def of_torch(x, y, seed):
    torch.manual_seed(seed)
    net = make("nanogpt_b8_t128")
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for i in range(0, len(x), BATCH):
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x[i:i + BATCH])), torch.from_numpy(y[i:i + BATCH]).flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def of_kiln(kiln, x, y, seed, folder):
    with open(os.path.join(HERE, "nanogpt_b8_t128.kir")) as f:
        text = f.read()
    model, log = os.path.join(folder, "gpt.kir"), os.path.join(folder, "log.jsonl")
    with open(model, "w") as f:  # targets as they lie in the batch
        f.write(text.replace("y: i64[1024]", "y: i64[8, 128]").replace("cross_entropy(net(x), y)", "cross_entropy(net(x), y.flatten())"))
    np.save(os.path.join(folder, "x.npy"), x)
    np.save(os.path.join(folder, "y.npy"), y)
    subprocess.run([kiln, "train", model, "--data", "x=@%s/x.npy" % folder, "--data", "y=@%s/y.npy" % folder, "--keep-order", "--seed", str(seed), "--log", log,
                    "--epochs", "1"], check=True, stderr=subprocess.DEVNULL)
    with open(log) as f:
        return [row["l"] for row in map(json.loads, f) if "l" in row]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("text")
    parser.add_argument("--kiln", default="build/dev/bin/kiln")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    with open(options.text) as f:
        text = f.read()
    reached = {"kiln": [], "torch": []}
    for seed in range(options.seeds):
        x, y = batches(text, options.steps, seed)
        with tempfile.TemporaryDirectory() as folder:
            ours = of_kiln(os.path.abspath(options.kiln), x, y, seed, folder)
        theirs = of_torch(x, y, seed)
        assert len(ours) == len(theirs) == options.steps, (len(ours), len(theirs))
        tail = max(1, options.steps // 10)
        for name, losses in (("kiln", ours), ("torch", theirs)):
            reached[name].append(statistics.mean(losses[-tail:]))
            print("seed %d  %-5s  first %.4f  after %d steps %.4f" % (seed, name, losses[0], options.steps, reached[name][-1]), flush=True)
    kiln, peer = statistics.mean(reached["kiln"]), statistics.mean(reached["torch"])
    print("kiln %.4f, torch %.4f: %+.2f %%" % (kiln, peer, 100 * (kiln / peer - 1)))
    return 0 if abs(kiln / peer - 1) <= 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
