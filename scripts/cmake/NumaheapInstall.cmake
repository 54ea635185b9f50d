# What `cmake --install` gives: headers, both libraries, the tool, its man page, a CMake package, a pkg-config file.
# Included after every target exists.
include(CMakePackageConfigHelpers)

# The tool lies beside the libraries, at the top of the build directory.
set_target_properties(numaheap PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

# The man page is written by the tool, from the same table as the option parser.
set(man_page ${CMAKE_BINARY_DIR}/numaheap.1)
add_custom_command(
  OUTPUT ${man_page}
  COMMAND numaheap options --man > ${man_page}.tmp
  COMMAND ${CMAKE_COMMAND} -E rename ${man_page}.tmp ${man_page}
  DEPENDS numaheap VERBATIM COMMENT "Writing numaheap.1")
add_custom_target(man ALL DEPENDS ${man_page})

# What a user gets; `scripts/build` builds this and no tests.
add_custom_target(product DEPENDS numaheap_shared numaheap_static numaheap man)

install(TARGETS numaheap_shared numaheap_needed numaheap_static EXPORT numaheap)
install(TARGETS numaheap)
install(FILES ${man_page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/numaheap DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/numaheap)
install(EXPORT numaheap FILE numaheapTargets.cmake NAMESPACE numaheap:: DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_SOURCE_DIR}/scripts/cmake/numaheapConfig.cmake.in
  ${CMAKE_BINARY_DIR}/generated/numaheapConfig.cmake INSTALL_DESTINATION ${package_dir}
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/numaheapConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/numaheapConfig.cmake
              ${CMAKE_BINARY_DIR}/generated/numaheapConfigVersion.cmake DESTINATION ${package_dir})

# The .pc file finds its prefix from its own place, so that an installed tree can be moved.
file(RELATIVE_PATH pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${CMAKE_SOURCE_DIR}/scripts/cmake/numaheap.pc.in ${CMAKE_BINARY_DIR}/generated/numaheap.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/generated/numaheap.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
