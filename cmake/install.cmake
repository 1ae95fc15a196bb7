# `cmake --install`: the headers, and a package that find_package(terse) finds.
include(CMakePackageConfigHelpers)

set(terse_package_folder ${CMAKE_INSTALL_DATADIR}/cmake/terse)
install(TARGETS terse_library EXPORT terseTargets FILE_SET HEADERS FILE_SET fragments)
install(EXPORT terseTargets NAMESPACE terse:: DESTINATION ${terse_package_folder})

# The component cuda, for builds that have compiled it: `cmake --install . --component cuda`.
if(TARGET terse_cuda)
  install(TARGETS terse_cuda EXPORT terseCudaTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
          COMPONENT cuda EXCLUDE_FROM_ALL)
  install(EXPORT terseCudaTargets NAMESPACE terse:: DESTINATION ${terse_package_folder}
          COMPONENT cuda EXCLUDE_FROM_ALL)
endif()

# The package looks again for exactly what this build found.
get_target_property(terse_links terse_library INTERFACE_LINK_LIBRARIES)
set(terse_needs_openmp OFF)
set(terse_needs_eigen OFF)
if("OpenMP::OpenMP_CXX" IN_LIST terse_links)
  set(terse_needs_openmp ON)
endif()
if("Eigen3::Eigen" IN_LIST terse_links)
  set(terse_needs_eigen ON)
endif()
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/terseConfig.cmake.in ${PROJECT_BINARY_DIR}/terseConfig.cmake
  INSTALL_DESTINATION ${terse_package_folder})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/terseConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/terseConfig.cmake ${PROJECT_BINARY_DIR}/terseConfigVersion.cmake
        DESTINATION ${terse_package_folder})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
