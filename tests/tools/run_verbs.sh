#!/bin/sh
# Every verb of the command on small models: what it prints, what it writes, how it exits.
#   run_verbs.sh KILN KILN_OPT RUNTIME_LIBRARY SOURCE_FOLDER CC
set -u
kiln=$1 opt=$2 runtime=$3 source=$4 cc=$5
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cp "$source/tests/tools/relu.kir" "$work" && cd "$work" || exit 1
failures=0

# expect STATUS PATTERN COMMAND...: the exit status, and a pattern in what it prints on either stream.
expect() {
  status=$1 pattern=$2
  shift 2
  "$@" >out 2>&1 </dev/null
  got=$?
  if [ "$got" -ne "$status" ]; then
    echo "FAIL: exit $got, not $status: $*"; cat out; failures=$((failures + 1))
  elif [ -n "$pattern" ] && ! grep -q -e "$pattern" out; then
    echo "FAIL: no '$pattern' in the output of: $*"; cat out; failures=$((failures + 1))
  fi
}

# compile: every form
expect 0 'relu.kiln: .* kernels' "$kiln" compile relu.kir
expect 0 '"weights_bytes"' "$kiln" compile relu.kir --json
expect 0 'export func main' "$kiln" compile relu.kir --emit graph
expect 0 '^kernel ' "$kiln" compile relu.kir --emit kernels
expect 0 'kiln_relu_run_main' "$kiln" compile relu.kir --emit asm
expect 0 'define ' "$kiln" compile relu.kir --emit llvm
expect 0 'int32_t kiln_relu_run_main' "$kiln" compile relu.kir --emit c
expect 0 'static inline int32_t relu_main' "$kiln" compile relu.kir --emit header
expect 0 '^kernel ' "$kiln" compile relu.kir --stop-after lower
expect 0 'graph passes' "$kiln" compile relu.kir --time-passes
expect 0 'x86-64-v3' "$kiln" compile relu.kir --target x86-64-v3 --target aarch64 -o two.kiln --dump-dir dumps --time-passes
expect 0 'aarch64' "$kiln" inspect two.kiln --size
expect 0 '^KILN' "$kiln" compile relu.kir -o -
"$kiln" compile relu.kir -j1 -o one.kiln >out && "$kiln" compile relu.kir -j4 -o four.kiln >out && cmp one.kiln four.kiln ||
  { echo "FAIL: the bytes depend on -j"; failures=$((failures + 1)); }

