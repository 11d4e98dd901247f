#!/usr/bin/env bash
# Installs what the tests need, builds, and runs them.
#
#   bash tests/run.sh            Release build and every test
#   bash tests/run.sh --asan     AddressSanitizer and UndefinedBehaviorSanitizer: engine, scheduler, parsers, frontend
#   bash tests/run.sh --tsan     ThreadSanitizer: everything that links no gRPC (its library is not instrumented)
#   bash tests/run.sh --clang    clang with -Wthread-safety -Werror, compiled, not run
#   bash tests/run.sh --fuzz     each libFuzzer target for 30 s
#   bash tests/run.sh --gpu      what needs an NVIDIA GPU and the CUDA toolkit: the suite labelled gpu, the kernels under
#                                compute-sanitizer, and the GPU bench; says so where there is no GPU
#   bash tests/run.sh --long     with any lane: more seeds, more pairs, longer runs
#
# Lanes can be combined (--default --asan ...); without one the default lane runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source deploy/packages.sh

lanes=()
export SWITCHYARD_LONG_TESTS=${SWITCHYARD_LONG_TESTS:-0}
for argument in "$@"; do
  case "$argument" in
    --default | --asan | --tsan | --clang | --fuzz | --gpu) lanes+=("${argument#--}") ;;
    --long) SWITCHYARD_LONG_TESTS=1 ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "tests/run.sh: unknown argument $argument; see --help" >&2; exit 2 ;;
  esac
done
[ ${#lanes[@]} -gt 0 ] || lanes=(default)

# Clones share what ccache has compiled, wherever they are.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

say() { printf '\n=== %s\n' "$*"; }

# One private Python environment for the clients and reference libraries that the tests compare with.
python_environment() {
  local venv=build/test-venv
  if ! cmp --silent tests/requirements.txt "$venv/installed.txt"; then
    say "Python packages for the tests"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --requirement tests/requirements.txt
    cp tests/requirements.txt "$venv/installed.txt"
  fi
}

# configure_and_build DIRECTORY CMAKE_ARGUMENTS...
configure_and_build() {
  local directory=$1
  shift
  say "Building in $directory"
  mkdir -p "$directory"
  local log=$directory/configure.log
  cmake -S . -B "$directory" -G Ninja -DSWITCHYARD_TESTS=ON "$@" >"$log" 2>&1 || { cat "$log"; exit 1; }
  cmake --build "$directory" --parallel "$(num_jobs)"
}

# run_tests DIRECTORY CTEST_ARGUMENTS...
run_tests() {
  local directory=$1
  shift
  say "Testing in $directory"
  ctest --test-dir "$directory" --output-on-failure --parallel 2 "$@"
}

install_packages "${SWITCHYARD_BUILD_PACKAGES[@]}" "${SWITCHYARD_TEST_PACKAGES[@]}"
mkdir -p build

passed=()
for lane in "${lanes[@]}"; do
  case "$lane" in
    default)
      python_environment
      unpack_programs build/programs prometheus prometheus promtool
      unpack_programs build/programs nginx nginx
      configure_and_build build -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_TEST_PYTHON="$PWD/build/test-venv/bin/python"
      PATH=$PWD/build/programs:$PATH run_tests build
      ;;
    asan)
      # Optimised once: compiles in half the time of -O2, and the tests hardly notice.
      configure_and_build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG" \
        -DSWITCHYARD_SANITIZE=address,undefined
      run_tests build-asan --label-exclude uninstrumented
      ;;
    tsan)
      configure_and_build build-tsan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSWITCHYARD_SANITIZE=thread -DSWITCHYARD_SERVER=OFF
      run_tests build-tsan --label-exclude "uninstrumented|fibers"
      ;;
    clang)
      install_packages clang-16
      # Nothing of it runs, so nothing is optimised. Only nvcc gets the flags of the default lane: ccache then runs it
      # once for both.
      configure_and_build build-clang -DCMAKE_BUILD_TYPE=None -DCMAKE_C_COMPILER=clang-16 \
        -DCMAKE_CXX_COMPILER=clang++-16 -DCMAKE_CUDA_FLAGS_NONE="-O3 -DNDEBUG"
      ;;
    gpu)
      if ! nvidia-smi -L 2>/dev/null; then
        say "No NVIDIA GPU on this machine (nvidia-smi finds none): nothing was tested"
        continue
      fi
      python_environment
      configure_and_build build-gpu -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_CUDA=ON \
        -DSWITCHYARD_TEST_PYTHON="$PWD/build/test-venv/bin/python"
      SWITCHYARD_REQUIRE_GPU=1 run_tests build-gpu --label-regex gpu
      if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck; do
          for test in build-gpu/tests/engine/backend/*conformance_gpu_test; do
            say "$(basename "$test") under $tool"
            SWITCHYARD_PLUGIN_DIR=$PWD/build-gpu/server compute-sanitizer --tool "$tool" --error-exitcode 9 "$test"
          done
        done
      fi
      bash tests/bench/gpu/run_gpu.sh build-gpu/bench
      ;;
    fuzz)
      install_packages clang-16 libclang-rt-16-dev
      configure_and_build build-fuzz -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang-16 \
        -DCMAKE_CXX_COMPILER=clang++-16 -DSWITCHYARD_SANITIZE=address,undefined -DSWITCHYARD_FUZZ=ON -DSWITCHYARD_SERVER=OFF
      for target in build-fuzz/tests/fuzz/*_fuzz; do
        say "Fuzzing $(basename "$target")"
        name=$(basename "$target" _fuzz)
        corpus=(build-fuzz/corpus/"$name")  # what is found is kept there
        mkdir -p "${corpus[0]}"
        [ ! -d tests/fuzz/seeds/"$name" ] || corpus+=(tests/fuzz/seeds/"$name")
        "$target" "${corpus[@]}" -max_total_time=$((SWITCHYARD_LONG_TESTS ? 600 : 30)) -timeout=10 \
          -rss_limit_mb=2048 -print_final_stats=1
      done
      ;;
  esac
  passed+=("$lane")
done
say "Lanes that passed: ${passed[*]:-none}"
