#!/bin/bash
# Builds switchyard_bench_gpu with nothing but a CUDA toolkit, checks the kernels, measures them, writes the table that
# chooses the experts' provider, and measures what others do on the same shapes.
#   tests/bench/gpu/run_gpu.sh [RESULTS] [--quick] [--steps build,check,bench,tune,peers,sanitizer]
# RESULTS (default build-gpu-bench/results) gets check.txt, bench.txt, bench.json, tune.txt, expert_gemm_table.json,
# peers.txt, peers.json and, where compute-sanitizer is installed, memcheck.txt and racecheck.txt. A later call may
# leave out steps that an earlier one has done, as the build. Exit: 0 also where there is no GPU; otherwise that of the
# first step that failed, the others having run.
set -u
cd "$(dirname "$0")/../../.."
results=build-gpu-bench/results
quick=
steps=build,check,bench,tune,peers,sanitizer
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=--quick ;;
    --steps) steps=${2:?--steps needs a list}; shift ;;
    -*) echo "unknown argument $1" >&2; exit 2 ;;
    *) results=$1 ;;
  esac
  shift
done
python=$(command -v python3 || true)
status=0

fail() {
  echo "FAILED: $1 (exit $2)"
  [ "$status" -ne 0 ] || status=$2
}

PATH=$PATH:/usr/local/nvidia/bin  # where containers get the driver's tools
if ! command -v nvidia-smi > /dev/null; then
  echo "no NVIDIA GPU: there is no nvidia-smi"
  exit 0
fi
if ! nvidia-smi -L > /dev/null 2>&1; then
  echo "no NVIDIA GPU: nvidia-smi -L fails: $(nvidia-smi -L 2>&1 | head -1)"
  exit 0
fi

# nvcc: of the environment, of the usual folder, or of a Python wheel.
if [ -z "${CUDACXX:-}" ] && ! command -v nvcc > /dev/null; then
  wheels=$("${python:-false}" -c 'import nvidia; print(*(p + "/*/bin/nvcc" for p in nvidia.__path__))' 2> /dev/null)
  # shellcheck disable=SC2086: the patterns are to be expanded
  for nvcc in /usr/local/cuda/bin/nvcc /usr/local/cuda-*/bin/nvcc $wheels; do
    [ -x "$nvcc" ] && export CUDACXX=$nvcc && break
  done
fi

mkdir -p "$results"
results=$(cd "$results" && pwd)
nvidia-smi > "$results/nvidia-smi.txt" 2>&1
bench=build-gpu-bench/switchyard_bench_gpu

wanted() {
  case ",$steps," in *",$1,"*) return 0 ;; esac
  return 1
}

build() {
  local capability targets="80;90a"
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -1 | tr -d '. ')
  [ "$capability" = 90 ] && targets=90a
  echo "building for $targets"
  { cmake -S tests/bench/gpu -B build-gpu-bench -DSWITCHYARD_BENCH_CUDA_TARGETS="$targets" &&
    cmake --build build-gpu-bench --parallel "$(nproc)"; } > "$results/build.txt" 2>&1 && return 0
  tail -40 "$results/build.txt"
  echo "FAILED: the build; see $results/build.txt"
  exit 1
}

check() {
  "$bench" --check > "$results/check.txt" 2>&1 || fail "check" $?
  grep -E "^WRONG|wrong results|error" "$results/check.txt"
}

measure() {
  "$bench" $quick --json "$results/bench.json" 2>&1 | tee "$results/bench.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] || fail "bench" 1
}

tune() {
  "$bench" $quick --tune "$results/expert_gemm_table.json" 2>&1 | tee "$results/tune.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] || fail "tune" 1
}

peers() {
  if [ -z "$python" ]; then
    echo "skipped: peers, there is no python3"
    return
  fi
  mkdir -p "$results/routing"
  "$bench" --write-routing "$results/routing" || fail "routing" $?
  timeout 400 "$python" tests/bench/gpu/peers.py $quick --routing "$results/routing" --bench "$results/bench.json" \
    --json "$results/peers.json" 2>&1 | tee "$results/peers.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] || fail "peers" 1
  rm -r "$results/routing"
}

sanitize() {
  if ! command -v compute-sanitizer > /dev/null; then
    echo "skipped: compute-sanitizer is not installed"
    return
  fi
  local tool
  for tool in memcheck racecheck; do
    echo "$tool"
    timeout 250 compute-sanitizer --tool "$tool" --error-exitcode 9 "$bench" --check > "$results/$tool.txt" 2>&1 ||
      fail "$tool" $?
    tail -2 "$results/$tool.txt"
  done
}

wanted build && build
wanted check && check
wanted bench && measure
wanted tune && tune
wanted peers && peers
wanted sanitizer && sanitize
exit "$status"
