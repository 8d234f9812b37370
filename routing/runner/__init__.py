"""The notebooks' runner and the record of what a run was."""
