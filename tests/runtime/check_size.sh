#!/bin/sh
# A static, stripped C program with the runtime is at most 100 KB larger than an empty one, works, and
# the library asks for nothing but libc and threads.
#   check_size.sh CC LIBRARY INCLUDE SOURCE PACKAGE [static-capable CC]...
set -eu
cc=$1 library=$2 include=$3 source=$4 package=$5
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

nm "$library" | awk '$1 == "U" {print $2}' | sort -u > "$folder/wanted"
nm "$library" | awk 'NF == 3 {print $3}' | sort -u > "$folder/given"
comm -23 "$folder/wanted" "$folder/given" > "$folder/outside"
if grep -E '^(_ZS|_ZNS|_ZN?K?St|_Zn|_Zd|__cxa|__gxx|_Unwind|printf|f?puts|abort|exit|__stack_chk)' "$folder/outside"; then
  echo "the runtime wants the symbols above, which are not libc's and threads', or end the program"
  exit 1
fi

"$cc" -std=c11 -Os -static -s "$source" -o "$folder/empty"
"$cc" -std=c11 -Os -static -s -DWITH_KILN -I"$include" "$source" "$library" -pthread \
  -Wl,--gc-sections -o "$folder/full"
"$folder/full" "$package"
empty=$(wc -c < "$folder/empty") full=$(wc -c < "$folder/full")
more=$((full - empty))
echo "empty $empty bytes, with the runtime $full, $more more"
[ "$more" -le 102400 ]
