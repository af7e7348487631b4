# coppice_library(NAME SOURCES... LINK libs...): one static library per folder. Only what is linked can be included in
# practice: a wrong dependency does not link.
function(coppice_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(coppice-${name} STATIC ${ARG_SOURCES})
  target_link_libraries(coppice-${name} PUBLIC ${ARG_LINK})
endfunction()
