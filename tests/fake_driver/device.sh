#!/bin/bash
# kiln with --cuda and --device, on a machine without a GPU: NVRTC and the driver are the fakes beside this file.
# Arguments: kiln, kiln-run, the fake NVRTC, the fake driver, the folder tests.
set -eu
kiln=$1 kiln_run=$2 nvrtc=$3 driver=$4 tests=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $1"; exit 1; }
says() { grep -qF -- "$2" "$1" || { cat "$1"; fail "no '$2' in what it said"; }; }
refuses() { # FILE COMMAND...: exit code 1, what it says in FILE
  local to=$1 code=0
  shift
  "$@" >"$to" 2>&1 || code=$?
  [ $code = 1 ] || { cat "$to"; fail "exit code $code of: $*"; }
}
export KILN_NVRTC=$nvrtc KILN_CUDA_DRIVER=$driver KILN_CACHE=$work/cache

cat > net.kir <<'KIR'
import nn
model Net {
  a = nn.Linear(24, 40)
  b = nn.Linear(40, 10)
  func forward(x) { return softmax(b(relu(a(x))), axis=1) }
}
net = Net()
export func predict(x: f32[N, 24]) -> f32[N, 10] { return net(x) }
export func count(x: f32[N, 24]) -> f32[1] {
  n = 0.0 * sum(x) + 1.0
  while (n < 100.0) { n = n * 3.0 }
  return reshape(n, [1])
}
export func branch(x: f32[N, 24]) -> f32[N, 24] {
  y = x * 2.0
  if (sum(x) > 0.0) { y = softmax(y, axis=1) } else { y = y - 1.0 }
  return y
}
KIR
"$kiln" compile net.kir --dim N=1..8 --cuda sm_80,ptx -o net.kiln
[ "$(ls cache/nvrtc-* | wc -l)" -gt 0 ] || fail "the cache is empty"
KILN_SHIM_CXX=/does/not/exist "$kiln" compile net.kir --dim N=1..8 --cuda sm_80,ptx -o again.kiln
cmp net.kiln again.kiln || fail "the cache changes the package"
"$kiln" compile net.kir --dim N=1..8 -o plain.kiln >/dev/null

# The same numbers as on the CPU, nearly; and runs after the first.
"$kiln" run net.kiln --input x=3x24xf32=0.5 --output "$("$kiln" inspect net.kiln --io | sed -n 's/^  output \([^:]*\):.*/\1/p' | head -1)=@cpu.npy"
for program in "$kiln run" "$kiln_run"; do
  $program net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0 > gpu.txt 2>&1 || { cat gpu.txt; fail "$program --device cuda:0"; }
  $program net.kiln --entry predict --input x=3x24xf32=0.5 > cpu.txt
  head -c 120 cpu.txt > a; head -c 120 gpu.txt > b
  [ "$(cut -c1-60 a | head -1)" = "$(cut -c1-60 b | head -1)" ] || { cat a b; fail "$program: other results"; }
done
"$kiln_run" net.kiln --entry predict --input x=8x24xf32=0.5 --device auto --repeat 3 2>/dev/null >/dev/null || fail "--repeat on a device"
"$kiln" run net.kiln --entry count --input x=2x24xf32=0.5 --device cuda > count.txt
says count.txt 243
for value in 0.5 -0.5; do
  "$kiln" run net.kiln --entry branch --input x=2x24xf32=$value > cpu.txt
  "$kiln" run net.kiln --entry branch --input x=2x24xf32=$value --device cuda > gpu.txt
  cmp cpu.txt gpu.txt || { cat cpu.txt gpu.txt; fail "a condition on the device"; }
done
"$kiln" bench net.kiln --entry predict --device cuda:0 --seconds 0.1 --dim N=4 >bench.txt 2>&1 || { cat bench.txt; fail "bench"; }
says bench.txt "cuda:0 sm_80"

# What is not there is refused by name.
refuses out.txt "$kiln" run plain.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "holds no code for a GPU"
for program in "$kiln run" "$kiln_run"; do
  $program net.kiln --entry predict --input x=3x24xf32=0.5 --device auto 2>note.txt >/dev/null || fail "$program --device auto"
  says note.txt "computes on cuda:0 sm_80"
  $program plain.kiln --entry predict --input x=3x24xf32=0.5 --device auto 2>note.txt >/dev/null || fail "$program --device auto without code for a GPU"
  says note.txt "computes on x86-64"
  KILN_CUDA_DRIVER=/does/not/exist.so $program net.kiln --entry predict --input x=3x24xf32=0.5 --device auto 2>note.txt >/dev/null || fail "$program --device auto without a driver"
  says note.txt "computes on x86-64"
