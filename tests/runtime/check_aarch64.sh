#!/bin/sh
# The runtime for aarch64: built by cross compilation, linked statically, run in an emulator on a
# package whose code was compiled for it.
#   check_aarch64.sh CLANG++ AARCH64_GCC QEMU SOURCE_ROOT MAKE_TEST_PACKAGE
set -eu
clang=$1 gcc=$2 qemu=$3 root=$4 make_package=$5
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# The runtime uses only headers of the C++ library, and those are the same for both machines.
headers=$(g++ -x c++ -E -v /dev/null 2>&1 | awk '/^ .*c\+\+/ {print "-isystem " $1}')
for source in "$root"/runtime/*.cpp "$root"/runtime/cuda/*.cpp; do
  "$clang" --target=aarch64-linux-gnu -std=c++20 -O2 -Wall -Wextra -Wshadow -Werror \
    -fno-exceptions -fno-rtti -fno-threadsafe-statics -fvisibility=hidden -I"$root" -nostdinc++ \
    $headers -isystem /usr/aarch64-linux-gnu/include -c "$source"
done
aarch64-linux-gnu-ar rcs libkiln_runtime.a ./*.o
"$gcc" -std=c11 -O1 -static -DWITH_KILN -I"$root/runtime/include" \
  "$root/tests/runtime/small_program.c" libkiln_runtime.a -o program
"$gcc" -std=c99 -O2 -fPIC -ffreestanding -fno-stack-protector -fno-builtin \
  -fno-asynchronous-unwind-tables -I"$root" "$root/tests/runtime/model_code.c" -o image.so -shared \
  -nostdlib -Wl,-e,kiln_image -Wl,--build-id=none -Wl,-z,relro
"$make_package" good.kiln image.so aarch64+dotprod
"$make_package" other.kiln image.so x86-64-v3
"$qemu" ./program good.kiln
if "$qemu" ./program other.kiln; then
  echo "a package for x86-64 was accepted"
  exit 1
fi
