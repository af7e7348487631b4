# `cmake --install build/release [--prefix DIR]`: documents, examples, bash completion; CoppiceLibrary.cmake adds the
# programs. The built program prints the completion, so a cross build has none.
install(DIRECTORY docs examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(NOT CMAKE_CROSSCOMPILING)
  install(CODE "execute_process(COMMAND \"${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/coppice\" completion
    OUTPUT_FILE \"${CMAKE_BINARY_DIR}/coppice.bash\" COMMAND_ERROR_IS_FATAL ANY)")
  install(FILES ${CMAKE_BINARY_DIR}/coppice.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
    RENAME coppice)
endif()
