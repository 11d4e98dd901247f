#!/usr/bin/env bash
# Builds the image of the Dockerfile without a Docker engine, and runs it as strictly as it can be run: as its own user,
# with a read-only root, no capabilities and no network. Then as the pod of the Kubernetes overlay `cpu`, by podman.
#
#   bash tests/deploy/image.sh                   the default image
#   bash tests/deploy/image.sh --cuda FOLDER     also the target `cuda`, with the CUDA toolkit of that folder
#
# Needs: Debian 12, root, Debian's archive, 7 GB under $SWITCHYARD_IMAGE_STORE (default /var/tmp/switchyard-image), and
# the packages buildah, podman, catatonit, runc and mmdebstrap, which it installs; for the pod, kubectl 1.21 or newer.
# The base image is made by mmdebstrap; nothing else is fetched. It compiles everything, about 5 minutes on two cores
# (less again with what ccache kept), and so is a command of its own, not among the tests of every change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source deploy/packages.sh

toolkit=
case "${1:-}" in
  "") ;;
  --cuda) toolkit=${2:?--cuda needs the folder of a CUDA toolkit} ;;
  *) echo "tests/deploy/image.sh: unknown argument $1" >&2; exit 2 ;;
esac

store=${SWITCHYARD_IMAGE_STORE:-/var/tmp/switchyard-image}
storage=(--root "$store/root" --runroot "$store/run" --storage-driver overlay)
base=localhost/switchyard-base:bookworm
container=switchyard-image-test-$$

say() { printf '\n=== %s\n' "$*"; }
images() { buildah "${storage[@]}" "$@"; }
engine() { podman "${storage[@]}" --log-level fatal "$@"; }
inside() { engine exec "$container" "$@"; }

# check WHAT COMMAND...: says what holds, or ends the script.
check() {
  local what=$1
  shift
  "$@" || { echo "FAILED: $what" >&2; engine logs "$container" >&2 || true; exit 1; }
  echo "ok: $what"
}

# Not crun, which refuses machines with both versions of cgroups; low limits, because podman's own may not be allowed.
write_engine_settings() {
  mkdir -p "$store"
  printf '%s\n' '[containers]' 'default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]' \
    '[engine]' 'runtime = "runc"' 'cgroup_manager = "cgroupfs"' >"$store/containers.conf"
  export CONTAINERS_CONF=$store/containers.conf
}