done
"$kiln" run plain.kiln --entry predict --input x=3x24xf32=0.5 --device auto >/dev/null || fail "auto takes the CPU where there is no code for a GPU"
refuses out.txt "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:7
says out.txt "there is no device cuda:7"
if "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device tpu >out.txt 2>&1; then fail "there is a device tpu"; fi
says out.txt "write cpu, cuda, cuda:0 or auto"
refuses out.txt env KILN_CUDA_DRIVER=/does/not/exist.so "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "no CUDA driver"
"$kiln" compile net.kir --dim N=1..8 --cuda sm_90 -o hopper.kiln >/dev/null
refuses out.txt "$kiln" run hopper.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "built for sm_90, and the device is sm_80"
KILN_FAKE_CUDA_ARCH=90 "$kiln" run hopper.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0 >/dev/null || fail "sm_90"
"$kiln" compile net.kir --dim N=1..8 --cuda sm_90,sm_90a -o both.kiln >/dev/null
for arch in 90 80 100; do
  KILN_FAKE_CUDA_ARCH=$arch "$kiln" run both.kiln --entry predict --input x=3x24xf32=0.5 --device auto 2>note.txt >/dev/null || fail "sm_90a on $arch"
  case $arch in 90) says note.txt "computes on cuda:0 sm_90a" ;; *) says note.txt "computes on x86-64" ;; esac
done
"$kiln" compile net.kir --dim N=1..8 --cuda sm_90a -o exact.kiln >/dev/null
refuses out.txt env KILN_FAKE_CUDA_ARCH=100 "$kiln" run exact.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "built for sm_90a, and the device is sm_100"
KILN_FAKE_CUDA_ARCH=120 "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0 >/dev/null || fail "PTX on what is newer"

# A program that says where it computes: the GPU without being told, the processor for what is placed there.
cat > placed.kir <<'KIR'
import nn
net = nn.Linear(8, 8)
state runs: f32[1]
export func on_gpu(x: f32[N, 8]) -> (y: f32[N, 8], runs: f32[1]) device cuda {
  runs = runs + 1.0
  return net(x), runs
}
export func on_cpu(x: f32[N, 8]) -> (y: f32[N, 8], runs: f32[1]) device cpu {
  runs = runs + 1.0
  return net(x), runs
}
export func copied(x: f32[N, 8]) -> f32[N, 8] { return relu(net(x.to(cuda))).to(cpu) }
export func anywhere(x: f32[N, 8]) -> f32[N, 8] { return relu(x) }
KIR
refuses out.txt "$kiln" compile placed.kir --dim N=1..8 -o no.kiln
says out.txt "placed.kir:4:13: error: 'on_gpu' computes on cuda, and there is to be no code for a GPU"
says out.txt "kiln compile --cuda"
"$kiln" compile placed.kir --dim N=1..8 --cuda sm_80 -o placed.kiln >/dev/null
launches() { KILN_FAKE_CUDA_REPORT=$work/report "$@" >/dev/null || fail "$*"; cat report 2>/dev/null || echo 0; rm -f report; }
[ "$(launches "$kiln" run placed.kiln --entry on_gpu --input x=3x8xf32=0.5)" -gt 0 ] || fail "device cuda takes the GPU"
[ "$(launches "$kiln" run placed.kiln --entry copied --input x=3x8xf32=0.5)" -gt 0 ] || fail ".to(cuda) takes the GPU"
[ "$(launches "$kiln_run" placed.kiln --entry copied --input x=3x8xf32=0.5)" -gt 0 ] || fail "kiln-run takes the GPU"
[ "$(launches "$kiln" run placed.kir --dim N=1..8 --entry copied --input x=3x8xf32=0.5)" -gt 0 ] || fail "a program that is compiled in memory"
[ "$(launches "$kiln" run placed.kiln --entry on_cpu --input x=3x8xf32=0.5 --device cuda:0)" = 0 ] || fail "device cpu stays there"
[ "$(launches "$kiln" run placed.kiln --entry anywhere --input x=3x8xf32=0.5)" = 0 ] || fail "what is not placed is on the processor"
[ "$(launches "$kiln" run placed.kiln --entry anywhere --input x=3x8xf32=0.5 --device cuda:0)" -gt 0 ] || fail "what is not placed follows --device"
[ "$(launches "$kiln" run placed.kiln --entry on_gpu --input x=3x8xf32=0.5 --device cpu)" = 0 ] || fail "--device cpu"
[ "$(launches "$kiln" run placed.kir --dim N=1..8 --entry on_gpu --input x=3x8xf32=0.5 --device cpu)" = 0 ] || fail "--device cpu in memory"
refuses out.txt env KILN_CUDA_DRIVER=/does/not/exist.so "$kiln" run placed.kiln --entry on_gpu --input x=3x8xf32=0.5
says out.txt "'on_gpu' computes on cuda, as its program says"
says out.txt "no CUDA driver"
KILN_CUDA_DRIVER=/does/not/exist.so "$kiln" run placed.kiln --entry anywhere --input x=3x8xf32=0.5 >/dev/null || fail "other entries need no GPU"

