"""train_cases.py KILN_RUN DEVICE PACKAGE SECONDS: some training steps on the processor and on the device from the same first values, whose
losses and variables must agree."""
import os
import subprocess
import sys
import tempfile

import numpy as np

STEPS = 4


def inputs_of(name):
    """The same as tests/bench/train/compare.py feeds."""
    draw = np.random.default_rng(0)
    floats = {"mlp_b128": (128, 784), "mnist_cnn_b64": (64, 1, 28, 28), "cifar_resnet_b32": (32, 3, 32, 32)}
    if name in floats:
        return draw.standard_normal(floats[name]).astype("f4"), draw.integers(0, 10, floats[name][0])
    shape = (32, 64) if name == "char_lstm_b32_t64" else (8, 128)
    return draw.integers(0, 65, shape), draw.integers(0, 65, shape[0] * shape[1])


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nexit {done.returncode}: {done.stderr}")
    return done


def input_files(name, folder):
    flags = []
    for key, value in zip("xy", inputs_of(name)):
        np.save(f"{folder}/{key}.npy", value)
        flags += ["--input", f"{key}=@{folder}/{key}.npy"]
    return flags


def first_values(kiln_run, package, folder):
    run(kiln_run, package, "--entry", "init", "--input", "seed=u64=1", "--device", "cpu", "--save-state", f"{folder}/first")
    return f"{folder}/first"


def main():
    kiln_run, device, package = sys.argv[1:4]
    name = os.path.splitext(os.path.basename(package))[0]
    with tempfile.TemporaryDirectory() as folder:
        flags = input_files(name, folder)
        losses = {}
        for where in ("cpu", device):
            state, losses[where] = first_values(kiln_run, package, folder), []
            for step in range(STEPS):
                after = f"{folder}/{where.partition(':')[0]}{step}"
                run(kiln_run, package, "--entry", "train_step", "--device", where, "--load", state, "--save-state", after, *flags,
                    "--output", f"l=@{folder}/l.npy")
                state = after
                losses[where].append(float(np.load(f"{folder}/l.npy")))
        worst = max(abs(a - b) / max(1e-6, abs(a)) for a, b in zip(losses["cpu"], losses[device]))
        print(f"losses {losses['cpu']} on the processor, {losses[device]} on {device}: {worst:.1e} apart")
        if not losses[device][-1] < losses[device][0]:
            sys.exit("the loss does not fall")
        if not worst < 2e-3:
            sys.exit("the losses differ")


if __name__ == "__main__":
    main()
