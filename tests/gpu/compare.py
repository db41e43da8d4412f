"""compare.py KILN_RUN PACKAGE NPZ: runs a package on cuda:0 with the inputs in_NAME of the file and compares with out_0, out_1, ..."""
import os
import subprocess
import sys
import tempfile

import numpy as np

kiln_run, package, archive = sys.argv[1:4]
values = np.load(archive)
with tempfile.TemporaryDirectory() as folder:
    command = [kiln_run, package, "--device", "cuda:0"]
    for key in values.files:
        if key.startswith("in_"):
            path = os.path.join(folder, key + ".npy")
            np.save(path, values[key])
            command += ["--input", f"{key[3:]}=@{path}"]
    described = subprocess.run([kiln_run, package, "--describe"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[1].rstrip(":") for line in described.splitlines() if line.strip().startswith("output")]
    for i, name in enumerate(names):
        command += ["--output", f"{name}=@{folder}/o{i}.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    for i in range(len(names)):
        got, want = np.load(f"{folder}/o{i}.npy"), values[f"out_{i}"]
        worst = float(np.abs(got.astype(np.float64) - want).max() / max(1e-6, np.abs(want).max()))
        print(f"{names[i]}: worst {worst:.2e} of the largest magnitude")
        if not worst < 1e-3:
            sys.exit(f"{names[i]} is too far")
