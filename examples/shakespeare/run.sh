#!/bin/bash
# Trains both models, checks that they learn, and has them write.   run.sh [KILN [TEXT [EPOCHS]]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kiln=$(realpath "$(command -v "${1:-kiln}")") text=$(realpath "${2:-$here/sample.txt}") epochs=${3:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for model in lstm gpt; do
  window=64 && [ $model = lstm ] || window=128
  "$kiln" train "$here/$model.kir" --data "$text window=$window" --split last:0.1 --batch 8 --epochs $epochs --seed 1 --log $model.jsonl -o $model.kiln 2>/dev/null
  first=$(head -1 $model.jsonl | sed 's/.*"loss": \([0-9.]*\).*/\1/')
  last=$(grep validation $model.jsonl | tail -1 | sed 's/.*"loss": \([0-9.]*\).*/\1/')
  echo "$model: the loss goes from $first to $last on text it has not seen, and it writes:"
  "$kiln" run $model.kiln --entry step --feed next=token --input token=1xi64=0 --input temperature=f32=0.8 --input seed=u64=1 \
    --prompt "ROMEO:" --repeat 200 >written.txt
  cat written.txt
  [ "$(head -c 6 written.txt)" = "ROMEO:" ] && [ "$(wc -c <written.txt)" -gt 206 ]
  awk "BEGIN { exit !($last < 0.8 * $first) }"
done
