# What `cmake --install` and `cpack` give: headers, both libraries, the tool, its man page, a CMake package, a pkg-config
# file, the licence. Included after every target exists.
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

# nh_install(<layout> LIBDIR <dir> [LIBRARY <component>] [DEV <component>] [TOOLS <component>] [PACKAGE])
# The same files in another layout, from the same build: nothing that is built knows where it will lie. Each component
# is a package of its own. PACKAGE: not part of `cmake --install`; the licence goes where distributions look for it.
function(nh_install layout)
  cmake_parse_arguments(PARSE_ARGV 1 arg "PACKAGE" "LIBDIR;LIBRARY;DEV;TOOLS" "")
  set(only "")
  if(arg_PACKAGE)
    set(only EXCLUDE_FROM_ALL)
  endif()
  install(TARGETS numaheap_shared numaheap_needed numaheap_static EXPORT ${layout}
    LIBRARY DESTINATION ${arg_LIBDIR} COMPONENT ${arg_LIBRARY} NAMELINK_COMPONENT ${arg_DEV} ${only}
    ARCHIVE DESTINATION ${arg_LIBDIR} COMPONENT ${arg_DEV} ${only})
  install(TARGETS numaheap DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ${arg_TOOLS} ${only})
  install(FILES ${man_page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT ${arg_TOOLS} ${only})
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/numaheap DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
          COMPONENT ${arg_DEV} ${only} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
  install(FILES ${NUMAHEAP_FORTRAN_MODULE} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/numaheap COMPONENT ${arg_DEV} ${only})

  set(package_dir ${arg_LIBDIR}/cmake/numaheap)
  set(generated ${CMAKE_BINARY_DIR}/generated/${layout})
  install(EXPORT ${layout} FILE numaheapTargets.cmake NAMESPACE numaheap:: DESTINATION ${package_dir}
          COMPONENT ${arg_DEV} ${only})
  configure_package_config_file(${CMAKE_SOURCE_DIR}/scripts/cmake/numaheapConfig.cmake.in
    ${generated}/numaheapConfig.cmake INSTALL_DESTINATION ${package_dir}
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
  write_basic_package_version_file(${generated}/numaheapConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${generated}/numaheapConfig.cmake ${generated}/numaheapConfigVersion.cmake
          DESTINATION ${package_dir} COMPONENT ${arg_DEV} ${only})

  # The .pc file finds its prefix from its own place, so that an installed tree can be moved.
  set(pc_libdir ${arg_LIBDIR})
  file(RELATIVE_PATH pc_to_prefix /prefix/${arg_LIBDIR}/pkgconfig /prefix)
  configure_file(${CMAKE_SOURCE_DIR}/scripts/cmake/numaheap.pc.in ${generated}/numaheap.pc @ONLY)
  install(FILES ${generated}/numaheap.pc DESTINATION ${arg_LIBDIR}/pkgconfig COMPONENT ${arg_DEV} ${only})

  if(arg_PACKAGE)
    foreach(component ${arg_LIBRARY} ${arg_DEV} ${arg_TOOLS})
      set(doc ${CMAKE_INSTALL_DATAROOTDIR}/doc/${component})
      install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${doc} RENAME copyright COMPONENT ${component} ${only})
      install(FILES ${CMAKE_SOURCE_DIR}/docs/changelog.md DESTINATION ${doc} RENAME changelog COMPONENT ${component} ${only})
    endforeach()
  else()
    install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/docs/changelog.md
            DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/numaheap COMPONENT ${arg_LIBRARY})
  endif()
endfunction()

nh_install(numaheap LIBDIR ${CMAKE_INSTALL_LIBDIR} LIBRARY library DEV development TOOLS tools)
include(NumaheapPackages)
