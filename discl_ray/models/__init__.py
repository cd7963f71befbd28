"""Networks as files: loaded, checked, put on a device."""
