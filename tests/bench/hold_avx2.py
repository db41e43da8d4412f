#!/usr/bin/env python3
"""Copies of ONNX Runtime and OpenVINO that do not find AVX-512, to compare AVX2 with AVX2.

    python3 hold_avx2.py FOLDER           # run by the Python that has them; compare.py --held FOLDER uses the copies

`ONEDNN_MAX_CPU_ISA=AVX2` reaches only oneDNN: OpenVINO's matrix products (MLAS, inside its CPU plugin) ask the processor
themselves, and ONNX Runtime has no switch. So each `cpuid` in the copies' libraries becomes `ud2`, of the same two bytes,
and a preloaded library (hold_avx2.c) answers these traps without the bits of AVX-512. Needs objdump, and cc or $CC.
"""
import glob
import importlib.util
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def objdump(*arguments):
    with subprocess.Popen(["objdump", *arguments], stdout=subprocess.PIPE, text=True, errors="replace") as process:
        yield from process.stdout


def patch(path):
    """How many instructions were replaced. A disassembler finds them: the two bytes occur within others too."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    if CPUID not in data:
        return 0
    sections = []  # address, size, place in the file
    for line in objdump("-h", path):
        words = line.split()
        if len(words) >= 7 and words[0].isdigit():
            sections.append((int(words[3], 16), int(words[2], 16), int(words[5], 16)))
    count = 0
    for line in objdump("-d", "--no-show-raw-insn", path):
        if not line.rstrip().endswith("\tcpuid"):
            continue
        address = int(line.split(":")[0], 16)
        begin, _, place = next(s for s in sections if s[0] <= address < s[0] + s[1])
        at = place + address - begin
        assert data[at:at + 2] == CPUID, (path, hex(address))
        data[at:at + 2] = UD2
        count += 1
    if count:
        with open(path, "wb") as file:
            file.write(data)
    return count


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for package in ("onnxruntime", "openvino"):
        found = importlib.util.find_spec(package)
        if not found:
            continue
        copy = os.path.join(folder, package)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(os.path.dirname(found.origin), copy)
        counts = [patch(library) for library in sorted(glob.glob(f"{copy}/**/*.so*", recursive=True))]
        print(f"{package}: {sum(counts)} cpuid in {sum(1 for c in counts if c)} libraries")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", f"{HERE}/hold_avx2.c", "-o", f"{folder}/hold.so"], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(sys.argv[1])