# dumps can be fed in again
for dump in dumps/*.kir; do expect 0 'kernels' "$kiln" compile "$dump" -o again.kiln; done
"$opt" dumps/lowered.kernels --kernel-passes schedule --target aarch64 >again.kernels
cmp again.kernels dumps/aarch64.kernels || { echo "FAIL: scheduling a dump again gives other kernels"; failures=$((failures + 1)); }

# an object that C links
if [ "$(uname -m)" = x86_64 ]; then
  expect 0 'relu.o' "$kiln" compile relu.kir --emit object -o relu.o
  "$cc" -std=c99 -Wall -Wextra -Werror -I. -I"$source/runtime/include" "$source/tests/tools/linked.c" relu.o "$runtime" -lpthread -o linked ||
    { echo "FAIL: the object does not link"; failures=$((failures + 1)); }
  expect 0 '' ./linked
fi

# strings and sequences, in and out
cp "$source/tests/tools/words.onnx" .
expect 1 "is a sequence, which is compiled for one length" "$kiln" compile words.onnx
expect 2 "write INPUT=1x3x224x224" "$kiln" compile words.onnx --shape 'list=[2x'
expect 0 'words.kiln' "$kiln" compile words.onnx --shape 'list=[2,1]'
expect 0 'joined: text\[3\] \["red!", "a,b!", "é!"\]' "$kiln" run words.kiln --input 's=3xstr=red,a\,b,é' --input list.0=2xf32=1,2 --input list.1=1xf32=3
expect 0 '' "$kiln" run words.kiln --input 's=2xstr=green,red' --input list.0=2xf32=1,2 --input list.1=1xf32=3 --output joined=@joined.npy --output label=@label.npy
expect 0 '|S' head -c 80 joined.npy
expect 0 'joined: text\[2\] \["green!!", "red!!"\]' "$kiln" run words.kiln --input s=@joined.npy --input list.0=2xf32=1,2 --input list.1=1xf32=3
expect 0 'label: i64\[2\] \[2, 0\]' "$kiln" run words.kiln --input 's=2xstr=green,blue' --input list.0=2xf32=1,2 --input list.1=1xf32=3
expect 0 'row: f32\[3\] \[1, 2, 3\]' "$kiln" run words.kiln --input 's=1xstr=x' --input list.0=2xf32=1,2 --input list.1=1xf32=3
expect 1 'a string of more than 4 bytes' "$kiln" run words.onnx --dim text_width=4 --shape 'list=[1*?]' --input s=1xstr=longer --input list.0=1xf32=1
expect 0 'ok .* joined' "$kiln" check words.onnx --shape 'list=[2*3]' --input 's=2xstr=ab,cde'

# run
expect 0 '\[\[0, 3, 0\]' "$kiln" run relu.kiln --input 'x=1x3xf32=-2,2,-3'
expect 0 '\[\[0, 3, 0\]' "$kiln" run relu.kir --input 'x=1x3xf32=-2,2,-3'
expect 0 '' "$kiln" run relu.kiln --input 'x=1x3xf32=-2,2,-3' --output y=@y.npy
expect 0 '\[\[1, 4, 1\]' "$kiln" run relu.kiln --input x=@y.npy
expect 0 'NUMPY' "$kiln" run relu.kiln --input x=@y.npy --output y=@-
expect 0 '"shape": \[1, 3\]' "$kiln" run relu.kiln --input x=@y.npy --json
expect 1 "no value for input 'x'" "$kiln" run relu.kiln
expect 1 'no input' "$kiln" run relu.kiln --input 'q=1x3xf32=0' --input x=@y.npy
expect 1 'values for' "$kiln" run relu.kiln --input 'x=1x3xf32=1,2'
expect 2 'write NAME=' "$kiln" run relu.kiln --input nonsense
expect 1 'no entry' "$kiln" run relu.kiln --entry nosuch --input x=@y.npy

# bench
expect 0 'median' "$kiln" bench relu.kiln --seconds 0.01
expect 0 '"median_ms"' "$kiln" bench relu.kir --seconds 0.01 --dim N=4 --json
expect 0 'FMA peak' "$kiln" bench relu.kiln --seconds 0.01 --profile
expect 0 ' 384 FLOP  *1.50 KiB .* add+relu$' "$kiln" bench relu.kiln --seconds 0.01 --profile --dim N=64
expect 0 '"bound_by": "calls"' "$kiln" bench relu.kiln --seconds 0.01 --profile --json
expect 0 '</html>' "$kiln" bench relu.kiln --seconds 0.01 --profile=html --threads 2
expect 0 '' "$kiln" bench relu.kiln --seconds 0.01 --profile=html -o profile.html --trace trace.json --threads 2
expect 0 '</html>' cat profile.html
expect 0 '"ph": "X".*"name": "add+relu' cat trace.json
expect 0 '' python3 -m json.tool trace.json
expect 2 'profile' "$kiln" bench relu.kiln --profile=nosuch
expect 1 'cannot' "$kiln" bench relu.kiln --seconds 0.01 --profile -o nosuch/folder/x
# What multiplies bytes is held against the peak of what multiplies bytes: of matrix registers, of dots or of pairs.
printf 'func codes(x) {\n  s = constant(f32[]: 0.5)\n  return dequantize(quantize(x, s, constant(u8[]: 0), dtype=u8), s, constant(u8[]: 0))\n}\nexport func main(x: f32[64, 128]) -> f32[64, 64] {\n  w = dequantize(convert(remainder(iota(shape=[128, 64], axis=0, dtype=i32), 201) - 100, dtype=i8), constant(f32[]: 0.01), constant(i8[]: 0))\n  return codes(dot(codes(x), w))\n}\n' >codes.kir
expect 0 'FMA peak [0-9.]* GFLOP/s, .*s of bytes [1-9][0-9.]*[,;]' "$kiln" bench codes.kir --seconds 0.01 --profile
expect 0 '"byte_[a-z]*_gops"' "$kiln" bench codes.kir --seconds 0.01 --profile --json
# A loop that runs its kernels many times, and long enough for threads.
printf 'export func main(x: f32[512, 512], n: i64[]) -> f32[512, 512] {\n  h = x\n  i = n\n  while i > 0 {\n    h = tanh(matmul(h, x))\n    i = i - 1\n  }\n  return h\n}\n' >loop.kir
expect 0 '  3 *8[0-9][0-9] MFLOP' "$kiln" bench loop.kir --input n=i64=3 --seconds 0.01 --profile --threads 2 --trace trace.json
expect 0 '"tid": [12], .*"name": "' cat trace.json
echo 0.001 | "$kiln" bench relu.kiln --slices 2>/dev/null >out
[ "$(wc -l <out)" -eq 2 ] && grep -q '"times_ms": \[' out || { echo "FAIL: --slices"; cat out; failures=$((failures + 1)); }

# tune: the search, its file, and what the next compile makes of it
printf 'export func main(x: f32[64, 256], w: f32[256, 192]) -> f32[64, 192] {\n  return relu(matmul(x, w))\n}\n' >gemm.kir
expect 0 'gemm.tune: .* of 1 kernels' "$kiln" compile gemm.kir -o tuned.kiln --tune 0.5 --tune-file gemm.tune
expect 0 'kernels in' "$kiln" compile gemm.kir -o again.kiln --tune-file gemm.tune
cmp tuned.kiln again.kiln || { echo "FAIL: the file gives another package than the search"; failures=$((failures + 1)); }
line=$(grep -E '^(x86|aarch)' gemm.tune | cut -d' ' -f1,2)
"$kiln" compile gemm.kir --emit kernels >default.kernels
printf 'kiln-tune 1\n%s rows=2 vectors=1 threads=0 # by hand\n' "$line" >hand.tune
"$kiln" compile gemm.kir --emit kernels --tune-file hand.tune >hand.kernels
cmp -s default.kernels hand.kernels && { echo "FAIL: a line of the tuning file changes nothing"; failures=$((failures + 1)); }
expect 0 'ok ' "$kiln" check gemm.kir
# refuses TEXT MESSAGE: a tuning file that is refused, with its line.
refuses() {
  printf "$1" >bad.tune
  expect 1 "$2" "$kiln" compile gemm.kir -o again.kiln --tune-file bad.tune
}
refuses '' 'bad.tune:1:.*not a tuning file'
refuses '\0\377\001garbage' 'bad.tune:1:.*not a tuning file'
refuses 'kiln-tune 2\n' 'bad.tune:1:.*not a tuning file'
refuses "kiln-tune 1\n\n$line rows=9999999999999999999999\n" 'bad.tune:3:.*write rows=N with N from 1 to'
refuses "kiln-tune 1\n$line rows=-1\n" 'bad.tune:2:.*write rows=N'
refuses "kiln-tune 1\n$line rosw=2\n" 'bad.tune:2:.*there are rows, vectors'
refuses "kiln-tune 1\n$line rows=2 rows=2\n" 'bad.tune:2:.*set twice'
refuses "kiln-tune 1\n$line rows=2\n$line rows=4\n" 'bad.tune:3:.*another line'
refuses 'kiln-tune 1\nz80 0123456789abcdef rows=2\n' "bad.tune:2:.*no target is named 'z80'"
refuses 'kiln-tune 1\nx86-64-v3 0123 rows=2\n' 'bad.tune:2:.*no hash'
expect 1 'nosuch.tune' "$kiln" compile gemm.kir --tune-file nosuch.tune
expect 2 'makes a package' "$kiln" compile gemm.kir --emit asm --tune 1
[ "$(uname -m)" = x86_64 ] && expect 1 'aarch64' "$kiln" compile gemm.kir --target aarch64 --tune 0.1

# inspect
expect 0 'input  x: f32\[N, 3\]' "$kiln" inspect relu.kir
expect 0 'input  x: f32\[N, 3\]' "$kiln" inspect relu.kiln
expect 0 ' relu$' "$kiln" inspect relu.kir --ops
expect 0 'MFLOP' "$kiln" inspect relu.kiln --ops
expect 0 'main: arena' "$kiln" inspect relu.kir --memory
# Buffers that are not alive together share memory whichever of them is larger in a run.
printf '%s\n' 'export func main(x: f32[N, 8], y: f32[M, 8], w: f32[8, 8]) -> (f32[N, 8], f32[M, 8]) {' \
  '  a: f32[N, 8] = dot(x, w)' '  b: f32[N, 8] = dot(a, w)' '  c: f32[M, 8] = dot(y, w)' '  d: f32[M, 8] = dot(c, w)' \
  '  return b, d' '}' > two.kir
expect 0 'main: arena max(64.*M.*, 64.*N.*) bytes' "$kiln" inspect two.kir --memory
expect 0 'manifest' "$kiln" inspect relu.kiln --size
expect 0 'x86-64\|aarch64' "$kiln" inspect relu.kiln --code
expect 0 'n0 -> n1' "$kiln" inspect relu.kir --graph dot
expect 0 '</svg>' "$kiln" inspect relu.kir --graph svg
expect 0 '</html>' "$kiln" inspect relu.kir --graph html
# What a GPU would run: a product by tiles, a launch for each turn of a loop, what stands behind a sum in its launch.
printf '%s\n' 'export func main(x: f32[256, 64], w: f32[64, 128], y: f32[1000]) -> (f32[256, 128], f32[1000]) {' \
  '  a: f32[256, 128] = relu(dot(x, w))' '  while any(y < 100.0) { y = y + sin(y) }' '  return a, y' '}' > launches.kir
"$kiln" inspect launches.kir --launches sm_90 > launches.txt
expect 0 'main: [0-9.]* launches in about [0-9.]* us; 0.23 MiB and 2.1 million products take' cat launches.txt
expect 0 ' 1  tile  *[0-9]* x [0-9]* .* 96.0  *128.0 .* 2.10  dot+relu  launches.kir:2:' cat launches.txt
expect 0 ' 1  flat  *[0-9] x 256 .* 3.9  *3.9 .* sin+add  launches.kir:3:' cat launches.txt
expect 0 '"form": "tile".*"read_bytes": 98304, "written_bytes": 131072,.*"products": 2097152,' "$kiln" inspect launches.kir --launches sm_80 --json
expect 2 'no such GPU; there are: sm_80' "$kiln" inspect launches.kir --launches sm_10
expect 2 'a package holds code' "$kiln" inspect relu.kiln --launches sm_80
expect 2 'one thing at a time' "$kiln" inspect relu.kir --ops --io
expect 2 'a package holds code' "$kiln" inspect relu.kiln --graph dot
for what in --io --ops --memory --size '--graph dot'; do expect 0 '^{' "$kiln" inspect relu.kir $what --json; done

# The page escapes what a model's names hold.
printf 'export func main(`<script>alert(1)</script>`: f32[2]) -> (y: f32[2]) {\n  y = relu(`<script>alert(1)</script>`)\n  return y\n}\n' >evil.kir
expect 0 'alert' "$kiln" inspect evil.kir --graph html
grep -q '<script>alert' out && { echo "FAIL: a name stands unescaped in the page"; failures=$((failures + 1)); }
expect 0 'alert' "$kiln" bench evil.kir --seconds 0.01 --profile=html -o profile.html
grep -q '</html>' profile.html && ! grep -q '<script>alert' profile.html || { echo "FAIL: a name stands unescaped in the profile"; failures=$((failures + 1)); }

# check
expect 0 'ok .*output' "$kiln" check relu.kir
expect 0 'kernel' "$kiln" check relu.kir --layers --dim N=5
expect 0 '"fine": true' "$kiln" check relu.kir --json
printf 'export func main(x: f32[64]) -> (y: f32[64]) {\n  z = x * 10.0\n  y = exp(z)\n  return y\n}\n' >exp.kir
expect 0 'ok ' "$kiln" check exp.kir
expect 3 'FAR .*output' "$kiln" check exp.kir --tolerance 0
cat > wide.kir <<'KIR'
export func f(x: f32[2, 64], y: f32[1, 16, 9, 9]) -> (f32[2, 96], f32[1, 32, 9, 9]) {
  w = sin(arange(6144).to(f32)).view(64, 96)
  k = sin(arange(4608).to(f32)).view(32, 16, 3, 3)
  return (x @ w, relu(conv2d(y, k, padding=1)))
}
KIR
for t in bf16 f16 i8; do # the error is that of the type, and it is told
  expect 0 "weights: 2 of the constants are $t now" "$kiln" compile wide.kir --compress-weights $t -o wide.kiln
  expect 0 'ok .*output' "$kiln" check wide.kir --compress-weights $t --tolerance 0.02
  expect 3 'FAR .*output' "$kiln" check wide.kir --compress-weights $t --tolerance 1e-6
done
# tiles that reach past the edges, a residual and an activation behind them
printf 'export func main(x: f32[2, 16, 13, 30], w: f32[40, 16, 3, 3], b: f32[40], r: f32[2, 40, 13, 30]) -> f32[2, 40, 13, 30] {\n  a = relu(x)\n  c = conv(a, w, b, stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1])\n  return relu(c + r)\n}\n' >conv.kir
for tile in 2 4; do
  expect 0 'winograd_conv.*tile='$tile "$kiln" compile conv.kir --winograd $tile --emit graph
  expect 0 'ok .*output' "$kiln" check conv.kir --winograd $tile --tolerance 1e-5 --threads 2
done
expect 0 '= conv(' "$kiln" compile conv.kir --winograd off --emit graph
expect 2 'winograd' "$kiln" compile conv.kir --winograd 3
expect 2 'compress-weights' "$kiln" check wide.kir --compress-weights f8
expect 2 'model file, or --cases' "$kiln" check
expect 1 'no such folder' "$kiln" check --cases nosuch

# opt
expect 0 'relu(z)' "$kiln" opt relu.kir --passes dce,cse -o -
expect 0 'relu(z)' "$opt" relu.kir --round-trip
expect 2 'no pass is named' "$kiln" opt relu.kir --passes nosuch
expect 2 'no kernel pass is named' "$opt" dumps/lowered.kernels --kernel-passes nosuch

# exit codes
expect 2 'required' "$kiln"
expect 2 'unknown target' "$kiln" compile relu.kir --target nosuch
expect 2 'no such phase' "$kiln" compile relu.kir --stop-after nosuch
expect 1 'cannot open' "$kiln" compile nosuch.kir
expect 1 'cannot open' "$kiln" run nosuch.kiln
expect 1 'error' "$kiln" compile .
expect 1 'cannot' "$kiln" compile relu.kir -o nosuch/folder/x.kiln
expect 2 "no verb 'nosuchverb'" "$kiln" nosuchverb
expect 1 'cannot open nosuch' "$kiln" compile nosuch
expect 2 'what the model is read from' "$kiln" compile relu.kir -o ./relu.kir
expect 2 'what the model is read from' "$kiln" inspect relu.kir --graph dot -o relu.kir
expect 2 'relu.kiln. is a package: --shape' "$kiln" run relu.kiln --shape x=2 --input x=2x3xf32=1
expect 2 'is a package: --winograd' "$kiln" inspect relu.kiln --winograd off
expect 1 'has no size of this name' "$kiln" run relu.kiln --dim nosuch=4 --input x=2x3xf32=1
expect 1 "'300' is no i8" "$kiln" run relu.kiln --input x=1x3xi8=1,300,2
expect 1 "'1.5' is no i64" "$kiln" run relu.kiln --input x=1x3xi64=1.5
[ "$("$kiln" run relu.kiln --input x=2x3xf32=-3 --output y=@- | "$kiln" run relu.kiln --input x=@- | tail -n 1)" = ' [1, 1, 1]]' ] ||
  { echo "FAIL: an array through standard streams"; failures=$((failures + 1)); }
expect 1 'standard input: ' "$kiln" run relu.kiln --input x=@-
expect 1 "'x' is given twice" "$kiln" run relu.kir --input x=2x3xf32=1 --input x=2x3xf32=2
expect 1 'is for .kir programs' "$kiln" compile words.onnx --weights nosuch.npz
cp words.onnx WORDS.ONNX
expect 1 'is a sequence, which is compiled for one length' "$kiln" compile WORDS.ONNX

# What is written takes the place of files alone: a link stays one, a pipe is written into. What cannot be printed is an error.
ln -s target.kiln link.kiln && : >target.kiln && expect 0 '' "$kiln" compile relu.kir -o link.kiln
[ -L link.kiln ] && cmp target.kiln relu.kiln || { echo "FAIL: a link is replaced"; failures=$((failures + 1)); }
mkfifo pipe.npy
for program in "$kiln run" "$(dirname "$kiln")/kiln-run"; do
  cat pipe.npy >through.npy &
  expect 0 '' $program relu.kiln --input x=2x3xf32=1 --output y=@pipe.npy
  wait $!
  [ -p pipe.npy ] && [ "$(wc -c <through.npy)" -gt 128 ] || { echo "FAIL: $program replaces a pipe"; failures=$((failures + 1)); }
  rm -f behind.npy && ln -sf behind.npy link.npy && expect 0 '' $program relu.kiln --input x=2x3xf32=1 --output y=@link.npy
  [ -L link.npy ] && cmp through.npy behind.npy || { echo "FAIL: $program replaces a link"; failures=$((failures + 1)); }
done
cat pipe.npy >through.kiln &
expect 0 'kernels' "$kiln" compile relu.kir -o pipe.npy
wait $!
[ -p pipe.npy ] && cmp through.kiln relu.kiln || { echo "FAIL: a package does not go into a pipe"; failures=$((failures + 1)); }
"$kiln" compile relu.kir -o /dev/stdout 2>out | cat >through.kiln
cmp through.kiln relu.kiln || { echo "FAIL: a package does not go to /dev/stdout"; cat out; failures=$((failures + 1)); }
expect 0 '' "$kiln" opt relu.kir --passes dce -o link.kiln && [ -L link.kiln ] || { echo "FAIL: opt replaces a link"; failures=$((failures + 1)); }
if [ -c /dev/full ]; then
  for command in "$kiln inspect relu.kiln" "$kiln run relu.kir --input x=2x3xf32=1" "$(dirname "$kiln")/kiln-run relu.kiln --describe"; do
    $command >/dev/full 2>out
    [ $? -eq 1 ] && grep -q 'standard output' out || { echo "FAIL: standard output is full: $command"; cat out; failures=$((failures + 1)); }
  done
fi
expect 2 'write NAME=SIZE' "$kiln" compile relu.kir --dim N
head -c 100 relu.kiln >short.kiln
expect 1 'error' "$kiln" run short.kiln --input x=@y.npy
printf 'export func main(x: f32[2]) -> f32[2] {\n  return nosuch(x)\n}\n' >bad.kir
expect 1 'bad.kir:2:' "$kiln" compile bad.kir
expect 1 '"message"' "$kiln" compile bad.kir --json

# eval and repl
expect 0 '^f32\[3, 4\] \[\[' "$kiln" eval 'rand(3, 2) @ ones(2, 4)'
expect 0 '^\[1, "a", 2.5\]$' "$kiln" eval '[1, "a", 2.5]'
expect 0 '^i64\[2\] \[9, 1\]$' "$kiln" eval 'x = arange(2); x[0] = 9; x'
expect 1 'size of tensor a (2) must match the size of tensor b (3)' "$kiln" eval 'rand(2) + rand(3)'
expect 1 'did you mean' "$kiln" eval 'ramd(2)'
expect 1 'error' "$kiln" eval 'x ='
expect 1 'input:1:14: error: unknown name .nothing' "$kiln" eval 'x = ones(2); nothing + x'
expect 1 '^error: input:1:25: div: integer division by zero' "$kiln" eval 'x = 4;        arange(3) / 0'
expect 1 '2 \*\* 100 is no integer of 64 bits' "$kiln" eval '2 ** 100'
expect 1 '5 << 62 is no integer of 64 bits' "$kiln" eval '5 << 62'
expect 1 'the index 5 is outside dim 0 of \[2\]' "$kiln" eval 'x = rand(2); x[5] = 1.0; x'
expect 1 'input:2:3: error: unknown name .nothing' "$kiln" eval 'x = 1
  nothing'
cat >lines <<'END'
x = ones(2)
x.add_(1)
func twice(a) {
  return 2 * a
}
twice(nothing)
net = nn.Linear(2, 3)
net(twice(x)).shape
for i in range(3) { x += 1 }
x
END
"$kiln" repl <lines >out 2>errors
[ $? -eq 1 ] && grep -q "unknown name 'nothing'" errors && [ "$(tail -n 2 out)" = "(3)
f32[2] [5, 5]" ] || { echo "FAIL: repl"; cat out errors; failures=$((failures + 1)); }
expect 0 'kiln [0-9]' "$kiln" --version

[ "$failures" -eq 0 ] && echo "all passed"
exit "$((failures > 0))"