# What computes on both sides: in parts, on the device without being told; all of it on the processor where that is asked for.
cat > both.kir <<'KIR'
import nn
first = nn.Linear(8, 8)
second = nn.Linear(8, 8)
export func f(x: f32[N, 8]) -> (y: f32[N, 8], m: f32[1]) {
  h = relu(first(x))
  g = tanh(second(h.to(cuda)))
  if (sum(h) > 1000.0) { h = h * 2.0 } else { h = h - 1.0 }
  return g.to(cpu) + h, reshape(max(g), [1])
}
KIR
cat > grown.kir <<'KIR'
export func f(x: f32[N, 8]) {
  v = (exp(x).to(cuda) * 2.0).to(cpu)
  return masked_select(v, v > 3.0)
}
KIR
"$kiln" compile both.kir --dim N=1..8 --specialise N=2 --cuda sm_80 -o both.kiln >/dev/null
"$kiln" compile grown.kir --dim N=1..8 --cuda sm_80 -o grown.kiln >/dev/null
says_same() { # PACKAGE ROWS
  "$kiln" run $1.kiln --entry f --input x=${2}x8xf32=0.5 --device cpu > cpu.txt
  "$kiln" run $1.kiln --entry f --input x=${2}x8xf32=0.5 > gpu.txt
  cmp cpu.txt gpu.txt || { cat cpu.txt gpu.txt; fail "$1 on both sides"; }
  "$kiln_run" $1.kiln --entry f --input x=${2}x8xf32=0.5 > run.txt || fail "kiln-run of $1"
}
for n in 1 2 5; do says_same both $n; done
says_same grown 3
[ "$(launches "$kiln" run both.kiln --entry f --input x=3x8xf32=0.5)" -gt 0 ] || fail "parts take the GPU"
[ "$(launches "$kiln" run both.kiln --entry f --input x=3x8xf32=0.5 --device cpu)" = 0 ] || fail "--device cpu of an entry in parts"
[ "$(launches "$kiln" run both.kir --dim N=1..8 --entry f --input x=3x8xf32=0.5)" -gt 0 ] || fail "parts of a program that is compiled in memory"
"$kiln" run both.kir --dim N=1..8 --entry f --input x=3x8xf32=0.5 --threads 2 > gpu.txt
"$kiln" run both.kir --dim N=1..8 --entry f --input x=3x8xf32=0.5 --threads 2 --device cpu > cpu.txt
cmp cpu.txt gpu.txt || fail "parts with threads"
"$kiln" inspect both.kiln --io > io.txt
says io.txt "parts of f: cpu: "
says io.txt ", cuda: "
"$kiln" bench both.kiln --entry f --dim N=4 --seconds 0.1 --profile > profile.txt
says profile.txt "of it on cuda:0 sm_80"
says profile.txt "of it on x86-64"
says profile.txt " and cuda:0 sm_80 on 1 thread"
refuses out.txt env KILN_CUDA_DRIVER=/does/not/exist.so "$kiln" run both.kiln --entry f --input x=3x8xf32=0.5
says out.txt "'f' computes on cuda, as its program says: no CUDA driver"
says out.txt "the device cpu computes all of it on the processor"
refuses out.txt "$kiln" compile both.kir --dim N=1..8 -o no.kiln
says out.txt "'f' computes on cuda, and there is to be no code for a GPU"
"$kiln" check both.kir --dim N=3 --device cuda:0 >/dev/null 2>&1 || fail "check of parts"
"$kiln" check both.kir --dim N=3 --device cpu --layers >/dev/null 2>&1 || fail "check --layers of a whole"
refuses out.txt "$kiln" check both.kir --dim N=3 --layers
says out.txt "--layers compares the kernels of one: say --device cpu"
"$kiln" compile both.kir --dim N=4 --emit c -o both.c
grep -q part both.c && fail "C has no parts"
cat > late.kir <<'KIR'
export func f(x: f32[N, 8]) { return (masked_select(x, x > 3.0).to(cuda) * 2.0).to(cpu) }
KIR
refuses out.txt "$kiln" compile late.kir --dim N=1..8 --cuda sm_80 -o no.kiln
says out.txt "is found in the data on cpu and used on cuda"

