# Each folder tests/<area> with sources becomes one program test_<area>; each of its cases is a test of ctest.
# tests/support is linked into all of them; each file of tests/fixtures/plugins becomes a module.
find_package(Catch2 3 REQUIRED)
include(Catch)

file(GLOB fixture_plugins CONFIGURE_DEPENDS tests/fixtures/plugins/*.c tests/fixtures/plugins/*.cpp)
foreach(source ${fixture_plugins})
  tenon_plugin(${source} ${CMAKE_BINARY_DIR}/tests/plugins)
endforeach()

# Tests reach into the backends, so they get what the backends link privately.
set(test_libraries tenon_bench Boost::filesystem ZLIB::ZLIB spdlog::spdlog DNNL::dnnl PkgConfig::HWY OpenMP::OpenMP_CXX)
set(test_definitions TENON_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TENON_BINARY_DIR="${CMAKE_BINARY_DIR}")

file(GLOB support_sources CONFIGURE_DEPENDS tests/support/*.cpp)
if(support_sources)
  add_library(test_support OBJECT ${support_sources})
  tenon_own_code(test_support)
  target_compile_definitions(test_support PRIVATE ${test_definitions})
  target_link_libraries(test_support PUBLIC ${test_libraries} Catch2::Catch2)
  list(PREPEND test_libraries test_support)
endif()

file(GLOB areas CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}/tests tests/*)
list(REMOVE_ITEM areas support fixtures embed)
foreach(area ${areas})
  file(GLOB sources CONFIGURE_DEPENDS tests/${area}/*.cpp)
  if(sources)
    add_executable(test_${area} ${sources})
    tenon_own_code(test_${area})
    target_compile_definitions(test_${area} PRIVATE ${test_definitions})
    target_link_libraries(test_${area} PRIVATE ${test_libraries} Catch2::Catch2WithMain)
    catch_discover_tests(test_${area} TEST_PREFIX "${area}: " DISCOVERY_MODE PRE_TEST)
  endif()
endforeach()

# Every plugin that ships keeps the contract. The seed is fixed: another one each time is for those who write a plugin.
foreach(plugin ${shipped_plugins})
  get_target_property(name ${plugin} OUTPUT_NAME)
  add_test(NAME "validate: ${name}"
           COMMAND sh -c "exec \"$<TARGET_FILE:tenon>\" validate \"$<TARGET_FILE:${plugin}>\" --seed 1 --device \"\${TENON_TEST_DEVICE:-cpu}\"")
endforeach()
