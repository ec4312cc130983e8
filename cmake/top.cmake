# The live view, a program of its own with its own Cargo.lock: who wants the library alone need not compile
# what draws on terminals.
option(CALLBRIDGE_BUILD_TOP "Build and install callbridge-top, the live view of a process" OFF)
if(NOT CALLBRIDGE_BUILD_TOP)
  return()
endif()

set(top_dir "${CMAKE_CURRENT_BINARY_DIR}/top")
set(top_program "${CMAKE_CURRENT_BINARY_DIR}/bin/callbridge-top")
set(top_command ${CMAKE_COMMAND} -E env "CARGO_TARGET_DIR=${top_dir}"
  "${CARGO}" build --release --locked --manifest-path "${CMAKE_CURRENT_SOURCE_DIR}/top/Cargo.toml")
set(top_out "${top_dir}/release")
if(CALLBRIDGE_RUST_TARGET)
  list(APPEND top_command --target "${CALLBRIDGE_RUST_TARGET}")
  set(top_out "${top_dir}/${CALLBRIDGE_RUST_TARGET}/release")
endif()
add_custom_target(callbridge_top ALL
  COMMAND ${top_command}
  COMMAND ${CMAKE_COMMAND} -E make_directory "${CMAKE_CURRENT_BINARY_DIR}/bin"
  COMMAND ${CMAKE_COMMAND} -E copy_if_different "${top_out}/callbridge-top" "${top_program}"
  BYPRODUCTS "${top_out}/callbridge-top" "${top_program}"
  COMMENT "Building callbridge-top with cargo" USES_TERMINAL VERBATIM)

install(PROGRAMS "${top_program}" DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT top)
