"""The command line: flags, presets, and the settings of a run that follow from them."""
