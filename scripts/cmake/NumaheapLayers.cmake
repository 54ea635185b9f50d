# How a layer and its tests are declared. A layer is an object library named nh_<layer>; DEPENDS names the layers whose
# objects must be linked with it. Which headers it may include is not visible here (all layers share one include path):
# `scripts/checks` proves that.

add_library(nh_options INTERFACE)
target_compile_options(nh_options INTERFACE
  -Wall -Wextra -Wshadow -Wpointer-arith -Wcast-qual
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=  # what is shipped names no path of the machine that built it
  $<$<CONFIG:Debug>:-DNUMAHEAP_DEBUG=1>
  $<$<BOOL:${NUMAHEAP_TRUST_SIZES}>:-DNUMAHEAP_TRUST_SIZES=1>)
target_include_directories(nh_options INTERFACE
  ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include ${CMAKE_BINARY_DIR}/generated)

# A sanitized test gets a name of its own ("asan.page_test"), since scripts/test runs all presets in one ctest.
set(NUMAHEAP_TEST_PREFIX "")
set(NUMAHEAP_TEST_LAUNCHER "")
if(NUMAHEAP_SANITIZER)
  target_compile_options(nh_options INTERFACE
    -fsanitize=${NUMAHEAP_SANITIZER} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(nh_options INTERFACE -fsanitize=${NUMAHEAP_SANITIZER})
  if(NUMAHEAP_SANITIZER MATCHES "thread")
    set(NUMAHEAP_TEST_PREFIX "tsan.")
    # gcc 12's runtime cannot place its shadow when the kernel randomises mmap by more than 28 bits ("unexpected memory
    # mapping"; the default since kernel 6.6 on some distributions): run without randomisation.
    set(NUMAHEAP_TEST_LAUNCHER setarch --addr-no-randomize)
  else()
    set(NUMAHEAP_TEST_PREFIX "asan.")
  endif()
endif()

# What only the library itself is compiled with: no exceptions, no RTTI, nothing that needs libstdc++ at run time. No
# symbols of the kind "unique" either (static variables of inline functions): objcopy cannot make them local, and the
# static library would clash with a program that has the same inline function. -fsemantic-interposition: exported
# functions call each other as the dynamic linker has resolved them, which operator new and delete need.
set(NUMAHEAP_LIBRARY_FLAGS
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions;-fno-rtti;-fno-threadsafe-statics>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>
  -fvisibility=hidden -ftls-model=initial-exec -fno-plt -fno-builtin-malloc -fsemantic-interposition)

# nh_layer(<name> SOURCES <file>... [DEPENDS <layer>...])
function(nh_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS")
  add_library(nh_${name} OBJECT ${arg_SOURCES})
  target_compile_options(nh_${name} PRIVATE ${NUMAHEAP_LIBRARY_FLAGS})
  target_link_libraries(nh_${name} PUBLIC nh_options)
  set_property(TARGET nh_${name} PROPERTY NH_DEPENDS ${arg_DEPENDS})
endfunction()

# All layers at and below the given ones, as object libraries to link.
function(nh_closure out)
  set(todo ${ARGN})
  set(seen "")
  while(todo)
    list(POP_FRONT todo layer)
    if(NOT layer IN_LIST seen)
      list(APPEND seen ${layer})
      get_property(below TARGET nh_${layer} PROPERTY NH_DEPENDS)
      list(APPEND todo ${below})
    endif()
  endwhile()
  list(TRANSFORM seen PREPEND nh_)
  set(${out} ${seen} PARENT_SCOPE)
endfunction()

# nh_test(<name> LAYERS <layer>... SOURCES <file>... [LABELS <label>...] [LINK <library>...] [LOCKS <resource>...]
#         [TIMEOUT <seconds>])
# A GoogleTest program of one layer's tests, on the system's malloc, with the fakes of tests/support.
#   LABELS slow    left out of `scripts/test --quick`
#   LOCKS hugepages  depends on the machine's huge-page pools: such tests run one at a time
# Set properties through these arguments, not set_tests_properties(): under a sanitizer the test's name has a prefix.
function(nh_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "LAYERS;SOURCES;LABELS;LINK;LOCKS")
  nh_closure(layers ${arg_LAYERS})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${layers} nh_options ${arg_LINK} GTest::gtest GTest::gtest_main)
  set(test ${NUMAHEAP_TEST_PREFIX}${name})
  add_test(NAME ${test} COMMAND ${NUMAHEAP_TEST_LAUNCHER} $<TARGET_FILE:${name}>)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set_tests_properties(${test} PROPERTIES LABELS "layer;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
  # A test that sets up the huge-page pools runs alone: any other program under numaheap would take pages from them.
  if(arg_LOCKS)
    set_tests_properties(${test} PROPERTIES RESOURCE_LOCK "${arg_LOCKS}" RUN_SERIAL TRUE)
  endif()
endfunction()
