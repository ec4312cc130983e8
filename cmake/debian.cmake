# Debian packages: configure with -DCMAKE_INSTALL_PREFIX=/usr, build, then `cpack -G DEB` in the build
# folder makes libcallbridge0 (what programs run with) and libcallbridge-dev (what they are built with), and
# callbridge-top where that is built.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME callbridge)
set(CPACK_PACKAGE_VENDOR "The callbridge developers")
set(CPACK_PACKAGE_CONTACT "The callbridge developers <callbridge@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "safe callbacks across languages")
set(CPACK_PACKAGING_INSTALL_PREFIX "${CMAKE_INSTALL_PREFIX}")
set(CPACK_STRIP_FILES OFF)

set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_MULTIARCH same)
set(about "Reference-counted handles for functions and their data: a callback is never
called after it is gone, and its data is freed exactly once.
.")

# The soname's number is in the name: two major versions can be installed beside each other.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME "libcallbridge${PROJECT_VERSION_MAJOR}")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "${about}
This package has what programs need that were built with callbridge.")
# From the library itself: what it needs, and what programs that link it will need.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libcallbridge-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "${about}
This package has headers, the static library, pkg-config and CMake files.")
# The same build, or header and library might disagree.
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
  "libcallbridge${PROJECT_VERSION_MAJOR} (= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})")

if(CALLBRIDGE_BUILD_TOP)
  list(APPEND CPACK_COMPONENTS_ALL top)
  set(CPACK_DEBIAN_TOP_PACKAGE_NAME callbridge-top)
  set(CPACK_DEBIAN_TOP_PACKAGE_SECTION utils)
  set(CPACK_DEBIAN_TOP_PACKAGE_MULTIARCH foreign)
  set(CPACK_DEBIAN_TOP_PACKAGE_SHLIBDEPS ON)
  set(CPACK_COMPONENT_TOP_DESCRIPTION "${about}
This package has callbridge-top, which shows the callbacks and queues of a running process.")
endif()

# Debian's policy: every package says under which terms it may be copied. Elsewhere that is no business of
# an installation.
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  foreach(component IN LISTS CPACK_COMPONENTS_ALL)
    string(TOUPPER "${component}" upper)
    install(FILES cmake/debian-copyright RENAME copyright COMPONENT ${component}
      DESTINATION "${CMAKE_INSTALL_DATAROOTDIR}/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME}")
  endforeach()
endif()
include(CPack)
