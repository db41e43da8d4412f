#!/bin/bash
# The five training cases, and the models of the folders in KILN_TEST_MODELS (NAME.onnx with NAME.npz beside it, separated by colons), through
# the fake NVRTC and the fake driver: right answers. Takes an hour of a processor or two, so only where KILN_TEST_MODELS is set, if to nothing.
# Arguments: kiln, kiln-run, the fake NVRTC, the fake driver, the folder tests, a Python with numpy.
set -u
[ -n "${KILN_TEST_MODELS+set}" ] || { echo "KILN_TEST_MODELS is not set"; exit 77; }
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
for case in "$tests"/bench/train/*.kir; do
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
