# The Debian and Ubuntu packages that Switchyard is built and tested with, in one place. Sourced, not run:
#
#   source deploy/packages.sh
#   install_packages "${SWITCHYARD_BUILD_PACKAGES[@]}"
#
# Keep in step with the find_package and pkg_check_modules calls of the CMake files.
# shellcheck shell=bash disable=SC2034

SWITCHYARD_BUILD_PACKAGES=(
  g++ cmake ninja-build ccache pkg-config
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler
  libabsl-dev
  libssl-dev
  libboost-dev
  prometheus-cpp-dev libcivetweb-dev
  nlohmann-json3-dev
  libpcre2-dev libutf8proc-dev
  libcli11-dev
  libyaml-cpp-dev
)

SWITCHYARD_TEST_PACKAGES=(
  libgtest-dev libgmock-dev
  python3 python3-venv
  openssl
)

# A compiler of this code base wants up to 1 GiB: no more of them at once than fit, into the machine or the container.
num_jobs() {
  local cores memory_gib limit
  cores=$(nproc)
  memory_gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
  [ "$limit" = max ] || memory_gib=$((limit >> 30 < memory_gib ? limit >> 30 : memory_gib))
  echo $((memory_gib < 1 ? 1 : memory_gib < cores ? memory_gib : cores))
}

# unpack_programs FOLDER PACKAGE PROGRAMS... puts programs of a package into a folder, unless the machine has them all.
# Unpacked, not installed: the package would start a service.
unpack_programs() {
  local folder=$1 package=$2 program unpacked missing=()
  shift 2
  for program in "$@"; do
    [ -x "$folder/$program" ] || PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  unpacked=$(mktemp -d)
  mkdir -p "$folder"
  if (cd "$unpacked" && apt-get -q download "$package" && dpkg-deb -x "$package"_*.deb .); then
    for program in "${missing[@]}"; do find "$unpacked/usr" -path "*bin/$program" -exec cp {} "$folder/" \;; done
  fi
  rm -rf "$unpacked"
  for program in "${missing[@]}"; do
    [ -x "$folder/$program" ] || { echo "$program, of the package $package, is missing and could not be fetched" >&2; return 1; }
  done
}

# Installs those of the named packages that are missing. Does nothing, and needs neither network nor rights, when all
# are there. Returns 1, having said what to do, when it cannot.
install_packages() {
  local package missing=() run=()
  for package in "$@"; do
    # shellcheck disable=SC2016
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  if ! command -v apt-get >/dev/null; then
    echo "This machine has no apt-get. Install the equivalents of: ${missing[*]}" >&2
    return 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Packages are missing, and there is no sudo. As root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    run=(sudo)
  fi
  run+=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -q -y)
  echo "Installing ${#missing[@]} packages: ${missing[*]}"
  if ! "${run[@]}" update || ! "${run[@]}" install --no-install-recommends "${missing[@]}"; then
    echo "apt-get failed; see above. Needed and missing: ${missing[*]}" >&2
    return 1
  fi
}
