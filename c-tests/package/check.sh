#!/usr/bin/env bash
# Tries the installed package as its users do. CTest calls it once a case:
#   check.sh CASE PREFIX BUILD_DIR SCRATCH
# PREFIX has the installed library (in lib/), BUILD_DIR is where it was built, SCRATCH is emptied.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$1 prefix=$2 build=$3 scratch=$4
CC=${CC:-cc}
output="callbridge $(sed -n 's/^version *= *"\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -n 1): 42"

die() {
  printf '%s: %s\n' "$name" "$*" >&2
  exit 1
}

# expect WORDS COMMAND...: the command succeeds and prints exactly this.
expect() {
  local want=$1 got
  shift
  got=$("$@") || die "$* failed with $?"
  [[ $got == "$want" ]] || die "$* printed '$got', expected '$want'"
}

needs_so() { readelf -d "$1" | grep 'NEEDED.*\[libcallbridge\.so\.0\]' >/dev/null; }

# pc LIBDIR ARGUMENTS...: pkg-config that knows this installation and the system.
pc() {
  local libdir=$1
  shift
  PKG_CONFIG_PATH="$libdir/pkgconfig" pkg-config "$@" callbridge
}

# with_pkg_config LIBDIR: compiles with nothing but pkg-config's words and runs.
with_pkg_config() {
  local libdir=$1 flags
  flags=$(pc "$libdir" --cflags --libs)
  # shellcheck disable=SC2086 # the flags are several words
  $CC -o "$scratch/program" "$here/consumer/main.c" $flags
  needs_so "$scratch/program" || die "not linked with libcallbridge.so.0"
  expect "$output" env LD_LIBRARY_PATH="$libdir" "$scratch/program"
}

# with_cmake PREFIX [cmake arguments]: configures, builds and runs the consumer project.
with_cmake() {
  local from=$1
  shift
  cmake -S "$here/consumer" -B "$scratch/consumer" -DCMAKE_PREFIX_PATH="$from" "$@"
  cmake --build "$scratch/consumer"
  expect "$output" "$scratch/consumer/with-shared"
  expect "$output" "$scratch/consumer/with-static"
  needs_so "$scratch/consumer/with-shared" || die "with-shared does not need libcallbridge.so.0"
  ! needs_so "$scratch/consumer/with-static" || die "with-static needs libcallbridge.so.0"
}

# configure [cmake arguments]: prints the path of a second build folder over the libraries already
# built, so that nothing is compiled again and the first one's install manifest stays as it is.
configure() {
  local folder=$scratch/build
  if has_top; then set -- "$@" -DCALLBRIDGE_BUILD_TOP=ON; fi
  cmake -S "$here/../.." -B "$folder" -DCMAKE_INSTALL_LIBDIR=lib "$@" >&2
  ln -s "$build/lib" "$folder/lib"
  ln -s "$build/bin" "$folder/bin"
  if [[ -d $build/docs ]]; then
    rm -rf "$folder/docs"
    ln -s "$build/docs" "$folder/docs"
  fi
  printf '%s' "$folder"
}

# Was the live view built as well?
has_top() { [[ -x $prefix/bin/callbridge-top ]]; }

# files ROOT: everything but folders, relative and sorted.
files() { (cd "$1" && find . ! -type d | sort); }

case_pkg_config_shared() { with_pkg_config "$prefix/lib"; }

# --static on a prefix without the .so, so that -lcallbridge can only mean the .a.
case_pkg_config_static() {
  local flags
  cp -a "$prefix" "$scratch/prefix"
  rm "$scratch/prefix/lib/"*.so*
  flags=$(pc "$scratch/prefix/lib" --static --cflags --libs)
  # shellcheck disable=SC2086 # the flags are several words
  $CC -o "$scratch/program" "$here/consumer/main.c" $flags
  ! needs_so "$scratch/program" || die "linked with the shared library"
  expect "$output" "$scratch/program"
}

# callbridge.hpp finds the header beside it.
case_pkg_config_cxx() {
  local flags
  flags=$(pc "$prefix/lib" --cflags --libs)
  # shellcheck disable=SC2086 # the flags are several words
  ${CXX:-c++} -std=c++17 -o "$scratch/program" "$here/../../examples/hello.cpp" $flags
  expect "result 42, then CBR_ERR_PANIC: no step back" env LD_LIBRARY_PATH="$prefix/lib" "$scratch/program"
}

