#!/usr/bin/env bash
# From a fresh clone to an answer on this terminal: installs what is missing, builds, starts the server with the bundled
# demo model, asks it something, shows which experts answered and what the metrics say. Then the server stays up until
# Ctrl-C. On Debian 12 or Ubuntu 24.04; needs root or sudo only if packages are missing. A second run takes seconds.
#
#   bash deploy/quickstart.sh [--once] [--port N] [--http-port N] [--admin-port N] [--model FOLDER] [--prompt TEXT]
#
#   --once          stop the server after the answer and exit
#   --port N        gRPC port (default 50051)
#   --http-port N   port of OpenAI's interface (default 8000)
#   --admin-port N  port of /metrics (default 8002)
#   --model FOLDER  another model, in Hugging Face layout
#   --prompt TEXT   what to ask
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source deploy/packages.sh

once=no
port=50051
http_port=8000
admin_port=8002
model=deploy/models/switchyard-demo
prompt="And the LORD said unto Moses,"
server=build/server/switchyard-server
client=build/client/switchyard
build_log=build/quickstart-build.log
server_log=build/quickstart-server.log
server_pid=

say() { printf '\n=== %s\n' "$*"; }

# fail WHAT HINT...
fail() {
  printf '\nquickstart: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

usage_error() {
  printf 'quickstart: %s; see --help\n' "$1" >&2
  exit 2
}

read_arguments() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --once) once=yes ;;
      --port | --http-port | --admin-port | --model | --prompt)
        [ $# -ge 2 ] || usage_error "$1 needs a value"
        case "$1" in
          --port) port=$2 ;;
          --http-port) http_port=$2 ;;
          --admin-port) admin_port=$2 ;;
          --model) model=$2 ;;
          --prompt) prompt=$2 ;;
        esac
        shift
        ;;
      -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
      *) usage_error "unknown argument $1" ;;
    esac
    shift
  done
}

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

check_ports() {
  ! port_is_taken "$port" || fail "port $port is taken" "choose another: bash deploy/quickstart.sh --port 50061"
  ! port_is_taken "$http_port" ||
    fail "port $http_port is taken" "choose another: bash deploy/quickstart.sh --http-port 8010"
  ! port_is_taken "$admin_port" ||
    fail "port $admin_port is taken" "choose another: bash deploy/quickstart.sh --admin-port 8012"
}

# Shows ninja's "[12/345] ..." as one line that counts, or without a terminal as a line for each tenth.
show_build_progress() {
  local line done_steps all_steps tenth shown=-1
  while IFS= read -r line; do
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    done_steps=${BASH_REMATCH[1]} all_steps=${BASH_REMATCH[2]}
    tenth=$((10 * done_steps / all_steps))
    if [ -t 1 ]; then
      printf '\r  %d of %d' "$done_steps" "$all_steps"
    elif [ "$tenth" -ne "$shown" ]; then
      printf '  %d of %d\n' "$done_steps" "$all_steps"
      shown=$tenth
    fi
  done
  [ ! -t 1 ] || printf '\r\033[K'
}

build() {
  local options=(-DCMAKE_BUILD_TYPE=Release)
  # The tests want more packages; a folder that already builds them stays as it is.
  [ -f build/CMakeCache.txt ] || options+=(-DSWITCHYARD_TESTS=OFF)
  mkdir -p build
  cmake -S . -B build -G Ninja "${options[@]}" >"$build_log" 2>&1 ||
    fail "cmake failed" "its output: $build_log; the last lines:" "$(tail -n 15 "$build_log")"
  cmake --build build --parallel "$(num_jobs)" --target switchyard-server switchyard | tee -a "$build_log" |
    show_build_progress ||
    fail "the build failed" "its output: $build_log; the last lines:" "$(tail -n 30 "$build_log")"
}

stop_server() {
  [ -n "$server_pid" ] || return 0
  kill -TERM "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

start_server() {
  "$server" --model "$model" --host 127.0.0.1 --port "$port" --http-port "$http_port" \
    --admin-host 127.0.0.1 --admin-port "$admin_port" >"$server_log" 2>&1 &
  server_pid=$!
  local attempt
  for ((attempt = 0; attempt < 120; ++attempt)); do
    "$client" health --wait 1 >/dev/null 2>&1 && return 0
    kill -0 "$server_pid" 2>/dev/null || break
  done
  fail "the server did not become ready" "its log: $server_log; the last lines:" "$(tail -n 10 "$server_log")"
}

# GET of a path of the admin port; curl may not be there. In a shell of its own, which closes the connection.
admin_get() (
  exec 3<>"/dev/tcp/127.0.0.1/$admin_port" || exit 1
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3 && tr -d '\r' <&3
)

# A few lines of /metrics: what came in and out, and the hottest experts.
show_metrics() {
  local page
  page=$(admin_get /metrics) && [[ $page == *switchyard_* ]] || fail "/metrics did not answer on port $admin_port"
  grep -E '^switchyard_(prompt|generation)_tokens_total|^switchyard_time_to_first_token_seconds_(sum|count)' <<<"$page" || true
  { grep '^switchyard_moe_expert_tokens_total' <<<"$page" || true; } | sort --key=2 --numeric-sort --reverse | head -n 3 || true
}

ask() {
  local flags=(--explain --explain-top 3 --stats --echo --max-tokens 64 --temperature 0.7 --top-p 0.9 --seed 1)
  say "switchyard generate ${flags[*]} \"$prompt\""
  "$client" generate "${flags[@]}" -- "$prompt" || fail "the server did not answer" "its log: $server_log"
}

main() {
  read_arguments "$@"
  trap stop_server EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [ -f "$model/config.json" ] || fail "there is no model in $model" "choose one: bash deploy/quickstart.sh --model FOLDER"
  check_ports

  install_packages "${SWITCHYARD_BUILD_PACKAGES[@]}" || fail "packages are missing" "see above"
  say "Building (log: $build_log)"
  build
  say "Starting the server with $model (log: $server_log)"
  export SWITCHYARD_ADDRESS=127.0.0.1:$port
  start_server
  "$client" server | sed -n '1,3p'
  ask
  say "switchyard experts --once"
  "$client" experts --once
  say "http://127.0.0.1:$admin_port/metrics"
  show_metrics

  if [ "$once" = yes ]; then
    stop_server
    say "Done"
    exit 0
  fi
  say "The server runs at $SWITCHYARD_ADDRESS until Ctrl-C. In another terminal:"
  local address=
  [ "$port" = 50051 ] || address=" --address $SWITCHYARD_ADDRESS"
  printf '  %s\n' "$client generate$address --explain \"Once upon a time\"" "$client experts$address" \
    "$client bench$address --num-prompts 100 --max-concurrency 8" \
    "curl http://127.0.0.1:$http_port/v1/completions -H 'Content-Type: application/json' \\" \
    "  -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 24, \"stream\": true}'"
  wait "$server_pid" || fail "the server ended" "its log: $server_log; the last lines:" "$(tail -n 10 "$server_log")"
}

main "$@"
