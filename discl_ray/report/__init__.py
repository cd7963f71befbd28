"""What a person looks at: contact sheets, curves, tables."""

import logging

logging.getLogger("matplotlib").setLevel(
    logging.ERROR
)  # without a home it says at length where its cache is