case_cmake() { with_cmake "$prefix"; }

case_cmake_other_major_version_is_refused() {
  if cmake -S "$here/consumer" -B "$scratch/consumer" -DCMAKE_PREFIX_PATH="$prefix" \
    -DWANTED=1.0 >"$scratch/log" 2>&1; then
    die "find_package(callbridge 1.0) was satisfied"
  fi
  grep -q 'requested version "1.0"' "$scratch/log" || die "refused for another reason: $(cat "$scratch/log")"
}

# A package's staging folder gets the same files as a plain installation, and nothing beside them.
case_destdir() {
  local folder
  folder=$(configure)
  DESTDIR=$scratch/stage cmake --install "$folder" --prefix /opt/callbridge
  diff <(files "$prefix") <(files "$scratch/stage/opt/callbridge")
  [[ $(find "$scratch/stage" -mindepth 1 -maxdepth 2) == "$scratch/stage/opt"$'\n'"$scratch/stage/opt/callbridge" ]] ||
    die "files outside of the prefix: $(files "$scratch/stage")"
  if grep -r "$scratch" "$scratch/stage" --include='*.pc' --include='*.cmake'; then
    die "the staging folder's name is in the files"
  fi
}

# Distributions' folders: /usr with a multiarch library folder.
case_multiarch_libdir() {
  local folder
  folder=$(configure -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR=lib/some-linux-gnu)
  DESTDIR=$scratch/stage cmake --install "$folder"
  with_pkg_config "$scratch/stage/usr/lib/some-linux-gnu"
  with_cmake "$scratch/stage/usr" -Dcallbridge_DIR="$scratch/stage/usr/lib/some-linux-gnu/cmake/callbridge"
}

# Absolute folders, one for each kind of file (as Nix has it).
case_absolute_folders() {
  local folder
  folder=$(configure -DCMAKE_INSTALL_PREFIX="$scratch/out" \
    -DCMAKE_INSTALL_LIBDIR="$scratch/libs" -DCMAKE_INSTALL_INCLUDEDIR="$scratch/headers" \
    -DCMAKE_INSTALL_DATAROOTDIR="$scratch/data" -DCMAKE_INSTALL_BINDIR="$scratch/programs")
  cmake --install "$folder"
  [[ -f $scratch/headers/callbridge.h ]] || die "no header"
  [[ ! -e $scratch/out ]] || die "files in the prefix: $(files "$scratch/out")"
  with_pkg_config "$scratch/libs"
  with_cmake "$scratch/libs" -Dcallbridge_DIR="$scratch/libs/cmake/callbridge"
}

case_installed_tree_can_be_moved() {
  local folder
  folder=$(configure -DCMAKE_INSTALL_PREFIX="$scratch/first")
  cmake --install "$folder"
  mv "$scratch/first" "$scratch/second"
  with_pkg_config "$scratch/second/lib"
  with_cmake "$scratch/second"
}

# A machine that only runs programs needs two files; the components together are everything.
case_components() {
  local folder
  folder=$(configure)
  cmake --install "$folder" --prefix "$scratch/p" --component runtime
  diff <(files "$scratch/p") <(files "$prefix" | grep 'so\.0') || die "runtime is not the .so alone"
  cmake --install "$folder" --prefix "$scratch/p" --component development
  ! has_top || cmake --install "$folder" --prefix "$scratch/p" --component top
  diff <(files "$prefix") <(files "$scratch/p")
}

