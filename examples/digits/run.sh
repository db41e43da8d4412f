#!/bin/bash
# Trains the network and checks what it reads.   run.sh [KILN [MNIST_FOLDER [OUTPUT_FOLDER]]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kiln=$(realpath "$(command -v "${1:-kiln}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$work
[ $# -lt 3 ] || out=$(realpath "$3")
if [ $# -ge 2 ] && [ -n "$2" ]; then
  data=$(realpath "$2") batch=64 epochs=3 steps=2811 least=0.99
  train="x=@$data/train-images-idx3-ubyte.gz y=@$data/train-labels-idx1-ubyte.gz"
  test="x=@$data/t10k-images-idx3-ubyte.gz y=@$data/t10k-labels-idx1-ubyte.gz"
else
  batch=32 epochs=4 steps=100 least=0.8
  for part in 1 2; do
    "$kiln" run "$here/drawn.kir" --input seed=u64=$part --output x=@"$work/x$part.npy" --output y=@"$work/y$part.npy"
  done
  train="x=@$work/x1.npy y=@$work/y1.npy" test="x=@$work/x2.npy y=@$work/y2.npy"
fi
"$kiln" train "$here/digits.kir" --data "$train" --validate "$test" --normalise x=0.1307,0.3081 --batch $batch --epochs $epochs \
  --set steps=$steps --threads 2 --seed 1 --log "$out/digits.jsonl" --report "$out/digits.html" -o "$out/digits.kiln"
accuracy=$(grep validation "$out/digits.jsonl" | tail -1 | sed 's/.*"accuracy": \([0-9.]*\).*/\1/')
"$kiln" run "$out/digits.kiln" --input x=1x1x28x28xf32=0 | grep -q '^probabilities: f32\[1, 10\]'
echo "accuracy on digits that it has not seen: $accuracy"
awk "BEGIN { exit !($accuracy >= $least) }"
