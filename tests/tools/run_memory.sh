#!/bin/bash
# kiln compile --max-memory: values of blocks are computed again where they do not fit, with the same numbers; kiln run's pictures, tables
# and charts.   run_memory.sh KILN
set -eu
kiln=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $1"; exit 1; }
cat > deep.kir <<'K'
import nn
model Block { a = nn.Linear(64, 256); b = nn.Linear(256, 64); func forward(x) { return x + b(tanh(a(x))) } }
net = nn.Sequential(*[Block() for i in range(6)])
export func step(x: f32[256, 64]) -> (g: f32[256, 64]) { return grad(sum(square(net(x))), x) }
export func input() -> (x: f32[256, 64]) { return sin(arange(16384).to(f32)).view(256, 64) }
K
arena() { "$kiln" inspect "$1" --io | sed -n 's/^step: .*arena \([0-9]*\) bytes/\1/p'; }
"$kiln" compile deep.kir --keep-params -o plain.kiln >/dev/null
"$kiln" compile deep.kir --keep-params --max-memory 1.2M -o small.kiln >out 2>&1
grep -q "values of Block computed again" out || { cat out; fail "no note"; }
plain=$(arena plain.kiln) small=$(arena small.kiln)
[ "$small" -lt 1258292 ] && [ "$plain" -gt 1258292 ] || fail "memory goes from $plain to $small"
"$kiln" compile deep.kir --keep-params --max-memory 1G -o large.kiln >/dev/null
cmp plain.kiln large.kiln || fail "a limit that is kept changes the package"
if "$kiln" compile deep.kir --keep-params --max-memory 10K -o none.kiln >out 2>&1; then fail "10K"; fi
grep -q "it needs .* at least" out || fail "no error for 10K"
"$kiln" run deep.kir --entry input --output x=@x.npy

cat > files.kir <<'K'
export func main() -> (picture: f32[3, 4, 6], line: f32[5], table: f32[2, 3]) {
  return (arange(72).to(f32) / 71.0).view(3, 4, 6), arange(5).to(f32) * 2.0, arange(6).to(f32).view(2, 3)
}
export func same(x: f32[1, 3, H, W]) -> (y: f32[1, 3, H, W]) { return x }
export func sum_of(x: f32[N]) -> (total: f32[]) { return sum(x) }
export func count(i: i64[1]) -> (next: i64[1]) { return i + 1 }
K
"$kiln" run files.kir --output picture=@p.png --output line=@l.svg --output table=@t.csv
[ "$(cat t.csv)" = "0,1,2
3,4,5" ] || fail "csv: $(cat t.csv)"
grep -q '<path d="M' l.svg || fail "svg"
"$kiln" run files.kir --entry same --input x=@p.png --output y=@q.png
cmp p.png q.png || fail "a picture that is read and written differs"
printf 'a,b\n1,2\n3,4\n' > n.csv
"$kiln" run files.kir --entry sum_of --input x=@n.csv:b | grep -q 'total: f32\[\] 6' || fail "a column"
[ "$("$kiln" run files.kir --entry count --input i=1xi64=5 --feed next=i --repeat 3 | tr '\n' ' ')" = "6 7 8 " ] || fail "--feed"
says() { local text=$1; shift; if "$@" >out 2>&1; then fail "no error from: $*"; fi; grep -q -- "$text" out || { cat out; fail "expected '$text'"; }; }
says "no column 'c'" "$kiln" run files.kir --entry sum_of --input x=@n.csv:c
says "write OUTPUT=INPUT" "$kiln" run files.kir --entry count --input i=1xi64=5 --feed nothing=i --repeat 3
says "does not say what its numbers stand for" "$kiln" run files.kir --entry count --input i=1xi64=5 --feed next=i --prompt abc
says "a picture is f32" "$kiln" run files.kir --output line=@l.png
head -c 30 p.png > cut.png
says "cut.png" "$kiln" run files.kir --entry same --input x=@cut.png
echo "memory: from $plain to $small bytes"
