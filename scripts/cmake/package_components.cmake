# Read by cpack once for each kind of package: which of the layouts in NumaheapPackages.cmake goes into it. The .tar.gz
# holds what `cmake --install` gives.
if(CPACK_GENERATOR STREQUAL "DEB")
  set(CPACK_COMPONENTS_ALL libnumaheap0 libnumaheap-dev numaheap-tools)
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
elseif(CPACK_GENERATOR STREQUAL "RPM")
  set(CPACK_COMPONENTS_ALL numaheap-libs numaheap-devel numaheap)
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
else()
  set(CPACK_PACKAGE_FILE_NAME numaheap-${CPACK_PACKAGE_VERSION}-${CPACK_SYSTEM_NAME})
endif()
