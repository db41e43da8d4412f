#!/bin/sh
# Commands that are wrong whatever the files hold: exit code 2 from every verb, before any file is read, and a message with what
# to write instead. What the files lack is bad input: exit code 1.
#   bad_usage.sh KILN KILN_RUN KILN_OPT SOURCE_FOLDER
set -u
kiln=$1 kiln_run=$2 opt=$3 source=$4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cp "$source/tests/tools/relu.kir" "$work" && cd "$work" || exit 1
"$kiln" compile relu.kir >/dev/null && echo 'not a model' >other.onnx || exit 1
failures=0 rows=0

# A row of the table: the status, a part of the message, the command.
row() {
  status=$1 text=$2
  shift 2
  "$@" >out 2>&1 </dev/null
  got=$?
  rows=$((rows + 1))
  if [ "$got" -ne "$status" ] || ! grep -qF -e "$text" out || grep -q 'internal error' out; then
    echo "FAIL: exit $got, not $status with '$text': $*"; cat out; failures=$((failures + 1))
  fi
}

# Options that several verbs have. The model is not there, so nothing else can be found first.
data='--data x=@nosuch.npy'
for verb in compile run bench inspect check "train $data"; do
  for size in N N= =4 N=four N=-1 N=4..2 N=..4 N=1..x N=99999999999999999999 ..N=1; do
    row 2 'write NAME=SIZE' "$kiln" $verb nosuch.kir --dim $size
  done
  for shape in x x=1y3 =1x3 x=[1 x=1x-3; do row 2 'write INPUT=1x3x224x224' "$kiln" $verb nosuch.onnx --shape $shape; done
  for state in past past= =present past=present:0 past=present:x auto:-1; do row 2 'write auto, auto:256' "$kiln" $verb nosuch.onnx --state $state; done
  row 2 'write NAME=FILE' "$kiln" $verb nosuch.kir --import base
  row 2 '--winograd' "$kiln" $verb nosuch.kir --winograd 3
  row 2 '--compress-weights' "$kiln" $verb nosuch.kir --compress-weights f8
  row 2 'the levels are 0, 1 and 2' "$kiln" $verb nosuch.kir -O 3
  row 2 'nosuchflag' "$kiln" $verb nosuch.kir --nosuchflag
  row 2 'model' "$kiln" $verb
  row 2 '{"severity": "error", "message": "' "$kiln" $verb nosuch.kir --json --dim N
  row 1 'nosuch.kir' "$kiln" $verb nosuch.kir --dim N=4
done
for verb in run bench check; do
  for input in x =1 x=; do row 2 'write NAME=@FILE.npy' "$kiln" $verb nosuch.kir --input $input; done
done
for verb in run bench check "train $data"; do
  for threads in 0 -1 many 1.5 4096; do row 2 '--threads' "$kiln" $verb nosuch.kir --threads $threads; done
  for device in tpu cuda: cuda:x cuda:-1 CPU; do row 2 'write cpu, cuda, cuda:0 or auto' "$kiln" $verb nosuch.kir --device $device; done
  row 2 '--seed' "$kiln" $verb nosuch.kir --seed many
done

# Options of one verb
row 2 "unknown target 'z80'; known: host, " "$kiln" compile nosuch.kir --target z80
row 2 'no such GPU; there are: sm_80, ' "$kiln" compile nosuch.kir --cuda sm_80,sm_12
row 2 'no such phase; there are: ' "$kiln" compile nosuch.kir --stop-after nosuch
row 2 '--emit' "$kiln" compile nosuch.kir --emit nosuch
row 2 'write N=1, N=1,8 or' "$kiln" compile nosuch.kir --specialise 8
row 2 'write bytes, or 48M' "$kiln" compile nosuch.kir --max-memory much
row 2 '--jobs' "$kiln" compile nosuch.kir -j 0
row 2 '--tune' "$kiln" compile nosuch.kir --tune -1
row 2 '--denormals' "$kiln" compile nosuch.kir --denormals drop
row 2 'write NAME=@FILE.npy' "$kiln" run nosuch.kir --output y=file.npy
row 2 'write OUTPUT=INPUT' "$kiln" run nosuch.kir --feed next
row 2 '--repeat' "$kiln" run nosuch.kir --repeat 0
row 2 '--top' "$kiln" run nosuch.kir --top -1
row 2 '--seconds' "$kiln" bench nosuch.kir --seconds -1
row 2 '--graph' "$kiln" inspect nosuch.kir --graph pdf
row 2 '--tolerance' "$kiln" check nosuch.kir --tolerance -1
row 2 'no pass is named' "$kiln" opt nosuch.kir --passes dce,nosuch
row 2 'no kernel pass is named' "$opt" nosuch.kernels --kernel-passes nosuch
row 2 'unknown target' "$opt" nosuch.kernels --kernel-passes schedule --target z80
row 2 'write NAME=SIZE' "$opt" nosuch.kir --dim N
row 2 'write the part for validation' "$kiln" train nosuch.kir $data --split 2
row 2 'excludes' "$kiln" train nosuch.kir $data --split 0.2 --validate x=@b.npy
row 2 'write INPUT=MEAN,DEVIATION' "$kiln" train nosuch.kir $data --normalise x=1
row 2 'write INPUT=flip' "$kiln" train nosuch.kir $data --augment x=turn
row 2 'write INPUT=NUMBER' "$kiln" train nosuch.kir $data --set lr=fast
row 2 '--batch' "$kiln" train nosuch.kir $data --batch 0
row 2 '--data is required' "$kiln" train nosuch.kir
row 2 "there is no verb 'nosuch'" "$kiln" nosuch
row 2 'A subcommand is required' "$kiln"

# kiln-run
for option in '--threads 0' '--threads many' '--dim N' '--dim N=x' '--dim =4' '--dim N=-1' '--repeat 0' '--input x' '--output y' '--output y=a.npy' '--device tpu' \
  '--device cuda:x'; do
  row 2 "bad value for ${option%% *}" "$kiln_run" nosuch.kiln $option
done
row 2 'wants a value' "$kiln_run" nosuch.kiln --entry
row 2 "unknown option '--wat'" "$kiln_run" nosuch.kiln --wat 1
row 2 'which model?' "$kiln_run"

# What the files lack, of both
for program in "$kiln run" "$kiln_run"; do
  row 1 "'nosuch'" $program relu.kiln --entry nosuch
  row 1 "'nosuch'" $program relu.kiln --input x=1x3xf32=1 --input nosuch=1x3xf32=1
  row 1 "'nosuch'" $program relu.kiln --input x=1x3xf32=1 --output nosuch=@y.npy
  row 1 "nosuch" $program relu.kiln --input x=1x3xf32=1 --dim nosuch=4
  row 1 'x' $program relu.kiln --dim N=1
  row 1 'x' $program relu.kiln --input x=1y3xf32=1
  row 1 'nosuch' $program relu.kiln --input x=1x3xf32=1 --target nosuch
  row 1 'nosuch.npy' $program relu.kiln --input x=@nosuch.npy
  row 1 'nosuch.kiln' $program nosuch.kiln
done
row 1 'other.onnx' "$kiln" compile other.onnx
row 1 'relu.kiln' "$kiln" compile relu.kiln

# What is wrong with the model as a whole names its file.
printf 'func f(x: f32[N]) -> f32[N] { return relu(x) }\n' >private.kir
row 1 'private.kir: error: the model exports no function' "$kiln" compile private.kir
row 1 '"file": "private.kir"' "$kiln" compile private.kir --json
row 1 'private.kir: error: --state: the model has no entry' "$kiln" compile private.kir --state auto
row 1 'relu.kir: error: --specialise M=1: no entry has sizes of these names; there are: N' "$kiln" compile relu.kir --specialise M=1
row 1 'relu.kir: error: --specialise N=9: N is from 1 to 4' "$kiln" compile relu.kir --specialise N=9 --dim N=1..4
row 1 'nosuch.tune' "$kiln" compile relu.kir --tune-file nosuch.tune

echo "$rows commands"
exit $((failures > 0))
