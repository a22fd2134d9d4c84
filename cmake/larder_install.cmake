# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` gives: headers, both libraries, the program, a CMake package and a pkg-config file. The two
# libraries are exported apart, so that a user of the shared one needs no liburing development files.

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/larder)

install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/larder)
install(TARGETS larder_static EXPORT larder_static_targets DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT larder_static_targets NAMESPACE larder:: DESTINATION ${package_dir})
if(LARDER_SHARED)
  install(TARGETS larder_shared EXPORT larder_shared_targets DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT larder_shared_targets NAMESPACE larder:: DESTINATION ${package_dir})
endif()
if(TARGET larder_program)
  install(TARGETS larder_program DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(cmake/larderConfig.cmake.in ${PROJECT_BINARY_DIR}/larderConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may break its users.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/larderConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/larderConfig.cmake ${PROJECT_BINARY_DIR}/larderConfigVersion.cmake
  DESTINATION ${package_dir})

cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_LIBDIR BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX} OUTPUT_VARIABLE libdir)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
  OUTPUT_VARIABLE pc_to_prefix)
list(TRANSFORM public_definitions PREPEND -D OUTPUT_VARIABLE pc_definitions)
list(JOIN pc_definitions " " pc_definitions)
set(pc_context_library)
if(LARDER_BOOST_CONTEXT)
  set(pc_context_library " -lboost_context")
endif()
configure_file(cmake/larder.pc.in ${PROJECT_BINARY_DIR}/larder.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/larder.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
