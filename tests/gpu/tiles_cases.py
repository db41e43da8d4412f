"""tiles_cases.py KILN_RUN DEVICE TOLERANCE PACKAGE: products of random numbers by tiles of every kind (tiles.kir).

Every entry runs on the device and on the processor. Results differ by no more than TOLERANCE of the greatest one, and by nothing where
they are whole numbers."""
import re
import subprocess
import sys
import tempfile

import numpy as np

kiln_run, device, tolerance, package = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
KINDS = {"f16": np.float16, "f32": np.float32, "u8": np.uint8, "i8": np.int8, "i32": np.int32}


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nexit {done.returncode}: {done.stderr}")
    return done.stdout


def draw(kind, shape, random):
    if kind in (np.float16, np.float32):
        return random.uniform(-1, 1, shape).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(max(limits.min, -1000), min(limits.max, 1000), shape, endpoint=True).astype(kind)


problems, count = [], 0
for line in run(kiln_run, package, "--describe").split("entries:\n", 1)[1].splitlines():
    entry, arguments = re.match(r"\s*(\w+)\((.*)\) -> ", line).groups()
    random = np.random.default_rng(count)
    count += 1
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--entry", entry, "--output", f"output=@{folder}/out.npy"]
        for name, kind, shape in re.findall(r"(\w+): (\w+)\[([^\]]*)\]", arguments):
            np.save(f"{folder}/{name}.npy", draw(KINDS[kind], [int(n) for n in shape.split(",")], random))
            flags += ["--input", f"{name}=@{folder}/{name}.npy"]
        results = []
        for where in ("cpu", device):
            run(kiln_run, package, "--device", where, *flags)
            results.append(np.load(f"{folder}/out.npy"))
    want, got = results
    if want.dtype.kind == "f":
        far = np.abs(got.astype("f8") - want.astype("f8")).max() / np.abs(want.astype("f8")).max()
        if not far <= tolerance:
            problems.append(f"{entry} is {far:.1e} off")
    elif not (got == want).all():
        problems.append(f"{entry}: {(got != want).sum()} of {want.size} differ")
if problems or not count:
    sys.exit("\n".join(problems) or "no entries")
