"""Inputs and results stored beside a model: NAME.npz with in:x and out:y by name, or in_x and out_0, out_1, ... in order."""
import glob
import os
import re
import subprocess

import numpy as np


def stored_files(model):
    """NAME.npz, NAME.2.npz, ... of NAME.onnx or NAME.kiln."""
    base = os.path.splitext(model)[0]
    return [f for f in [base + ".npz"] + sorted(glob.glob(glob.escape(base) + ".[0-9].npz")) if os.path.exists(f)]


def read_values(path):
    """(inputs by name, results: a list of (name or position, array))"""
    stored, inputs, results = np.load(path, allow_pickle=False), {}, []
    for key in stored.files:
        if key[:3] in ("in:", "in_"):
            inputs[key[3:]] = stored[key]
        elif key.startswith("out:"):
            results.append((key[4:], stored[key]))
        elif key.startswith("out_"):
            results.append((int(key[4:]), stored[key]))
    return inputs, results


def input_flags(inputs, folder):
    flags = []
    for i, (name, value) in enumerate(inputs.items()):
        np.save(f"{folder}/in{i}.npy", value)
        flags += ["--input", f"{name}=@{folder}/in{i}.npy"]
    return flags


def output_names(kiln_run, package):
    """The outputs of the first entry, in order."""
    done = subprocess.run([kiln_run, package, "--describe"], capture_output=True, text=True, check=True)
    entry = done.stdout.split("entries:\n", 1)[1].splitlines()[0]
    results = entry.rsplit(" -> (", 1)[1].rsplit(")", 1)[0]
    return re.findall(r"(.+?): \w+\[[^\]]*\](?:, |$)", results)


def wrong(got, want, quantised):
    """Floats are right within 1e-3 of the largest magnitude; quantised models where 99 % lie within 5 %."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"is {got.dtype}{list(got.shape)}, not {want.dtype}{list(want.shape)}"
    if want.dtype.kind != "f":
        return "" if (got == want).all() else f"{(got != want).sum()} of {want.size} differ"
    if want.size == 0:
        return ""
    if not np.array_equal(np.isnan(got), np.isnan(want)):
        return "has NaN in other places"
    far = np.abs(np.nan_to_num(got.astype("f8") - want.astype("f8"))) / (np.nanmax(np.abs(want)) + 1e-12)
    if quantised:
        return "" if (far < 0.05).mean() >= 0.99 and got.argmax() == want.argmax() else f"is {far.max():.1e} off"
    return "" if far.max() <= 1e-3 else f"is {far.max():.1e} off"


def is_quantised(name):
    return name.split("_")[-1].startswith("q")
