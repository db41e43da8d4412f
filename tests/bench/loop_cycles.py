#!/usr/bin/env python3
"""What a target's innermost loop is made of, and the cycles that llvm-mca counts for it: for targets that nobody has at hand.

  loop_cycles.py KILN MODEL.kir TARGET MULTIPLY-ADD [CPU...]
  loop_cycles.py build/bin/kiln matmul.kir aarch64+dotprod sdot neoverse-n1 neoverse-v2

The loop with most of the instructions named MULTIPLY-ADD is taken, from its label to the jump back. The model of a CPU knows no
caches, so this is a bound from below.
"""
import collections
import re
import subprocess
import sys


def loops(assembly):
    label, body = None, []
    for line in assembly.split("\n"):
        found = re.match(r"(\.LBB\w+):", line)
        if found:
            label, body = found.group(1), []
        elif label and line.startswith("\t") and not line.strip().startswith((".", "//", "#")):
            body.append(line)
            if label in line:
                yield list(body)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    kiln, model, target, multiply_add = sys.argv[1:5]
    assembly = subprocess.run([kiln, "compile", model, "--target", target, "--emit", "asm"],
                              capture_output=True, text=True, check=True).stdout

    def count(body):
        return sum(line.split()[0] == multiply_add for line in body)

    body = max(loops(assembly), key=count, default=[])
    n = count(body)
    if n == 0:
        sys.exit(f"no loop of {target} has a {multiply_add}")
    names = collections.Counter(line.split()[0] for line in body)
    stack = sum("Spill" in line or "Reload" in line for line in body)
    print(f"{len(body)} instructions, {n} {multiply_add}, {len(body) / n:.2f} for each; {stack} of the stack")
    print("  " + ", ".join(f"{name} {k}" for name, k in names.most_common()))
    triple = "aarch64" if target.startswith("aarch64") else "x86_64"
    text = "\n".join(re.split(r"//|\s#\s", line)[0] for line in body)
    for cpu in sys.argv[5:]:
        out = subprocess.run(["llvm-mca-19", f"-mtriple={triple}", f"-mcpu={cpu}", "-iterations=100"]
                             + (["-mattr=+dotprod,+i8mm"] if triple == "aarch64" else []),
                             input=text, capture_output=True, text=True)
        if out.returncode:
            sys.exit(out.stderr)
        cycles = int(re.search(r"Total Cycles:\s*(\d+)", out.stdout).group(1)) / 100
        print(f"  {cpu}: {cycles:.1f} cycles a round, {n / cycles:.2f} {multiply_add} a cycle")


main()
