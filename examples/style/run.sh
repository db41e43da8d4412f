#!/bin/bash
# Paints a photo in the style of a picture, and checks that what is minimised became less.   run.sh [KILN [PHOTO PAINTING RESULT.png [SIZE]]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kiln=$(realpath "$(command -v "${1:-kiln}")") photo=${2:+$(realpath "$2")} painting=${3:+$(realpath "$3")} result=${4:+$(realpath "$4")} size=${5:-256}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
import="--import base=$here/../squeezenet/squeezenet.onnx"
if [ -z "$photo" ]; then
  "$kiln" run "$here/style.kir" $import --entry pictures --output content=@photo.png --output style=@painting.png
  sed 's/^steps = .*/steps = 30/' "$here/style.kir" >style.kir
  photo=photo.png painting=painting.png size=64
else
  cp "$here/style.kir" .
fi
"$kiln" compile style.kir $import --dim H=$size --dim W=$size --dim A=$size --dim B=$size -o style.kiln >/dev/null
"$kiln" run style.kiln --entry stylise --input "content=@$photo" --input "style=@$painting" --output image=@painted.png
losses=$("$kiln" run style.kiln --entry stylise --input "content=@$photo" --input "style=@$painting" | sed -n 's/^\(before\|after\): f32\[\] //p' | tr '\n' ' ')
echo "the loss goes from ${losses/ / to }"
[ -s painted.png ]
[ -z "$result" ] || cp painted.png "$result"
echo "$losses" | awk '{ exit !($2 < 0.5 * $1) }'
