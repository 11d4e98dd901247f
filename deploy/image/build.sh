#!/usr/bin/env bash
# In a build stage of the Dockerfile: compiles /source and lays out /image, the files to add to a runtime stage:
# server and client (stripped), the bundled model, the licence, and the list of the packages they are linked with.
#
#   bash deploy/image/build.sh CMAKE_ARGUMENTS...
set -euo pipefail
cd /source
source deploy/packages.sh

export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_TESTS=OFF "$@"
cmake --build build --parallel "$(num_jobs)"
DESTDIR=/image cmake --install build --prefix /usr/local --strip

share=/image/usr/local/share/switchyard
mkdir -p "$share"
cp -r deploy/models/switchyard-demo "$share/"
cp LICENSE "$share/"
chmod -R a+rX,go-w /image

# Of each shared library of the distribution, the package that owns it; what else is linked (the CUDA driver and
# toolkit) comes with the base image. A merged /usr makes dpkg know some by their path without it.
ldd /image/usr/local/bin/* | awk '$3 ~ "^/" { print $3 }' | sort -u | while read -r library; do
  real=$(realpath "$(dirname "$library")")/$(basename "$library")
  dpkg-query --search "$real" 2>/dev/null || dpkg-query --search "${real#/usr}" 2>/dev/null || true
done | cut -d: -f1 | sort -u >"$share/packages"
[ -s "$share/packages" ] || { echo "no package owns what the server is linked with" >&2; exit 1; }
