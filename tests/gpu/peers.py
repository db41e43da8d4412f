"""peers.py KILN_RUN MODELS: times of kiln on cuda:0, and of PyTorch's products beside them where PyTorch is there."""
import glob
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

kiln_run, folder = sys.argv[1:3]
try:
    import torch
except ImportError:
    torch = None


def kiln_ms(command):
    done = subprocess.run(command + ["--device", "cuda:0", "--repeat", "200"], capture_output=True, text=True)
    found = re.search(r"([0-9.]+) ms median, ([0-9.]+) fastest", done.stderr)
    return (float(found.group(1)), float(found.group(2))) if found else None


def torch_ms(dtype, n):
    a = torch.randn(n, n, device="cuda", dtype=dtype)
    b = torch.randn(n, n, device="cuda", dtype=dtype)
    times = []
    for _ in range(60):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.mm(a, b)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[30]


for package in sorted(glob.glob(folder + "/*.kiln")):
    name = os.path.basename(package)[:-5]
    product = re.match(r"product_(\w+)_(\d+)$", name)
    with tempfile.TemporaryDirectory() as temporary:
        command = [kiln_run, package]
        if product:
            n = product.group(2)
            for operand in "ab":
                command += ["--input", f"{operand}={n}x{n}x{product.group(1)}=0.5"]
        elif os.path.exists(folder + f"/{name}.npz"):
            values = np.load(folder + f"/{name}.npz")
            for key in values.files:
                if key.startswith("in_"):
                    np.save(f"{temporary}/{key}.npy", values[key])
                    command += ["--input", f"{key[3:]}=@{temporary}/{key}.npy"]
        else:
            continue
        ours = kiln_ms(command)
        line = f"{name:24}" + (f" kiln {ours[0]:9.4f} median {ours[1]:9.4f} fastest" if ours else " kiln failed")
        if product and torch and torch.cuda.is_available():
            line += f"   torch.mm {torch_ms(torch.float32 if product.group(1) == 'f32' else torch.bfloat16, int(product.group(2))):9.4f} (without copies)"
        print(line, flush=True)
