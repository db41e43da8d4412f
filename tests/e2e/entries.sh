# For scripts that hold the entries of one model against the interpreter; they set kiln and model, and read failed. Works in a
# folder of its own.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
passes() { # NAME COMMAND...
  local name=$1; shift
  "$@" >out.txt 2>&1 || { echo "FAILED: $name"; cat out.txt; failed=1; }
}
# As the interpreter says on two threads, and the same bits on one and two.
entry_passes() { # NAME ENTRY OUTPUT INPUTS...
  local name=$1 entry=$2 output=$3 threads; shift 3
  passes "$name" $kiln check "$model" --entry $entry "$@" --threads 2 --tolerance 1e-5
  for threads in 1 2; do
    passes "run of $name" $kiln run "$model" --entry $entry "$@" --threads $threads --output $output=@$threads.npy
  done
  passes "the same bits, $name" cmp 1.npy 2.npy
}
