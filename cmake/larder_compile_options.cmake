# SPDX-License-Identifier: Apache-2.0
# How all of our own code is compiled: larder_compile_options carries the language, the warnings and the visibility;
# sanitizers, which every object of a program must share, are set for the whole directory.

add_library(larder_compile_options INTERFACE)
target_compile_features(larder_compile_options INTERFACE cxx_std_20)
# What the public headers must know of the build.
set(public_definitions)
if(LARDER_DEBUG_CHECKS)
  list(APPEND public_definitions LARDER_DEBUG_CHECKS=1)
endif()
if(LARDER_BOOST_CONTEXT)
  list(APPEND public_definitions LARDER_BOOST_CONTEXT=1)
endif()
target_compile_definitions(larder_compile_options INTERFACE _GNU_SOURCE ${public_definitions})
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef
  $<$<BOOL:${LARDER_WERROR}>:-Werror>)
target_compile_options(larder_compile_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${warnings};-Wnon-virtual-dtor;-Woverloaded-virtual>"
  "$<$<COMPILE_LANGUAGE:CXX>:-fvisibility=hidden;-fvisibility-inlines-hidden>"
  "$<$<COMPILE_LANGUAGE:C>:${warnings};-Wstrict-prototypes;-Wmissing-prototypes>"
  "$<$<COMPILE_LANGUAGE:ASM>:-Wa,--noexecstack>")
set(CMAKE_CXX_EXTENSIONS OFF)
# What is C, tests and examples of the C API, is C11.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)

if(LARDER_FUZZ AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "LARDER_FUZZ needs clang: configure with `cmake --preset fuzz`")
endif()
if(LARDER_SANITIZE)
  add_compile_options(-fsanitize=${LARDER_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${LARDER_SANITIZE})
endif()
if(LARDER_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
  # Clang 14 cannot do both to C++20 coroutines; no fuzzer goes there.
  set_source_files_properties(src/coro/lazy.cc PROPERTIES
    COMPILE_OPTIONS -fno-sanitize=fuzzer-no-link SKIP_PRECOMPILE_HEADERS ON)
endif()

# Parsing the standard library takes half of the time of most files, so each target parses it once. Nothing of ours is
# among these headers, where a change would build everything anew. A file still includes what it uses:
# CMAKE_DISABLE_PRECOMPILE_HEADERS, on in the preset `clang`, shows what is missing.
function(larder_precompile target)
  target_precompile_headers(${target} PRIVATE
    <algorithm> <array> <atomic> <chrono> <functional> <memory> <mutex> <optional> <string> <utility> <vector> ${ARGN})
endfunction()

find_program(ccache_program ccache)
if(ccache_program AND PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What ccache needs to work with precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${ccache_program})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>
    "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>")
endif()
