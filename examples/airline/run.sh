#!/bin/bash
# Trains on all but the last two years, forecasts these, and checks how far off that is.   run.sh [KILN [CSV [SVG]]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kiln=$(realpath "$(command -v "${1:-kiln}")") csv=${2:+$(realpath "$2")} svg=${3:+$(realpath "$3")} column=Passengers epochs=150
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -z "$csv" ]; then
  "$kiln" run "$here/airline.kir" --entry series --output output=@series.csv
  csv=series.csv column=0 epochs=40
fi
"$kiln" train "$here/airline.kir" --data "$csv x=$column y=$column window=36" --split last:0.22 --batch 16 --epochs $epochs --seed 1 \
  --keep-training -o airline.kiln 2>/dev/null
"$kiln" run airline.kiln --entry forecast --input "series=@$csv:$column" --output chart=@forecast.svg
percent=$("$kiln" run airline.kiln --entry forecast --input "series=@$csv:$column" | sed -n 's/^percent: f32\[\] //p')
echo "two years ahead the forecast is off by $percent %"
grep -q '<path' forecast.svg
[ -z "$svg" ] || cp forecast.svg "$svg"
awk "BEGIN { exit !($percent < 12) }"
