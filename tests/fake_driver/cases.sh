#!/bin/bash
# Training cases and models through the fake NVRTC and the fake driver: right answers. Without KILN_TEST_MODELS all training cases, nodes of
# tests/onnx/nodes and, where Python has onnx and onnxruntime, the graphs of tests/bench/models.py, the smaller ones for batches of 32 too: some
# minutes. With it (folders, separated by colons, of NAME.onnx with NAME.npz beside it; or nothing) those models, and all graphs for batches of 32.
# Arguments: kiln, kiln-run, the fake NVRTC, the fake driver, the folder tests, a Python with numpy.
set -u
kiln=$1 kiln_run=$2 nvrtc=$3 driver=$4 tests=$5 python=$6
"$python" -c 'import numpy' 2>/dev/null || { echo "no numpy for $python"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export KILN_NVRTC=$nvrtc KILN_CUDA_DRIVER=$driver KILN_CACHE=${KILN_CACHE:-$work/cache} KILN_SHIM_LEVEL=${KILN_SHIM_LEVEL:--O2}
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
graphs=(mlp_b1 mlp_b64 mnist_cnn lstm mobilenet_v2 squeezenet1_1 vit_tiny minilm_s128 resnet50 style_224 gpt2_s64)
if [ -z "${KILN_TEST_MODELS+set}" ]; then
  graphs+=(mlp_b1@32 mnist_cnn@32 mlp_b64@32 lstm@32 squeezenet1_1@32 attention_2x64x32)
  mkdir "$work/models"
  for name in attention_attn_past function_loop groupnorm_groupnorm matmulnbits_nbits_4 qlinearconv_qlinearconv_nhwc gridsample_gridsample; do
    cp "$tests/onnx/nodes/$name".{onnx,npz} "$work/models"
  done
  KILN_TEST_MODELS=$work/models
else
  graphs=("${graphs[@]/%/@32}")
fi
for case in "$tests"/bench/train/*.kir; do
  name=$(basename "${case%.kir}")
  check "compile $name" "$kiln" compile "$case" --keep-params --cuda sm_80 -o "$work/$name.kiln"
  check "$name" "$python" "$tests/gpu/train_cases.py" "$kiln_run" cuda:0 "$work/$name.kiln"
  rm -f "$work/$name.kiln"
done
model_is_right() { # NAME.onnx
  local name values=() file
  name=$(basename "${1%.onnx}")
  for file in "${1%.onnx}".npz "${1%.onnx}".[0-9].npz; do [ ! -f "$file" ] || values+=("$file"); done
  [ ${#values[@]} -gt 0 ] || return
  check "compile $name" "$kiln" compile "$1" --cuda sm_80 -o "$work/$name.kiln"
  check "$name" "$python" "$tests/gpu/compare.py" "$kiln_run" cuda:0 "$work/$name.kiln" "${values[@]}"
  rm -f "$work/$name.kiln"
}
IFS=: read -ra folders <<<"$KILN_TEST_MODELS"
for folder in "${folders[@]}"; do
  for model in "$folder"/*.onnx; do model_is_right "$model"; done
done
if "$python" -c 'import onnx, onnxruntime' 2>/dev/null; then
  for graph in "${graphs[@]}"; do
    mkdir "$work/graph"
    "$python" "$tests/bench/models.py" "$work/graph" "$graph" >/dev/null || failures=$((failures + 1))
    for model in "$work"/graph/*.onnx; do model_is_right "$model"; done
    rm -rf "$work/graph"
  done
fi
echo "$failures failures"
[ $failures = 0 ]
