#!/bin/bash
# tests/gpu/prepare and tests/gpu/run on a machine without a GPU, with the fakes of tests/fake_driver: a few ops, two
# models, a training case. What they say must hold; times mean nothing here.
# Arguments: the build folder, the fake NVRTC, the fake driver, tests/onnx/nodes, a Python with numpy.
set -eu
build=$1 nvrtc=$2 driver=$3 nodes=$4 python=$5
"$python" -c 'import numpy' 2>/dev/null || { echo "no numpy for $python"; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export KILN_NVRTC=$nvrtc KILN_CUDA_DRIVER=$driver KILN_CACHE=off KILN_SHIM_LEVEL=-O1 KILN_FAKE_CUDA_ARCH=90
fail() { echo "FAILED: $1"; cat "$work/said" "$work/out/report.txt" 2>/dev/null; exit 1; }
mkdir "$work/models"
for name in attention_attn_past function_loop; do cp "$nodes/$name".{onnx,npz} "$work/models"; done
mkdir "$work/bench"
for end in onnx npz; do cp "$nodes/function_loop.$end" "$work/bench/function_loop_b32.$end"; done
"$here/prepare" "$build" "$work/out" --cuda sm_90,sm_90a --small --models "$work/models" --bench "$work/bench" >"$work/said" 2>&1 || fail "prepare"
PYTHON=$python "$work/out/bin/run" "$work/out" "$work/out/report.txt" cuda:0 >"$work/said" 2>&1 || fail "run"
for line in "fine    op table" "fine    models/attention_attn_past" "fine    models/function_loop" "fine    bench/function_loop_b32" "function_loop_b32 " "fine    train/mlp_b128" "fine    tiles/plain-warps" "fine    tiles/tf32" "product f32" "product bf16-warps" "product bf16-copies" "fine    tiles/plain-copies" "launch cost:" "mlp_b128 " "0 failures"; do
  grep -qF -- "$line" "$work/out/report.txt" || fail "no line '$line'"
done
# What is wrong is seen.
"$python" - "$work/out/models/function_loop.npz" <<'PY'
import sys
import numpy as np
stored = dict(np.load(sys.argv[1]))
for key in stored:
    if key.startswith("out:"):
        stored[key] = stored[key] + 1
np.savez(sys.argv[1], **stored)
PY
rm -rf "$work/out/train" "$work/out/products"
if PYTHON=$python KILN_GPU_SECONDS=300 "$work/out/bin/run" "$work/out" "$work/out/report.txt" cuda:0 >"$work/said" 2>&1; then fail "a wrong result is not seen"; fi
grep -qF "FAILED  models/function_loop" "$work/out/report.txt" || fail "a wrong result is not named"
if env KILN_CUDA_DRIVER=/does/not/exist.so PYTHON=$python "$work/out/bin/run" "$work/out" "$work/out/report.txt" >"$work/said" 2>&1; then
  fail "no driver, and no failure"
fi
echo "fine"
