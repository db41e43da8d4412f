#!/bin/bash
# kiln train over each kind of source; validation, early stop, the learning-rate finder, and what is written at the end.   KILN
set -eu
kiln=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $1"; exit 1; }
says() { # the message, then the command
  local text=$1; shift
  if "$@" >out.txt 2>&1; then fail "no error from: $*"; fi
  grep -qF -- "$text" out.txt || { cat out.txt; fail "expected '$text' from: $*"; }
}
last() { grep validation "$1" | tail -1 | sed "s/.*\"$2\": \([0-9.e-]*\).*/\1/"; }
near() { awk "BEGIN { d = $1 - $2; exit !(d < 1e-5 && d > -1e-5) }"; }

# A table: three kinds of points, told by the sum of two columns.
awk 'BEGIN { srand(4); print "u,v,kind"; for (i = 0; i < 300; i++) { u = rand() * 10 + 40; v = rand() * 2; s = (u - 40) / 10 + v / 2
             printf "%.4f,%.4f,%s\n", u, v, s < 0.8 ? "low" : s < 1.2 ? "mid" : "top" } }' >points.csv
cat >points.kir <<'K'
import nn, optim, loss, metrics
net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
opt = optim.Adam(net)
export func train_step(x: f32[N, 2], y: i64[N], lr: f32[]) -> (loss: f32[]) {
  l = loss.cross_entropy(net(x), y)
  opt.step(grad(l, net), lr=lr)
  return l
}
export func evaluate(x: f32[N, 2], y: i64[N]) -> (loss: f32[], accuracy: f32[]) {
  z = net(x)
  return loss.cross_entropy(z, y), metrics.accuracy(z, y)
}
export func predict(x: f32[N, 2]) -> (p: f32[N, 3]) { return softmax(net(x), axis=1) }
K
points="points.csv x=u,v y=kind"
"$kiln" train points.kir --data "$points" --split 0.2 --normalise x=auto --batch 16 --epochs 30 --set lr=0.02 --seed 1 --log log.jsonl --report page.html \
  --names names.json -o points.kiln 2>/dev/null
awk "BEGIN { exit !($(last log.jsonl accuracy) > 0.9) }" || fail "the table is not learnt: $(last log.jsonl accuracy)"
tr -d ' \n' <names.json | grep -qF '{"y":["low","mid","top"]}' || fail "names of classes"
grep -q '<svg' page.html && grep -q 'class="validation"' page.html || fail "the page has no curves"
if grep -qE 'https?://|<script|src=' page.html; then fail "the page refers to something outside"; fi
"$kiln" inspect points.kiln >io.txt
grep -q '^predict:' io.txt && ! grep -q '^train_step:' io.txt || fail "the package is not for inference"
grep -qF 'data.y.names: ["low","mid","top"]' io.txt && grep -q 'data.x.normalise: {"mean":\[4[45]' io.txt || fail "what the package says of its data"
"$kiln" run points.kiln --input x=1x2xf32=-1.7,-1.7 | grep -q '0.9' || fail "the trained params are not in the package"

# All examples count in validation, however they fall into batches; an entry for batches of one size leaves some out, and says so.
for batch in 7 60; do
  "$kiln" train points.kir --data "$points" --split 0.2 --normalise x=45,3 --batch $batch --epochs 0 --set lr=0 --log v$batch.jsonl 2>said
  grep -q 'validation on 60 examples' said || fail "examples of a partial batch are left out"
done
near "$(last v7.jsonl loss)" "$(last v60.jsonl loss)" || fail "the mean over partial batches"
sed 's/evaluate(x: f32\[N, 2\], y: i64\[N\])/evaluate(x: f32[16, 2], y: i64[16])/' points.kir >fixed.kir
"$kiln" train fixed.kir --data "$points" --split 0.2 --batch 16 --epochs 0 --set lr=0 2>said
grep -q 'validation on 48 examples.*12 that fill no batch of 16 are left out' said || fail "a fixed batch does not say what it leaves out"

