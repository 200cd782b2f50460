# shellcheck shell=bash
# Sourced by the scripts beside it, in the root of the checkout: build TARGET... [-DOPTION...] in the folder $BUILD.
BUILD=${BUILD:-build}
JOBS=${JOBS:-$(nproc)}

build() {
  local targets=() options=(-DTENON_WERROR="${TENON_WERROR:-OFF}") argument
  for argument; do
    if [[ $argument == -* ]]; then options+=("$argument"); else targets+=("$argument"); fi
  done
  [[ -e "$BUILD/CMakeCache.txt" ]] || options+=(-G Ninja)
  if command -v ccache >/dev/null; then
    # Paths relative to the checkout: two checkouts of one machine share what they have compiled.
    export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
    options+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  # shellcheck disable=SC2086  # CMAKE_ARGS holds several words
  cmake -S . -B "$BUILD" "${options[@]}" ${CMAKE_ARGS:-} >"$BUILD.log" || { cat "$BUILD.log"; return 1; }
  rm -f "$BUILD.log"
  cmake --build "$BUILD" -j "$JOBS" --target "${targets[@]}"
}
