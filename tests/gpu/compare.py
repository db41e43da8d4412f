"""compare.py KILN_RUN DEVICE PACKAGE NPZ...: runs a package with the inputs of each file and compares with its results."""
import os
import subprocess
import sys
import tempfile

import numpy as np

from values import input_flags, is_quantised, output_names, read_values, wrong

kiln_run, device, package = sys.argv[1:4]
quantised = is_quantised(os.path.splitext(os.path.basename(package))[0])
problems = []
for archive in sys.argv[4:]:
    inputs, results = read_values(archive)
    with tempfile.TemporaryDirectory() as folder:
        command = [kiln_run, package, "--device", device] + input_flags(inputs, folder)
        names = output_names(kiln_run, package)
        wanted = [(names[key] if isinstance(key, int) else key, value) for key, value in results]
        for i, (name, _) in enumerate(wanted):
            command += ["--output", f"{name}=@{folder}/out{i}.npy"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{os.path.basename(archive)}: exit {done.returncode}: {done.stderr}")
        for i, (name, value) in enumerate(wanted):
            problem = wrong(np.load(f"{folder}/out{i}.npy"), value, quantised)
            if problem:
                problems.append(f"{os.path.basename(archive)}: {name} {problem}")
if problems:
    sys.exit("\n".join(problems))