# What `cpack -G DEB` makes: the files of an installation, in two packages that a consumer can be built and
# run with, and of which a machine that only runs programs needs one.
case_debian_packages() {
  local folder lib root=$scratch/root
  lib=lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
  folder=$(configure -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR="$lib" -DCMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON)
  (cd "$folder" && umask 022 && cpack -G DEB >&2)
  dpkg-deb -x "$folder"/libcallbridge0_*.deb "$root"
  diff <(files "$prefix" | grep 'so\.0') <(files "$root" | sed -n "s,^\./usr/$lib,./lib,p") || die "the library's package is not the .so alone"
  dpkg-deb -x "$folder"/libcallbridge-dev_*.deb "$scratch/dev"
  [[ -f $root/usr/share/doc/libcallbridge0/copyright && -f $scratch/dev/usr/share/doc/libcallbridge-dev/copyright ]] ||
    die "no copyright"
  [[ -z $(comm -12 <(files "$root") <(files "$scratch/dev")) ]] || die "a file is in both packages"
  [[ -z $(find "$root" "$scratch/dev" -mindepth 1 -type d ! -perm 755 -o -type f ! -perm 644) ]] ||
    die "permissions: $(find "$root" "$scratch/dev" -mindepth 1 -type d ! -perm 755 -o -type f ! -perm 644)"
  dpkg-deb -x "$folder"/libcallbridge-dev_*.deb "$root"
  if has_top; then
    dpkg-deb -x "$folder"/callbridge-top_*.deb "$scratch/top"
    [[ $(files "$scratch/top") == ./usr/bin/callbridge-top$'\n'./usr/share/doc/callbridge-top/copyright ]] ||
      die "the live view's package: $(files "$scratch/top")"
    [[ $(dpkg-deb -f "$folder"/callbridge-top_*.deb Depends) == 'libc6 (>= '* ]] || die "the live view's needs are not told"
    cp -a "$scratch/top/." "$root"
  fi
  diff <(files "$prefix") <(files "$root" | sed "s,^\./usr/,./,; s,^\./$lib,./lib," | grep -v '/copyright$' | sort)
  [[ $(dpkg-deb -f "$folder"/libcallbridge-dev_*.deb Depends) == "libcallbridge0 (= $(dpkg-deb -f "$folder"/libcallbridge0_*.deb Version))" ]] ||
    die "the development package does not ask for the library of its own version"
  dpkg-deb -f "$folder"/libcallbridge0_*.deb Depends | grep -q 'libc6 (>= ' || die "the library's needs are not told"
  [[ $(dpkg-deb -I "$folder"/libcallbridge0_*.deb shlibs) == "libcallbridge 0 libcallbridge0 "* ]] || die "no shlibs"
  with_pkg_config "$root/usr/$lib"
  with_cmake "$root/usr" -DCMAKE_LIBRARY_ARCHITECTURE="${lib#lib/}"
  rm -rf "$root"
  dpkg-deb -x "$folder"/libcallbridge0_*.deb "$root"
  expect "$output" env LD_LIBRARY_PATH="$root/usr/$lib" "$scratch/program"
}

# A page for each function, which says what its comment says.
case_man_pages() {
  local function page
  while read -r function; do
    page=$prefix/share/man/man3/$function.3
    [[ -f $page ]] || die "no page for $function"
    grep -q '#include <callbridge' "$page" || die "$page does not say what to include"
    grep -Eq "^$function \\\\- .{10}" "$page" || die "$page does not say what $function is: $(grep -A1 '^.SH NAME' "$page")"
  done < <(nm -D --defined-only "$prefix/lib/libcallbridge.so" | sed -nE 's/.* T (cbr_[^@]*).*/\1/p')
  grep -q 'STALE' "$prefix/share/man/man3/cbr_unregister.3" || die "a page without what the function returns"
  grep -q 'async-signal-safe' "$prefix"/share/doc/callbridge/html/index.html || die "the conventions are not the main page"
}

case_uninstall() {
  local folder
  folder=$(configure -DCMAKE_INSTALL_PREFIX=/opt/callbridge)
  DESTDIR=$scratch/stage cmake --install "$folder"
  # Not ours: must stay.
  touch "$scratch/stage/opt/callbridge/lib/libother.so"
  DESTDIR=$scratch/stage cmake --build "$folder" --target uninstall
  [[ $(files "$scratch/stage") == ./opt/callbridge/lib/libother.so ]] ||
    die "left behind, or too much removed: $(files "$scratch/stage")"
  [[ -z $(find "$scratch/stage/opt/callbridge/lib" -name callbridge) ]] || die "an empty folder is left"
  ! cmake --build "$folder" --target uninstall >/dev/null 2>&1 || die "a second uninstall succeeds"
}

rm -rf "$scratch"
mkdir -p "$scratch"
"case_$name"
