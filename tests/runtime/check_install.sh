#!/bin/sh
# Installs the runtime into a folder and builds a project against it with find_package and pkg-config.
#   check_install.sh CMAKE BUILD_FOLDER PROJECT PACKAGE
set -eu
cmake=$1 build=$2 project=$3 package=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$cmake" --install "$build" --component runtime --prefix "$folder/prefix" > "$folder/log"
pc=$(find "$folder/prefix" -name kiln.pc)
# pkg-config's prefix is the configured one; the folder the file was moved to overrides it.
PKG_CONFIG_PATH=$(dirname "$pc") "$cmake" -S "$project" -B "$folder/build" \
  -DCMAKE_PREFIX_PATH="$folder/prefix" -DPKG_CONFIG_ARGN=--define-prefix >> "$folder/log" 2>&1 ||
  { cat "$folder/log"; exit 1; }
"$cmake" --build "$folder/build" >> "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
lib=$(dirname "$(dirname "$pc")")
for program in with_static with_shared with_pkg_config with_cpp; do
  LD_LIBRARY_PATH=$lib "$folder/build/$program" "$package"
done
