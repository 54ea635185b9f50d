# How a layer and its tests are declared. A layer is an object library named nh_<layer>; it sees only the layers that
# its DEPENDS names (and theirs), so an include of a layer further up does not compile in its own build either.

add_library(nh_options INTERFACE)
target_compile_options(nh_options INTERFACE
  -Wall -Wextra -Wshadow -Wpointer-arith -Wcast-qual -Wnon-virtual-dtor
  $<$<CONFIG:Debug>:-DNUMAHEAP_DEBUG=1>)
if(NUMAHEAP_SANITIZER)
  target_compile_options(nh_options INTERFACE -fsanitize=${NUMAHEAP_SANITIZER} -fno-omit-frame-pointer)
  target_link_options(nh_options INTERFACE -fsanitize=${NUMAHEAP_SANITIZER})
endif()
target_include_directories(nh_options INTERFACE
  ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include ${CMAKE_BINARY_DIR}/generated)

# What only the library itself is compiled with: no exceptions, no RTTI, nothing that needs libstdc++ at run time.
set(NUMAHEAP_LIBRARY_FLAGS
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions;-fno-rtti;-fno-threadsafe-statics>
  -fvisibility=hidden -ftls-model=initial-exec -fno-plt -fno-builtin-malloc -fno-semantic-interposition)

# nh_layer(<name> SOURCES <file>... [DEPENDS <layer>...])
function(nh_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
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

# nh_test(<name> LAYERS <layer>... SOURCES <file>... [LABELS <label>...] [LINK <library>...])
# A GoogleTest program of one layer's tests, on the system's malloc, with the fakes of tests/support.
function(nh_test name)
  cmake_parse_arguments(arg "" "" "LAYERS;SOURCES;LABELS;LINK" ${ARGN})
  nh_closure(layers ${arg_LAYERS})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${layers} nh_options ${arg_LINK} GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "layer;${arg_LABELS}" TIMEOUT 300)
endfunction()
