# cmake --install: headers, libraries, find_package(tenon), the program and its plugins, working from any folder.
include(CMakePackageConfigHelpers)
set(config_folder lib/cmake/tenon)

set_target_properties(tenon_core PROPERTIES EXPORT_NAME core)
set_target_properties(tenon_backend_cpu PROPERTIES EXPORT_NAME backend_cpu)
set_target_properties(tenon_backend_reference PROPERTIES EXPORT_NAME backend_reference)
set_target_properties(tenon_all PROPERTIES EXPORT_NAME tenon)
install(TARGETS tenon_core tenon_backend_cpu tenon_backend_reference tenon_all EXPORT tenon_targets
        ARCHIVE DESTINATION lib)
install(EXPORT tenon_targets NAMESPACE tenon:: DESTINATION ${config_folder} FILE tenonTargets.cmake)

# Includes read as in this tree: "core/graph/graph.h". A plugin author needs the files right in include/ alone.
install(DIRECTORY core backends DESTINATION include/tenon FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(DIRECTORY ${CMAKE_BINARY_DIR}/generated/core DESTINATION include/tenon FILES_MATCHING PATTERN "*.h")
file(GLOB abi_headers CONFIGURE_DEPENDS core/abi/*.h core/abi/*.hpp core/abi/*.map)
install(FILES ${abi_headers} DESTINATION include)

if(TARGET tenon)
  install(TARGETS tenon RUNTIME DESTINATION bin)
endif()
if(shipped_plugins)
  install(TARGETS ${shipped_plugins} LIBRARY DESTINATION lib/tenon/plugins)
endif()

# A oneDNN that is private to this checkout travels along; one of the system is found there.
set(TENON_BUNDLED_DNNL "")
get_target_property(dnnl_file DNNL::dnnl IMPORTED_LOCATION_RELEASE)
string(FIND "${dnnl_file}" "${CMAKE_SOURCE_DIR}/.deps/" at)
if(at EQUAL 0)
  get_target_property(TENON_BUNDLED_DNNL DNNL::dnnl IMPORTED_SONAME_RELEASE)
  get_filename_component(dnnl_file ${dnnl_file} REALPATH)
  install(PROGRAMS ${dnnl_file} DESTINATION lib/tenon RENAME ${TENON_BUNDLED_DNNL})
endif()

configure_package_config_file(tools/cmake/tenonConfig.cmake.in ${CMAKE_BINARY_DIR}/cmake/tenonConfig.cmake
                              INSTALL_DESTINATION ${config_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/cmake/tenonConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/cmake/tenonConfig.cmake ${CMAKE_BINARY_DIR}/cmake/tenonConfigVersion.cmake
        DESTINATION ${config_folder})