# Early stop: with a rate of 0 nothing becomes better after the first epoch.
"$kiln" train points.kir --data "$points" --split 0.2 --batch 16 --epochs 50 --set lr=0 --monitor loss --patience 3 --log stop.jsonl 2>said
grep -q 'loss has not become better for 3 epochs' said || fail "no early stop"
[ "$(grep -c validation stop.jsonl)" = 4 ] || fail "early stop after $(grep -c validation stop.jsonl) epochs"
# The package has the best epoch's values: a rate that wrecks what was learnt changes nothing of it.
best() { "$kiln" train points.kir --data "$points" --split 0.2 --normalise x=auto --batch 16 --epochs $1 --set lr=$2 --monitor accuracy "${@:3}" 2>/dev/null; }
best 6 3 --log b.jsonl --keep-training -o b.kiln
best 6 3 --checkpoint ck -o c.kiln
epochs=$(grep validation b.jsonl | sed 's/.*"accuracy": \([0-9.e-]*\).*/\1/' | awk '$1 > m { m = $1; n = NR } END { print n }')
best "$epochs" 3 -o d.kiln
cmp c.kiln d.kiln || fail "the package has not the best epoch's values"
"$kiln" train b.kiln --data "$points" --split 0.2 --normalise x=auto --batch 16 --epochs 0 --set lr=0 --log e.jsonl 2>said
grep -q 'going on from the values in the package' said || fail "a trained package begins anew"
near "$(last e.jsonl accuracy)" "$(grep validation b.jsonl | sed 's/.*"accuracy": \([0-9.e-]*\).*/\1/' | sort -g | tail -1)" || fail "the best values in memory"

"$kiln" train points.kir --data "$points" --normalise x=auto --batch 64 --find-lr --report lr.html --json >lr.json
awk "BEGIN { lr = $(sed 's/.*"lr": \([0-9.e-]*\).*/\1/' lr.json); exit !(lr > 1e-4 && lr < 3) }" || fail "the learning rate: $(cat lr.json)"
grep -q 'learning rate' lr.html || fail "the page of learning rates"

# A series: the next number of a straight line.
awk 'BEGIN { print "t,n"; for (i = 0; i < 200; i++) printf "%d,%d\n", i, 3 * i }' >line.csv
cat >line.kir <<'K'
import nn, optim, loss
net = nn.Linear(4, 1)
opt = optim.Adam(net, lr=3e-2)
export func train_step(x: f32[N, 4, 1], y: f32[N, 1]) -> (loss: f32[]) {
  l = loss.mse_loss(net(flatten(x, 1)), y)
  opt.step(grad(l, net))
  return l
}
export func evaluate(x: f32[N, 4, 1], y: f32[N, 1]) -> (loss: f32[]) { return loss.mse_loss(net(flatten(x, 1)), y) }
K
"$kiln" train line.kir --data "line.csv x=n y=n window=4" --normalise x=auto --normalise y=auto --split last:0.1 --batch 8 --epochs 30 --log line.jsonl 2>/dev/null
awk "BEGIN { exit !($(last line.jsonl loss) < 0.01) }" || fail "the series is not learnt: $(last line.jsonl loss)"

# Text: windows, and lines in buckets, whose lengths the model leaves open.
for ((i = 0; i < 120; i++)); do echo "abcabcabcabcabc" | cut -c $((i % 3 + 1))-$((i % 9 + 5)); done >abc.txt
cat >text.kir <<'K'
import nn, optim, loss
table = nn.Embedding(4, 4)
opt = optim.Adam(table, lr=0.1)
func l(x, y) { return loss.cross_entropy(flatten(table(x), 0, 1), flatten(y)) }
export func train_step(x: i64[B, T], y: i64[B, T]) -> (loss: f32[]) {
  out = l(x, y)
  opt.step(grad(out, table))
  return out
}
export func evaluate(x: i64[B, T], y: i64[B, T]) -> (loss: f32[]) { return l(x, y) }
K
"$kiln" train text.kir --data "abc.txt window=16" --batch 4 --epochs 20 --log w.jsonl 2>/dev/null
awk "BEGIN { exit !($(tail -1 w.jsonl | sed 's/.*"loss": \([0-9.e-]*\).*/\1/') < 1) }" || fail "the text is not learnt"
# The targets of a batch in one row, of a fixed size or not.
for sizes in "4, 16/64" "B, T/B*T"; do
  sed "s|\(train_step.*\)x: i64\[B, T\], y: i64\[B, T\]|\1x: i64[${sizes%/*}], y: i64[${sizes#*/}]|" text.kir >row.kir
  "$kiln" train row.kir --data "abc.txt window=16" --batch 4 --epochs 20 --log r.jsonl 2>/dev/null
  near "$(tail -1 w.jsonl | sed 's/.*"loss": \([0-9.e-]*\).*/\1/')" "$(tail -1 r.jsonl | sed 's/.*"loss": \([0-9.e-]*\).*/\1/')" || fail "targets in one row"
