# Compiler and flags. Everything that the project itself wrote is compiled with warnings; generated code is not.
if(TENON_CUDA)
  message(FATAL_ERROR "Tenon ${PROJECT_VERSION} has no CUDA backend yet: configure with -DTENON_CUDA=OFF.")
endif()
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or RelWithDebInfo" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

if(TENON_SANITIZE)
  set(optimize "-O1")
  # function: that check compares addresses of types, which differ between the program and a plugin.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1
                      $<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function>
                      $<$<CXX_COMPILER_ID:Clang>:-Wno-pass-failed>)
  add_link_options(-fsanitize=address,undefined)
else()
  # Kernels that want more say so themselves; elsewhere -O3 only makes the build slower.
  set(optimize "-O2")
endif()
set(CMAKE_C_FLAGS_RELEASE "${optimize} -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "${optimize} -DNDEBUG")

# -ffp-contract=off: an element-wise chain gives the same bits fused or not, so lazy and eager runs agree.
function(tenon_own_code target)
  target_compile_options(${target} PRIVATE -ffp-contract=off -fvisibility=hidden -Wall -Wextra -Wconversion -Wshadow)
  if(TENON_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

configure_file(core/base/version.h.in generated/core/base/version.h)
