"""What a person looks at: contact sheets, curves, tables."""

import logging

# without a home folder it logs at length where its cache is
logging.getLogger("matplotlib").setLevel(logging.ERROR)
