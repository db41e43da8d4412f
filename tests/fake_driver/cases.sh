#!/bin/bash
# Training cases and models through the fake NVRTC and the fake driver: right answers. Without KILN_TEST_MODELS one training case, nodes of
# tests/onnx/nodes and, where Python has onnx and onnxruntime, small graphs of tests/bench/models.py: some minutes. With it (folders, separated by colons, of
# NAME.onnx with NAME.npz beside it; or nothing) all five training cases and those models: an hour of a processor or two.
# Arguments: kiln, kiln-run, the fake NVRTC, the fake driver, the folder tests, a Python with numpy.
set -u
kiln=$1 kiln_run=$2 nvrtc=$3 driver=$4 tests=$5 python=$6
"$python" -c 'import numpy' 2>/dev/null || { echo "no numpy for $python"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export KILN_NVRTC=$nvrtc KILN_CUDA_DRIVER=$driver KILN_CACHE=${KILN_CACHE:-$work/cache}
failures=0
check() { # NAME COMMAND...
  local name=$1 begin=$SECONDS
  shift
  if "$@" >"$work/said" 2>&1; then
    echo "fine    $name ($((SECONDS - begin)) s)"
  else
    echo "FAILED  $name ($((SECONDS - begin)) s)"
    tail -5 "$work/said"
    failures=$((failures + 1))
  fi
}
training=("$tests"/bench/train/*.kir)
if [ -z "${KILN_TEST_MODELS+set}" ]; then
  training=("$tests"/bench/train/mlp_b128.kir)
  mkdir "$work/models"
  for name in attention_attn_past function_loop groupnorm_groupnorm matmulnbits_nbits_4 qlinearconv_qlinearconv_nhwc gridsample_gridsample; do
    cp "$tests/onnx/nodes/$name".{onnx,npz} "$work/models"
  done
  if "$python" -c 'import onnx, onnxruntime' 2>/dev/null; then
    "$python" "$tests/bench/models.py" "$work/models" mlp_b1 mlp_b1@32 mnist_cnn mnist_cnn@4 attention_2x64x32 >/dev/null || failures=1
  fi
  KILN_TEST_MODELS=$work/models
fi
for case in "${training[@]}"; do
  name=$(basename "${case%.kir}")
  check "compile $name" "$kiln" compile "$case" --keep-params --cuda sm_80 -o "$work/$name.kiln"
  check "$name" "$python" "$tests/gpu/train_cases.py" "$kiln_run" cuda:0 "$work/$name.kiln"
  rm -f "$work/$name.kiln"
done
IFS=: read -ra folders <<<"$KILN_TEST_MODELS"
for folder in "${folders[@]}"; do
  for model in "$folder"/*.onnx; do
    name=$(basename "${model%.onnx}") values=()
    for file in "${model%.onnx}".npz "${model%.onnx}".[0-9].npz; do [ ! -f "$file" ] || values+=("$file"); done
    [ ${#values[@]} -gt 0 ] || continue
    check "compile $name" "$kiln" compile "$model" --cuda sm_80 -o "$work/$name.kiln"
    check "$name" "$python" "$tests/gpu/compare.py" "$kiln_run" cuda:0 "$work/$name.kiln" "${values[@]}"
    rm -f "$work/$name.kiln"
  done
done
echo "$failures failures"
[ $failures = 0 ]
