# The header's comments as pages: HTML with the conventions as main page, and a man page for each function
# (man 3 cbr_register). Where there is no Doxygen there are none.
find_package(Doxygen QUIET)
option(CALLBRIDGE_DOCS "HTML and man pages, by Doxygen" "${DOXYGEN_FOUND}")
if(NOT CALLBRIDGE_DOCS)
  return()
endif()
if(NOT DOXYGEN_FOUND)
  message(FATAL_ERROR "CALLBRIDGE_DOCS is on, and there is no Doxygen: install it, or set -DCALLBRIDGE_DOCS=OFF")
endif()
find_program(AWK awk)
if(NOT AWK)
  message(FATAL_ERROR "CALLBRIDGE_DOCS is on, and there is no awk")
endif()

set(docs "${CMAKE_CURRENT_BINARY_DIR}/docs")
set(docs_done "${docs}/done")
set(docs_header "${CMAKE_CURRENT_SOURCE_DIR}/include/callbridge.h")
set(docs_filter "${CMAKE_CURRENT_SOURCE_DIR}/cmake/doxygen.awk")
foreach(kind IN ITEMS html man)
  set(other man)
  if(kind STREQUAL "man")
    set(other html)
  endif()
  set(generate_${kind} YES)
  set(generate_${other} NO)
  configure_file(cmake/Doxyfile.in "docs/Doxyfile.${kind}" @ONLY)
endforeach()
add_custom_command(OUTPUT "${docs_done}"
  COMMAND ${CMAKE_COMMAND} -E remove_directory "${docs}/html"
  COMMAND ${CMAKE_COMMAND} -E remove_directory "${docs}/man"
  COMMAND Doxygen::doxygen "${docs}/Doxyfile.html"
  COMMAND Doxygen::doxygen "${docs}/Doxyfile.man"
  COMMAND ${CMAKE_COMMAND} -E touch "${docs_done}"
  DEPENDS "${docs_header}" "${docs_filter}" cmake/Doxyfile.in
  COMMENT "Making pages of the header's comments with Doxygen" VERBATIM)
add_custom_target(callbridge_docs ALL DEPENDS "${docs_done}")

install(DIRECTORY "${docs}/man/man3" DESTINATION "${CMAKE_INSTALL_MANDIR}" COMPONENT development
  FILES_MATCHING PATTERN "cbr_*.3")
install(DIRECTORY "${docs}/html" DESTINATION "${CMAKE_INSTALL_DOCDIR}" COMPONENT development)