done
for workers in 0 3; do
  "$kiln" train text.kir --data lines:abc.txt --split 0.2 --buckets 8,16 --batch 8 --epochs 5 --workers $workers --threads $((workers % 2 + 1)) \
    --keep-training --log l$workers.jsonl -o l$workers.kiln 2>/dev/null
done
cmp l0.kiln l3.kiln && cmp l0.jsonl l3.jsonl || fail "workers and threads change what lines teach"

# Pictures: PNG files, light and dark.
python3 - <<'P'
import os, struct, zlib
def png(path, grey, size=12):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes((grey + x * 3 + y) % 256 for x in range(size)) for y in range(size))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
for name, base in (("dark", 0), ("light", 120)):
    os.makedirs("photos/" + name)
    for i in range(20):
        png("photos/%s/%d.png" % (name, i), base + i * 3)
P
cat >photos.kir <<'K'
import nn, optim, loss, metrics
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
opt = optim.Adam(net, lr=2e-2)
export func train_step(x: f32[N, 3, 8, 8], y: i64[N]) -> (loss: f32[]) {
  l = loss.cross_entropy(net(x), y)
  opt.step(grad(l, net))
  return l
}
export func evaluate(x: f32[N, 3, 8, 8], y: i64[N]) -> (accuracy: f32[]) { return metrics.accuracy(net(x), y) }
K
for workers in 0 3; do
  "$kiln" train photos.kir --data "photos size=8x8" --split 0.25 --augment x=flip,crop:1 --normalise x=auto --batch 5 --epochs 15 --workers $workers \
    --keep-training --log p$workers.jsonl -o p$workers.kiln 2>/dev/null
done
cmp p0.kiln p3.kiln || fail "workers change what augmentation does"
awk "BEGIN { exit !($(last p0.jsonl accuracy) > 0.9) }" || fail "the pictures are not learnt: $(last p0.jsonl accuracy)"

head -c 60 photos/light/3.png >cut.png && mv cut.png photos/light/3.png
says "photos/light/3.png': its PNG is damaged" "$kiln" train photos.kir --data "photos size=8x8" --batch 5 --epochs 15
says "has no column 'w'; its columns are u, v, kind" "$kiln" train points.kir --data "points.csv x=u,w y=kind" --batch 4 --set lr=1
says "give it with --set lr=" "$kiln" train points.kir --data "$points" --batch 4
says "has no input 'rate'" "$kiln" train points.kir --data "$points" --batch 4 --set lr=1 --set rate=2
says "no input \`lr: f32[]\`" "$kiln" train text.kir --data "abc.txt window=16" --batch 4 --find-lr
says "--monitor f1: name one of loss, accuracy" "$kiln" train points.kir --data "$points" --split 0.2 --batch 4 --set lr=1 --monitor f1
says "give --validate or --split" "$kiln" train points.kir --data "$points" --batch 4 --set lr=1 --patience 2
says "more than the last bucket" "$kiln" train text.kir --data lines:abc.txt --buckets 4 --batch 8
says "no data for the input 'y'" "$kiln" train points.kir --data "points.csv x=u,v" --batch 4 --set lr=1
says "an example does not fill" "$kiln" train points.kir --data "points.csv x=u y=kind" --batch 4 --set lr=1
echo "data: table $(last log.jsonl accuracy), pictures $(last p0.jsonl accuracy), learning rate $(cat lr.json)"
