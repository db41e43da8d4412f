#!/bin/bash
# Trains the head and checks it on pictures that it has not seen.   run.sh [KILN [SQUEEZENET]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kiln=$(realpath "$(command -v "${1:-kiln}")") base=$(realpath "${2:-$here/../squeezenet/squeezenet.onnx}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
import="--import base=$base"
"$kiln" run "$here/transfer.kir" $import --entry pictures --input seed=u64=1 --output x=@x.npy --output y=@y.npy
"$kiln" run "$here/transfer.kir" $import --entry pictures --input seed=u64=2 --output x=@new_x.npy --output y=@new_y.npy
"$kiln" train "$here/transfer.kir" $import --data x=@x.npy --data y=@y.npy --validate x=@new_x.npy --validate y=@new_y.npy \
  --batch 16 --epochs 4 --seed 1 --keep-training -o transfer.kiln
accuracy=$("$kiln" run transfer.kiln --entry evaluate --input x=@new_x.npy --input y=@new_y.npy | sed -n 's/^accuracy: f32\[\] //p')
echo "accuracy on new pictures: $accuracy"
awk "BEGIN { exit !($accuracy > 0.9) }"
