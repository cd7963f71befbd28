"""All of Ray that is no actor."""