# What fails says where.
refuses out.txt env KILN_FAKE_CUDA_FAIL=cuLaunchKernel:2:700 "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "cuLaunchKernel failed: CUDA_ERROR_ILLEGAL_ADDRESS"
says out.txt "net.kir:"
# What a kernel does wrong is found when someone waits for it: for all of them, or for each by itself.
refuses out.txt env KILN_FAKE_CUDA_FAIL=cuStreamSynchronize:3:700 KILN_CUDA_WAIT=1 "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS"
says out.txt "net.kir:"
# Two devices at once, each with a context of its own.
KILN_FAKE_CUDA_DEVICES=2 "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:1 >/dev/null || fail "cuda:1"
refuses out.txt env KILN_FAKE_CUDA_FAIL=cuMemAlloc_v2:2:2 "$kiln" run net.kiln --entry predict --input x=3x24xf32=0.5 --device cuda:0
says out.txt "CUDA_ERROR_OUT_OF_MEMORY"
refuses out.txt env KILN_SHIM_CXX=false KILN_CACHE=off "$kiln" compile net.kir --cuda sm_80 -o no.kiln
says out.txt "of the kernel"

# Training: the whole step on the device, variables that go there and back.
"$kiln" run "$tests/tools/spirals.kir" --entry points --output x=@x.npy --output label=@y.npy
"$kiln" compile "$tests/tools/spirals.kir" --keep-params --cuda sm_80 -o spirals.kiln >/dev/null
"$kiln" train spirals.kiln --data x=@x.npy --data y=@y.npy --validate x=@x.npy --validate y=@y.npy --batch 64 --epochs 12 --seed 3 \
  --device cuda:0 --log log.jsonl -o trained.kiln 2>train.txt || { cat train.txt; fail "train"; }
accuracy=$(grep validation log.jsonl | tail -1 | sed 's/.*"accuracy": \([0-9.]*\).*/\1/')
awk "BEGIN { exit !($accuracy > 0.95) }" || fail "after 12 epochs the accuracy is $accuracy"
"$kiln" run trained.kiln --entry evaluate --input x=@x.npy --input y=@y.npy > trained.txt
"$kiln" run trained.kiln --entry evaluate --input x=@x.npy --input y=@y.npy --device cuda:0 > trained_gpu.txt
cmp trained.txt trained_gpu.txt || { cat trained.txt trained_gpu.txt; fail "what was trained on the device is saved"; }
# A training step that says where it computes.
sed 's/^\(export func train_step.*\) {/\1 device cuda {/' "$tests/tools/spirals.kir" > placed_spirals.kir
launched=$(launches "$kiln" train placed_spirals.kir --data x=@x.npy --data y=@y.npy --batch 64 --epochs 1 --seed 3 --log placed.jsonl -o placed_trained.kiln)
[ "$launched" -gt 0 ] || fail "a step that is placed on cuda trains there"
# One that computes on both sides: the first layer here, the others there, its optimizer on both.
sed 's/c(drop(tanh(b(tanh(a(x))))))/c(drop(tanh(b(tanh(a(x)).to(cuda))))).to(cpu)/' "$tests/tools/spirals.kir" > split_spirals.kir
cmp -s split_spirals.kir "$tests/tools/spirals.kir" && fail "nothing is split"
launched=$(launches "$kiln" train split_spirals.kir --data x=@x.npy --data y=@y.npy --validate x=@x.npy --validate y=@y.npy --batch 64 --epochs 12 --seed 3 \
  --log split.jsonl -o split.kiln)
[ "$launched" -gt 0 ] || fail "a step in parts trains on the device"
accuracy_of_parts=$(grep validation split.jsonl | tail -1 | sed 's/.*"accuracy": \([0-9.]*\).*/\1/')
awk "BEGIN { exit !($accuracy_of_parts > 0.95) }" || fail "in parts the accuracy is $accuracy_of_parts after 12 epochs"
# Weights are there once, whatever processors would make of them: inspect tells their bytes.
cat > once.kir <<'KIR'
param c: f32[32, 32, 3, 3] = 0.01
param l: f32[32, 4096] = 0.02
export func f(x: f32[1, 32, 56, 56]) { return mean(relu(conv2d(x, c, padding=1)), dim=[2, 3]) @ l }
KIR
"$kiln" compile once.kir --cuda sm_80,sm_90 -o once.kiln >/dev/null
bytes=$("$kiln" inspect once.kiln --size | awk '$2 == "weights" {print $1}')
[ "$("$kiln" inspect once.kiln --size | grep -c device)" = 2 ] || fail "two device sections"
[ "$bytes" -lt $((2 * (32 * 32 * 9 + 32 * 4096) * 4 + 1024)) ] || fail "$bytes bytes of weights: more than the params, and what is made of them once"
echo "fine: accuracy $accuracy, in parts $accuracy_of_parts"
