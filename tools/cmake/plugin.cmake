# tenon_plugin(source folder): one file becomes one module <folder>/<name>.so that links to nothing of Tenon. The
# name of the target is left in tenon_plugin_target. Plugins see the ABI headers and Eigen, and nothing else.
function(tenon_plugin source folder)
  file(RELATIVE_PATH path ${CMAKE_SOURCE_DIR} ${source})
  get_filename_component(name ${source} NAME_WE)
  string(MAKE_C_IDENTIFIER ${path} target)
  add_library(${target} MODULE ${source})
  tenon_own_code(${target})
  set_target_properties(${target} PROPERTIES PREFIX "" SUFFIX ".so" OUTPUT_NAME ${name}
                        LIBRARY_OUTPUT_DIRECTORY ${folder} CXX_STANDARD 17)
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/core/abi)
  target_include_directories(${target} SYSTEM PRIVATE
                             $<TARGET_PROPERTY:Eigen3::Eigen,INTERFACE_INCLUDE_DIRECTORIES>)
  # The entry is the only symbol: visibility alone would leave instances of library templates exported.
  target_link_options(${target} PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/core/abi/tenon_plugin.map)
  if(source MATCHES "\\.cpp$")
    # One C++ library inside and no unique symbols: plugins of different compilers share a process and can unload.
    target_compile_options(${target} PRIVATE -fvisibility-inlines-hidden
                           $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
    # (A static C++ library leaves a pool behind when its module unloads, which the leak checker takes for a leak.)
    if(NOT TENON_SANITIZE)
      target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc)
    endif()
  endif()
  set(tenon_plugin_target ${target} PARENT_SCOPE)
endfunction()
