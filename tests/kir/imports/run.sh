#!/bin/bash
# A model file imported by a program: what it computes, which weights are trained, and what is said of mistakes.   run.sh KILN
set -eu
kiln=$(realpath "$1") here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $1"; exit 1; }
cp "$here"/transfer.kir "$here"/base.onnx "$here"/import_errors.kir .

# The program that imports the file computes what the file does, also by names within it and for other sizes.
cat > points.kir <<'P'
func numbers(shape, k) { return sin(arange(1.0, 1.0 + shape[0] * shape[1] * shape[2] * shape[3]) * k).view(*shape) }
export func main() -> (x: f32[1, 3, 8, 8], small: f32[4, 3, 4, 4], y: i64[4]) { return numbers([1, 3, 8, 8], 0.7), numbers([4, 3, 4, 4], 1.3), tensor([0, 1, 0, 1]) }
P
"$kiln" run points.kir --output x=@x.npy --output small=@small.npy --output y=@y.npy
"$kiln" run base.onnx --input image=@x.npy | sed 's/^[^:]*: //' > expected
for entry in whole by_name; do
  "$kiln" run transfer.kir --entry $entry --input x=@x.npy | sed 's/^[^:]*: //' > got
  cmp got expected || fail "$entry differs from the model"
done
"$kiln" run transfer.kir --entry within --input x=@small.npy --output all=@all.npy
"$kiln" run transfer.kir --entry own --input x=@small.npy --output output=@own.npy
cmp all.npy own.npy || fail "a value within the model differs from the program's own"
"$kiln" check transfer.kir --entry train_step --input x=@small.npy --input y=@y.npy >/dev/null || fail "check"

# Only what is not frozen is a param, and it has its first value from the file.
"$kiln" compile transfer.kir -o transfer.kiln >/dev/null
"$kiln" inspect transfer.kiln --io > io
grep -q 'param base.conv.weight' io || fail "base.conv.weight is no param"
if grep -q 'fc.weight' io; then fail "a frozen weight is a param"; fi
"$kiln" compile transfer.kir --emit graph > graph
grep -q 'param base.conv.weight: f32\[4, 3, 3, 3\]' graph || fail "the graph has no param base.conv.weight"
"$kiln" train transfer.kir --data x=@small.npy --data y=@y.npy --epochs 300 --log log.jsonl -o trained.kiln 2>/dev/null
first=$(head -1 log.jsonl | sed 's/.*"l": \([0-9.e-]*\).*/\1/') last=$(tail -1 log.jsonl | sed 's/.*"l": \([0-9.e-]*\).*/\1/')
awk "BEGIN { exit !($last < 0.9 * $first) }" || fail "the loss goes from $first to $last"
"$kiln" run trained.kiln --entry own --input x=@small.npy --output output=@after.npy
if cmp -s after.npy own.npy; then fail "the unfrozen weights have not moved"; fi

# Another file for the same name.
mkdir elsewhere && mv base.onnx elsewhere/
"$kiln" run transfer.kir --import base=elsewhere/base.onnx --entry whole --input x=@x.npy | sed 's/^[^:]*: //' | cmp - expected || fail "--import"

says() { grep -qF -- "$1" out.txt || { cat out.txt; fail "expected '$1'"; }; }
if "$kiln" compile transfer.kir -o never.kiln >out.txt 2>&1; then fail "there is no base.onnx"; fi
says "'base.onnx' cannot be imported"
if "$kiln" run transfer.kir --import bass=elsewhere/base.onnx --entry whole --input x=@x.npy >out.txt 2>&1; then fail "--import bass"; fi
says "nothing is imported as 'bass'"
mv elsewhere/base.onnx .
# Each comment of the file is what is said of its line.
if "$kiln" compile import_errors.kir -o never.kiln >out.txt 2>&1; then fail "errors compile"; fi
grep -n ' // ' import_errors.kir | sed 's/^\([0-9]*\):.* \/\/ \(.*\)$/\1 \2/' | while read -r line text; do
  grep -q "^import_errors.kir:$line:" out.txt || { cat out.txt; fail "no error in line $line"; }
  says "$text"
done
echo "imports: the loss goes from $first to $last"
