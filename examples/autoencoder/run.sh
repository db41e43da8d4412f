#!/bin/bash
# Trains, and checks how far what comes back is off.   run.sh [KILN [TRAIN-IMAGES TEST-IMAGES [PICTURE.png]]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kiln=$(realpath "$(command -v "${1:-kiln}")") train=${2:+$(realpath "$2")} test=${3:+$(realpath "$3")} picture=${4:+$(realpath "$4")} epochs=5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -z "$train" ]; then
  "$kiln" run "$here/autoencoder.kir" --entry rings --output x=@rings.npy
  train=rings.npy test=rings.npy epochs=40
fi
"$kiln" train "$here/autoencoder.kir" --data "x=@$train" --validate "x=@$test" --batch 128 --epochs $epochs --seed 1 --log log.jsonl -o autoencoder.kiln 2>/dev/null
if [ "$train" != rings.npy ]; then
  "$kiln" run autoencoder.kiln --entry compare --input "x=@$test" --output picture=@digits.png
  [ -s digits.png ]
  [ -z "$picture" ] || cp digits.png "$picture"
fi
difference=$(grep validation log.jsonl | tail -1 | sed 's/.*"difference": \([0-9.]*\).*/\1/')
echo "a point is off by $difference on average"
awk "BEGIN { exit !($difference < 0.06) }"
