#!/bin/bash
# What the command promises, on a real model: the same bytes and bits every time, bounded cost, damage and
# misuse refused by name, and code for another machine that runs there.
#   promises.sh KILN KILN_RUN
set -u
kiln=$1 kiln_run=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$root/examples/squeezenet/squeezenet.onnx
input=data_0=@$root/examples/squeezenet/kitten.npy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0 checks=0
check() { # NAME CONDITION...
  local name=$1; shift
  checks=$((checks + 1))
  "$@" || { echo "FAILED: $name"; failed=1; }
}
# refuses STATUS WORD COMMAND...: exits with STATUS, says WORD, takes no more than 1 GB and 20 s.
refuses() {
  local status=$1 word=$2; shift 2
  (ulimit -v 4000000; timeout 20 "$@") >out.txt 2>err.txt
  local got=$?
  [ $got = "$status" ] || { echo "exit $got, not $status: $*"; head -3 err.txt; return 1; }
  grep -qi -- "$word" err.txt || { echo "no '$word' in:"; head -3 err.txt; return 1; }
}

# --- the same bytes for any number of jobs and from any folder
$kiln compile "$model" -o a.kiln -j1 >/dev/null || exit 1
mkdir other && cp "$model" other/ && (cd other && $kiln compile squeezenet.onnx -o ../b.kiln -j2 >/dev/null)
check "compiling twice gives the same bytes" cmp -s a.kiln b.kiln

# --- cost
/usr/bin/time -v $kiln compile "$model" -o a.kiln -j1 >/dev/null 2>time.txt || true
rss=$(sed -n 's/.*Maximum resident set size (kbytes): //p' time.txt)
size=$(($(stat -c %s "$model") / 1024))
[ -n "$rss" ] && check "peak memory is under 1.5 x the model + 300 MB ($rss KB)" [ "$rss" -le $((size * 3 / 2 + 300 * 1024)) ]

# --- a right answer, the same bits on any number of threads, and a profile
$kiln_run a.kiln --input "$input" --output softmaxout_1=@1.npy || failed=1
for t in 2 3 4; do
  $kiln_run a.kiln --input "$input" --output softmaxout_1=@$t.npy --threads $t || failed=1
  check "$t threads give the same bits" cmp -s 1.npy $t.npy
done
$kiln run a.kiln --input "$input" --top 1 --labels "$root/examples/squeezenet/labels.txt" >top.txt
check "the photograph shows a tabby" grep -q tabby top.txt
$kiln check "$model" >check.txt 2>&1
check "compiled and interpreted agree" [ $? = 0 ]

