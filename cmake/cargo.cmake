# Runs cargo at every build (it knows best what is out of date) and lays the libraries out under
# ${staged} with the names and links that are installed.
find_program(CARGO cargo HINTS "$ENV{CARGO_HOME}/bin" "$ENV{HOME}/.cargo/bin" DOC "Rust's package manager")
find_program(RUSTC rustc HINTS "$ENV{CARGO_HOME}/bin" "$ENV{HOME}/.cargo/bin" DOC "Rust's compiler")
if(NOT CARGO OR NOT RUSTC)
  message(FATAL_ERROR "cargo and rustc are needed to build callbridge: install Rust with rustup, or set -DCARGO= and -DRUSTC=")
endif()

# The crate types are named, because with the rlib among them cargo drops link-time optimisation.
set(cargo_dir "${CMAKE_CURRENT_BINARY_DIR}/cargo")
set(cargo_command ${CMAKE_COMMAND} -E env "CARGO_TARGET_DIR=${cargo_dir}"
  "${CARGO}" rustc --release --locked --lib --crate-type cdylib,staticlib
  --manifest-path "${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml" --features reserve ${CALLBRIDGE_CARGO_FLAGS})
set(cargo_out "${cargo_dir}/release")
set(rustc_target)
if(CALLBRIDGE_RUST_TARGET)
  list(APPEND cargo_command --target "${CALLBRIDGE_RUST_TARGET}")
  set(cargo_out "${cargo_dir}/${CALLBRIDGE_RUST_TARGET}/release")
  set(rustc_target --target "${CALLBRIDGE_RUST_TARGET}")
endif()

# The system libraries that Rust's std needs beside the .a: asked of rustc with an empty crate,
# because they differ between platforms and releases. scripts/symbols compares with the real crate.
file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/native/empty.rs" "")
execute_process(
  COMMAND "${RUSTC}" ${rustc_target} --crate-type staticlib --print native-static-libs empty.rs
  WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/native"
  OUTPUT_VARIABLE native_words ERROR_VARIABLE native_words RESULT_VARIABLE native_result)
file(REMOVE_RECURSE "${CMAKE_CURRENT_BINARY_DIR}/native")
if(NOT native_result EQUAL 0 OR NOT native_words MATCHES "native-static-libs: ([^\n]*)")
  message(FATAL_ERROR "rustc did not say which libraries a static link needs:\n${native_words}")
endif()
string(STRIP "${CMAKE_MATCH_1}" native_static_libs)

# The .a comes with the debug information and the LLVM bitcode of Rust's std: several times the
# size, and a linker plugin of another LLVM takes the objects for its own and finds no symbols.
add_custom_target(callbridge_cargo ALL
  COMMAND ${cargo_command}
  COMMAND ${CMAKE_COMMAND} -E make_directory "${staged}"
  COMMAND ${CMAKE_COMMAND} -E copy_if_different "${cargo_out}/libcallbridge.so" "${staged}/${so_file}"
  COMMAND ${CMAKE_COMMAND} -E create_symlink "${so_file}" "${staged}/${so_name}"
  COMMAND ${CMAKE_COMMAND} -E create_symlink "${so_name}" "${staged}/libcallbridge.so"
  COMMAND "${CMAKE_OBJCOPY}" --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd
    "${cargo_out}/libcallbridge.a" "${staged}/libcallbridge.a"
  BYPRODUCTS "${cargo_out}/libcallbridge.so" "${cargo_out}/libcallbridge.a"
    "${staged}/${so_file}" "${staged}/${so_name}" "${staged}/libcallbridge.so" "${staged}/libcallbridge.a"
  COMMENT "Building libcallbridge with cargo" USES_TERMINAL VERBATIM)
