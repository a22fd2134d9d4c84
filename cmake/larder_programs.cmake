# SPDX-License-Identifier: Apache-2.0
# Tests, fuzzers, examples and benchmarks, each found by its file's name.

# A Google Test program from the given *_test.cc files, linked with the libraries that follow.
function(larder_add_test_program target sources)
  add_executable(${target} ${sources})
  target_link_libraries(${target} PRIVATE ${ARGN} GTest::gtest_main)
  larder_compile_as_test(${target})
  target_precompile_headers(${target} REUSE_FROM larder_test_support)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
endfunction()

function(larder_compile_as_test target)
  separate_arguments(flags UNIX_COMMAND "${LARDER_TEST_FLAGS}")
  # What g++ 12 finds wrong in std::string is its own mistake, and in a precompiled header it counts as found in ours.
  target_compile_options(${target} PRIVATE ${flags}
    $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds> $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overflow>)
endfunction()

# The unit tests of one folder, larder_<name>_test.
function(larder_add_gtest name sources)
  set(target larder_${name}_test)
  larder_add_test_program(${target} "${sources}" ${ARGN} larder_test_support)
  gtest_discover_tests(${target} TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 120 LABELS ${name})
  # Once more without restartable sequences, which change how caches and handle tables work (a sanitizer's build has
  # one way).
  if(name MATCHES "^(handle|cache)$" AND NOT LARDER_SANITIZE)
    gtest_discover_tests(${target} TEST_PREFIX ${name}_sharded. TEST_LIST ${target}_sharded DISCOVERY_MODE PRE_TEST
      DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120 LABELS ${name} ENVIRONMENT GLIBC_TUNABLES=glibc.pthread.rseq=0)
  endif()
endfunction()

