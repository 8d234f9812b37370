"""The notebooks' runner and the record of what a run was."""

import sys

# nbformat loads jsonschema, which loads this if it can: seconds for a grammar of addresses that notebooks never need.
sys.modules.setdefault("rfc3987_syntax", None)
