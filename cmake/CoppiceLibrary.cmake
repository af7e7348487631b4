# coppice_library(NAME SOURCES... LINK libs...): one static library per folder. A folder with a wrong dependency does
# not link.
function(coppice_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(ARG_SOURCES)
    add_library(coppice-${name} STATIC ${ARG_SOURCES})
    target_link_libraries(coppice-${name} PUBLIC ${ARG_LINK})
  else()
    add_library(coppice-${name} INTERFACE)
    target_link_libraries(coppice-${name} INTERFACE ${ARG_LINK})
  endif()
endfunction()

# The target for ./dev exec: only the programs, without tests and benchmarks.
add_custom_target(programs)

# coppice_program(NAME MAIN LIBRARY): a program with a small main and one library.
function(coppice_program name main library)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${main})
    add_executable(${name}-program ${main})
    set_target_properties(${name}-program PROPERTIES OUTPUT_NAME ${name})
    target_link_libraries(${name}-program PRIVATE ${library})
    add_dependencies(programs ${name}-program)
    install(TARGETS ${name}-program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()
