#!/bin/bash
# kiln train: it learns; the same bits for any number of threads and workers, and however often it is killed and resumed;
# and what it says when it is misused. Arguments: kiln, this folder, how often to kill.
set -eu
kiln=$1 here=$2 kills=${3:-10}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $1"; exit 1; }

"$kiln" run "$here/spirals.kir" --entry points --output x=@x.npy --output label=@y.npy
"$kiln" compile "$here/spirals.kir" --keep-params -o spirals.kiln >/dev/null
data="--data x=@x.npy --data y=@y.npy --validate x=@x.npy --validate y=@y.npy --batch 64 --epochs 12 --seed 3"

"$kiln" train spirals.kiln $data --log a.jsonl -o a.kiln 2>a.err
accuracy=$(grep validation a.jsonl | tail -1 | sed 's/.*"accuracy": \([0-9.]*\).*/\1/')
awk "BEGIN { exit !($accuracy > 0.95) }" || fail "after 12 epochs the accuracy is $accuracy"

"$kiln" train spirals.kiln $data --threads 2 --workers 3 -o b.kiln 2>/dev/null
cmp a.kiln b.kiln || fail "threads and workers change the result"
"$kiln" train spirals.kiln $data --workers 0 -o c.kiln 2>/dev/null
cmp a.kiln c.kiln || fail "batches made in place change the result"

# Killed at any moment, resumed, killed again.
for ((i = 0; i < kills; i++)); do
  "$kiln" train spirals.kiln $data --checkpoint ck --checkpoint-every 7 --resume -o d.kiln 2>/dev/null &
  pid=$!
  sleep "0.0$((RANDOM % 90 + 10))"
  kill -9 $pid 2>/dev/null || true
  wait $pid 2>/dev/null || true
done
"$kiln" train spirals.kiln $data --checkpoint ck --resume -o d.kiln 2>/dev/null
cmp a.kiln d.kiln || fail "a run that was killed $kills times ends with other bits"

# Ctrl-C saves.
"$kiln" train spirals.kiln ${data/--epochs 12/--epochs 100000} --checkpoint ck2 2>/dev/null &
pid=$!
sleep 0.5
kill -INT $pid
code=0; wait $pid || code=$?
[ $code = 130 ] || fail "an interrupted run ends with $code"
[ -s ck2/last.safetensors ] || fail "an interrupted run leaves no checkpoint"

says() { # the message, then the command
  local text=$1; shift
  if "$@" >out.txt 2>&1; then fail "no error from: $*"; fi
  grep -q -- "$text" out.txt || { cat out.txt; fail "expected '$text' from: $*"; }
}
says "no data for the input 'y'" "$kiln" train spirals.kiln --data x=@x.npy --batch 64
says "the model has no input 'z'" "$kiln" train spirals.kiln --data z=@x.npy --batch 64
says "choose one with --batch" "$kiln" train spirals.kiln --data x=@x.npy --data y=@y.npy
says "an example does not fill" "$kiln" train spirals.kiln --data x=@y.npy --data y=@y.npy --batch 64
says "fewer than one batch" "$kiln" train spirals.kiln --data x=@x.npy --data y=@y.npy --batch 1000
says "no entry 'fit'" "$kiln" train spirals.kiln --data x=@x.npy --data y=@y.npy --batch 64 --step fit
says "another kiln.seed" "$kiln" train spirals.kiln ${data/--seed 3/--seed 4} --checkpoint ck --resume
head -c 300 ck/last.safetensors >cut && mkdir -p ck3 && mv cut ck3/last.safetensors
says "safetensors" "$kiln" train spirals.kiln $data --checkpoint ck3 --resume
says "cannot write 'nosuch/a.kiln'" "$kiln" train spirals.kiln $data -o nosuch/a.kiln
says "cannot write 'nosuch/a.html'" "$kiln" train spirals.kiln $data --report nosuch/a.html
cp "$here/spirals.kir" . && says "what the model is read from" "$kiln" train spirals.kir $data -o spirals.kir
cmp "$here/spirals.kir" spirals.kir || fail "the program is replaced by what it becomes"
"$kiln" train spirals.kiln ${data/--epochs 12/--epochs 100000} --checkpoint ck4 2>/dev/null &
pid=$!
for ((i = 0; i < 100; i++)); do [ -s ck4/last.safetensors ] && break; sleep 0.1; done
says "another run writes its checkpoints to 'ck4'" "$kiln" train spirals.kiln $data --checkpoint ck4
kill -INT $pid
wait $pid || true
"$kiln" train spirals.kiln $data --checkpoint ck4 2>err
grep -q "replaces that of an earlier run" err || fail "a checkpoint is replaced without a word"
echo "train: accuracy $accuracy, $kills kills"
