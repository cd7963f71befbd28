"""Models as files: loading them, checking them, and choosing their device."""
