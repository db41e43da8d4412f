#!/bin/sh
# kiln-run from a shell: results, exit statuses, and files that stay whole.
#   check_kiln_run.sh KILN_RUN PACKAGE
set -eu
run=$1 package=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

expect() { # STATUS TEXT COMMAND...: the command exits so and prints TEXT somewhere
  status=$1 text=$2
  shift 2
  got=0
  "$@" > "$folder/out" 2>&1 || got=$?
  if [ "$got" != "$status" ] || ! grep -qF -- "$text" "$folder/out"; then
    echo "expected $status and '$text' of: $*; got $got and:"
    cat "$folder/out"
    exit 1
  fi
}

x=2x4xf32=1,1,1,1,2,2,2,2
expect 0 'y: f32[2, 4] 1 2 3 4 2 4 6 8' "$run" "$package" --entry scale --input x=$x
expect 0 'total: f32[] 30' "$run" "$package" --entry=scale --input=x=$x --threads 3
expect 0 '100 runs: ' "$run" "$package" --entry scale --input x=$x --repeat 100
expect 0 'param moment: f32[4]' "$run" "$package" --describe
expect 0 'N: 0..64' "$run" "$package" --describe
expect 0 'usage' "$run" --help

"$run" "$package" --entry scale --input x=$x --output y=@"$folder/y.npy" > /dev/null
expect 0 'y: f32[2, 4] 1 4 9 16' "$run" "$package" --entry scale --input x=@"$folder/y.npy"
expect 0 'total: f32[] 90' "$run" "$package" --entry scale --input x=@- < "$folder/y.npy"
expect 1 'not a .npy file' "$run" "$package" --entry scale --input x=@- < /dev/null
head -c 100 "$folder/y.npy" > "$folder/short.npy"
expect 1 'truncated' "$run" "$package" --entry scale --input x=@"$folder/short.npy"

step="--entry step --input x=4xf32=1"
expect 0 'loss: f32[] 104' "$run" "$package" $step --save "$folder/saved.kiln"
expect 0 'loss: f32[] 108' "$run" "$folder/saved.kiln" $step --save-state "$folder/state"
expect 0 'loss: f32[] 112' "$run" "$package" $step --load "$folder/state"

expect 1 'cannot open' "$run" "$folder/none.kiln"
expect 1 "input 'x' wants f32, got f64" "$run" "$package" --entry scale --input x=2x4xf64=1
expect 1 "input 'x' wants shape [N, 4], got [2, 5]" "$run" "$package" --entry scale --input x=2x5xf32=1
expect 1 "the dim 'N' is 65, outside of 0..64" "$run" "$package" --entry scale --input x=65x4xf32=1
expect 1 "N % 7 != 0" "$run" "$package" --entry scale --input x=14x4xf32=1
expect 1 "input 'x' of 'step' is not bound" "$run" "$package" --entry step
expect 1 'in Gather#2 at m.onnx' "$run" "$package" --entry pick --input table=8xf32=1 --input at=i64=-1
expect 1 'cannot create' "$run" "$package" --entry scale --input x=$x --output y=@"$folder/no/y.npy"
expect 1 'choose an entry with --entry: scale, step, pick, denormal' "$run" "$package"
expect 1 "no entry 'non'" "$run" "$package" --entry non
expect 1 "has no input 'z'" "$run" "$package" --entry scale --input z=$x
expect 1 "has no output 'z'" "$run" "$package" --entry scale --input x=$x --output z=@z.npy
expect 1 "no input tells the dim 'N'" "$run" "$package" --entry scale
expect 2 'bad value for --threads' "$run" "$package" --threads 0
expect 2 "unknown option '--wat'" "$run" "$package" --wat 1
expect 2 'which model?' "$run"

# Every truncation and a flip in each page of the file: refused with status 1, before anything runs.
size=$(wc -c < "$package")
for at in 0 7 8 40 100 4095 4096 5000 9000 20000 $((size - 1)); do
  head -c "$at" "$package" > "$folder/cut.kiln"
  expect 1 'kiln-run: ' "$run" "$folder/cut.kiln" --entry scale --input x=$x
  { head -c "$at" "$package"; printf '\377'; tail -c +"$((at + 2))" "$package"; } > "$folder/bad.kiln"
  cmp -s "$package" "$folder/bad.kiln" && continue
  expect 1 'kiln-run: ' "$run" "$folder/bad.kiln" --entry scale --input x=$x
done
[ -z "$(ls "$folder" | grep tmp)" ]