# What debian:bookworm-slim is: the essential packages, without manuals and translations.
make_base() {
  local tar=$store/bookworm.tar made
  [ -f "$tar" ] || { mmdebstrap --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' bookworm "$tar.new" && mv "$tar.new" "$tar"; }
  images inspect --type image "$base" >/dev/null 2>&1 && return
  made=$(images from scratch)
  images add --quiet "$made" "$tar" / >/dev/null
  images config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$made"
  images commit --quiet "$made" "$base" >/dev/null
  images rm "$made" >/dev/null
}

# The base with the parts of a CUDA toolkit that compile, where NVIDIA's images have them.
make_cuda_base() {
  local made mounted
  images inspect --type image "$base-cuda" >/dev/null 2>&1 && return
  made=$(images from "$base")
  mounted=$(images mount "$made")
  mkdir -p "$mounted/usr/local/cuda/lib64"
  cp -rL "$toolkit/bin" "$toolkit/include" "$toolkit/nvvm" "$mounted/usr/local/cuda/"
  cp -L "$toolkit"/lib64/libcud{art.so,art_static.a,adevrt.a} "$mounted/usr/local/cuda/lib64/"
  images config --env PATH=/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$made"
  images commit --quiet "$made" "$base-cuda" >/dev/null
  images rm "$made" >/dev/null
}

# build TARGET ARGUMENTS...
build() {
  images bud --pull-never --layers --isolation chroot --format docker --target "$1" --tag "localhost/switchyard:$1" \
    --build-arg BASE_IMAGE="$base" --build-arg REVISION="$(git rev-parse HEAD)" "${@:2}" .
}

start() {
  engine run --detach --name "$container" --network none --read-only --read-only-tmpfs=false --cap-drop all \
    --security-opt no-new-privileges --memory 2g "$@" >/dev/null
}

stop() {
  engine rm --force --time 0 "$container" >/dev/null 2>&1 || true
  [ ! -f "$store/pod/pod.yaml" ] || engine kube play --down "$store/pod/pod.yaml" >/dev/null 2>&1 || true
}

admin_page() {
  inside bash -c "exec 3<>/dev/tcp/127.0.0.1/8002; printf 'GET $1 HTTP/1.0\r\n\r\n' >&3; cat <&3"
}

answers() { [ "$(inside switchyard generate --max-tokens 12 "And the LORD said" | wc -w)" -gt 3 ]; }
answers_http() {
  local body='{"prompt": "And the LORD said", "max_tokens": 12}'
  [[ $(inside bash -c "exec 3<>/dev/tcp/127.0.0.1/8000; printf '%s\r\n' 'POST /v1/completions HTTP/1.0' \
    'Content-Type: application/json' 'Content-Length: ${#body}' '' >&3; printf '%s' '$body' >&3; cat <&3") == \
    *' 200 OK'*'"completion_tokens":12'* ]]
}
exports() { [[ $(admin_page /metrics) == *'generation_tokens_total{model_name="switchyard-demo"} '[1-9]* ]]; }
has_status() { inside grep -q "^$1:[[:space:]]*$2\$" /proc/1/status; }
cannot_write() { ! inside sh -c 'touch /x || touch /usr/local/bin/x || touch /tmp/x' 2>/dev/null; }
has_libraries() { inside sh -c "test -f $1 && ! ldd $1 | grep 'not found'"; }
has_no() { ! inside sh -c "command -v $1" >/dev/null; }
label() { engine image inspect --format "{{index .Labels \"org.opencontainers.image.$1\"}}" localhost/switchyard:cpu; }
drains() {
  engine stop --time 60 "$container" >/dev/null
  [ "$(engine inspect --format '{{.State.ExitCode}}' "$container")" = 0 ]
}

run_default_image() {
  start localhost/switchyard:cpu
  check "SERVING, asked by its own client" inside switchyard health --wait 60
  check "its HEALTHCHECK passes" engine healthcheck run "$container"
  check "its user is not root" test "$(inside id -u)" = 10001
  check "it has no capabilities" has_status CapEff 0000000000000000
  check "it can get no new rights" has_status NoNewPrivs 1
  check "nothing in it can be written" cannot_write
  check "it answers a prompt" answers
  check "/metrics counts that answer" exports
  check "it answers over HTTP" answers_http
  check "it can sleep before it stops, as preStop wants" inside sleep 0
  for program in gcc g++ cc ld cmake ninja protoc; do check "it has no $program" has_no "$program"; done
  check "its labels tell version and revision" test "$(label version) $(label revision)" = "0.1.0 $(git rev-parse HEAD)"
  check "SIGTERM ends it with 0" drains
}

# The Deployment of the overlay with one CPU; podman wants no ports where there is no network.
run_pod() {
  local pod=$store/pod container=switchyard-pod-0-server
  mkdir -p "$pod"
  cat >"$pod/kustomization.yaml" <<YAML
resources: [$(realpath --relative-to "$pod" deploy/kubernetes/overlays/cpu)]
patches:
  - target: {kind: Deployment}
    patch: |-
      - {op: remove, path: /spec/template/spec/containers/0/ports}
      - {op: replace, path: /spec/replicas, value: 1}
      - {op: replace, path: /spec/template/spec/containers/0/resources/limits/cpu, value: "1"}
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: "1"}
YAML
  kubectl kustomize "$pod" >"$pod/pod.yaml"
  engine tag localhost/switchyard:cpu localhost/switchyard:0.1.0
  engine kube play --network none "$pod/pod.yaml" >/dev/null
  check "the pod is SERVING" inside switchyard health --wait 60
  check "it answers a prompt" answers
  check "nothing in it can be written" cannot_write
  check "it has as many threads as CPUs" grep -q ', 1 thread)' <(engine logs "$container" 2>&1)
}

run_cuda_image() {
  start localhost/switchyard:cuda
  check "without a GPU it serves from the CPU" inside switchyard health --wait 60
  check "its plugin finds all that it is linked with" has_libraries /usr/local/bin/libswitchyard_cuda.so
  check "it answers a prompt" answers
  check "SIGTERM ends it with 0" drains
}

[ "$(id -u)" = 0 ] || { echo "tests/deploy/image.sh needs root" >&2; exit 1; }
install_packages buildah podman catatonit runc mmdebstrap
write_engine_settings
trap stop EXIT
say "The base image"
make_base
say "Building"
build cpu
say "Running"
run_default_image
stop
say "Running the overlay cpu"
if command -v kubectl >/dev/null; then run_pod; else echo "skipped: there is no kubectl"; fi
stop
if [ -n "$toolkit" ]; then
  say "The target cuda, with the toolkit of $toolkit"
  make_cuda_base
  build cuda --build-arg CUDA_DEVEL_IMAGE="$base-cuda" --build-arg CUDA_RUNTIME_IMAGE="$base"
  run_cuda_image
fi
say "Done"
images images --format '{{.Name}}:{{.Tag}} {{.Size}}' --filter reference=localhost/switchyard
