"""Pure parts that every step stands on: arithmetic, tables, identity, storage, images, the filter. No torch, no Ray."""
