#!/bin/sh
# The comparison works: a model made, compiled, right, timed beside the peers that there are, tables written.
#   check.sh KILN     (exit 77: no Python with numpy, onnx and onnxruntime)
here=$(cd "$(dirname "$0")" && pwd)
for python in "$here/../../build/bench/venv/bin/python" python3 ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"}; do
  "$python" -c 'import numpy, onnx, onnxruntime' 2>/dev/null && break
  python=
done
[ -n "$python" ] || exit 77
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
"$python" "$here/models.py" "$work" mlp_b1 mnist_cnn || exit 1
"$python" "$here/compare.py" "$work" --kiln "$1" --threads 1,2 --seconds 0.02 --peers ort --markdown "$work/r.md" --json "$work/r.json" || exit 1
grep -q '^| mnist_cnn | 2 |' "$work/r.md" && grep -q 'geometric mean' "$work/r.md" && "$python" -m json.tool "$work/r.json" >/dev/null || exit 1
# A wrong answer is found: the stored output of another model of the same shape.
"$python" - "$work" <<'P' || exit 1
import sys, numpy as np
path = sys.argv[1] + "/mlp_b1.npz"
data = dict(np.load(path))
key = next(k for k in data if k.startswith("out:"))
data[key] = data[key][:, ::-1].copy()
np.savez(path, **data)
P
"$python" "$here/compare.py" "$work" --kiln "$1" --threads 1 --seconds 0.02 --peers ort --only mlp_b1 && { echo "a wrong answer passed"; exit 1; }
# What hold_avx2.py patches does not find AVX-512, and finds the rest.
if [ "$(uname -m)" = x86_64 ] && command -v objdump >/dev/null && command -v cc >/dev/null; then
  cat >"$work/ask.c" <<'P' || exit 1
#include <cpuid.h>
#include <stdio.h>
int main(void) {
  unsigned a, b, c, d, leaf1_c;
  __cpuid(1, a, b, leaf1_c, d);
  __cpuid_count(7, 0, a, b, c, d);
  printf("%u %u\n", b >> 16 & 1, leaf1_c);
}
P
  cc -shared -fPIC "$here/hold_avx2.c" -o "$work/hold.so" && cc "$work/ask.c" -o "$work/ask" || exit 1
  plain=$("$work/ask")
  "$python" -B -c 'import sys; sys.path.insert(0, sys.argv[1]); import hold_avx2; assert hold_avx2.patch(sys.argv[2]) == 2' "$here" "$work/ask" || exit 1
  held=$(LD_PRELOAD=$work/hold.so "$work/ask") || exit 1
  [ "$held" = "0 ${plain#* }" ] || { echo "a held program finds $held, a plain one $plain"; exit 1; }
fi
echo fine
