#!/bin/bash
# The digits network trained from C and from C++: both programs of examples/ learn from a package, and the C program, static and stripped, is at most
# 150 KB larger than one that does nothing.   KILN CC LIBRARY INCLUDE EXAMPLES TRAIN_CPP
set -eu
kiln=$1 cc=$2 library=$3 include=$4 examples=$5 train_cpp=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $1"; exit 1; }

"$kiln" compile "$examples/digits/digits.kir" --keep-params -o digits.kiln >/dev/null
"$kiln" run "$examples/digits/drawn.kir" --input seed=u64=1 --output x=@x.npy --output y=@y.npy
"$kiln" run "$examples/digits/drawn.kir" --input seed=u64=2 --output x=@new_x.npy --output y=@new_y.npy
{ printf '\0\0\10\3\0\0\3\40\0\0\0\34\0\0\0\34'; tail -c 627200 x.npy; } >images.idx
{ printf '\0\0\10\1\0\0\3\40'; tail -c 800 y.npy; } >labels.idx

echo 'int main(void) { return 0; }' >empty.c
"$cc" -std=c11 -Os -static -s empty.c -o empty
"$cc" -std=c11 -Os -static -s -I"$include" "$examples/train_c/main.c" "$library" -pthread -Wl,--gc-sections -o train_c
more=$(($(wc -c <train_c) - $(wc -c <empty)))
echo "the C program: $(wc -c <train_c) bytes, $more more than an empty one, beside a package of $(wc -c <digits.kiln)"
[ $more -le 153600 ] || fail "the C program is $more bytes larger than an empty one"

reads() { # a trained package, and what it is called
  "$kiln" train "$1" --data x=@x.npy --data y=@y.npy --validate x=@new_x.npy --validate y=@new_y.npy --normalise x=0.1307,0.3081 --batch 64 --epochs 0 \
    --set steps=1 --log log.jsonl 2>/dev/null
  echo "$2: $(grep validation log.jsonl)"
  awk "BEGIN { exit !($(grep validation log.jsonl | sed 's/.*"accuracy": \([0-9.]*\).*/\1/') > 0.8) }" || fail "$2 has not learnt"
}
./train_c digits.kiln images.idx labels.idx 8 from_c.kiln
reads from_c.kiln "trained from C"
"$train_cpp" digits.kiln "x=@images.idx y=@labels.idx" 8 from_cpp.kiln
reads from_cpp.kiln "trained from C++"
if ./train_c digits.kiln labels.idx labels.idx 1 no.kiln 2>said; then fail "labels are no images"; fi
grep -q "no IDX files" said || fail "what the C program says of wrong data"
