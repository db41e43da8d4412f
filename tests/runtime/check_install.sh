#!/bin/sh
# Installs the runtime into a folder, builds a project against it with find_package and pkg-config, and
# does the same with the examples.
#   check_install.sh CMAKE BUILD_FOLDER PROJECT EXAMPLES PACKAGE
set -eu
cmake=$1 build=$2 project=$3 examples=$4 package=$5
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

quietly() {
  "$@" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
}

quietly "$cmake" --install "$build" --component runtime --prefix "$folder/prefix"
pc=$(find "$folder/prefix" -name kiln.pc)
lib=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH=$(dirname "$pc") LD_LIBRARY_PATH=$lib
# kiln.pc names the prefix of the configuration; --define-prefix follows the file.
quietly "$cmake" -S "$project" -B "$folder/build" -DCMAKE_PREFIX_PATH="$folder/prefix" \
  -DPKG_CONFIG_ARGN=--define-prefix
quietly "$cmake" --build "$folder/build"
for program in with_static with_shared with_pkg_config with_cpp; do
  "$folder/build/$program" "$package"
done

for example in embed_c embed_cpp; do
  quietly "$cmake" -S "$examples/$example" -B "$folder/$example" -DCMAKE_PREFIX_PATH="$folder/prefix"
  quietly "$cmake" --build "$folder/$example"
done
printf '\000\000\200\077\000\000\200\077\000\000\200\077\000\000\200\077' > "$folder/ones.f32"
"$folder/embed_c/embed_c" "$package" scale < "$folder/ones.f32" > "$folder/best"
[ "$(head -1 "$folder/best")" = "$(printf '3\t4')" ]
[ "$(wc -l < "$folder/best")" = 4 ]
"$folder/embed_cpp/embed_cpp" "$package" step "$folder/trained.kiln" | grep -q 'step 9: loss'
"$folder/embed_cpp/embed_cpp" "$folder/trained.kiln" step "$folder/again.kiln" > /dev/null
