#!/bin/sh
# Installs the runtime and the data library into a folder and builds examples/train_cpp against them.
#   check_install.sh CMAKE BUILD_FOLDER EXAMPLES KILN
set -eu
cmake=$1 build=$2 examples=$3 kiln=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
quietly() {
  "$@" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
}
for component in runtime data; do
  quietly "$cmake" --install "$build" --component $component --prefix "$folder/prefix"
done
quietly "$cmake" -S "$examples/train_cpp" -B "$folder/build" -DCMAKE_PREFIX_PATH="$folder/prefix"
quietly "$cmake" --build "$folder/build"

# The library defines the functions of its header and no others.
library=$(find "$folder/prefix" -name libkiln_data.so)
if nm -DC --defined-only "$library" | grep ' T ' | grep -v ' T kiln::data::'; then
  echo "the library shows the names above"
  exit 1
fi

"$kiln" compile "$examples/digits/digits.kir" --keep-params -o "$folder/digits.kiln" > /dev/null
"$kiln" run "$examples/digits/drawn.kir" --input seed=u64=1 --output x=@"$folder/x.npy" --output y=@"$folder/y.npy"
"$folder/build/train_cpp" "$folder/digits.kiln" "x=@$folder/x.npy y=@$folder/y.npy" 1 "$folder/trained.kiln" | grep -q 'epoch 1: loss'
if "$folder/build/train_cpp" "$folder/digits.kiln" "x=@$folder/none.npy" 1 "$folder/no.kiln" 2> "$folder/said"; then exit 1; fi
grep -q 'none.npy' "$folder/said"
