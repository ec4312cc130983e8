# What lets other projects find the library: callbridge.pc and the CMake package.
include(CMakePackageConfigHelpers)

# A folder below the prefix is written relative to it, so that an installed tree can be moved
# and `cmake --install --prefix` may differ from the configured prefix.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
  set(pc_libdir "${CMAKE_INSTALL_LIBDIR}")
else()
  file(RELATIVE_PATH up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" up "${up}")
  set(pc_prefix "\${pcfiledir}/${up}")
  set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(pc_includedir "${CMAKE_INSTALL_INCLUDEDIR}")
else()
  set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file(cmake/callbridge.pc.in callbridge.pc @ONLY)

# "-lm -ldl" as the list that INTERFACE_LINK_LIBRARIES takes.
string(REPLACE " " ";" native_static_list "${native_static_libs}")
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/callbridge")
configure_package_config_file(cmake/callbridge-config.cmake.in callbridge-config.cmake
  INSTALL_DESTINATION "${package_dir}"
  PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
# As the soname: what has the same major version is compatible.
write_basic_package_version_file(callbridge-config-version.cmake COMPATIBILITY SameMajorVersion)
