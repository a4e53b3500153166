complete --keep-order --exclusive --command dtunnel --arguments "(COMPLETE=fish dtunnel -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
