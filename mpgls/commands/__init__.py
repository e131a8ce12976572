"""Every command has a file here, which reads like its algorithm; its steps stand in the package NAME_parts."""
