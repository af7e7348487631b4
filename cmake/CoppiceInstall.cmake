include(GNUInstallDirs)
install(TARGETS coppice coppice-coordinator-bin coppice-worker-bin RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