function(larder_add_tests)
  larder_add_client_tests()
  larder_add_script_tests()
  larder_add_c_tests()
  larder_add_context_test()
  larder_add_valgrind_test()
  find_package(GTest QUIET)
  if(NOT GTest_FOUND)
    message(STATUS "Google Test is not installed: no unit tests (tools/setup test)")
    return()
  endif()
  include(GoogleTest)

  file(GLOB support_sources CONFIGURE_DEPENDS tests/support/*.cc)
  list(FILTER support_sources EXCLUDE REGEX "_test\\.cc$")
  add_library(larder_test_support STATIC ${support_sources})
  target_link_libraries(larder_test_support PUBLIC larder_internals GTest::gtest)
  larder_compile_as_test(larder_test_support)
  larder_precompile(larder_test_support <map> <random> <set> <thread> <gtest/gtest.h>)

  # Symmetric transfer is a jump only so, below -O2; clang's always is.
  set_source_files_properties(src/coro/lazy_test.cc PROPERTIES
    COMPILE_OPTIONS -foptimize-sibling-calls SKIP_PRECOMPILE_HEADERS ON)
  file(GLOB folders LIST_DIRECTORIES true CONFIGURE_DEPENDS src/*)
  foreach(folder IN LISTS folders)
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*_test.cc)
    if(sources)
      cmake_path(GET folder FILENAME name)
      larder_add_gtest(${name} "${sources};tests/support/unit/page_daemon_at_rest.cc" larder_internals)
    endif()
  endforeach()

  file(GLOB orphans CONFIGURE_DEPENDS tests/*_test.cc)
  if(orphans)
    message(FATAL_ERROR "tests/<name>/*_test.cc become larder_<name>_test; these are in no such folder: ${orphans}")
  endif()
  if(TARGET larder_server)
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS server/*_test.cc)
    if(sources)
      larder_add_gtest(server "${sources}" larder_server)
    endif()
  endif()
  file(GLOB folders LIST_DIRECTORIES true CONFIGURE_DEPENDS tests/*)
  list(FILTER folders EXCLUDE REGEX "/aarch64$") # larder_add_context_test
  if(NOT TARGET Boost::context OR LARDER_SANITIZE) # of Boost's switches a sanitizer is told nothing
    list(FILTER folders EXCLUDE REGEX "/boost_context$")
  endif()
  foreach(folder IN LISTS folders)
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*_test.cc)
    if(sources)
      cmake_path(GET folder FILENAME name)
      if(name STREQUAL sched)
        larder_add_scheduled_tests("${sources}")
      elseif(name STREQUAL simulation)
        larder_add_simulation("${sources}")
      else()
        file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cc) # with the parts of a large test
        if(TARGET larder_server)
          larder_add_gtest(${name} "${sources}" larder_server)
        else()
          larder_add_gtest(${name} "${sources}" larder_internals)
        endif()
        if(name STREQUAL boost_context)
          target_link_libraries(larder_boost_context_test PRIVATE Boost::context)
        endif()
      endif()
    endif()
  endforeach()
endfunction()

# The code under test once more, with scheduling points, over a simulated system: larder_scheduled; and its tests
# (docs/scheduler.md). Nothing of the libraries is linked in: the two builds of one name must not meet. Everything runs
# in one thread of the system, so the thread sanitizer would find nothing; the address sanitizer meets the same code in
# the other tests. Which schedules there are does not depend on how they are compiled: only `release` and `debug` do.
function(larder_add_scheduled_tests tests)
  if(NOT LARDER_SCHEDULED_TESTS)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS
    src/base/*.cc src/budget/*.cc src/cache/*.cc src/handle/*.cc src/coro/context* src/coro/fiber.cc
    src/coro/guard_reclaimer.cc
    src/os/fault.cc src/os/memory.cc src/os/service_thread.cc src/os/thread_parker.cc
    src/task/run_queue.cc src/task/task_parker.cc
    src/task/channel.cc src/task/completion.cc src/task/helper_pool.cc src/task/semaphore.cc src/task/sync.cc
    src/task/task_group.cc src/task/wait_queue.cc src/page/*.cc
    tests/sched/*.cc)
  larder_add_scheduled_build(larder_scheduled sched "${sources}" "${tests}")
endfunction()

# The budget and the page cache in a world with a virtual clock and virtual disks (tests/simulation/README.md): a
# scheduled build of its own, over another system.
function(larder_add_simulation tests)
  if(NOT LARDER_SCHEDULED_TESTS)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS
    src/base/*.cc src/budget/*.cc src/cache/*.cc src/page/*.cc src/coro/context* src/os/fault.cc
    src/os/service_thread.cc tests/sched/flow.cc tests/sched/fork.cc tests/sched/keeper.cc
    tests/sched/page_daemon.cc tests/simulation/*.cc)
  larder_add_scheduled_build(larder_simulated simulation "${sources}" "${tests}")
  target_compile_definitions(larder_simulated PUBLIC LARDER_SIMULATED=1)
endfunction()

# larder_add_scheduled_build(library name sources tests): the sources that are no tests as a library with scheduling
# points, and the program of its tests.
function(larder_add_scheduled_build library name sources tests)
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench)\\.cc$|\\.h$|/file_backing\\.cc$|/src/budget/page_daemon\\.cc$")
  add_library(${library} STATIC ${sources})
  target_compile_definitions(${library} PUBLIC LARDER_SCHEDULED=1 LARDER_INLINE_SEQUENCES=0)
  larder_precompile(${library})
  set_target_properties(${library} PROPERTIES EXPORT_COMPILE_COMMANDS OFF) # clang-tidy reads them as they ship
  if(NOT LARDER_DEBUG_CHECKS)
    target_compile_definitions(${library} PUBLIC LARDER_DEBUG_CHECKS=1)
  endif()
  target_link_libraries(${library} PUBLIC larder_compile_options ${context_library} GTest::gtest Threads::Threads)
  target_include_directories(${library} PUBLIC include src ${PROJECT_SOURCE_DIR})
  larder_add_test_program(larder_${name}_test "${tests}" ${library})
  gtest_discover_tests(larder_${name}_test TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 300 LABELS ${name})
endfunction()

# Whole-program tests with real clients: Python scripts that find the program in LARDER. Debian's libnbd bindings
# belong to /usr/bin/python3. Exit status 77 means skipped.
function(larder_add_client_tests)
  if(NOT TARGET larder_program)
    return()
  endif()
  set(environment LARDER=$<TARGET_FILE:larder_program>)
  set(timeout_s 300)
  if(LARDER_SANITIZE)
    list(APPEND environment LARDER_SANITIZED=1)
    set(timeout_s 900)
  endif()
  file(GLOB scripts CONFIGURE_DEPENDS tests/clients/*_test.py)
  foreach(script IN LISTS scripts)
    cmake_path(GET script STEM name)
    add_test(NAME clients.${name} COMMAND /usr/bin/python3 ${script})
    set_tests_properties(clients.${name} PROPERTIES
      ENVIRONMENT "${environment}" TIMEOUT ${timeout_s} LABELS clients SKIP_RETURN_CODE 77)
    if(name MATCHES "memory|compare") # these watch the resident size or the clock
      set_tests_properties(clients.${name} PROPERTIES RUN_SERIAL ON)
    endif()
  endforeach()
endfunction()

function(larder_add_script_tests)
  foreach(tool check_layers check_style)
    add_test(NAME tools.${tool}_self_test COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/tools/${tool} --self-test)
    set_tests_properties(tools.${tool}_self_test PROPERTIES LABELS tools)
  endforeach()
  # Compiles for itself, so one build's run is enough.
  set(golden_skip "")
  if(LARDER_SANITIZE)
    set(golden_skip --skip "a build with sanitizers")
  elseif(CMAKE_BUILD_TYPE STREQUAL Debug OR LARDER_DEBUG_CHECKS)
    set(golden_skip --skip "a debug build")
  endif()
  add_test(NAME golden.fast_path
    COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/tests/golden/fast_path_test.py ${golden_skip})
  set_tests_properties(golden.fast_path PROPERTIES LABELS golden TIMEOUT 300 SKIP_RETURN_CODE 77)
  if(LARDER_SHARED AND NOT LARDER_SANITIZE)
    add_test(NAME install.consumer COMMAND ${PROJECT_SOURCE_DIR}/tests/install/run ${PROJECT_BINARY_DIR})
    set_tests_properties(install.consumer PROPERTIES LABELS install TIMEOUT 300 SKIP_RETURN_CODE 77)
  endif()
endfunction()

# The C API's tests: each tests/c_api/<name>.c is a C11 program of its own, on the public API and the shared library.
function(larder_add_c_tests)
  file(GLOB sources CONFIGURE_DEPENDS tests/c_api/*.c)
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM name)
    set(target larder_c_api_${name}_test)
    add_executable(${target} ${source})
    set_target_properties(${target} PROPERTIES
      OUTPUT_NAME c_api_${name} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    larder_link_as_user(${target})
    add_test(NAME c_api.${name} COMMAND ${target})
    set_tests_properties(c_api.${name} PROPERTIES LABELS c_api TIMEOUT 120)
  endforeach()
endfunction()

# Through the shared library, as a user's program would. What a sanitizer needs for the library's C++ comes with the C++
# compiler's link only.
function(larder_link_as_user target)
  target_link_libraries(${target} PRIVATE larder::larder larder_compile_options Threads::Threads)
  if(LARDER_SANITIZE)
    set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  endif()
endfunction()

# The context switch of the processor that we build for; tests/aarch64/run builds the same program for that one.
function(larder_add_context_test)
  add_executable(larder_context_test tests/aarch64/context_test.cc tests/support/kept_registers.cc)
  target_link_libraries(larder_context_test PRIVATE larder_internals)
  set_target_properties(larder_context_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME coro.context COMMAND larder_context_test)
  set_tests_properties(coro.context PROPERTIES LABELS coro TIMEOUT 60)
endfunction()

# What Memcheck sees of caches; a sanitizer's program does not run there.
function(larder_add_valgrind_test)
  if(LARDER_SANITIZE)
    return()
  endif()
  add_executable(larder_valgrind_misuse tests/valgrind/misuse.cc)
  target_link_libraries(larder_valgrind_misuse PRIVATE larder_static larder_compile_options)
  # Valgrind 3.19 gives up on the debugging information of clang 14.
  target_link_options(larder_valgrind_misuse PRIVATE -Wl,--strip-debug)
  set_target_properties(larder_valgrind_misuse PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME valgrind.caches
    COMMAND ${PROJECT_SOURCE_DIR}/tests/valgrind/run $<TARGET_FILE:larder_valgrind_misuse>)
  set_tests_properties(valgrind.caches PROPERTIES LABELS valgrind TIMEOUT 300 SKIP_RETURN_CODE 77)
endfunction()

# x_fuzz.cc is built as <build>/fuzz/x: with libFuzzer if LARDER_FUZZ, else with a driver that replays its corpus,
# tests/fuzz_corpus/x/, as a test.
function(larder_add_fuzzers)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS src/*_fuzz.cc server/*_fuzz.cc tests/*_fuzz.cc)
  foreach(source IN LISTS sources)
    if(source MATCHES "^${PROJECT_SOURCE_DIR}/src/")
      set(library larder_internals)
      set(support tests/support/unit/page_daemon_at_rest.cc)
    elseif(TARGET larder_server)
      set(library larder_server)
      set(support "")
    else()
      continue()
    endif()
    cmake_path(GET source STEM name)
    string(REGEX REPLACE "_fuzz$" "" name ${name})
    set(target larder_${name}_fuzz)
    add_executable(${target} ${source} ${support})
    set_target_properties(${target} PROPERTIES
      OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
    target_link_libraries(${target} PRIVATE ${library})
    if(LARDER_FUZZ)
      target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    else()
      target_sources(${target} PRIVATE tests/fuzz_corpus/replay.cc)
      add_test(NAME fuzz_corpus.${name} COMMAND ${target} ${PROJECT_SOURCE_DIR}/tests/fuzz_corpus/${name})
      set_tests_properties(fuzz_corpus.${name} PROPERTIES LABELS fuzz_corpus TIMEOUT 120)
    endif()
  endforeach()
endfunction()

# Examples, in C++ and C, use the public API alone.
function(larder_add_examples)
  file(GLOB sources CONFIGURE_DEPENDS examples/*.cc examples/*.c)
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM name)
    set(target larder_${name}_example)
    add_executable(${target} ${source})
    set_target_properties(${target} PROPERTIES
      OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
    larder_link_as_user(${target})
    set(arguments)
    if(name STREQUAL "million_coroutines") # fewer, so that the test is quick
      set(arguments 100000)
      if(LARDER_SANITIZE)
        set(arguments 2000)
      endif()
    elseif(name STREQUAL "tick_storm")
      set(arguments --seconds 1)
      if(LARDER_SANITIZE)
        list(APPEND arguments --rate 1000)
      endif()
    endif()
    add_test(NAME examples.${name} COMMAND ${target} ${arguments})
    set_tests_properties(examples.${name} PROPERTIES LABELS examples TIMEOUT 60)
  endforeach()
  # A sanitizer makes system calls of its own.
  if(TARGET larder_tick_storm_example AND NOT LARDER_SANITIZE)
    add_test(NAME tick_storm.system_calls
      COMMAND ${PROJECT_SOURCE_DIR}/tests/tick_storm/run $<TARGET_FILE:larder_tick_storm_example>)
    set_tests_properties(tick_storm.system_calls PROPERTIES LABELS tick_storm TIMEOUT 120 SKIP_RETURN_CODE 77)
  endif()
endfunction()

function(larder_add_benchmarks)
  find_package(benchmark QUIET)
  if(NOT benchmark_FOUND)
    message(STATUS "Google Benchmark is not installed: no benchmarks (tools/setup bench)")
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS bench/*.cc)
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM name)
    set(target larder_${name}_bench)
    file(GLOB parts CONFIGURE_DEPENDS bench/${name}/*.cc)
    add_executable(${target} ${source} ${parts})
    set_target_properties(${target} PROPERTIES
      OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
    target_link_libraries(${target} PRIVATE larder_internals benchmark::benchmark_main)
  endforeach()
  # Peers of the coroutines and tasks, where they are installed.
  find_package(Boost QUIET CONFIG COMPONENTS fiber)
  foreach(peer context fiber)
    foreach(name coroutine task)
      if(TARGET Boost::${peer} AND TARGET larder_${name}_bench)
        string(TOUPPER LARDER_BENCH_BOOST_${peer} found)
        target_link_libraries(larder_${name}_bench PRIVATE Boost::${peer})
        target_compile_definitions(larder_${name}_bench PRIVATE ${found}=1)
      endif()
    endforeach()
  endforeach()
  # A peer of the object cache, where it is installed: a program that the benchmark starts. Of DPDK's many libraries,
  # those of the mempool; the last is used by nobody but the others, at run time.
  pkg_check_modules(dpdk QUIET libdpdk)
  if(dpdk_FOUND AND TARGET larder_object_cache_bench)
    add_executable(larder_object_cache_dpdk bench/object_cache/dpdk/pool.cc)
    set_target_properties(larder_object_cache_dpdk PROPERTIES
      OUTPUT_NAME object_cache_dpdk RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench/peers)
    target_compile_options(larder_object_cache_dpdk PRIVATE ${dpdk_CFLAGS_OTHER})
    target_include_directories(larder_object_cache_dpdk SYSTEM PRIVATE ${dpdk_INCLUDE_DIRS})
    target_link_libraries(larder_object_cache_dpdk PRIVATE
      larder_internals -Wl,--no-as-needed rte_eal rte_mempool rte_mempool_ring)
    add_dependencies(larder_object_cache_bench larder_object_cache_dpdk)
  endif()
endfunction()