# --- aarch64 under an emulator
cross=aarch64-linux-gnu-g++
if command -v qemu-aarch64 >/dev/null && command -v $cross >/dev/null; then
  cmake -S "$root" -B arm -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=$cross -DKILN_BUILD_COMPILER=OFF \
    -DCMAKE_EXE_LINKER_FLAGS=-static >arm.log 2>&1 && cmake --build arm --target kiln-run >>arm.log 2>&1 || { tail arm.log; failed=1; }
  # NAME INPUT OUTPUT SHAPE: the emulated results beside those of this machine.
  on_arm() {
    [ -f "$1" ] || return 0
    $kiln compile "$1" --target aarch64 --target x86-64-v2 -o arm.kiln >/dev/null || return 1
    python3 - "$4" <<'P'
import struct, sys
shape = [int(n) for n in sys.argv[1].split('x')]
count = 1
for n in shape: count *= n
head = ("{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % ', '.join(map(str, shape))).ljust(117) + '\n'
with open('x.npy', 'wb') as f:
    f.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head.encode())
    f.write(struct.pack('<%df' % count, *[(i * 37 % 101) / 50 - 1 for i in range(count)]))
P
    qemu-aarch64 arm/bin/kiln-run arm.kiln --input "$2=@x.npy" --output "$3=@arm.npy" || return 1
    $kiln_run arm.kiln --input "$2=@x.npy" --output "$3=@here.npy" || return 1
    python3 - <<'P'
import struct, sys
def load(path):
    d = open(path, 'rb').read()
    start = 10 + struct.unpack('<H', d[8:10])[0]
    return struct.unpack('<%df' % ((len(d) - start) // 4), d[start:])
a, b = load('arm.npy'), load('here.npy')
worst = max(abs(x - y) for x, y in zip(a, b)) / (max(abs(y) for y in b) + 1e-30)
sys.exit(0 if len(a) == len(b) and worst <= 1e-4 else f"aarch64 differs by {worst}")
P
  }
  shared=$root/../shared/data/models
  check "squeezenet on aarch64" on_arm "$model" data_0 softmaxout_1 1x3x224x224
  check "cifar_net on aarch64" on_arm "$shared/cifar_net.onnx" input output 1x3x32x32
  check "vit_digits on aarch64" on_arm "$shared/vit_digits.onnx" input output 1x1x28x28
  check "keyword_spotting on aarch64" on_arm "$shared/keyword_spotting.onnx" input output 1x1x49x10
else
  echo "no qemu-aarch64 or cross compiler: aarch64 is not run"
fi

# --- damage: every stretch of a small package
printf 'export func f(x: f32[4]) -> f32[4] { return relu(x) }\n' >small.kir
$kiln compile small.kir -o small.kiln >/dev/null || failed=1
size=$(stat -c %s small.kiln)
for at in $(seq 0 97 $((size - 1))); do
  cp small.kiln bad.kiln
  python3 -c "
f=open('bad.kiln','r+b'); f.seek($at); b=f.read(1); f.seek($at); f.write(bytes([b[0]^0x20]))"
  check "a flipped bit at $at is refused" refuses 1 "bad.kiln" $kiln_run bad.kiln --input x=@1.npy
done
for length in 0 1 63 64 4095 4096 $((size / 2)) $((size - 1)); do
  head -c $length small.kiln >bad.kiln
  check "a package of $length bytes is refused" refuses 1 "" $kiln_run bad.kiln --input x=@1.npy
done
$kiln compile small.kir --target aarch64 -o arm.kiln >/dev/null
[ "$(uname -m)" = x86_64 ] && check "code for another machine is refused" refuses 1 "aarch64" $kiln run arm.kiln --input x=4xf32=1

# --- misuse of a run
check "a missing input is named" refuses 1 "x" $kiln run small.kiln
check "an unknown input is named" refuses 1 "y" $kiln run small.kiln --input y=4xf32=1 --input x=4xf32=1
check "a wrong shape is named" refuses 1 "5" $kiln run small.kiln --input x=5xf32=1
check "a wrong dtype is named" refuses 1 "i64" $kiln run small.kiln --input x=4xi64=1
check "an unknown verb is a wrong usage" refuses 2 "" $kiln fly
check "a missing file is named" refuses 1 "nothing.onnx" $kiln compile nothing.onnx

# --- hostile models
total=$(stat -c %s "$model")
for i in $(seq 1 20); do
  head -c $((total * i / 21)) "$model" >cut.onnx
  check "a model cut at $i/21 is refused" refuses 1 "cut.onnx" $kiln compile cut.onnx -o cut.kiln
done
printf 'export func f(x: f32[999999999999, 999999999999]) -> f32[4] { return x }\n' >h1.kir
python3 -c "print('export func f(x: f32[4]) -> f32[4] { return ' + '(' * 100000 + 'x' + ')' * 100000 + ' }')" >h2.kir
printf 'func g(x: f32[4]) -> f32[4] { return f(x) }\nexport func f(x: f32[4]) -> f32[4] { return g(x) }\n' >h3.kir
printf 'export func f() -> f32[] { return sum(zeros([1000000, 1000000, 1000])) }\n' >h4.kir
printf 'export func f(x: f32[4]) -> f32[5] { return x }\n' >h5.kir
head -c 3000 /dev/urandom >h6.kir
for i in 1 2 3 5 6; do
  check "hostile h$i.kir is refused" refuses 1 "h$i.kir" $kiln compile h$i.kir -o h.kiln
done

echo "$checks checks"
exit $failed
